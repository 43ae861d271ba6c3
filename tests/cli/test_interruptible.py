"""Ctrl-C, in any system: what the signal does to a coroutine."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from cases import case
from mlmessages.auth.in_flight import answers_awaited
from mlmessages.cli.interruptible import run
from needs import needs


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_result_comes_out():
    """Without Ctrl-C it is a plain `asyncio.run`."""

    async def main() -> int:
        await asyncio.sleep(0)
        return 5

    assert run(main()) == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_what_waits_and_lets_it_clean_up():
    """A waiting coroutine is cancelled, its `finally` runs, and a KeyboardInterrupt comes out."""
    cleaned = []

    async def main() -> None:
        try:
            asyncio.get_running_loop().call_soon(ctrl_c)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_what_waits_in_a_shield():
    """A clean-up that waits for something that never ends, as for a marking request without an answer, is ended too."""

    async def main() -> None:
        never = asyncio.get_running_loop().create_future()
        try:
            asyncio.get_running_loop().call_soon(ctrl_c)
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(never)

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_a_short_clean_up_is_not_disturbed():
    """What is in flight may end in order: one that takes a moment is cancelled once."""
    cancellations = []

    async def main() -> None:
        ended = asyncio.Event()
        try:
            asyncio.get_running_loop().call_soon(ctrl_c)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(0.01, ended.set)
            await ended.wait()
            task = asyncio.current_task()
            assert task is not None
            cancellations.append(task.cancelling())
            raise

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cancellations == [1]


def test_a_cancellation_of_its_own_is_no_interrupt():
    """Without Ctrl-C a CancelledError stays one."""

    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main())


def test_it_works_outside_of_the_main_thread():
    """In another thread there are no signals to handle, and it runs all the same."""
    results = []

    async def main() -> None:
        results.append(await asyncio.sleep(0, 7))

    thread = threading.Thread(target=lambda: run(main()))
    thread.start()
    thread.join()
    assert results == [7]


def test_a_second_ctrl_c_ends_a_long_clean_up():
    """What was given time for an orderly end loses it with the second Ctrl-C."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.call_soon(ctrl_c)
            await asyncio.Event().wait()
        finally:
            loop.call_soon(ctrl_c)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(main(), grace=3600.0)


@case("K31")
@needs("signals")
def test_sigterm_is_as_ctrl_c():
    """What waits is cancelled, its clean-up runs, and the handler that was there before is back."""
    cleaned = []

    async def main() -> None:
        try:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@case("O5")
def test_sigbreak_is_as_ctrl_c(monkeypatch: pytest.MonkeyPatch):
    """Windows' Ctrl-Break, also for a service: simulated by a signal that other systems have."""
    number = next(each for each in (signal.SIGABRT, signal.SIGFPE) if signal.getsignal(each) is signal.SIG_DFL)
    monkeypatch.setattr(signal, "SIGBREAK", number, raising=False)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, number)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(main(), terminated=False)
    assert signal.getsignal(number) is signal.SIG_DFL


class TokenRequest:
    """A token request that has left, and whether its answer was kept."""

    def __init__(self) -> None:
        self.kept = False
        self.task: asyncio.Task[None] | None = None
        self.answer = asyncio.Event()

    async def send(self) -> None:
        self.task = asyncio.ensure_future(self._wait())
        answers_awaited.add(self.task)
        self.task.add_done_callback(answers_awaited.discard)
        await asyncio.shield(self.task)

    async def _wait(self) -> None:
        await self.answer.wait()
        self.kept = True


@case("K22")
@pytest.mark.parametrize("closing", [True, False], ids=["the program waits too", "the program ends at once"])
def test_a_token_request_that_has_left_is_waited_for(closing: bool, capsys: pytest.CaptureFixture[str]):
    """One Ctrl-C, long after its grace: the new tokens are kept, and the terminal says what it waits for."""
    requests = []

    async def main() -> None:
        request = TokenRequest()
        requests.append(request)
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, ctrl_c)
        loop.call_later(0.5, request.answer.set)
        try:
            await request.send()
        finally:
            if closing:
                await request.answer.wait()

    with pytest.raises(KeyboardInterrupt):
        run(main(), grace=0.05)
    assert requests[0].kept
    assert capsys.readouterr().err.count("waiting for its answer") == 1


@case("K22")
def test_a_second_ctrl_c_cuts_a_token_request():
    """Who does not want to wait need not."""
    requests = []

    async def main() -> None:
        request = TokenRequest()
        requests.append(request)
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, ctrl_c)
        loop.call_later(0.2, ctrl_c)
        await request.send()

    with pytest.raises(KeyboardInterrupt):
        run(main(), grace=0.05)
    assert not requests[0].kept


@case("P5")
@needs("signals")
def test_ctrl_c_tests_run_where_sigint_is_ignored():
    """Under `nohup`, or behind `&` in a script, SIGINT is ignored on entry: the tests restore it for themselves."""
    args = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{__file__}::test_ctrl_c_ends_what_waits_and_lets_it_clean_up",
    ]
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", ignoring, *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr

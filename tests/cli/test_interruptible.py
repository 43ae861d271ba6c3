"""Ctrl-C, in any system: what the signal does to a coroutine."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from mlmessages.cli.interruptible import run


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

"""The virtual clock jumps over waits and never over work."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
from aiolimiter import AsyncLimiter

from cases import case
from mlmessages.testing import NothingToWaitFor, VirtualClockLoop, virtual_run


def test_a_day_takes_no_time():
    async def main():
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(3 * 86400)
        return asyncio.get_running_loop().time() - begun

    assert virtual_run(main()) == pytest.approx(3 * 86400)


def test_timers_run_in_order_at_their_time():
    async def main():
        loop = asyncio.get_running_loop()
        seen = []

        async def sleeper(seconds):
            await asyncio.sleep(seconds)
            seen.append((seconds, loop.time()))

        await asyncio.gather(*(sleeper(s) for s in (3, 0.5, 2, 0.1)))
        return seen

    assert virtual_run(main()) == [(s, pytest.approx(s)) for s in (0.1, 0.5, 2, 3)]


def test_a_timeout_fires():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) == pytest.approx(30)


def test_a_thread_is_not_overtaken():
    async def main():
        loop = asyncio.get_running_loop()
        go_on = threading.Event()
        loop.call_soon(go_on.set)
        timer = loop.call_later(1, pytest.fail, "the clock jumped over the thread")
        assert await asyncio.to_thread(go_on.wait, 10)
        at = loop.time()
        timer.cancel()
        return at

    assert virtual_run(main()) == 0.0


def test_a_thread_whose_caller_gave_up_is_not_overtaken():
    go_on, running, done = threading.Event(), threading.Event(), threading.Event()

    def work():
        running.set()
        go_on.wait(10)
        done.set()

    async def main():
        job = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.to_thread(running.wait, 10)
        job.cancel()
        threading.Timer(0.02, go_on.set).start()
        await asyncio.sleep(60)
        assert done.is_set()

    virtual_run(main())


def test_a_tiny_wait_does_not_stop_the_clock():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1e9)  # where adding a little changes nothing
        before = loop.time()
        for _ in range(10):
            await asyncio.sleep(1e-12)
        assert loop.time() > before
        limiter = AsyncLimiter(10, 1)
        for _ in range(50):
            await limiter.acquire()
        return loop.time() - before

    assert virtual_run(main()) == pytest.approx(4, abs=0.1)


def test_a_program_that_stands_still_is_told_so():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(NothingToWaitFor):
        virtual_run(main())


def test_a_runner_can_be_given_the_loop():
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(asyncio.sleep(100))
        runner.run(asyncio.sleep(100))
        assert runner.get_loop().time() == pytest.approx(200)


@case("K39", "O4")
def test_a_coarse_clock_of_the_system_makes_no_timer_early(monkeypatch):
    """Before Python 3.13, the clock of Windows has steps of 15.6 ms, and asyncio runs timers early by one step."""
    monkeypatch.setattr(time, "get_clock_info", lambda name: SimpleNamespace(resolution=0.015625))

    async def main():
        loop = asyncio.get_running_loop()
        fired: dict[int, float] = {}

        def fire(n: int) -> None:
            fired[n] = loop.time()

        for n in range(1, 21):
            loop.call_later(n / 1000, fire, n)
        await asyncio.sleep(1)
        return fired

    assert virtual_run(main()) == {n: pytest.approx(n / 1000, abs=1e-5) for n in range(1, 21)}

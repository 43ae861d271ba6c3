"""Limits after cancellations and time-outs: the budget is whole again."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmessages import Limits, Retry
from mlmessages.testing import virtual_run
from policy.budgets import Paused
from policy.cancelling import Cancel, cancelled_at
from policy.servers import busiest
from policy.traffic import LONGEST_PAUSE, Network


async def assert_whole(limits: Limits) -> None:
    """Everything comes back: after two periods all of the budget and of the concurrency can be had at once."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(2 * limits.period + 1)
    assert limits.used == 0
    began = loop.time()
    for _ in range(limits.reads):
        limits.release(await limits.acquire(None), answered=True)
    spread = (limits.reads / limits.per_second) if limits.per_second else 0
    assert loop.time() - began <= spread + 0.01
    await asyncio.sleep(limits.period + 1)
    permits = [await asyncio.wait_for(limits.acquire(None), 5) for _ in range(min(limits.concurrency, limits.reads))]
    for permit in permits:
        limits.release(permit, answered=True)


def test_requests_that_were_cancelled_in_line_leave_nothing_behind() -> None:
    """2,000 requests that gave up waiting during a pause of 5 minutes hold no memory until it ends."""

    def futures() -> int:
        gc.collect()
        return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())

    async def main() -> int:
        paused = Paused()
        await paused.refuse(300)
        before = futures()
        for _ in range(20):
            tasks = [asyncio.create_task(paused.limits.acquire(n % 3)) for n in range(100)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        del tasks, task
        await asyncio.sleep(0)
        return futures() - before

    assert virtual_run(main()) <= 2


@pytest.mark.parametrize("per_second", [None, 4.0])
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("cancel", Cancel)
@pytest.mark.parametrize("victim", range(6))
def test_cancelling_at_any_await_leaks_nothing(
    victim: int, cancel: Cancel, paused: bool, per_second: float | None
) -> None:
    """D1: a request cancelled at each of its suspensions takes no permit, turn or probe with it."""

    async def main(step: int) -> bool:
        limits = Limits(reads=3, period=10, concurrency=2, per_second=per_second)
        if paused:
            permit = await limits.acquire(None)
            limits.refused(permit, 3, Retry().delay, LONGEST_PAUSE)
            limits.release(permit)
        network = Network(limits, latency=lambda: 1.0)
        requests = [network.request("AB"[n % 2]) for n in range(6)]
        tasks = [
            asyncio.create_task(cancelled_at(r, step, cancel) if n == victim else r) for n, r in enumerate(requests)
        ]
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1000)
        assert [r for n, r in enumerate(results) if n != victim] == [True] * 5
        await assert_whole(limits)
        return isinstance(results[victim], asyncio.CancelledError)

    step = 0
    while virtual_run(main(step)):
        step += 1
    assert step >= 1


requests = st.fixed_dictionaries(
    {
        "at": st.floats(0, 40),
        "owner": st.sampled_from("ABC"),
        "write": st.booleans(),
        "latency": st.floats(0.001, 10),  # a request that was given up on arrives within a period
        "patience": st.none() | st.floats(0, 15),
        "cancel": st.none() | st.floats(0, 40),
    }
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(script=st.lists(requests, max_size=25), per_second=st.none() | st.floats(1, 10), storm=st.floats(0, 10))
def test_any_traffic_keeps_to_the_budget_and_leaves_it_whole(
    script: list[dict[str, Any]], per_second: float | None, storm: float
) -> None:
    """Whatever is sent, refused, timed out and cancelled: never more than the budget, and all of it afterwards."""

    class Stormy:
        def admits(self, now: float) -> bool:
            return not 5 <= now < 5 + storm

    async def main() -> Network:
        limits = Limits(reads=4, writes=2, period=10, concurrency=3, per_second=per_second)
        latencies = iter([step["latency"] for step in script])
        network = Network(limits, Stormy(), latency=lambda: next(latencies))

        async def request(step: dict[str, Any]) -> None:
            await asyncio.sleep(step["at"])
            async with asyncio.timeout(step["cancel"]):  # from waiting in line on
                await network.request(step["owner"], write=step["write"], patience=step["patience"])

        tasks = [asyncio.create_task(request(step)) for step in script]
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5000)
        assert all(result is None or isinstance(result, TimeoutError) for result in results)
        permit = await limits.acquire(None)  # the probe, if there is still a storm
        limits.release(permit, answered=True)
        await assert_whole(limits)
        return network

    network = virtual_run(main())
    assert busiest(network.counted, 10) <= 4
    assert busiest(network.written, 10) <= 2

"""Limits in successive event loops: what was spent and what was paused is remembered."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mlmessages import Limits
from mlmessages.testing import virtual_run
from policy.budgets import Paused, roomy
from policy.servers import busiest
from policy.traffic import Network, send_all


def test_budget_is_remembered_from_run_to_run() -> None:
    """A second `asyncio.run` does not get a second budget."""
    limits = roomy(10)

    async def main(requests: int) -> float:
        return await send_all(Network(limits), requests)

    assert virtual_run(main(10)) < 1
    assert virtual_run(main(10)) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("write", [False, True])
def test_a_later_run_waits_two_periods_at_most_for_what_an_earlier_one_sent(write: bool) -> None:
    """The clocks of two loops have nothing in common; the budget of reads and that of writes are carried over."""
    limits = roomy(10, 10)

    async def main(after: float) -> float:
        await asyncio.sleep(after)
        began = asyncio.get_running_loop().time()
        network = Network(limits)
        await asyncio.gather(*(network.request(write=write) for _ in range(10)))
        return asyncio.get_running_loop().time() - began

    assert virtual_run(main(10_000)) < 1
    assert virtual_run(main(0)) == pytest.approx(120, abs=1)


def test_pause_is_remembered_from_run_to_run() -> None:
    """A pause holds in the next `asyncio.run`; by whatever clock, for 5 minutes at most."""
    paused = Paused()

    async def first() -> None:
        await asyncio.sleep(10_000)
        await paused.refuse(7)

    virtual_run(first())
    assert virtual_run(paused.next_start()) == pytest.approx(300, abs=0.01)


@pytest.mark.parametrize("per_second", [None, 100])
def test_limits_work_in_successive_runs_without_a_warning(per_second: float | None) -> None:
    """Three `asyncio.run`s of which each leaves requests waiting behind: no warning, and the budget holds."""
    limits = Limits(reads=5, per_second=per_second)

    async def main() -> int:
        network = Network(limits)
        waiting = asyncio.create_task(send_all(network, 20))
        await asyncio.sleep(130)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return busiest(network.counted, 60)

    assert [virtual_run(main()) for _ in range(3)] == [5, 5, 5]


def test_run_that_ended_with_requests_in_flight_leaves_nothing_behind() -> None:
    """What was in flight when its loop ended holds its permits for two periods; its late end changes nothing."""
    limits = Limits(reads=3, concurrency=2, per_second=None)
    stray = []

    async def first() -> None:
        stray.append(await limits.acquire(None))
        stray.append(await limits.acquire(None))

    async def second() -> tuple[list[float], int]:
        permits = [await limits.acquire(None)]
        for permit in stray:
            limits.release(permit)
        assert limits.used == 3
        limits.release(permits[0], answered=True)
        permits += [await limits.acquire(None), await limits.acquire(None)]
        for permit in permits[1:]:
            limits.release(permit, answered=True)
        await asyncio.sleep(61)
        return [permit.started for permit in permits], limits.used

    virtual_run(first())
    assert virtual_run(second()) == (pytest.approx([0, 60, 120], abs=0.01), 0)


def test_probe_in_flight_when_its_loop_ended_is_followed_by_another() -> None:
    """A storm that outlasts a run does not wait for the probe of the run before."""
    paused = Paused()

    async def first() -> None:
        await paused.refuse(7)
        await paused.limits.acquire("another")

    virtual_run(first())
    assert virtual_run(paused.next_start()) == pytest.approx(7, abs=0.01)


def test_rounds_of_refusals_go_on_in_the_next_run() -> None:
    """Pauses grow from run to run while the storm lasts, also where the clock begins anew."""
    paused = Paused()

    async def run(rounds: int) -> list[float]:
        await asyncio.sleep(1000 / rounds)
        return [await paused.refuse(None) for _ in range(rounds)]

    assert [*virtual_run(run(1)), *virtual_run(run(3))] == [0.5, 1, 2, 4]


def test_two_loops_at_once_are_refused() -> None:
    """One `Limits` in two running event loops is a `RuntimeError` in the second, and the first is unharmed."""
    limits = Limits()

    async def main() -> object:
        await limits.acquire(None)
        caught: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(send_all(Network(limits), 1))
            except* RuntimeError as group:
                caught.extend(group.exceptions)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        await limits.acquire(None)
        return caught[0]

    error = asyncio.run(main())
    assert isinstance(error, RuntimeError)
    assert "two event loops" in str(error)

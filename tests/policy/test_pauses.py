"""Limits on a virtual clock: a 429 pauses everyone, and one request goes first after it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mlmessages import Limits, Retry
from mlmessages.testing import virtual_run
from policy.budgets import Paused
from policy.traffic import LONGEST_PAUSE, Network, send_all


@pytest.mark.parametrize("write", [False, True])
def test_pause_holds_for_everyone(write: bool) -> None:
    """After a 429 with Retry-After 7 no client that shares the budget starts a request for 7 s, GET or not."""

    async def main() -> float:
        paused = Paused()
        await paused.refuse(7)
        return await paused.next_start(write=write)

    assert virtual_run(main()) == pytest.approx(7, abs=1e-3)


def test_answer_of_an_earlier_request_does_not_end_a_pause() -> None:
    """A 200 to a request that started before the 429 neither shortens the pause nor spares the probe."""

    async def main() -> tuple[float, bool]:
        paused = Paused()
        earlier = await paused.limits.acquire("another")
        await paused.refuse(7)
        await asyncio.sleep(1)
        paused.limits.release(earlier, answered=True)
        permit = await paused.limits.acquire("another")
        return paused.now, permit.probe

    assert virtual_run(main()) == (pytest.approx(7, abs=1e-3), True)


@pytest.mark.parametrize(
    ("first", "second", "end"), [(20, 3, 20), (3, 20, 25), (20, 15, 20), (None, 3, 8), (20, None, 20)]
)
def test_pause_only_grows(first: float | None, second: float | None, end: float) -> None:
    """A 429 that comes 5 s after another and asks for less does not shorten the pause; for more, it makes it longer."""

    async def main() -> float:
        paused = Paused()
        permits = [await paused.limits.acquire("another") for _ in range(2)]
        for permit, retry_after in zip(permits, (first, second), strict=True):
            paused.limits.refused(permit, retry_after, Retry().delay, LONGEST_PAUSE)
            paused.limits.release(permit)
            if permit is permits[0]:
                await asyncio.sleep(5)
        return await paused.next_start()

    assert virtual_run(main()) == pytest.approx(end, abs=1e-3)


def test_waiting_requests_notice_that_the_pause_grew() -> None:
    """Who waits for a pause to end waits for its new end."""

    async def main() -> float:
        paused = Paused()
        late = await paused.limits.acquire("another")
        await paused.refuse(7)
        waiting = asyncio.create_task(paused.next_start())
        await asyncio.sleep(5)
        paused.limits.refused(late, 10, Retry().delay, LONGEST_PAUSE)
        paused.limits.release(late)
        return await waiting

    assert virtual_run(main()) == pytest.approx(15, abs=1e-3)


def test_pause_that_began_during_the_spike_arrest_holds() -> None:
    """A request that was held back by `per_second` when the 429 came waits for the pause as well."""

    async def main() -> float:
        limits = Limits(per_second=1)
        permit = await limits.acquire(None)
        waiting = asyncio.create_task(limits.acquire(None))
        await asyncio.sleep(0.5)
        limits.refused(permit, 7, Retry().delay, LONGEST_PAUSE)
        limits.release(permit)
        return (await waiting).started

    assert virtual_run(main()) == pytest.approx(7.5, abs=1e-3)


@pytest.mark.parametrize("retry_after", [0, 0.2, 1, 90])
def test_retry_after_is_a_floor_of_the_pause(retry_after: float) -> None:
    """A pause lasts at least as long as the server asks, and at least the policy's delay."""

    async def main() -> tuple[float, float]:
        paused = Paused()
        return await paused.refuse(retry_after), await paused.next_start()

    wait, started = virtual_run(main())
    assert wait == max(retry_after, 0.5)
    assert started == pytest.approx(wait, abs=1e-3)


def test_pause_lasts_at_most_the_deadline() -> None:
    """A Retry-After of a day is reported as it is, and pauses the others for the deadline."""

    async def main() -> tuple[float, float]:
        paused = Paused()
        return await paused.refuse(86400, longest=300), await paused.next_start()

    assert virtual_run(main()) == (86400, pytest.approx(300, abs=1e-3))


def test_one_probe_goes_first() -> None:
    """After a pause one request starts alone; the others follow when it is answered."""

    async def main() -> list[float]:
        paused = Paused()
        await paused.refuse(7)
        network = Network(paused.limits, latency=lambda: 2.0)
        await send_all(network, 10)
        return network.started

    assert virtual_run(main()) == pytest.approx([7, *[9] * 9], abs=1e-3)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_probe_without_an_answer_is_followed_by_another(how: str) -> None:
    """A probe that is given up on proves nothing: the next request is a probe again, and no request is stuck."""

    async def main() -> list[float]:
        paused = Paused()
        await paused.refuse(7)
        network = Network(paused.limits, latency=lambda: 2.0)
        probe = asyncio.create_task(network.request(patience=1.0 if how == "timed out" else None))
        await asyncio.sleep(0)
        rest = asyncio.create_task(send_all(network, 3))
        await asyncio.sleep(8)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        await rest
        return network.started

    assert virtual_run(main()) == pytest.approx([7, 8, 10, 10], abs=1e-3)


def test_storm_costs_few_requests() -> None:
    """E3: 429 on everything for 90 s: after the first burst at most 10 requests of 64 workers, and then all is well."""

    class Stormy:
        def admits(self, now: float) -> bool:
            return now > 90

    async def main() -> Network:
        network = Network(Limits(concurrency=64, per_second=None), Stormy())

        async def worker() -> None:
            while not await network.request():
                pass

        async with asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(worker())
        return network

    network = virtual_run(main())
    burst = [moment for moment in network.started if moment < 0.1]
    assert len(burst) == 64
    assert len([moment for moment in network.started if moment < 90]) - len(burst) <= 10
    assert len(network.started) - len(network.refused) == 64
    assert max(network.started) < 90 + 60 + 1


def test_requests_refused_together_are_one_round() -> None:
    """32 refusals of one burst pause for the first delay, not for the thirty-second."""

    async def main() -> float:
        paused = Paused()
        permits = [await paused.limits.acquire(None) for _ in range(32)]
        for permit in permits:
            paused.limits.refused(permit, None, Retry().delay, LONGEST_PAUSE)
            paused.limits.release(permit)
        assert paused.limits.refusals == 32
        return await paused.next_start()

    assert virtual_run(main()) == pytest.approx(0.5, abs=1e-3)


def test_answered_probe_ends_the_storm() -> None:
    """Rounds are counted anew after a storm: the next 429 pauses for the first delay again."""

    async def main() -> list[float]:
        paused = Paused()
        waits = [await paused.refuse(None) for _ in range(4)]
        await paused.next_start()
        return [*waits, await paused.refuse(None)]

    assert virtual_run(main()) == [0.5, 1, 2, 4, 0.5]


def pauses_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the library's logger."""
    return [r.getMessage() for r in caplog.records if r.name == "mlmessages" and r.levelno == logging.WARNING]


def test_long_pause_is_told_once_with_its_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """A pause over 5 s is one WARNING with its seconds, however many requests were refused together."""

    async def main() -> None:
        paused = Paused()
        permits = [await paused.limits.acquire(None) for _ in range(32)]
        for permit in permits:
            await asyncio.sleep(0.01)
            paused.limits.refused(permit, 30, Retry().delay, LONGEST_PAUSE)
            paused.limits.release(permit)

    virtual_run(main())
    assert pauses_told(caplog) == ["429: too many requests; pausing for 30.0 s"]


def test_each_long_pause_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A second pause is a second WARNING, as is a pause that grows from short to long."""

    async def main() -> None:
        paused = Paused()
        permits = [await paused.limits.acquire(None) for _ in range(2)]
        for permit, retry_after in zip(permits, (4, 8), strict=True):
            paused.limits.refused(permit, retry_after, Retry().delay, LONGEST_PAUSE)
            paused.limits.release(permit)
        await paused.refuse(12)

    virtual_run(main())
    assert [message.split()[-2] for message in pauses_told(caplog)] == ["8.0", "12.0"]


def test_short_pause_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """A pause of up to 5 s is not worth a warning."""

    async def main() -> None:
        await Paused().refuse(5)

    virtual_run(main())
    assert pauses_told(caplog) == []

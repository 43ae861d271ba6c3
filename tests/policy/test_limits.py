"""Limits on a virtual clock: never more than the budget, all of the budget, in turn, and whole after everything."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import math
import random
import threading
from collections.abc import Callable

import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmessages import Limits, Retry
from mlmessages.testing import virtual_run
from policy.cancelling import Cancel, cancelled_at
from policy.servers import FixedWindow, SlidingLog, TokenBucket, busiest
from policy.traffic import LONGEST_PAUSE, Network, Server, lognormal, send_all

BRISK = (0.12, 0.35)  # median and sigma of a lognormal latency
SLUGGISH = (0.4, 0.9)
IDEAL = 540.0  # 5,000 requests: 500 at once, then 500 a minute


def roomy(reads: int = 500, writes: int = 500, period: float = 60.0, per_second: float | None = None) -> Limits:
    """Limits whose concurrency is not what limits."""
    return Limits(reads, writes, period, concurrency=10_000, per_second=per_second)


@functools.cache
def five_thousand(server: Callable[[], Server], latency: tuple[float, float]) -> tuple[Network, float]:
    """5,000 requests, 100 at a time: the wire log, and the seconds they took."""

    async def main() -> tuple[Network, float]:
        network = Network(Limits(concurrency=100, per_second=None), server(), lognormal(*latency))
        return network, await send_all(network, 5000)

    return virtual_run(main())


# -- never more than the budget, all of the budget ---------------------------------------------------------------------


@pytest.mark.parametrize("latency", [BRISK, SLUGGISH])
@pytest.mark.parametrize("server", [FixedWindow, SlidingLog, TokenBucket])
def test_no_server_answers_429(server: Callable[[], Server], latency: tuple[float, float]) -> None:
    """E1: 5,000 requests meet no 429, whether the server counts by fixed window, sliding log or token bucket."""
    network, _ = five_thousand(server, latency)
    assert len(network.counted) == 5000
    assert network.refused == []


@pytest.mark.parametrize("latency", [BRISK, SLUGGISH])
def test_wire_log_never_shows_more_than_reads_in_a_period(latency: tuple[float, float]) -> None:
    """E1: in no 60 s does the server count more than 500 requests, and in some exactly so many."""
    network, _ = five_thousand(SlidingLog, latency)
    assert busiest(network.counted, 60) == 500


@pytest.mark.parametrize("latency", [BRISK, SLUGGISH])
def test_no_429_wherever_the_servers_minute_begins(latency: tuple[float, float]) -> None:
    """E9: ten minutes at full rate meet no 429, whatever the second at which the server's minute begins."""
    network, _ = five_thousand(FixedWindow, latency)
    for offset in range(60):
        server = FixedWindow(offset=offset)
        assert all(server.admits(moment) for moment in network.counted), offset


@pytest.mark.parametrize("server", [FixedWindow, SlidingLog])
@pytest.mark.parametrize(("latency", "most"), [(BRISK, 1.02), (SLUGGISH, 1.08)])
def test_whole_budget_is_used(server: Callable[[], Server], latency: tuple[float, float], most: float) -> None:
    """5,000 requests take hardly longer than 500 a minute make unavoidable."""
    _, took = five_thousand(server, latency)
    assert took <= most * IDEAL


def test_burst_of_a_whole_budget_is_not_paced() -> None:
    """400 requests on a fresh budget are over as soon as the network allows."""

    async def main() -> float:
        return await send_all(Network(roomy()), 400)

    assert virtual_run(main()) < 0.2


class Naive:
    """What most people write: `AsyncLimiter(500, 60)`."""

    def __init__(self) -> None:
        self._limiter = AsyncLimiter(500, 60)

    async def acquire(self, owner: object, *, write: bool = False) -> None:
        await self._limiter.acquire()

    def release(self, permit: object, *, answered: bool = False) -> None:
        pass

    def refused(self, permit: object, retry_after: float | None, delay: object, longest: float) -> float:
        return 0.0


@pytest.mark.parametrize("server", [FixedWindow, SlidingLog])
def test_naive_limiter_fails_the_same_harness(server: Callable[[], Server]) -> None:
    """The harness can fail: `AsyncLimiter(500, 60)` puts 999 requests into one minute and meets 429s."""

    async def main() -> Network:
        network = Network(Naive(), server(), latency=lambda: 0.001)
        await send_all(network, 2000)
        return network

    network = virtual_run(main())
    assert busiest(network.counted, 60) == 999
    assert network.refused


@pytest.mark.parametrize("seed", range(5))
def test_request_given_up_on_may_still_arrive(seed: int) -> None:
    """Requests that time out or are cancelled arrive late, and still no more than `reads` are counted in a period."""

    async def main() -> Network:
        rng = random.Random(seed)
        network = Network(roomy(50), SlidingLog(50), lognormal(*SLUGGISH, seed), seed)
        tasks = [
            asyncio.create_task(network.request(patience=0.3 if rng.random() < 0.5 else None)) for _ in range(1000)
        ]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(rng.uniform(0, 10))
            rng.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(60)  # for those that are still on their way
        return network

    network = virtual_run(main())
    assert busiest(network.counted, 60) <= 50
    assert network.refused == []


@pytest.mark.parametrize(("answered", "hold"), [(True, 60.0), (False, 120.0)])
def test_permit_comes_back_a_period_after_the_answer_and_two_without_one(answered: bool, hold: float) -> None:
    """A permit is out for one period after its answer; where none came, for the whole period more."""

    async def main() -> float:
        limits = Limits(reads=1, per_second=None)
        permit = await limits.acquire(None)
        await asyncio.sleep(7)
        limits.release(permit, answered=answered)
        await limits.acquire(None)
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) == pytest.approx(7 + hold, abs=1e-3)


def test_429_is_an_answer() -> None:
    """A refused request was counted: its permit is out for one period, not for two."""

    async def main() -> float:
        limits = Limits(reads=1, per_second=None)
        permit = await limits.acquire(None)
        limits.refused(permit, None, Retry().delay, LONGEST_PAUSE)
        limits.release(permit)
        await limits.acquire(None)
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) == pytest.approx(60, abs=1e-3)


def test_reads_and_writes_are_apart() -> None:
    """GETs that wait for their budget do not hold up other requests, nor the other way round."""

    async def main() -> Network:
        network = Network(roomy(reads=20, writes=5))
        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(network.request())
            for _ in range(15):
                group.create_task(network.request(write=True))
        return network

    network = virtual_run(main())
    assert busiest(network.counted, 60) == 20
    assert busiest(network.written, 60) == 5
    assert max(network.counted) == pytest.approx(120, abs=1)
    assert max(network.written) == pytest.approx(120, abs=1)


@pytest.mark.parametrize("per_second", [1, 2.5, 100])
def test_no_more_than_per_second_start_in_a_second(per_second: float) -> None:
    """Spike arrest: no second sees more than `per_second` requests start, GETs and others together; all start."""
    requests = 10 * math.floor(per_second)

    async def main() -> Network:
        network = Network(roomy(per_second=per_second, reads=5000))
        async with asyncio.TaskGroup() as group:
            for n in range(requests):
                group.create_task(network.request(write=n % 5 == 0))
        return network

    network = virtual_run(main())
    assert busiest(network.started, 1) <= math.ceil(per_second)
    assert network.started[-1] == pytest.approx((requests - 1) / per_second, rel=1e-3)


def test_per_second_holds_across_a_quiet_time() -> None:
    """A quiet minute saves up no burst."""

    async def main() -> Network:
        network = Network(roomy(per_second=10))
        for _ in range(3):
            await send_all(network, 25)
            await asyncio.sleep(60)
        return network

    assert busiest(virtual_run(main()).started, 1) == 10


@pytest.mark.parametrize("concurrency", [1, 7])
def test_no_more_than_concurrency_in_flight(concurrency: int) -> None:
    """`concurrency` bounds GETs and others together, and is used."""

    async def main() -> int:
        limits = Limits(concurrency=concurrency, per_second=None)
        in_flight = most = 0

        async def request(write: bool) -> None:
            nonlocal in_flight, most
            permit = await limits.acquire(None, write=write)
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.1)
            in_flight -= 1
            limits.release(permit, answered=True)

        await asyncio.gather(*(request(n % 3 == 0) for n in range(60)))
        return most

    assert virtual_run(main()) == concurrency


def test_used_counts_what_is_in_flight_or_recent() -> None:
    """`used`, for progress bars: 0 before the first request, and again one period after the last answer."""

    async def main() -> list[int]:
        limits = roomy()
        seen = [limits.used]
        await send_all(Network(limits), 3)
        permit = await limits.acquire(None)
        seen.append(limits.used)
        limits.release(permit, answered=True)
        await asyncio.sleep(60.01)
        return [*seen, limits.used]

    assert virtual_run(main()) == [0, 4, 0]


# -- pauses ------------------------------------------------------------------------------------------------------------


class Paused:
    """Limits that meet 429s at will, and a clock."""

    def __init__(self, **options: int) -> None:
        self.limits = Limits(per_second=None, **options)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def refuse(self, retry_after: float | None, longest: float = LONGEST_PAUSE) -> float:
        """One request that meets a 429."""
        permit = await self.limits.acquire("the one")
        wait = self.limits.refused(permit, retry_after, Retry().delay, longest)
        self.limits.release(permit)
        return wait

    async def next_start(self, *, write: bool = False) -> float:
        """When another's next request starts; it is answered at once."""
        permit = await self.limits.acquire("another", write=write)
        self.limits.release(permit, answered=True)
        return self.now


@pytest.mark.parametrize("write", [False, True])
def test_pause_holds_for_everyone(write: bool) -> None:
    """After a 429 with Retry-After 7 nobody who shares the budget starts a request for 7 s, GET or not."""

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
    """A probe that is given up on proves nothing: the next request is a probe again, and nobody is stuck."""

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
    """A pause of up to 5 s is nobody's business."""

    async def main() -> None:
        await Paused().refuse(5)

    virtual_run(main())
    assert pauses_told(caplog) == []


# -- sharing -----------------------------------------------------------------------------------------------------------


def test_owners_share_fairly() -> None:
    """E11: three sellers, one of them with ten times the work: each gets a third of the budget while it has work."""

    async def main() -> list[str]:
        limits = roomy(30)
        order: list[str] = []

        async def request(owner: str) -> None:
            permit = await limits.acquire(owner)
            order.append(owner)
            limits.release(permit, answered=True)

        await asyncio.gather(
            *(request("A") for _ in range(1000)),
            *(request("B") for _ in range(100)),
            *(request("C") for _ in range(100)),
        )
        return order

    order = virtual_run(main())
    for begin in range(30, 270, 30):  # the first window went to those who were first
        shares = [order[begin : begin + 30].count(owner) for owner in "ABC"]
        assert min(shares) >= 9, (begin, shares)


def test_first_in_first_out_within_an_owner() -> None:
    """Requests of one owner start in the order in which they were asked for."""

    async def main() -> list[tuple[str, int]]:
        limits = Limits(reads=5, concurrency=2, per_second=3)
        order: list[tuple[str, int]] = []

        async def request(owner: str, n: int) -> None:
            permit = await limits.acquire(owner)
            order.append((owner, n))
            await asyncio.sleep(0.1)
            limits.release(permit, answered=True)

        await asyncio.gather(*(request("AB"[n % 2], n) for n in range(40)))
        return order

    order = virtual_run(main())
    for owner in "AB":
        mine = [n for who, n in order if who == owner]
        assert mine == sorted(mine)
        assert len(mine) == 20


def test_latecomer_does_not_overtake() -> None:
    """Who asks later starts later, also when a permit is free for a moment."""

    async def main() -> list[int]:
        limits = Limits(concurrency=1, per_second=None)
        order: list[int] = []

        async def request(n: int) -> None:
            permit = await limits.acquire(None)
            order.append(n)
            await asyncio.sleep(1)
            limits.release(permit, answered=True)
            if n < 10:
                await request(n + 10)

        await asyncio.gather(*(request(n) for n in range(3)))
        return order

    assert virtual_run(main()) == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("when", ["before the turn is given on", "at that moment"])
def test_cancelled_request_does_not_cost_its_owner_the_turn(when: str) -> None:
    """Where an owner's first request in line was given up, its second goes in its place."""

    async def main() -> list[str]:
        limits = Limits(concurrency=1, per_second=None)
        order: list[str] = []
        held = await limits.acquire("first")

        async def request(name: str) -> None:
            permit = await limits.acquire(name[0])
            order.append(name)
            limits.release(permit, answered=True)

        tasks = [asyncio.create_task(request(name)) for name in ("-", "A1", "A2", "B1", "A3", "B2")]
        await asyncio.sleep(1)
        if when == "at that moment":
            limits.release(held, answered=True)
            tasks[1].cancel()
        else:
            tasks[1].cancel()
            limits.release(held, answered=True)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results if result] == [asyncio.CancelledError]
        return order

    assert virtual_run(main()) == ["-", "A2", "B1", "A3", "B2"]


def test_writes_are_not_starved_by_reads() -> None:
    """Where `concurrency` is what is scarce, GETs and others take turns."""

    async def main() -> str:
        limits = Limits(concurrency=1, per_second=None)
        order: list[str] = []

        async def request(write: bool) -> None:
            permit = await limits.acquire(None, write=write)
            order.append("w" if write else "r")
            await asyncio.sleep(0.1)
            limits.release(permit, answered=True)

        await asyncio.gather(*(request(n >= 100) for n in range(120)))
        return "".join(order)

    order = virtual_run(main())
    assert order.rindex("w") <= 42
    assert "ww" not in order


# -- event loops -------------------------------------------------------------------------------------------------------


def test_budget_is_remembered_from_run_to_run() -> None:
    """A second `asyncio.run` does not get a second budget."""
    limits = roomy(10)

    async def main(requests: int) -> float:
        return await send_all(Network(limits), requests)

    assert virtual_run(main(10)) < 1
    assert virtual_run(main(10)) == pytest.approx(60, abs=1)


def test_pause_is_remembered_from_run_to_run() -> None:
    """A pause holds in the next `asyncio.run`; by whatever clock, for 5 minutes at most."""
    paused = Paused()

    async def first() -> None:
        await asyncio.sleep(10_000)
        await paused.refuse(7)

    virtual_run(first())
    assert virtual_run(paused.next_start()) == pytest.approx(300, abs=1e-3)


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
    assert virtual_run(second()) == (pytest.approx([0, 60, 120], abs=1e-3), 0)


def test_probe_in_flight_when_its_loop_ended_is_followed_by_another() -> None:
    """A storm that outlasts a run does not wait for a probe that nobody has any more."""
    paused = Paused()

    async def first() -> None:
        await paused.refuse(7)
        await paused.limits.acquire("another")

    virtual_run(first())
    assert virtual_run(paused.next_start()) == pytest.approx(7, abs=1e-3)


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


# -- cancellation ------------------------------------------------------------------------------------------------------


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
    script: list[dict[str, float | None]], per_second: float | None, storm: float
) -> None:
    """Whatever is sent, refused, timed out and cancelled: never more than the budget, and all of it afterwards."""

    class Stormy:
        def admits(self, now: float) -> bool:
            return not 5 <= now < 5 + storm

    async def main() -> Network:
        limits = Limits(reads=4, writes=2, period=10, concurrency=3, per_second=per_second)
        latencies = iter([step["latency"] for step in script])
        network = Network(limits, Stormy(), latency=lambda: next(latencies))

        async def request(step: dict[str, float | None]) -> None:
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


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({name: value} for name in ("reads", "writes", "concurrency") for value in (0, -1, True, 1.5, "500", None)),
        *({"period": value} for value in (0, -1, math.inf, math.nan, True, "60", None)),
        *({"per_second": value} for value in (0, 0.5, -1, math.inf, math.nan, True, "100")),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    """A `Limits` that could not work is a `ValueError` that names the parameter."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Limits(**options)  # type: ignore[arg-type]


def test_defaults_are_the_documented_budget() -> None:
    """500 GETs and 500 others a minute, 32 at a time, 100 a second; and the repr says so."""
    assert repr(Limits()) == "Limits(reads=500, writes=500, period=60.0, concurrency=32, per_second=100)"

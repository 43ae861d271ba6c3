"""Limits on a virtual clock: never more than the budget, all of the budget."""

from __future__ import annotations

import asyncio
import functools
import math
import random
from collections.abc import Callable

import pytest
from aiolimiter import AsyncLimiter

from cases import case
from mlmessages import Limits, Retry
from mlmessages.http import limits
from mlmessages.testing import VirtualClockLoop, virtual_run
from policy.budgets import roomy
from policy.servers import FixedWindow, SlidingLog, TokenBucket, busiest
from policy.traffic import LONGEST_PAUSE, Network, Server, lognormal, send_all

BRISK = (0.12, 0.35)  # median and sigma of a lognormal latency
SLUGGISH = (0.4, 0.9)
IDEAL = 540.0  # 5,000 requests: 500 at once, then 500 a minute


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

    assert virtual_run(main()) == pytest.approx(7 + hold, abs=0.01)


def test_429_is_an_answer() -> None:
    """A refused request was counted: its permit is out for one period, not for two."""

    async def main() -> float:
        limits = Limits(reads=1, per_second=None)
        permit = await limits.acquire(None)
        limits.refused(permit, None, Retry().delay, LONGEST_PAUSE)
        limits.release(permit)
        await limits.acquire(None)
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) == pytest.approx(60, abs=0.01)


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


# -- coarse clocks -----------------------------------------------------------------------------------------------------


class CoarseLoop(VirtualClockLoop):
    """Windows before Python 3.13: its clock moves in steps, and timers fire up to a step early."""

    STEP = 1 / 64

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = self.STEP

    @property
    def exact(self) -> float:
        """The time as the server has it."""
        return super().time()

    def time(self) -> float:
        return self.exact // self.STEP * self.STEP


@case("K39")
@pytest.mark.parametrize("seed", range(5))
def test_a_coarse_clock_lets_no_request_through_early(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of 15.6 ms steps: what the server counts by its own clock is still no more than the budget."""
    monkeypatch.setattr(limits, "CLOCK_STEP", CoarseLoop.STEP)
    rng = random.Random(seed)

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CoarseLoop)
        budget = Limits(reads=4, period=1, per_second=None)
        counted = []

        async def request() -> None:
            permit = await budget.acquire(None)
            await asyncio.sleep(rng.uniform(0.001, 0.2))
            counted.append(loop.exact)
            budget.release(permit, answered=True)

        await asyncio.gather(*(request() for _ in range(200)))
        return counted

    with asyncio.Runner(loop_factory=CoarseLoop) as runner:
        counted = runner.run(main())
    assert busiest(counted, 1.0) == 4

"""How long 5,000 requests take on a budget of 500 a minute, and how many are refused: `Limits` and `AsyncLimiter`.

    python benchmarks/limits.py

On a virtual clock, against three kinds of server and two latencies, 100 requests in flight at most. The server counts a
request half of its latency after it was sent. One that is refused is sent again, when the limiter allows.

`shared_limits.py` has the case of several processes on one budget.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import Literal

from aiolimiter import AsyncLimiter

from mlmessages import Limits, Retry
from mlmessages.testing import RateWindow, virtual_run
from mlmessages.testing.model.rates import counter

REQUESTS, READS, PERIOD, CONCURRENCY = 5000, 500, 60.0, 100
IDEAL = (math.ceil(REQUESTS / READS) - 1) * PERIOD
LATENCIES = ((0.120, 0.35), (0.400, 0.90))  # lognormal: median in seconds, sigma
KINDS: tuple[Literal["fixed", "sliding", "bucket"], ...] = ("fixed", "sliding", "bucket")

Send = Callable[[], Coroutine[object, object, bool]]  # True: answered, False: 429
Fetch = Callable[[Send], Coroutine[object, object, None]]


def with_limits() -> Fetch:
    limits = Limits(reads=READS, period=PERIOD, concurrency=CONCURRENCY, per_second=None)
    retry = Retry()

    async def fetch(send: Send) -> None:
        answered = False
        while not answered:
            permit = await limits.acquire(fetch)
            answered = await send()
            wait = 0.0 if answered else limits.refused(permit, None, retry.delay, retry.deadline)
            limits.release(permit, answered=answered)
            await asyncio.sleep(wait)

    return fetch


def with_aiolimiter(rate: float, period: float) -> Callable[[], Fetch]:
    def make() -> Fetch:
        limiter, semaphore = AsyncLimiter(rate, period), asyncio.Semaphore(CONCURRENCY)

        async def fetch(send: Send) -> None:
            answered = False
            while not answered:
                async with semaphore:
                    await limiter.acquire()
                    answered = await send()

        return fetch

    return make


SIDES: dict[str, Callable[[], Fetch]] = {
    "`Limits`": with_limits,
    "`AsyncLimiter(1, 60/490)`": with_aiolimiter(1, 60 / 490),
    "`AsyncLimiter(250, 60)`": with_aiolimiter(250, 60),
    "`AsyncLimiter(500, 60)`": with_aiolimiter(500, 60),
}


async def run(
    make: Callable[[], Fetch], kind: Literal["fixed", "sliding", "bucket"], latency: tuple[float, float]
) -> tuple[float, int]:
    """Virtual seconds until the last answer, and the number of 429s."""
    loop, rng = asyncio.get_running_loop(), random.Random(1)
    server = counter(RateWindow(reads=READS, period=PERIOD, kind=kind), READS)
    fetch, refused = make(), 0
    median, sigma = latency

    async def send() -> bool:
        nonlocal refused
        taken = rng.lognormvariate(math.log(median), sigma)
        await asyncio.sleep(taken / 2)
        admitted = server.admit(loop.time()) == 0
        refused += not admitted
        await asyncio.sleep(taken / 2)
        return admitted

    begun = loop.time()
    await asyncio.gather(*(fetch(send) for _ in range(REQUESTS)))
    return loop.time() - begun, refused


def main() -> None:
    print(f"{REQUESTS:,} requests; ideal: {IDEAL:.0f} s\n")
    print("| latency | limiter | " + " | ".join(f"{kind}: s | 429s" for kind in KINDS) + " | CPU, µs a request |")
    print("|---" * (3 + 2 * len(KINDS)) + "|")
    for latency in LATENCIES:
        for name, make in SIDES.items():
            cpu = time.process_time()
            results = [virtual_run(run(make, kind, latency)) for kind in KINDS]
            cpu = (time.process_time() - cpu) / len(KINDS) / REQUESTS * 1e6
            cells = " | ".join(f"{seconds:.0f} | {refused:,}" for seconds, refused in results)
            print(f"| {latency[0] * 1e3:.0f} ms, {latency[1]} | {name} | {cells} | {cpu:.0f} |", flush=True)


if __name__ == "__main__":
    main()

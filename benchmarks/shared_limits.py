"""How long 5,000 requests of three processes take on one budget in PostgreSQL, and how many are refused.

    python benchmarks/shared_limits.py
    python benchmarks/shared_limits.py --processes 8 --period 60

`Database.limits` and, where it is installed (`pip install pyrate-limiter psycopg-pool`), the `PostgresBucket` of
pyrate-limiter. A server on loopback counts 500 requests in a sliding period, each half of its latency (lognormal) after
it was sent, and refuses what is beyond. By default the period is 6 s instead of 60, and the latency a tenth of what it
is over the internet: a tenth of the time, with ten times the requests a second. Nothing else is scaled.

PostgreSQL is what `--database URL` names, else one that the tests' fixture starts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import math
import random
import sys
import time
from collections import deque
from typing import Any

from database import empty_database

from mlmessages import MessagesClient
from mlmessages.testing import Behaviour, RateWindow, Sandbox

REQUESTS, READS = 5000, 500


# -- a process that sends ----------------------------------------------------------------------------------------------


async def ours(task: dict[str, Any]) -> None:
    from mlmessages import Database

    async with (
        Database(task["database"], key=None) as database,
        MessagesClient(
            task["token"],
            seller_id=task["seller"],
            base_url=task["url"],
            limits=database.limits(1, reads=READS, period=task["period"], per_second=None),
        ) as client,
    ):
        await asyncio.gather(*(client.page(task["pack"]) for _ in range(task["requests"])))


async def pyrate(task: dict[str, Any]) -> None:
    import logging

    import aiohttp
    from psycopg_pool import ConnectionPool
    from pyrate_limiter import Limiter, PostgresBucket, Rate

    logging.disable()
    path = f"{task['url']}/marketplace/messages/packs/{task['pack']}/sellers/{task['seller']}"
    with ConnectionPool(task["database"], min_size=2, max_size=8, open=True) as pool:
        rate = Rate(READS, round(task["period"] * 1000))  # milliseconds
        limiter, gate = Limiter(PostgresBucket(pool, "benchmark", [rate])), asyncio.Semaphore(32)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {task['token']}"}) as session:

            async def fetch() -> None:
                while True:
                    async with gate:
                        await asyncio.to_thread(limiter.try_acquire, "requests")
                        async with session.get(path, params={"tag": "post_sale", "mark_as_read": "false"}) as answer:
                            if answer.status == 200:
                                return

            await asyncio.gather(*(fetch() for _ in range(task["requests"])))


# -- the server, and what it saw ---------------------------------------------------------------------------------------


def busiest(moments: list[float], period: float) -> int:
    """The most requests within any `period`."""
    recent: deque[float] = deque()
    most = 0
    for moment in sorted(moments):
        while recent and recent[0] <= moment - period:
            recent.popleft()
        recent.append(moment)
        most = max(most, len(recent))
    return most


async def run(side: str, database: str, processes: int, period: float) -> None:
    rng, scale = random.Random(1), period / 60
    sandbox = Sandbox(
        packs=1,
        behaviour=Behaviour(
            latency=lambda: 0.120 * scale * rng.lognormvariate(0, 0.35),
            rate=RateWindow(reads=READS, period=period, kind="sliding"),
        ),
    )
    async with sandbox.serve() as served:
        task = {
            "database": database,
            "period": period,
            "token": served.token,
            "seller": served.seller_id,
            "url": served.base_url,
            "pack": sandbox.pack_ids()[0],
            "requests": REQUESTS // processes,
        }
        workers = [
            await asyncio.create_subprocess_exec(sys.executable, __file__, "--worker", side, json.dumps(task))
            for _ in range(processes)
        ]
        cpu = sum([await usage(worker) for worker in workers])
    log = sandbox.log
    count = REQUESTS // processes * processes
    ideal = (math.ceil(count / READS) - 1) * period
    seconds = log[-1].at - log[0].at
    refused = sum(entry.status == 429 for entry in log)
    most = busiest([entry.at for entry in log], period)
    cells = f"{seconds:.1f} | {seconds / ideal:.3f} | {refused:,} | {most} | {cpu / count * 1e6:.0f}"
    print(f"| {side} | {processes} | {cells} |", flush=True)


async def usage(worker: asyncio.subprocess.Process) -> float:
    """CPU seconds of a child, when it has ended."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if await worker.wait():
        raise SystemExit("a worker failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="the URL of an empty database")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--period", type=float, default=6.0, help="seconds")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, task = options.worker
        asyncio.run({"ours": ours, "pyrate-limiter": pyrate}[side](json.loads(task)))
        return
    database = options.database or empty_database()
    print(f"{REQUESTS:,} requests, {READS} in {options.period:g} s; {time.strftime('%Y-%m-%d')}\n")
    print("| side | processes | s | of the ideal | 429s | most in any period | CPU of the processes, µs a request |")
    print("|---" * 7 + "|")
    sides = ["ours"] + ["pyrate-limiter"] * (importlib.util.find_spec("pyrate_limiter") is not None)
    for side in sides:
        asyncio.run(run(side, database, options.processes, options.period))


if __name__ == "__main__":
    main()

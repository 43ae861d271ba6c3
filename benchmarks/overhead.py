"""Client CPU and wall time per request: this library, with typed models, and the loop written by hand, with dicts.

    python benchmarks/overhead.py                 # with orjson, which the extra `speed` installs
    python benchmarks/overhead.py --no-orjson     # as if it were not installed
    python benchmarks/overhead.py --profile 50    # where the time of our side goes, for pages of 50 messages

Both sides run by turns in one process, 16 requests at a time, against a server in another process; medians, and the
ratio of the medians. Both are the same loop, gather and a semaphore; what fetches is `await client.page(pack)` in one,
and aiohttp with `await response.json()`, which never uses orjson, in the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import aiohttp
from page import PACK, SELLER
from server import running

if TYPE_CHECKING:
    from mlmessages import MessagesClient

CONCURRENCY = 16
TOKEN = "APP_USR-benchmark"
Run = Callable[[int], Awaitable[int]]


def by_hand(session: aiohttp.ClientSession, base_url: str) -> Run:
    """The usual loop: gather, a semaphore, `response.json()`."""
    semaphore = asyncio.Semaphore(CONCURRENCY)

    async def fetch(pack: int) -> int:
        async with (
            semaphore,
            session.get(
                f"{base_url}/messages/packs/{pack}/sellers/{SELLER}",
                params={"tag": "post_sale", "limit": 50, "offset": 0, "mark_as_read": "false"},
                headers={"Authorization": f"Bearer {TOKEN}"},
            ) as response,
        ):
            response.raise_for_status()
            page = await response.json()
        return len(page["messages"])

    async def run(requests: int) -> int:
        return sum(await asyncio.gather(*(fetch(PACK + n) for n in range(requests))))

    return run


def with_library(client: MessagesClient, *, semaphore: bool) -> Run:
    """The same loop with this library."""
    gate = asyncio.Semaphore(CONCURRENCY) if semaphore else contextlib.nullcontext()

    async def fetch(pack: int) -> int:
        async with gate:
            page = await client.page(pack)
        return len(page.messages)

    async def run(requests: int) -> int:
        return sum(await asyncio.gather(*(fetch(PACK + n) for n in range(requests))))

    return run


def new_client(base_url: str, *, semaphore: bool) -> MessagesClient:
    from mlmessages import Limits, MessagesClient

    limits = Limits(reads=10**6, per_second=None, concurrency=32 if semaphore else CONCURRENCY)
    return MessagesClient(TOKEN, seller_id=SELLER, base_url=base_url, limits=limits)


async def measure(
    base_url: str, rounds: int, requests: int, size: int, *, semaphore: bool
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of CPU and of wall time per request, of each round, by side."""
    async with aiohttp.ClientSession() as session, new_client(base_url, semaphore=semaphore) as client:
        sides = {"by hand": by_hand(session, base_url), "mlmessages": with_library(client, semaphore=semaphore)}
        taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in sides}
        for round_ in range(-1, rounds):  # round -1 warms up
            order = list(sides.items())
            for name, run in order if round_ % 2 else reversed(order):
                gc.collect()
                cpu, wall = time.process_time(), time.perf_counter()
                got = await run(requests)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                assert got == requests * size
                if round_ >= 0:
                    taken[name][0].append(cpu / requests)
                    taken[name][1].append(wall / requests)
    return taken


async def profile(base_url: str, requests: int) -> None:
    import cProfile
    import pstats

    async with new_client(base_url, semaphore=True) as client:
        run = with_library(client, semaphore=True)
        await run(requests)
        profiler = cProfile.Profile()
        profiler.enable()
        await run(requests)
        profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-orjson", action="store_true", help="as if the extra `speed` were not installed")
    parser.add_argument(
        "--limits", action="store_true", help="`Limits(concurrency=16)` instead of the semaphore on our side"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=600, help="in a round, of each side")
    parser.add_argument(
        "--profile", type=int, metavar="SIZE", help="profile our side instead, with pages of so many messages"
    )
    options = parser.parse_args()
    if options.no_orjson:
        sys.modules["orjson"] = None  # type: ignore[assignment]  # importing it fails from here on
    if options.profile:
        with running(options.profile) as base_url:
            asyncio.run(profile(base_url, options.requests))
        return

    loader = "orjson" if not options.no_orjson else "no orjson"
    print(f"{loader}, {options.rounds} rounds of {options.requests} requests, a third for the long pages\n")
    print("| page | | by hand, µs | mlmessages, µs | ratio |\n|---|---|---|---|---|")
    for size in (1, 50):
        requests = options.requests if size == 1 else max(options.requests // 3, 1)
        with running(size) as base_url:
            taken = asyncio.run(measure(base_url, options.rounds, requests, size, semaphore=not options.limits))
        for i, what in enumerate(("CPU", "wall")):
            hand, ours = (statistics.median(taken[name][i]) * 1e6 for name in ("by hand", "mlmessages"))
            print(f"| {size} message{'s' if size > 1 else ''} | {what} | {hand:.0f} | {ours:.0f} | {ours / hand:.2f} |")


if __name__ == "__main__":
    main()

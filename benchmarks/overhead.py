"""Client CPU and wall time per request: this library beside the loops that people write for this API.

    python benchmarks/overhead.py                 # with orjson, which the extra `speed` installs
    python benchmarks/overhead.py --no-orjson     # as if it were not installed
    python benchmarks/overhead.py --profile 50    # where the time of our side goes, for pages of 50 messages

Three loops run by turns in one process, 16 requests at a time, against a server in another process: medians, and their
ratio to the typed loop. Each loop is gather and a semaphore, and each uses the usual fields of every message: its id,
who wrote it, when, whether it was read, its status and its text. What differs is how a page is fetched:

- mlmessages: `await client.page(pack)`;
- typed: aiohttp, orjson.loads (json.loads without orjson) and pydantic models of the same fields;
- untyped: aiohttp with `await response.json()`, which never uses orjson, and dicts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiohttp
from page import PACK, SELLER
from server import running

if TYPE_CHECKING:
    from mlmessages import MessagesClient

CONCURRENCY = 16
TOKEN = "APP_USR-benchmark"
Fetch = Callable[[int], Awaitable[int]]  # of a pack: how many messages it has
Run = Callable[[int], Awaitable[int]]


def asked(session: aiohttp.ClientSession, base_url: str, pack: int) -> Any:
    """The request of both loops by hand."""
    return session.get(
        f"{base_url}/messages/packs/{pack}/sellers/{SELLER}",
        params={"tag": "post_sale", "limit": 50, "offset": 0, "mark_as_read": "false"},
        headers={"Authorization": f"Bearer {TOKEN}"},
    )


def untyped(session: aiohttp.ClientSession, base_url: str) -> Fetch:
    async def fetch(pack: int) -> int:
        async with asked(session, base_url, pack) as response:
            response.raise_for_status()
            page = await response.json()
        used = [
            (
                m["id"],
                m["from"]["user_id"],
                m["message_date"]["created"],
                m["message_date"]["read"],
                m["status"],
                m["text"],
            )
            for m in page["messages"]
        ]
        return len(used)

    return fetch


def typed(session: aiohttp.ClientSession, base_url: str, loads: Callable[[bytes], Any]) -> Fetch:
    from wire_models import Page

    async def fetch(pack: int) -> int:
        async with asked(session, base_url, pack) as response:
            response.raise_for_status()
            page = Page.model_validate(loads(await response.read()))
        used = [
            (m.id, m.from_.user_id, m.message_date.created, m.message_date.read, m.status, m.text)  # type: ignore[union-attr]
            for m in page.messages
        ]
        return len(used)

    return fetch


def with_library(client: MessagesClient) -> Fetch:
    async def fetch(pack: int) -> int:
        page = await client.page(pack)
        used = [(m.id, m.sender_id, m.created, m.read, m.status, m.text) for m in page.messages]
        return len(used)

    return fetch


def all_at_once(fetch: Fetch, *, semaphore: bool = True) -> Run:
    """The loop: so many packs, 16 at a time."""
    gate: Any = asyncio.Semaphore(CONCURRENCY) if semaphore else contextlib.nullcontext()

    async def one(pack: int) -> int:
        async with gate:
            return await fetch(pack)

    async def run(requests: int) -> int:
        return sum(await asyncio.gather(*(one(PACK + n) for n in range(requests))))

    return run


def new_client(base_url: str, *, semaphore: bool) -> MessagesClient:
    from mlmessages import Limits, MessagesClient

    limits = Limits(reads=10**6, per_second=None, concurrency=32 if semaphore else CONCURRENCY)
    return MessagesClient(TOKEN, seller_id=SELLER, base_url=base_url, limits=limits)


async def measure(
    base_url: str, rounds: int, requests: int, size: int, loads: Callable[[bytes], Any], *, semaphore: bool
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of CPU and of wall time per request, of each round, by side."""
    async with aiohttp.ClientSession() as session, new_client(base_url, semaphore=semaphore) as client:
        sides = {
            "typed": all_at_once(typed(session, base_url, loads)),
            "mlmessages": all_at_once(with_library(client), semaphore=semaphore),
            "untyped": all_at_once(untyped(session, base_url)),
        }
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
        run = all_at_once(with_library(client))
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
        loads: Callable[[bytes], Any] = json.loads
    else:
        import orjson

        loads = orjson.loads
    if options.profile:
        with running(options.profile) as base_url:
            asyncio.run(profile(base_url, options.requests))
        return

    loader = "orjson" if not options.no_orjson else "no orjson"
    print(f"{loader}, {options.rounds} rounds of {options.requests} requests, a third for pages of 10 and 50\n")
    print("| page | | typed, µs | mlmessages, µs | untyped, µs | mlmessages of typed | of untyped |")
    print("|---|---|---|---|---|---|---|")
    for size in (1, 10, 50):
        requests = options.requests if size == 1 else max(options.requests // 3, 1)
        with running(size) as base_url:
            taken = asyncio.run(measure(base_url, options.rounds, requests, size, loads, semaphore=not options.limits))
        for i, what in enumerate(("CPU", "wall")):
            rival, ours, dicts = (
                statistics.median(taken[name][i]) * 1e6 for name in ("typed", "mlmessages", "untyped")
            )
            print(
                f"| {size} message{'s' if size > 1 else ''} | {what} | {rival:.0f} | {ours:.0f} | {dicts:.0f}"
                f" | {ours / rival:.2f} | {ours / dicts:.2f} |"
            )


if __name__ == "__main__":
    main()

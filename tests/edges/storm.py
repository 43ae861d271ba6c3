"""A program: 2,000 mixed requests, errors, cancellations and drains over real sockets; at the end nothing may be left.

Run by `test_leaks.py` in a process of its own, with asyncio's debug mode and every warning an error.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
from pathlib import Path

import aiohttp

from mlmessages import Limits, MessagesClient, Retry
from mlmessages.errors import MessagesError
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    RESET,
    Behaviour,
    Garbage,
    Redirect,
    Reply,
    Sandbox,
    Truncate,
    on,
)

RULES = [
    on("any", every=11).do(DROP),
    on("any", every=13).do(Reply(503)),
    on("any", every=17).do(EXECUTE, Truncate(30)),
    on("any", every=19).do(RESET),
    on("any", every=23).do(Garbage()),
    on("any", every=29).do(Redirect("http://127.0.0.1:9/")),
    on("any", every=31).do(Reply(403)),
    on("any", every=197).do(HANG),
]


def descriptors() -> set[str]:
    """The open files and sockets of this process, where the system tells."""
    listing = Path("/proc/self/fd")
    return set(os.listdir(listing)) if listing.exists() else set()  # noqa: PTH208 - names are enough


async def one(client: MessagesClient, pack_id: str, chance: random.Random) -> None:
    """One call of some kind; half of them are cancelled on the way."""
    calls = (
        lambda: client.page(pack_id),
        lambda: client.page(pack_id, mark_as_read=True),
        client.unread,
        lambda: client.unread_count(pack_id),
        lambda: client.message_by_id("no-such-message"),
        lambda: client.mark_read(pack_id),
        lambda: anext(client.messages(pack_id, limit=2)),
        lambda: anext(client.drain(concurrency=2)),
    )
    task = asyncio.ensure_future(chance.choice(calls)())
    if chance.random() < 0.3:
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
    [result] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, BaseException) and not isinstance(
        result, (MessagesError, asyncio.CancelledError, StopAsyncIteration)
    ):
        raise result


async def storm(sandbox: Sandbox, base_url: str, session: aiohttp.ClientSession | None) -> None:
    """A thousand requests, by forty at a time, in an order that is the same each time."""
    chance = random.Random(7)
    limits = Limits(reads=10**6, per_second=None, concurrency=20)
    async with MessagesClient(
        sandbox.token,
        seller_id=sandbox.seller_id,
        base_url=base_url,
        session=session,
        limits=limits,
        retry=Retry(attempts=3, base=0.001, cap=0.005),
        timeout=0.2,
    ) as client:
        packs = sandbox.pack_ids()
        enough = len(sandbox.log) + 1000
        while len(sandbox.log) < enough:
            await asyncio.gather(*(one(client, chance.choice(packs), chance) for _ in range(40)))


async def main() -> None:
    """The storm twice: over the client's own session, and over a lent one that has a single connection."""
    asyncio.get_running_loop().slow_callback_duration = float("inf")  # which says nothing but that the machine is busy
    sandbox = Sandbox(packs=60, messages=5, behaviour=Behaviour(cap=50), rules=RULES)
    async with sandbox.serve() as served:
        await storm(sandbox, served.base_url, None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            await storm(sandbox, served.base_url, session)
            for rule in RULES:
                sandbox.remove(rule)
            async with session.get(served.base_url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                await answer.read()  # the one connection is free: otherwise this would wait for ever
    assert len(sandbox.log) > 2000
    while others := asyncio.all_tasks() - {asyncio.current_task()}:  # the server's side of what was reset
        await asyncio.wait(others)  # what never ends is the time-out of this program's parent


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(asyncio.sleep(0))
    before = descriptors()
    asyncio.run(main())
    gc.collect()
    assert descriptors() == before, descriptors() ^ before
    print("nothing is left")  # noqa: T201

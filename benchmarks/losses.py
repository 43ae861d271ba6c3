"""What the loop that everybody writes by hand loses, and what `drain()` does in the same world.

    python benchmarks/losses.py

Each world is a sandbox in memory on a virtual clock, so that every run gives the same counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from mlmessages import Limits, MessagesClient
from mlmessages.testing import EXECUTE, Behaviour, Pack, RateWindow, Reply, Sandbox, on, virtual_run

Program = Callable[[Sandbox], Awaitable[set[str]]]


async def by_hand(sandbox: Sandbox) -> set[str]:
    """List, then read each conversation: a plain GET, which marks it as read."""
    seen: set[str] = set()
    headers = {"Authorization": f"Bearer {sandbox.token}"}
    slots = asyncio.Semaphore(16)
    async with aiohttp.ClientSession(connector=sandbox.connector(), headers=headers) as session:
        url = f"{sandbox.base_url}/marketplace/messages/unread?role=seller&tag=post_sale"
        async with session.get(url) as response:
            packs = [row["resource"].split("/")[2] for row in (await response.json())["results"]]

        async def read(pack: str) -> None:
            url = f"{sandbox.base_url}/messages/packs/{pack}/sellers/{sandbox.seller_id}?tag=post_sale"
            async with slots, session.get(url) as response:
                response.raise_for_status()
                seen.update(message["id"] for message in (await response.json())["messages"])

        await asyncio.gather(*map(read, packs), return_exceptions=True)
    return seen


async def by_drain(sandbox: Sandbox) -> set[str]:
    """The same job with this library, on its default budget."""
    seen: set[str] = set()
    async with (
        sandbox.session() as session,
        MessagesClient(
            sandbox.token, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session, limits=Limits()
        ) as client,
        client.drain() as drain,
    ):
        async for conversation in drain:
            seen.update(message.id for message in conversation.messages)
    return seen


def worlds() -> dict[str, Sandbox]:
    """One thing each that happens to a seller."""
    calm = {"latency": 0.12}
    return {
        "2,500 conversations": Sandbox(2500, behaviour=Behaviour(**calm)),
        "200 of 30 messages": Sandbox([Pack(messages=30) for _ in range(200)], behaviour=Behaviour(**calm)),
        "700 at 500 requests a minute": Sandbox(700, behaviour=Behaviour(rate=RateWindow(), **calm)),
        "200, 1 answer in 50 a 502": Sandbox(
            200, behaviour=Behaviour(**calm), rules=[on("mark", every=50).do(EXECUTE, Reply(502))]
        ),
    }


def main() -> None:
    row = "{:30} {:12} {:>8} {:>10} {:>8} {:>6} {:>9}"
    print(row.format("world", "program", "messages", "handed over", "lost", "429s", "requests"))
    programs: dict[str, Program] = {"by hand": by_hand, "drain()": by_drain}
    for world in worlds():
        for name, program in programs.items():
            sandbox = worlds()[world]
            seen = virtual_run(program(sandbox))  # type: ignore[arg-type]
            lost = len(sandbox.marked_ids() - seen)
            total = len(sandbox.message_ids())
            print(row.format(world, name, total, len(seen), lost, sandbox.throttled, len(sandbox.log)))
    print("lost: marked as read by the program, and never seen by it; nothing can mark a message unread again")


if __name__ == "__main__":
    main()

"""What a conversation costs in requests, and what a SIGKILL costs in messages: the Inbox, `drain()`, the loop by hand.

    python benchmarks/inbox.py                 # some two minutes

The sandbox is served here, each program is a process. One message arrives at every tenth marking request, just before
it. A killed program is started again and runs to its end. Lost: shown as read by the server because of a marking
request, and in no line of the program's file. The settle time of the Inbox, 120 s by default, is 1 s here: the server
is near.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlmessages.testing import EXECUTE, Behaviour, Pack, Sandbox, Send, Server, on

SELLER = 700100200
CONCURRENCY = 8
Keep = Callable[[Iterable[str]], None]  # writes the ids of messages that were handed over
PROGRAMS = {"hand": "by hand", "drain": "`drain()`", "inbox": "`Inbox`"}


# -- the programs ------------------------------------------------------------------------------------------------------


async def by_hand(base_url: str, token: str, keep: Keep, _: str) -> None:
    """List, read each with a plain GET, which marks it, list again until nothing is left."""
    import aiohttp

    slots = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession(base_url, headers={"Authorization": f"Bearer {token}"}) as session:

        async def read(pack: str) -> None:
            url = f"/messages/packs/{pack}/sellers/{SELLER}?tag=post_sale&limit=50"
            async with slots, session.get(url) as response:
                response.raise_for_status()
                keep([message["id"] for message in (await response.json())["messages"]])

        while True:
            async with session.get("/marketplace/messages/unread?role=seller&tag=post_sale") as response:
                packs = [row["resource"].split("/")[2] for row in (await response.json())["results"]]
            if not packs:
                return
            await asyncio.gather(*map(read, packs))


async def by_drain(base_url: str, token: str, keep: Keep, _: str) -> None:
    from mlmessages import Limits, MessagesClient

    limits = Limits(reads=10**6, per_second=None)
    async with (
        MessagesClient(token, seller_id=SELLER, base_url=base_url, limits=limits) as client,
        client.drain(concurrency=CONCURRENCY) as drain,
    ):
        async for conversation in drain:
            keep([message.id for message in conversation.messages])


async def by_inbox(base_url: str, token: str, keep: Keep, journal: str) -> None:
    from mlmessages import Inbox, Limits, MessagesClient

    limits = Limits(reads=10**6, per_second=None)
    async with (
        MessagesClient(token, seller_id=SELLER, base_url=base_url, limits=limits) as client,
        Inbox(client, journal, concurrency=CONCURRENCY, settle_time=1.0) as inbox,
    ):
        async for delivery in inbox.drain():
            keep([message.id for message in delivery.messages])
            await delivery.ack()


def client(kind: str, base_url: str, token: str, out: str, journal: str) -> None:
    """One program; each line is with the operating system before the program goes on."""
    program = {"hand": by_hand, "drain": by_drain, "inbox": by_inbox}[kind]
    with Path(out).open("a") as file:

        def keep(ids: Iterable[str]) -> None:
            file.write(json.dumps(list(ids)) + "\n")
            file.flush()

        asyncio.run(program(base_url, token, keep, journal))


# -- the worlds --------------------------------------------------------------------------------------------------------


async def run(kind: str, server: Server, directory: Path, kill_at: int | None) -> None:
    """A program from its start to its end, or to its SIGKILL at the n-th marking request."""
    command = [__file__, "--client", kind, server.base_url, server.token]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, str(directory / "out"), str(directory / "journal")
    )
    while kill_at is not None and process.returncode is None:
        if server.sandbox.count("mark") >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        await asyncio.sleep(0.0005)
    code = await process.wait()
    if code and kill_at is None:
        raise SystemExit(f"{kind} ended with {code}")


async def world(kind: str, packs: int, *, kill_at: int | None = None, arrivals: bool = False) -> dict[str, Any]:
    rules = [on("mark", every=10).do(Send(), EXECUTE)] if arrivals else []
    sandbox = Sandbox([Pack(messages=3)] * packs, seller_id=SELLER, behaviour=Behaviour(latency=0.005), rules=rules)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with sandbox.serve() as server:
            if kill_at is not None:
                await run(kind, server, directory, kill_at)
            await run(kind, server, directory, None)
        out = (directory / "out").read_text().splitlines()
    handed = [id_ for line in out for id_ in json.loads(line)]
    return {
        "lost": len(sandbox.marked_ids() - set(handed)),
        "twice": len(handed) - len(set(handed)),
        "left": sandbox.unread,
        "reads": sandbox.count("mark") + sandbox.count("peek"),
        "listings": sandbox.count("listing"),
    }


async def measure(packs: int, kills: int) -> None:
    print(f"{packs:,} conversations of one page\n\n| | GETs of a conversation | listings |\n|---|--:|--:|")
    for kind, name in PROGRAMS.items():
        found = await world(kind, packs)
        assert found["lost"] == found["left"] == 0
        print(f"| {name} | {found['reads'] / packs:.3f} | {found['listings']} |", flush=True)
    print(f"\n300 conversations, {kills} runs with one SIGKILL each\n")
    print("| | lost messages, in all | in the worst run | handed over twice | left unread |\n|---|--:|--:|--:|--:|")
    for kind, name in PROGRAMS.items():
        runs = [
            await world(kind, 300, kill_at=15 + round(n * 270 / max(kills - 1, 1)), arrivals=True) for n in range(kills)
        ]
        sums = [sum(run[key] for run in runs) for key in ("lost", "twice", "left")]
        print(f"| {name} | {sums[0]} | {max(run['lost'] for run in runs)} | {sums[1]} | {sums[2]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=int, default=2500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(*options.client)
    else:
        asyncio.run(measure(options.packs, options.kills))


if __name__ == "__main__":
    main()

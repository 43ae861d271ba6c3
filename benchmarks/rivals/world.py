"""The one server process of `bulk.py`: a fresh sandbox for each run, on request, and what it counted.

A line of standard input names a workload and a file for the pack ids, and is answered with where it is served; the line
after it ends that world, and is answered with what it counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

from mlmessages.testing import Behaviour, Pack, RateWindow, Reply, Sandbox, on

WORLDS: dict[str, Callable[[], Sandbox]] = {
    "A": lambda: Sandbox([Pack(messages=120)] * 100, behaviour=Behaviour(max_limit=50, latency=0.005)),
    "B": lambda: Sandbox([Pack(messages=10)] * 400, behaviour=Behaviour(latency=0.05)),
    "C": lambda: Sandbox(
        [Pack(messages=120)] * 30,
        behaviour=Behaviour(max_limit=50, latency=0.005),
        rules=[on("pack", every=10).do(Reply(429, {"message": "local_rate_limited"}, {"Retry-After": "1"}))],
    ),
    "D": lambda: Sandbox([Pack(messages=120)] * 100, behaviour=Behaviour(max_limit=50, latency=0.005)),
    "E": lambda: Sandbox(2500, behaviour=Behaviour(latency=0.005, rate=RateWindow(reads=500, period=6.0))),
    "memory": lambda: Sandbox(100_000),
}


async def next_line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def serve(sandbox: Sandbox) -> None:
    """Serve one world until the next line."""
    face = sandbox.open_face()
    connections = 0

    def connection() -> asyncio.BaseProtocol:
        nonlocal connections
        connections += 1
        return face.connection()

    listener = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0, backlog=1024)
    told = {
        "base_url": f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}",
        "token": sandbox.token,
        "seller": sandbox.seller_id,
        "messages": len(sandbox.message_ids()),
    }
    print(json.dumps(told), flush=True)
    await next_line()
    statuses = [entry.status for entry in sandbox.log]
    print(
        json.dumps({"requests": len(statuses), "connections": connections, "refused": statuses.count(429)}), flush=True
    )
    listener.close()
    await face.stop()


async def main() -> None:
    while line := (await next_line()).strip():
        workload, packs = line.split(maxsplit=1)
        sandbox = WORLDS[workload]()
        await asyncio.to_thread(Path(packs).write_text, "\n".join(sandbox.pack_ids()))
        await serve(sandbox)


if __name__ == "__main__":
    asyncio.run(main())

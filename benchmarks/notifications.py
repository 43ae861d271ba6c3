"""How fast notifications are taken: a burst over real sockets, each answered when it is on the disk.

    python benchmarks/notifications.py                     # 5,000 posts at 1,000 a second
    python benchmarks/notifications.py --posts 20000 --rate 2000

The endpoint is a process of its own, as in a service; one post in ten is a duplicate. Afterwards the journal is opened
and every message must be in it. Milliseconds are from the moment at which a post was due, not from when it was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

SECRET = "a-secret-of-24-characters"
APP = 5503910054140000
SELLER = 700100200


async def endpoint(path: str) -> None:
    """Serve until stdin ends."""
    from mlmessages import Inbox, MessagesClient, web

    async with (
        MessagesClient("APP_USR-x", seller_id=SELLER) as client,
        Inbox(client, path) as inbox,
        web.serve(inbox, secret=SECRET, application_id=APP, port=0) as root,
    ):
        print(root, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def burst(posts: int, rate: float, path: Path) -> dict[str, object]:
    import aiohttp

    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = f"{(await process.stdout.readline()).decode().strip()}/notifications/{SECRET}"
    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as session:

        async def post(number: int, due: float) -> None:
            body = {
                "_id": f"n{number}",
                "topic": "marketplace_messages",
                "resource": f"/marketplace/messages/m{number - number % 10 // 9}",  # the tenth is the ninth again
                "user_id": str(SELLER),
                "application_id": APP,
            }
            async with session.post(url, data=json.dumps(body).encode()) as answer:
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
            latencies.append(time.perf_counter() - due)

        await asyncio.gather(*(post(0, time.perf_counter()) for _ in range(20)))  # connections
        latencies.clear()
        statuses.clear()
        begin = time.perf_counter()
        tasks = []
        for number in range(posts):
            due = begin + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(post(number, due)))
        await asyncio.gather(*tasks)
        seconds = time.perf_counter() - begin
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
    db = sqlite3.connect(path)
    rows = {row[0] for row in db.execute("SELECT id FROM notification")}
    db.close()
    wanted = {f"m{number - number % 10 // 9}" for number in range(posts)}
    latencies.sort()

    def at(share: float) -> float:
        return round(1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)], 1)

    figures = {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}
    return {"posts": posts, "seconds": round(seconds, 2), **figures, "statuses": statuses, "lost": len(wanted - rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posts", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--serve", metavar="FILE")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(endpoint(options.serve))
        return
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(burst(options.posts, options.rate, Path(directory) / "inbox.db")), indent=1))


if __name__ == "__main__":
    main()

"""How fast notifications are taken: a burst over real sockets, each answered when it is on the disk.

    python benchmarks/notifications.py                     # 5,000 posts at 1,000 a second, into a file
    python benchmarks/notifications.py --replicas 4        # the same by four processes, into PostgreSQL
    python benchmarks/notifications.py --posts 20000 --rate 2000

Each endpoint is a process of its own, as in a service; one post in ten is a duplicate, and goes to another replica.
Afterwards every message must be in the journal. Milliseconds are from the moment at which a post was due, not from when
it was sent. PostgreSQL, with twenty sellers, is what `--database URL` names, else one that the tests' fixture starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from database import empty_database, server_version

SECRET = "a-secret-of-24-characters"
APP = 5503910054140000
SELLER = 700100200
SELLERS = 20  # in PostgreSQL


async def endpoint(path: str) -> None:
    """Serve one seller's journal in a file until stdin ends."""
    from mlmessages import Inbox, MessagesClient, web

    async with (
        MessagesClient("APP_USR-x", seller_id=SELLER) as client,
        Inbox(client, path) as inbox,
        web.serve(inbox, secret=SECRET, application_id=APP, port=0) as root,
    ):
        print(root, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def replica(url: str) -> None:
    """Serve the sellers of a database until stdin ends."""
    from mlmessages import Database, web

    async with (
        Database(url, key=None) as database,
        web.serve(database, secret=SECRET, application_id=APP, port=0) as root,
    ):
        print(root, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def add_sellers(url: str) -> None:
    from mlmessages import Database
    from mlmessages.models import Token

    async with Database(url, key=None) as database:
        for number in range(SELLERS):
            until = datetime.now(UTC) + timedelta(hours=6)
            await database.add(Token("APP_USR-x", "TG-x", until, user_id=str(SELLER + number)))


def message_of(number: int) -> int:
    """The message that a post names: the tenth is the ninth again."""
    return number - number % 10 // 9


async def burst(posts: int, rate: float, commands: list[list[str]], sellers: int) -> dict[str, object]:
    """Post to each of the endpoints in turn."""
    import aiohttp

    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async with AsyncExitStack() as stack:
        endpoints = []
        for command in commands:
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stdin is not None
            stack.push_async_callback(process.wait)
            stack.callback(process.stdin.close)
            endpoints.append(f"{(await process.stdout.readline()).decode().strip()}/notifications/{SECRET}")
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)))

        async def post(number: int, due: float) -> None:
            body = {
                "_id": f"n{number}",
                "topic": "marketplace_messages",
                "resource": f"/marketplace/messages/m{message_of(number)}",
                "user_id": str(SELLER + message_of(number) % sellers),
                "application_id": APP,
            }
            async with session.post(endpoints[number % len(endpoints)], data=json.dumps(body).encode()) as answer:
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
            latencies.append(time.perf_counter() - due)

        await asyncio.gather(*(post(n % len(endpoints), time.perf_counter()) for n in range(20)))  # connections
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
    latencies.sort()

    def at(share: float) -> float:
        return round(1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)], 1)

    figures = {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}
    return {"posts": posts, "seconds": round(seconds, 2), "a_second": round(posts / seconds), **figures} | {
        "statuses": statuses
    }


def kept_in_file(path: Path) -> set[str]:
    db = sqlite3.connect(path)
    rows = {row[0] for row in db.execute("SELECT id FROM notification")}
    db.close()
    return rows


def kept_in_database(url: str) -> tuple[set[str], int]:
    """The messages that are written down, and how often two replicas waited for each other until one was ended."""
    import psycopg

    with psycopg.connect(url) as connection:
        kept = {row[0] for row in connection.execute("SELECT id FROM mlmessages.notification")}
        asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        [(deadlocks,)] = connection.execute(asked).fetchall()
    return kept, deadlocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--replicas", type=int, default=0, help="processes on one PostgreSQL; 0: one on a file")
    parser.add_argument("--database", metavar="URL", help="an empty database")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--serve-database", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(endpoint(options.serve))
        return
    if options.serve_database:
        asyncio.run(replica(os.environ["BENCHMARK_DATABASE"]))
        return
    wanted = {f"m{message_of(number)}" for number in range(options.posts)}
    if options.replicas or options.database:
        url = os.environ["BENCHMARK_DATABASE"] = options.database or empty_database()
        asyncio.run(add_sellers(url))
        commands = [["--serve-database"]] * (options.replicas or 1)
        found = {"in": server_version(url), "replicas": len(commands)}
        found |= asyncio.run(burst(options.posts, options.rate, commands, SELLERS))
        kept, found["deadlocks"] = kept_in_database(url)
    else:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "inbox.db"
            found = {"in": "a file", "replicas": 1}
            found |= asyncio.run(burst(options.posts, options.rate, [["--serve", str(path)]], 1))
            kept = kept_in_file(path)
    print(json.dumps(found | {"lost": len(wanted - kept)}, indent=1))


if __name__ == "__main__":
    main()

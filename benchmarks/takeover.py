# ruff: noqa: ASYNC110 -- what is waited for happens in other processes
"""How long until another process delivers what a process held that was killed, or stopped in order.

    python benchmarks/takeover.py                          # lease 30 s, settle_time 120 s: minutes a round
    python benchmarks/takeover.py --lease 3 --settle-time 1 --rounds 10

Three programs as README writes them, on PostgreSQL, with nine sellers. One of them is ended while a marking request of
each of its sellers is on its way, and will never be answered; at that moment a buyer writes in another conversation of
each of these sellers, and no notification comes. Measured for each of these sellers, from the moment of the signal:

- held: until another process has the seller.
- first delivery: until what the buyer wrote then is in a handler.
- in flight: until the message of the request that was on its way is in a handler.

PostgreSQL is what `--database URL` names, else one that the tests' fixture starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from database import empty_database, server_version

from mlmessages import Database, Delivery, Fleet
from mlmessages.models import Token
from mlmessages.testing import HANG, Marketplace, on

SELLERS, PROGRAMS = 9, ("one", "two", "three")


async def program(name: str) -> None:
    """One process of the fleet; it prints which message it has, and when."""
    env = os.environ

    async def on_delivery(delivery: Delivery) -> None:
        for message in delivery.messages:
            os.write(1, f"{message.id} {time.time()}\n".encode())

    lease, settle_time = float(env["BENCHMARK_LEASE"]), float(env["BENCHMARK_SETTLE_TIME"])
    async with Database(env["BENCHMARK_DATABASE"], key=None, name=name, lease=lease) as database:
        fleet = Fleet(database, env["ID"], env["SECRET"], base_url=env["BASE_URL"], settle_time=settle_time)
        await fleet.run(on_delivery)


class Trial:
    """Three programs with their sellers, and what they printed."""

    def __init__(self, database: Database, marketplace: Marketplace) -> None:
        self.database, self.marketplace = database, marketplace
        self.programs: dict[str, asyncio.subprocess.Process] = {}
        self.delivered: dict[str, float] = {}
        self._reading: list[asyncio.Task[None]] = []

    async def start(self, name: str, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, "--program", name]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        self.programs[name] = process
        self._reading.append(asyncio.create_task(self._read(process)))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            message, moment = line.decode().split()
            self.delivered.setdefault(message, float(moment))

    async def holders(self) -> dict[str, str | None]:
        return {row.seller_id: row.holder if row.alive else None for row in await self.database.overview()}

    async def until(self, there: Callable[[], bool]) -> None:
        while not there():
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        for process in self.programs.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
        await asyncio.gather(*self._reading)


async def trial(
    how: signal.Signals, options: argparse.Namespace, url: str, number: int
) -> list[tuple[float | None, ...]]:
    """End a program that holds sellers; return the seconds of each of these."""
    marketplace = Marketplace(sellers=SELLERS, packs=2)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(marketplace.serve())
        database = await stack.enter_async_context(Database(url, key=None, name="benchmark"))
        now = datetime.now(UTC)
        for row in await database.sellers():
            await database.remove(row.seller_id)
        for seller in marketplace.sellers:
            oauth, until = seller.oauth, now + timedelta(hours=6)
            await database.add(Token(oauth.access_token, oauth.refresh_token, until, now, seller.seller_id))
        environment = {
            **os.environ,
            "BENCHMARK_DATABASE": url,
            "BENCHMARK_LEASE": str(options.lease),
            "BENCHMARK_SETTLE_TIME": str(options.settle_time),
            "ID": marketplace.application.client_id,
            "SECRET": marketplace.application.client_secret,
            "BASE_URL": served.base_url,
        }
        running = Trial(database, marketplace)
        stack.push_async_callback(running.end)
        for name in PROGRAMS:
            await running.start(name, environment)
        await running.until(lambda: running.delivered.keys() >= marketplace.message_ids())
        while sorted([*(await running.holders()).values()], key=str) != sorted(PROGRAMS * (SELLERS // 3)):
            await asyncio.sleep(0.05)
        victim = PROGRAMS[number % 3]
        mine = [s for s in marketplace.sellers if (await running.holders())[s.seller_id] == victim]

        hanging = [on("mark", pack=seller.pack_ids()[0], times=1).do(HANG) for seller in mine]
        for rule in hanging if how is signal.SIGKILL else ():
            marketplace.add(rule)
        in_flight, written = {}, {}
        before = len(marketplace.log)
        if how is signal.SIGKILL:
            for seller in mine:
                in_flight[seller.seller_id] = seller.send(seller.pack_ids()[0], "¿Y bien?")
                await database.journals.notice(seller.seller_id, None)  # unnamed: else it is looked up by its id
            await running.until(lambda: sum(entry.kind == "mark" for entry in marketplace.log[before:]) == len(mine))
        begun = time.time()
        running.programs[victim].send_signal(how)
        for seller in mine:
            written[seller.seller_id] = seller.send(seller.pack_ids()[1], "¿Hola?")
        held: dict[str, float] = {}
        while len(held) < len(mine):
            for seller_id, holder in (await running.holders()).items():
                if seller_id in written and holder not in (None, victim):
                    held.setdefault(seller_id, time.time() - begun)
            await asyncio.sleep(0.05)
        await running.until(lambda: running.delivered.keys() >= {*written.values(), *in_flight.values()})
        return [
            (
                held[seller_id],
                running.delivered[message] - begun,
                running.delivered[in_flight[seller_id]] - begun if in_flight else None,
            )
            for seller_id, message in written.items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--settle-time", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", metavar="URL", help="a database whose sellers may be removed")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        asyncio.run(program(options.program))
        return
    url = options.database or empty_database()
    print(f"{server_version(url)}; lease {options.lease:g} s, settle_time {options.settle_time:g} s\n")
    print(
        "| ended by | sellers | held: median, most, s | first delivery: median, most, s | in flight: median, most, s |"
    )
    print("|---|--:|--:|--:|--:|")
    for how, name in ((signal.SIGKILL, "kill -9"), (signal.SIGTERM, "SIGTERM")):
        found = [row for n in range(options.rounds) for row in asyncio.run(trial(how, options, url, n))]
        columns = [[value for value in column if value is not None] for column in zip(*found, strict=True)]
        cells = [f"{statistics.median(c):.1f}, {max(c):.1f}" if c else "none" for c in columns]
        print(f"| {name} | {len(found)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

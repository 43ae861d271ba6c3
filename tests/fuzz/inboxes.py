"""The `Inbox` on a hostile server, with kills and restarts, in virtual time: by hand with `drain`, or served by `run`.

A kill is what it is to a journal: its files as they are at that moment, and a process that is never heard of again. What
that process had sent goes on at the server.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import aiohttp
from attrs import define, field

from mlmessages import Delivery, Inbox, Limits, MessagesClient, Retry
from mlmessages.errors import MessagesError
from mlmessages.testing import virtual_run

from .server import SELLER
from .wire import Wire
from .world import ATTEMPTS, EVER, LATEST, SETTLE, TIMEOUT, Outcome, World, now, world_of

DAY = 25 * 3600.0
"""Longer than a pack stays parked."""


@define(eq=False)
class Truth:
    """What the consumers of all processes were handed."""

    delivered: set[str] = field(factory=set)
    acknowledged: set[str] = field(factory=set)
    of_this_life: set[str] = field(factory=set)
    wrong: list[str] = field(factory=list)
    kills: int = 0
    dead: bool = False  # the process was killed: what its tasks still do, it did not do

    def begin_life(self) -> None:
        """A new process."""
        self.of_this_life, self.dead = set(), False

    def take(self, delivery: Delivery, *, again: bool = False) -> None:
        """Check a delivery. `again`: a service repeats what its handler failed at."""
        if self.dead:
            return
        ids = [message.id for message in delivery.messages]
        if not ids or len(ids) != len(set(ids)):
            self.wrong.append("empty, or a message twice in it")
        if self.acknowledged & set(ids):
            self.wrong.append("acknowledged, and delivered again")
        if not again and self.of_this_life & set(ids):
            self.wrong.append("delivered twice in one process")
        if not delivery.redelivered and self.delivered & set(ids):
            self.wrong.append("delivered before, and it does not say so")
        created = [message.created for message in delivery.messages if message.created]
        if created != sorted(created):
            self.wrong.append("out of order")
        self.delivered.update(ids)
        self.of_this_life.update(ids)

    async def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge it."""
        await delivery.ack()
        if not self.dead:
            self.acknowledged.update(message.id for message in delivery.messages)


class Life:
    """One process with an inbox."""

    def __init__(self, world: World, path: Path, options: dict[str, object]) -> None:
        self._world = world
        self._path = path
        self._options = options
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[object]] = []

    async def begin(self) -> Inbox:
        """Start."""
        self._wire = Wire(self._world.answer)
        session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=self._wire))
        client = MessagesClient(
            "APP_USR-1",
            seller_id=SELLER,
            base_url="http://127.0.0.1",
            session=session,
            limits=Limits(reads=10**6, per_second=None),
            retry=Retry(attempts=ATTEMPTS, base=0.5, deadline=60),
            timeout=TIMEOUT,
        )
        await self._stack.enter_async_context(client)
        self.inbox = await self._stack.enter_async_context(Inbox(client, self._path, **self._options))  # type: ignore[arg-type]
        return self.inbox

    async def end(self) -> None:
        """Close all in order."""
        await self._stack.aclose()

    async def kill(self, to: Path) -> None:
        """Be gone: what was on the disk at this moment is at `to`."""
        with closing(
            sqlite3.connect(self._path, isolation_level=None)
        ) as reader:  # keeps a checkpoint from moving pages
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            for suffix in ("", "-wal"):
                if self._path.with_name(self._path.name + suffix).exists():
                    shutil.copyfile(self._path.with_name(self._path.name + suffix), to.with_name(to.name + suffix))
        self._wire.cut()
        with suppress(MessagesError, RuntimeError):
            await self._stack.aclose()


def inbox(seed: int) -> Outcome:
    """Live a few lives over one world, the last one to its end; seed by seed."""
    with tempfile.TemporaryDirectory() as folder:
        return virtual_run(_inbox(seed, Path(folder)))


async def _inbox(seed: int, folder: Path) -> Outcome:
    rng = random.Random(seed)
    world = world_of(rng)
    truth = Truth()
    options: dict[str, object] = {
        "concurrency": rng.choice([1, 3, 8]),
        "limit": rng.choice([2, 3, 5, 50]),
        "settle_time": SETTLE,
        "verify": rng.choice(["never", "never", "always"]),
        "park_after": rng.choice([1, 3]),
    }
    served = rng.random() < 0.4
    life_of_world = asyncio.ensure_future(world.life(rng.choice([0.0, 60.0, 400.0])))
    path = folder / "0.db"
    for number in range(rng.choice([0, 1, 2, 4])):
        life = Life(world, path, options)
        await life.begin()
        truth.begin_life()
        work = asyncio.ensure_future((_serve if served else _drain)(rng, life.inbox, truth))
        await asyncio.wait([work], timeout=rng.choice([0.05, 0.3, 1.0, 5.0, 40.0, 200.0]))
        if rng.random() < 0.7:
            truth.kills += 1
            truth.dead = True
            path = folder / f"{number + 1}.db"
            await life.kill(path)
            work.cancel()
            await asyncio.wait([work])
        else:
            work.cancel()
            await asyncio.wait([work])
            await life.end()
        await asyncio.sleep(rng.choice([0.0, 1.0, 30.0]))
    await _heal(world, life_of_world, path, options, truth)
    lost = [row.id for _, row in world.reached() if row.id not in truth.delivered]
    listed = world.server.listed(now())
    left = [
        row.id
        for pack, thread in world.server.threads.items()
        # A cap that nothing announces, full of packs with hidden messages: what is behind it cannot be seen.
        if pack in listed or len(listed) < world.habits.cap
        for row in thread.visible(now())
        if row.read is None and not row.by_seller
    ]
    habits = world.habits
    kind = (
        f"{'run' if served else 'drain'} {habits.order} marks={habits.marks} total={habits.total} lag={habits.lag:g}"
        f" late={habits.shows_read:g} {world.moderation} verify={options['verify']} kills={truth.kills}"
    )
    return Outcome(kind, "its end", world.requests, tuple(world.faults), tuple(lost), tuple(left), tuple(truth.wrong))


async def _heal(
    world: World, life_of_world: asyncio.Task[None], path: Path, options: dict[str, object], truth: Truth
) -> None:
    """Everything works again: a few drains, with a day between them, and nothing may be missing after that."""
    life_of_world.cancel()
    await asyncio.wait([life_of_world])
    world.quiet = True
    await asyncio.sleep(LATEST + TIMEOUT)
    life = Life(world, path, options)
    await life.begin()
    truth.begin_life()
    for _ in range(4):
        with suppress(MessagesError):
            async with asyncio.timeout(EVER), life.inbox.drain() as drain:
                async for delivery in drain:
                    truth.take(delivery)
                    await truth.acknowledge(delivery)
        await asyncio.sleep(DAY)
    if life.inbox.report.owed:
        truth.wrong.append("still owed in the end")
    await life.end()


async def _drain(rng: random.Random, inbox: Inbox, truth: Truth) -> None:
    """A consumer who drains again and again, acknowledges most, and leaves at times."""
    with suppress(MessagesError, RuntimeError):
        while True:
            with suppress(MessagesError):
                async for delivery in (drain := inbox.drain()):
                    truth.take(delivery)
                    if rng.random() < 0.3:
                        await asyncio.sleep(rng.choice([0.1, 5.0]))
                    if rng.random() < 0.9:
                        await truth.acknowledge(delivery)
                    if rng.random() < 0.05:
                        break
                await drain.aclose()
            await asyncio.sleep(rng.choice([1.0, 10.0, 200.0]))


async def _serve(rng: random.Random, inbox: Inbox, truth: Truth) -> None:
    """A service whose handler fails at times."""
    failed: set[str] = set()

    async def handler(delivery: Delivery) -> None:
        ids = {message.id for message in delivery.messages}
        truth.take(delivery, again=bool(ids & failed) and delivery.redelivered)
        await asyncio.sleep(rng.choice([0.0, 0.0, 0.2, 3.0]))
        if rng.random() < 0.2:
            failed.update(ids)
            raise ValueError("the handler fails")
        # Its return is the acknowledgement; but a kill may come before that is written.

    with suppress(MessagesError, RuntimeError):
        await inbox.run(handler, interval=rng.choice([5.0, 60.0]), grace=rng.choice([0.0, 5.0]))

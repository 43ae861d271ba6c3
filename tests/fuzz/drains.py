"""`client.drain()` on a hostile server and network, in virtual time, world by world."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import aiohttp
from attrs import define, field, frozen

from mlmessages import Drain, Limits, MessagesClient, Retry
from mlmessages.errors import MessagesError
from mlmessages.testing import virtual_run

from .server import SELLER, Habits, Order, Row, Server, Total
from .wire import Reply, Wire

SETTLE = 120.0
TIMEOUT = 10.0
LATEST = 100.0
"""Seconds after its answer was given up until which a request may still be executed."""

HTML = Reply(200, b"<html><body>maintenance</body></html>", content_type="text/html")
UNREADABLE = (HTML, Reply(200, b""), Reply(200, b'{"paging": null}'))
LOST_MARKS = (
    "dropped",
    "executed, dropped",
    "late",
    "twice",
    "executed, 502",
    "503",
    "executed, unreadable",
    "executed, slow",
)
READS = ("dropped", "503", "429", "unreadable", "slow")


@define
class Outcome:
    """What a world came to."""

    kind: str
    ended: str
    requests: int
    faults: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """True if a promise was broken."""
        return bool(self.lost or self.left or self.wrong)


@frozen
class Weather:
    """How often what goes wrong: shares of the requests."""

    marks: float
    reads: float
    listings: float
    refused: float


@define(eq=False)
class World:
    """A server, its weather, and what happens there: around requests, where it hurts, and at any time."""

    rng: random.Random
    habits: Habits
    weather: Weather
    moderation: str | None
    eager: float
    server: Server = field(init=False)
    requests: int = 0
    quiet: bool = False
    faults: list[str] = field(factory=list)
    events_left: int = 60  # around requests: else what grows while it is read grows for ever
    last_listing: float = -1.0
    last_event: float = -1.0

    def __attrs_post_init__(self) -> None:
        self.server = Server(self.habits, self.rng)

    # -- the network --

    async def answer(self, target: str) -> Reply | None:
        """Answer one request, well or not."""
        self.requests += 1
        path = urlsplit(target)
        query = parse_qs(path.query)
        await asyncio.sleep(self.rng.uniform(0.01, 0.2))
        if path.path.endswith("/unread"):
            return await self._listing()
        pack_id = path.path.split("/packs/")[1].split("/")[0]
        limit, offset = int(query["limit"][0]), int(query.get("offset", ["0"])[0])
        mark = query.get("mark_as_read") != ["false"]
        return await (self._mark if mark else self._read)(pack_id, limit, offset)

    async def _listing(self) -> Reply | None:
        if self._fails(self.weather.listings):
            return await self._failed_read("listing")
        self.last_listing = now()
        return Reply(200, self.server.listing(now()))

    async def _read(self, pack_id: str, limit: int, offset: int) -> Reply | None:
        self._perhaps(pack_id)
        if self._fails(self.weather.reads):
            return await self._failed_read("read")
        if self._fails(self.weather.refused):
            self.faults.append("refused")
            return Reply(self.rng.choice([403, 404]))
        body = self.server.page(pack_id, limit, offset, now(), mark=False)
        self._perhaps(pack_id)
        return Reply(200, body)

    async def _failed_read(self, what: str) -> Reply | None:
        fault = self.rng.choice(READS)
        self.faults.append(f"{what}: {fault}")
        if fault == "slow":
            await asyncio.sleep(TIMEOUT + 5)
        if fault == "unreadable":
            return self.rng.choice(UNREADABLE)
        if fault == "429":
            return Reply(429, headers=(("Retry-After", "1"),))
        return Reply(503) if fault == "503" else None

    async def _mark(self, pack_id: str, limit: int, offset: int) -> Reply | None:
        self._perhaps(pack_id)
        if self._fails(self.weather.refused):
            self.faults.append("mark refused")
            return Reply(403)
        if not self._fails(self.weather.marks):
            body = self.server.page(pack_id, limit, offset, now(), mark=True)
            self._perhaps(pack_id)
            return Reply(200, body)
        fault = self.rng.choice(LOST_MARKS)
        self.faults.append(f"mark: {fault}")
        if fault == "late":
            await asyncio.sleep(self.rng.uniform(TIMEOUT, TIMEOUT + LATEST))
        if fault not in ("dropped", "503"):
            self.server.page(pack_id, limit, offset, now(), mark=True)
            self._perhaps(pack_id)
        if fault == "twice":
            asyncio.get_running_loop().call_later(self.rng.uniform(1, LATEST), self._execute_again, pack_id)
        if fault == "executed, slow":
            await asyncio.sleep(TIMEOUT + 5)
        if fault == "executed, unreadable":
            return self.rng.choice(UNREADABLE)
        if fault == "executed, 502":
            return Reply(502)
        return Reply(503) if fault == "503" else None

    def _execute_again(self, pack_id: str) -> None:
        self.server.mark(pack_id, now())

    def _fails(self, share: float) -> bool:
        return not self.quiet and self.rng.random() < share

    # -- what happens --

    def _perhaps(self, pack_id: str) -> None:
        if not self.quiet and self.events_left and self.rng.random() < self.eager:
            self.events_left -= 1
            self.happen(pack_id)

    def happen(self, pack_id: str) -> None:
        """Something happens in a conversation."""
        self.last_event = now()
        rng, thread = self.rng, self.server.thread(pack_id)
        what = rng.random()
        visible = thread.visible(now())
        if what < 0.15:
            thread.write(now(), by_seller=True)
        elif what < 0.3 and self.moderation == "hides" and visible:
            thread.hide(rng.choice(visible), now(), now() + rng.choice([20.0, 300.0, float("inf")]))
        elif what < 0.5 and self.moderation == "releases":  # it was written before, and is shown from now on
            created = rng.choice(visible).created - 0.5 if visible else now() - 10
            thread.write(now(), created=created, appears=now())
        elif what < 0.55 and visible:
            for row in visible:
                row.read = row.read or now()  # the seller reads on the site
        else:
            for _ in range(rng.choice([1, 1, 1, 3, 8])):
                thread.write(now())

    async def life(self, seconds: float) -> None:
        """Things happen at any time, for so long; then it is quiet."""
        until = now() + seconds
        while now() < until:
            await asyncio.sleep(self.rng.expovariate(1 / 20))
            self.happen(self.rng.choice([*self.server.threads]))
        self.quiet = True

    # -- what is true --

    def reached(self) -> list[tuple[str, Row]]:
        """Each of the buyer's messages that a mark of ours made read, with its pack; not those that moderation took
        away since: no client can show them.
        """
        return [
            (pack_id, row)
            for pack_id, thread in self.server.threads.items()
            for row in thread.rows
            if row.by_us and row.read is not None and not any(start >= row.read for start, _ in row.hidden)
        ]


def now() -> float:
    """The virtual seconds."""
    return asyncio.get_running_loop().time()


def world_of(rng: random.Random) -> World:
    """A world: half of them in fair weather, where only the order of events is hostile."""
    order: Order = rng.choice(["newest", "newest", "oldest"])
    total: Total = rng.choice(["true", "true", "true", None])
    # Where nothing is counted, nothing gives away to an unmarked read that a replica is behind.
    lag = rng.choice([0.0, 0.0, 2.0]) if total else 0.0
    habits = Habits(
        order=order,
        marks=rng.choice(["pack", "pack", "page"]),
        total=total,
        size=rng.choice([2, 3, 50, 50]),
        told=rng.choice(["given", "given", "asked"]),
        shows_read=rng.choice([0.0, 0.0, 3.0]),
        lag=lag,
        stale=rng.choice([0.3, 1.0]) if lag else 0.0,
        cap=rng.choice([3, 1000]),
        spellings=rng.random() < 0.1,
    )
    storm = rng.choice([0.0, 0.1, 0.3])
    weather = Weather(
        marks=rng.choice([0.0, 0.2, 0.6]),
        reads=storm / 2,
        listings=storm / 3,
        refused=rng.choice([0.0, 0.0, storm / 5]),
    )
    world = World(rng, habits, weather, rng.choice([None, "hides", "releases"]), rng.choice([0.1, 0.4]))
    for number in range(rng.choice([1, 2, 4])):
        thread = world.server.thread(str(2000000000000001 + number))
        for i in range(rng.choice([1, 2, 5, 12])):
            thread.write(-1000.0 + i, by_seller=i > 0 and rng.random() < 0.3)
    return world


def drain(seed: int) -> Outcome:
    """Drain once, to the end or until the consumer, the client or the server ends it."""
    return virtual_run(_drain(seed))


async def _drain(seed: int) -> Outcome:
    rng = random.Random(seed)
    world = world_of(rng)
    ending = rng.choice(["its end", "its end", "break", "closed by another", "client closed", "cancelled"])
    limit, concurrency = rng.choice([2, 3, 5, 50]), rng.choice([1, 2, 8])
    wire = Wire(world.answer)
    life = asyncio.ensure_future(world.life(rng.choice([0.0, 60.0, 400.0])))
    seen: set[str] = set()
    ended = "?"
    wrong: list[str] = []
    cut = False
    async with aiohttp.ClientSession(connector=wire) as session:
        async with MessagesClient(
            "APP_USR-1",
            seller_id=SELLER,
            base_url="http://127.0.0.1",
            session=session,
            limits=Limits(reads=10**6, per_second=None),
            retry=Retry(attempts=3, base=0.5, deadline=60),
            timeout=TIMEOUT,
        ) as client:
            draining = client.drain(concurrency=concurrency, limit=limit, settle_time=SETTLE)
            consumer = asyncio.ensure_future(_consume(rng, draining, seen, wrong, ending))
            closing = None
            if ending in ("closed by another", "cancelled", "client closed"):
                closing = asyncio.ensure_future(asyncio.sleep(rng.expovariate(1 / 30)))
            await asyncio.wait([consumer] if closing is None else [consumer, closing], return_when="FIRST_COMPLETED")
            if closing is not None:
                closing.cancel()
            if not consumer.done() and ending == "cancelled":
                consumer.cancel()
                await asyncio.wait([consumer])
            if not consumer.done() and ending == "closed by another":
                cut = True
                await draining.aclose()
        await asyncio.wait([consumer])
        if consumer.cancelled():
            ended = "cancelled"
            if ending != "cancelled":
                wrong.append("the consumer was cancelled")
        else:
            ended = "closed by another" if cut else consumer.result()
        report = draining.report
        over = now()
        life.cancel()
        await wire.stop()
    shown = seen | {message.id for conversation in report.unseen for message in conversation.messages}
    lost = [row.id for pack, row in world.reached() if row.id not in shown and pack not in report.in_doubt]
    left = []
    if ended == "its end" and world.last_listing > world.last_event and not habits_hide(world):
        aside = {failure.pack_id for failure in report.set_aside}
        # A cap that nothing announces, full of packs that cannot be marked: what is behind it cannot be seen.
        hidden_by_cap = len(aside) >= world.habits.cap
        left = [
            row.id
            for pack, thread in world.server.threads.items()
            if pack not in aside and not hidden_by_cap
            for row in thread.visible(over)
            if row.read is None and not row.by_seller
        ]
        if report.in_doubt and not set(report.in_doubt) <= aside:
            wrong.append("in doubt after its end")
    h = world.habits
    kind = f"{h.order} marks={h.marks} total={h.total} lag={h.lag:g} late={h.shows_read:g} {world.moderation} {ending}"
    return Outcome(kind, ended, world.requests, tuple(world.faults), tuple(lost), tuple(left), tuple(wrong))


def habits_hide(world: World) -> bool:
    """True if moderation may bring a message back after the end."""
    return world.moderation == "hides"


async def _consume(rng: random.Random, draining: Drain, seen: set[str], wrong: list[str], ending: str) -> str:
    patience = rng.choice([1, 2, 5]) if ending == "break" else 10**6
    try:
        async for conversation in draining:
            ids = [message.id for message in conversation.messages]
            if set(ids) & seen:
                wrong.append("handed over twice")
            seen.update(ids)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0.1, 1.0, 30.0]))
            patience -= 1
            if not patience:
                break
    except MessagesError as error:
        return type(error).__name__
    except RuntimeError:
        return "the client is closed"
    with suppress(RuntimeError):
        await draining.aclose()
    return "its end" if patience else "break"

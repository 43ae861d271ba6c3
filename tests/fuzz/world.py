"""A world: a server, its network, and what happens there; and what the program under test made of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from attrs import define, evolve, field, frozen

from mlmessages.errors import DecodeError, MessagesError, RateLimited, ServerError, TransportError

from .server import Habits, Order, Row, Server, Total
from .wire import Reply

SETTLE = 120.0
TIMEOUT = 10.0
ATTEMPTS = 3
EVER = 10_000.0
"""Seconds after which what has not ended never will."""
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
    """How often what goes wrong: shares of the requests, and which of the faults there are here."""

    marks: float
    reads: float
    listings: float
    refused: float
    lost_marks: Sequence[str] = LOST_MARKS
    lost_reads: Sequence[str] = READS


@define(eq=False)
class World:
    """A server, its weather, and what happens there: around requests, where it hurts, and at any time."""

    rng: random.Random
    habits: Habits
    weather: Weather
    moderation: str | None
    eager: float
    events: Sequence[str] = ("answer",) * 3 + ("moderation",) * 5 + ("seen",) + ("arrival",) * 9
    bursts: Sequence[int] = (1, 1, 1, 3, 8)  # how many messages come at a time
    lengths: Sequence[int] = (1, 2, 5, 12)  # of the conversations
    between: float = 20.0  # seconds from what happens at any time to what happens next
    before_marks: float = field(init=False)  # how often something happens just before a mark
    server: Server = field(init=False)
    requests: int = 0
    quiet: bool = False
    faults: list[str] = field(factory=list)
    events_left: int = 60  # around requests: else what grows while it is read grows for ever
    last_listing: float = -1.0  # the moment that the last listing showed
    in_a_row: Counter[str] = field(factory=Counter)  # failed reads, of each pack and of the listing
    worst: Counter[str] = field(factory=Counter)  # the most of them in a row
    setbacks: Counter[str] = field(factory=Counter)  # of each pack: marks and reads that came to nothing for good
    last_event: float = -1.0

    def __attrs_post_init__(self) -> None:
        self.before_marks = self.eager

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
            return await self._failed_read("listing", "listing")
        self.in_a_row["listing"] = 0
        self.last_listing = now() - self.habits.listing_lag
        return Reply(200, self.server.listing(now()))

    async def _read(self, pack_id: str, limit: int, offset: int) -> Reply | None:
        self._perhaps(pack_id)
        if self._fails(self.weather.reads):
            return await self._failed_read("read", pack_id)
        self.in_a_row[pack_id] = 0
        if self._fails(self.weather.refused):
            self.faults.append("refused")
            self.setbacks[pack_id] += 1
            return Reply(self.rng.choice([403, 404]))
        body = self.server.page(pack_id, limit, offset, now(), mark=False)
        self._perhaps(pack_id)
        return Reply(200, body)

    def gave_up_early(self, error: MessagesError, what: str) -> bool:
        """True if what a retry would have cured ended the reads of a pack, or the listing."""
        passing = isinstance(error, (TransportError, ServerError, RateLimited)) or (
            isinstance(error, DecodeError) and "cannot be walked" not in str(error)
        )
        return passing and self.worst[what] < ATTEMPTS

    async def _failed_read(self, what: str, of: str) -> Reply | None:
        self.in_a_row[of] += 1
        self.worst[of] = max(self.worst[of], self.in_a_row[of])
        self.setbacks[of] += self.in_a_row[of] % ATTEMPTS == 0
        fault = self.rng.choice(self.weather.lost_reads)
        self.faults.append(f"{what}: {fault}")
        if fault == "slow":
            await asyncio.sleep(TIMEOUT + 5)
        if fault == "unreadable":
            return self.rng.choice(UNREADABLE)
        if fault == "429":
            return Reply(429, headers=(("Retry-After", "1"),))
        return Reply(503) if fault == "503" else None

    async def _mark(self, pack_id: str, limit: int, offset: int) -> Reply | None:
        self._perhaps(pack_id, self.before_marks)
        if self._fails(self.weather.refused):
            self.faults.append("mark refused")
            return Reply(403)
        if not self._fails(self.weather.marks):
            body = self.server.page(pack_id, limit, offset, now(), mark=True)
            self._perhaps(pack_id)
            return Reply(200, body)
        fault = self.rng.choice(self.weather.lost_marks)
        self.faults.append(f"mark: {fault}")
        self.setbacks[pack_id] += 1
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

    def _perhaps(self, pack_id: str, share: float | None = None) -> None:
        if not self.quiet and self.events_left and self.rng.random() < (self.eager if share is None else share):
            self.events_left -= 1
            self.happen(pack_id)

    def happen(self, pack_id: str) -> None:
        """Something happens in a conversation."""
        self.last_event = now()
        rng, thread = self.rng, self.server.thread(pack_id)
        what = rng.choice(self.events)
        visible = thread.visible(now())
        if what == "answer":
            thread.write(now(), by_seller=True)
        elif what == "moderation" and self.moderation == "hides" and visible:
            thread.hide(rng.choice(visible), now(), now() + rng.choice([20.0, 300.0, float("inf")]))
        elif what == "moderation" and self.moderation == "releases":  # it was written before, and is shown from now on
            created = rng.choice(visible).created - 0.5 if visible else now() - 10
            thread.write(now(), created=created, appears=now())
        elif what == "seen" and visible:
            for row in visible:
                row.read = row.read or now()  # the seller reads on the site
        else:
            for _ in range(rng.choice(self.bursts)):
                thread.write(now())

    async def life(self, seconds: float) -> None:
        """Things happen at any time, for so long; then it is quiet."""
        until = now() + seconds
        while now() < until:
            await asyncio.sleep(min(self.rng.expovariate(1 / self.between), until - now()))
            if now() < until:
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


def _some(rng: random.Random, faults: Sequence[str]) -> Sequence[str]:
    """All faults, or one or two of them: what takes the same fault twice is seldom met among all."""
    return rng.sample(faults, rng.choice([1, 2, len(faults)]))


def world_of(rng: random.Random) -> World:
    """A world: half of them in fair weather, where only the order of events is hostile; and half with a known trouble."""
    order: Order = rng.choice(["newest", "newest", "oldest"])
    total: Total = rng.choice(["true", "true", "true", None])
    # Where nothing is counted, nothing gives away to an unmarked read that a replica is behind.
    lag = rng.choice([0.0, 0.0, 2.0]) if total else 0.0
    late = rng.choice([0.0, 0.0, 3.0])
    habits = Habits(
        order=order,
        marks=rng.choice(["pack", "pack", "page"]),
        total=total,
        size=rng.choice([2, 3, 50, 50]),
        told=rng.choice(["given", "given", "asked"]),
        shows_read=late,
        lag=lag,
        stale=rng.choice([0.3, 1.0]) if lag else 0.0,
        cap=rng.choice([3, 1000]),
        listing_lag=rng.choice([0.0, 0.4, late]),
        spellings=rng.random() < 0.1,
    )
    storm = rng.choice([0.0, 0.1, 0.3])
    weather = Weather(
        marks=rng.choice([0.0, 0.2, 0.6]),
        reads=storm / 2,
        listings=storm / 3,
        refused=rng.choice([0.0, 0.0, storm / 5]),
        lost_marks=_some(rng, LOST_MARKS),
        lost_reads=_some(rng, READS),
    )
    # Where one is hidden and another comes within the seconds that a replica is behind, every count stays the same.
    moderation = rng.choice([None, "releases", None if lag else "hides"])
    world = World(rng, habits, weather, moderation, rng.choice([0.1, 0.4]))
    if rng.random() < 0.5:
        rng.choice(TROUBLES)(world)
    world.server = Server(world.habits, rng)
    for number in range(rng.choice([1, 2, 4])):
        thread = world.server.thread(str(2000000000000001 + number))
        for i in range(rng.choice(world.lengths)):
            thread.write(-1000.0 + i, by_seller=i > 0 and rng.random() < 0.3)
    return world


SELDOM = 2000.0


def _unreadable_marks_and_a_replica(world: World) -> None:
    world.habits = evolve(world.habits, total="true", lag=2.0, stale=1.0)
    world.weather = evolve(world.weather, marks=0.6, lost_marks=["executed, unreadable"])
    world.moderation, world.before_marks, world.between = None, 0.9, SELDOM


def _marks_that_show_late(world: World) -> None:
    """A server that is taken for one that marks what it returns."""
    world.habits = evolve(world.habits, marks="pack", shows_read=3.0, listing_lag=0.4, size=world.rng.choice([2, 3]))
    world.weather = evolve(world.weather, marks=0.0, refused=0.0)
    world.moderation, world.before_marks, world.eager, world.between = None, 0.6, 0.0, SELDOM
    world.events, world.bursts, world.lengths = ("arrival",), (3, 8), (1, 2)


def _releases_before_marks(world: World) -> None:
    world.habits = evolve(world.habits, size=world.rng.choice([2, 3]))
    world.moderation, world.before_marks, world.between = "releases", 0.9, SELDOM
    world.events, world.lengths = ("moderation",), (5, 12)


def _two_spellings_and_hidden_messages(world: World) -> None:
    world.habits = evolve(world.habits, spellings=True, lag=0.0, stale=0.0)
    world.moderation, world.events, world.eager = "hides", ("moderation", "moderation", "arrival"), 0.4


TROUBLES = (
    _unreadable_marks_and_a_replica,
    _marks_that_show_late,
    _releases_before_marks,
    _two_spellings_and_hidden_messages,
)
"""What once went wrong, made likely: each takes a few things at a time that chance seldom brings together."""

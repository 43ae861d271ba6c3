"""Processes on one store in memory, each driven a step at a time: the real engine, worker and journal."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, Literal

from attrs import define, field

from journal.stores import LEASE, SELLER, SETTLE
from mlmessages.journal.engine import Engine
from mlmessages.journal.journal import Journal
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.seats import Worker
from mlmessages.journal.store import Disconnected, Seat

CLAIMED, CHECKED, SENT, ANSWERED = "claimed", "checked", "sent", "answered"


class Line(MemoryStore):
    """A store whose connection breaks once when it is told to: the next transaction is executed, or is not."""

    breaks: Literal["before", "after"] | None = None

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        if self.breaks == "before":
            self.breaks = None
            raise Disconnected("the line broke before the commit")
        return super().begin(seats)

    def commit(self) -> None:
        super().commit()
        if self.breaks == "after":
            self.breaks = None
            raise Disconnected("the line broke after the commit")


@define(eq=False)
class Read:
    """A marking request of one pack, and how far it is."""

    pack: str
    at: str = CLAIMED
    since: float = 0.0  # it was checked, or sent
    shown: tuple[str, ...] = ()


@define(eq=False)
class Hand:
    """What a handler works on."""

    journal: Journal
    ids: tuple[str, ...]
    handled: bool = False


class Process:
    """One process start. It beats when it is told to: one that is stopped does not."""

    def __init__(self, memory: Memory, name: str) -> None:
        self.line: Final = Line(memory)
        self.engine: Final = Engine(lambda: self.line)
        self.worker: Final = Worker(self.engine, name=name, lease=LEASE)
        self.journal: Journal | None = None
        self.stopped = False
        self._forget()

    def _forget(self) -> None:
        self.reads: dict[str, Read] = {}
        self.hands: dict[str, Hand] = {}
        self.due: dict[str, float] = {}  # packs that are owed, and from when on
        self.given: set[str] = set()  # to the handler, since the seat was taken
        self.rung = False

    async def start(self) -> None:
        await self.engine.open()
        await self.worker.start()
        assert self.worker._beating is not None
        self.worker._beating.cancel()

    async def kill(self) -> None:
        """It gives nothing back."""
        await self.engine.close()

    async def take(self) -> None:
        """Take the seat, and take up what is owed, as an inbox does. Raises `JournalError`."""
        journal = Journal(self.worker.place_of(SELLER, SETTLE))
        await journal.open()
        self._forget()
        self.journal = journal
        journal.listen(self.ring)
        await journal.reopen_claims(SETTLE)
        await self.reload()

    def ring(self) -> None:
        self.rung = True

    async def reload(self) -> None:
        """Take in what is owed and was not known to be."""
        assert self.journal is not None
        self.rung = False
        for row in await self.journal.rows():
            if row.pack_id not in self.due and row.pack_id not in self.reads:
                self.due[row.pack_id] = asyncio.get_running_loop().time() + row.wait

    async def leave(self) -> None:
        """Close the journal after an error; the seat is given back, if it is held."""
        journal, self.journal = self.journal, None
        self._forget()
        if journal is not None:
            await journal.close()

    @property
    def holds(self) -> Seat | None:
        """The seat that it believes to hold."""
        return self.worker.seats[0] if self.worker.seats else None


@define(eq=False)
class Late:
    """A request whose sender is dead, or waits no more."""

    pack: str
    until: float  # it is executed by then, or never


@define
class Server:
    """Mercado Libre: the messages of each pack, and which of them are read."""

    packs: dict[str, list[str]] = field(factory=dict)
    read: set[str] = field(factory=set)

    def write(self, pack: str) -> None:
        ids = self.packs.setdefault(pack, [])
        ids.append(f"{pack}-{len(ids)}")

    def mark(self, pack: str) -> tuple[str, ...]:
        """A marking request: what it shows."""
        self.read.update(self.packs[pack])
        return tuple(self.packs[pack])

    def unread(self) -> dict[str, int]:
        """The listing."""
        counts = {pack: len(set(ids) - self.read) for pack, ids in self.packs.items()}
        return {pack: count for pack, count in counts.items() if count}

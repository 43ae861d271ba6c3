"""`Journal`: what one inbox writes down, one method for each step of its protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from ..errors import JournalError, LeaseLost
from .engine import Engine
from .sqlite import SqliteStore
from .store import FailedDelivery, FileStore, PendingCheck, Row, Seat, Store, Stored, StoredMessage

T = TypeVar("T")
_PURGE_EVERY: Final = 1000  # acknowledged bodies are overwritten in the engine's copies at least so often


class Place(Protocol):
    """Where the journal of one seller is kept."""

    async def enter(self) -> tuple[Engine, Seat]:
        """Take the seller's seat; return the engine to write with. Raises `JournalError` if another holds it."""

    async def leave(self) -> None:
        """Give the seat back to other processes."""

    def check(self) -> None:
        """Raise `LeaseLost` if the seat may be another's by now."""

    def listen(self, rung: Callable[[], None]) -> None:
        """Call `rung`, in the event loop, whenever another process has written to the journal that was entered."""

    async def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        """Keep for the next process how many permits of which kind come back within how many seconds."""

    async def spent(self) -> list[tuple[str, float, int]]:
        """Return what is left of what was kept."""


class SqlitePlace:
    """A file of one seller's own, with an engine of its own."""

    def __init__(self, path: Path, seller_id: str, open_store: Callable[[Path, str], FileStore] = SqliteStore) -> None:
        self._engine = Engine(lambda: open_store(path, seller_id))
        self._seat = Seat(seller_id)

    async def enter(self) -> tuple[Engine, Seat]:
        """Open the file. Raises `JournalError`."""
        await self._engine.open()
        return self._engine, self._seat

    async def leave(self) -> None:
        """Close the file, and free its lock."""
        await self._engine.close()

    def check(self) -> None:
        """Do nothing: the lock is held as long as this process lives."""

    def listen(self, rung: Callable[[], None]) -> None:
        """Do nothing: no other process writes to the file."""

    async def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        """Keep what the budget has spent, in the file. Raises `JournalError`."""
        await self._engine.write(self._seat, lambda store, _: store.keep_spent(spent), decision=True)

    async def spent(self) -> list[tuple[str, float, int]]:
        """Return what is left of it. Raises `JournalError`."""
        return await self._engine.ask(lambda store: store.spent())


class Journal:
    """What one inbox owes, has read and has had acknowledged; each write returns when it is durable.

    A caller that is cancelled while it waits changes nothing about what is written. Every method raises `JournalError`,
    and those that decide something `LeaseLost` where another worker holds the seat.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._engine: Engine | None = None
        self._seat: Seat | None = None
        self._breaks = 0
        self._forgotten = 1  # a process before this one may have ended before it overwrote what it forgot

    async def open(self) -> None:
        """Take the seat. Raises `JournalError`."""
        self._engine, self._seat = await self._place.enter()
        self._breaks = self._engine.breaks

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._engine is not None

    async def close(self) -> None:
        """Finish what was begun, give the seat back."""
        if self._engine is None:
            return
        self._engine = self._seat = None
        await self._place.leave()

    def check(self) -> None:
        """Raise `LeaseLost` if the seat may be another's by now: called directly before a marking request leaves."""
        self._place.check()

    def listen(self, rung: Callable[[], None]) -> None:
        """Call `rung`, in the event loop, whenever another process has written to the journal, which is open."""
        self._place.listen(rung)

    async def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        """Keep what the budget has spent for the process that opens the journal next, if no other place knows it."""
        await self._place.keep_spent(spent)

    async def spent(self) -> list[tuple[str, float, int]]:
        """Return what the last process had spent of the budget, less what has come back since."""
        return await self._place.spent()

    # -- a pack on its way --

    async def listed(self, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        """Note that every pack of a listing is owed; `listed_at` is by the server's clock, in POSIX seconds."""
        await self._decide(lambda store, seat: store.listed(seat, rows, listed_at))

    async def claim(self, pack_id: str) -> None:
        """Allow one marking request of this pack to leave."""
        await self._decide(lambda store, seat: store.claim(seat, pack_id))

    async def read(
        self, pack_id: str, entries: Sequence[StoredMessage], status: bytes | None, *, again: float | None = None
    ) -> Stored:
        """Store all that a read showed; the pack is done, or with `again` owed once more after that many seconds.

        `LeaseLost` where it is stored and the seat is another worker's, which delivers it.
        """
        size = sum(len(entry.raw) for entry in entries)
        return await self._tell_and_hold(
            lambda store, seat, held: store.read(seat, pack_id, entries, status, held=held, again=again), size=size
        )

    async def reopen(self, pack_id: str, wait: float = 0.0, *, outcome_unknown: bool) -> None:
        """Owe the pack again, after `wait` seconds."""
        await self._decide(lambda store, seat: store.reopen(seat, pack_id, wait, outcome_unknown=outcome_unknown))

    async def park(
        self, pack_id: str, wait: float, *, count: int, attempts: int, error: str, outcome_unknown: bool
    ) -> None:
        """Give the pack up for `wait` seconds."""
        await self._decide(
            lambda store, seat: store.park(
                seat, pack_id, wait, count=count, attempts=attempts, error=error, outcome_unknown=outcome_unknown
            )
        )

    async def acknowledge(self, pack_id: str, ids: Sequence[str]) -> None:
        """Forget the bodies of messages that the consumer has."""
        await self._tell(lambda store, seat, held: store.acknowledge(seat, pack_id, ids, held=held))
        self._forgotten += len(ids)
        if self._forgotten >= _PURGE_EVERY:
            await self.purge()

    async def reopen_claims(self, settle_time: float) -> int:
        """Owe the packs again that a dead process had claimed, `settle_time` seconds from now; return how many."""
        return await self._decide(lambda store, seat: store.reopen_claims(seat, settle_time))

    async def rows(self) -> list[Row]:
        """Return every pack that is not done."""
        return await self._ask(lambda store, seat: store.rows(seat))

    async def undelivered(self) -> list[str]:
        """Return the packs with messages that were not acknowledged, in the order in which they were read."""
        return await self._ask(lambda store, seat: store.undelivered(seat))

    async def entries(self, pack_id: str) -> tuple[list[StoredMessage], bytes | None]:
        """Return the messages of a pack that were not acknowledged, as they were read, and its status."""
        return await self._ask(lambda store, seat: store.entries(seat, pack_id))

    # -- what the handler of a service fails at --

    async def postpone(self, failed: FailedDelivery) -> None:
        """Note that the handler failed at what is new of a pack."""
        await self._decide(lambda store, seat: store.postpone(seat, failed))

    async def delivered(self, pack_id: str) -> None:
        """Note that the handler has taken what it had failed at."""
        await self._decide(lambda store, seat: store.delivered(seat, pack_id))

    async def dead_letter(self, pack_id: str, ids: Sequence[str], error: str) -> None:
        """Keep messages that the handler failed at too often, and do not hand them over again."""
        await self._decide(lambda store, seat: store.dead_letter(seat, pack_id, ids, error))

    async def retry_dead_letters(self) -> int:
        """Hand over all dead letters again, from now on; return how many messages they are."""
        return await self._decide(lambda store, seat: store.retry_dead_letters(seat))

    async def failed_deliveries(self) -> list[FailedDelivery]:
        """Return what is to be handed over again."""
        return await self._ask(lambda store, seat: store.failed_deliveries(seat))

    async def dead_letters(self) -> dict[str, tuple[str, str]]:
        """Return the pack and the error of each dead letter that was not acknowledged, by its message id."""
        return await self._ask(lambda store, seat: store.dead_letters(seat))

    # -- what notifications named --

    async def add_check(self, message_id: str, wait: float) -> bool:
        """Note that a notification named a message, to look for it after `wait` seconds; False: it is known.

        Raises `TooManyChecks`, a `JournalError`.
        """
        return await self._tell(lambda store, seat, held: store.add_check(seat, message_id, wait, held=held))

    async def update_check(self, check: PendingCheck) -> None:
        """Look for a notified message again later, or park it."""
        await self._decide(lambda store, seat: store.update_check(seat, check))

    async def settle_checks(self, message_ids: Sequence[str]) -> list[str]:
        """Forget the checks of those messages that are known by now; return which they are."""
        return await self._tell(lambda store, seat, held: store.settle_checks(seat, message_ids))

    async def pending_checks(self) -> list[PendingCheck]:
        """Return the checks that are due first, first; parked ones too."""
        return await self._ask(lambda store, seat: store.pending_checks(seat))

    async def forget_checks(self, parked_for: float) -> None:
        """Forget the notified messages that were parked at least `parked_for` seconds ago."""
        await self._decide(lambda store, seat: store.forget_checks(seat, parked_for))

    async def found(self, pack_id: str, entry: StoredMessage, named: str) -> bool:
        """Store a message that was read by its id `named`; False: it was known.

        `LeaseLost` where it is stored and the seat is another worker's, which delivers it.
        """
        return await self._tell_and_hold(
            lambda store, seat, held: store.found(seat, pack_id, entry, named, held=held), size=len(entry.raw)
        )

    async def once(self, message_ids: Sequence[str], name: str) -> bool:
        """Note that what is called `name` happens for these messages; False: it did for one of them before."""
        return await self._tell(lambda store, seat, held: store.once(seat, message_ids, name))

    async def undo_once(self, message_ids: Sequence[str], name: str) -> None:
        """Note that what is called `name` did not happen for these messages after all."""
        await self._tell(lambda store, seat, held: store.undo_once(seat, message_ids, name))

    async def purge(self) -> None:
        """Overwrite what was forgotten wherever the engine keeps copies."""
        forgotten = self._forgotten
        if forgotten and await self._ask(lambda store, seat: store.purge()):
            self._forgotten -= forgotten

    # -- the ways to the engine --

    def _opened(self) -> tuple[Engine, Seat]:
        if self._engine is None or self._seat is None:
            raise JournalError("the journal is closed")
        return self._engine, self._seat

    async def _ask(self, work: Callable[[Store, Seat], T]) -> T:
        engine, seat = self._opened()
        return await engine.ask(lambda store: work(store, seat))

    async def _tell(self, work: Callable[[Store, Seat, bool], T], *, size: int = 0) -> T:
        """Write a fact: true from any process, and no harm if it is said twice."""
        engine, seat = self._opened()
        return await engine.write(seat, lambda store, held: work(store, seat, held), decision=False, size=size)

    async def _tell_and_hold(self, work: Callable[[Store, Seat, bool], T], *, size: int) -> T:
        """Write a fact, and raise `LeaseLost` if the seat was not held: what follows from it is its holder's."""
        result, held = await self._tell(lambda store, seat, held: (work(store, seat, held), held), size=size)
        if not held:
            raise LeaseLost("another worker has taken the seller over, and delivers what was read late")
        return result

    async def _decide(self, work: Callable[[Store, Seat], T]) -> T:
        """Write a decision, which is the seat's holder's alone."""
        engine, seat = self._opened()
        if engine.breaks != self._breaks:
            raise JournalError(
                "the connection to the journal broke, and what it had decided last is unknown: open the inbox again"
            )
        return await engine.write(seat, lambda store, _: work(store, seat), decision=True)

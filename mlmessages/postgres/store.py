"""The journal of many sellers in PostgreSQL: a `SharedStore`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from ..journal.store import (
    CHECKS_KEPT,
    DONE,
    MOST_CHECKS,
    FailedDelivery,
    Held,
    PendingCheck,
    Row,
    Seat,
    Seller,
    Stored,
    StoredMessage,
    Taken,
    TooManyChecks,
)
from . import statements as sql
from .address import Address
from .connection import Connection
from .keys import Keys


class PostgresStore:
    """A `SharedStore` on a connection of its own. What buyers write is encrypted, if there are keys."""

    def __init__(self, address: Address, schema: str, keys: Keys, version: str) -> None:
        self._connection = Connection(address, schema, tells_failover=True)
        self._keys = keys
        self._version = version
        self._rung: set[int] = set()  # sellers for which this transaction writes what their holders have not seen
        self.patience = self._connection.patience
        self.explain = self._connection.explain
        self.interrupt = self._connection.interrupt
        self.rollback = self._connection.rollback
        self.close = self._connection.close

    @property
    def connection(self) -> Connection:
        """The connection, for what is not the journal's: the schema."""
        return self._connection

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        self._connection.begin()
        self._rung.clear()
        if not seats:
            return frozenset()
        wanted = sorted(seats, key=lambda seat: seat.no)
        epochs = {"sellers": [seat.no for seat in wanted], "epochs": [seat.epoch for seat in wanted]}
        held = set(self._connection.fetch(sql.HOLD, epochs))
        return frozenset(seat for seat in wanted if (seat.no, seat.epoch) in held)

    def commit(self) -> None:
        # Rung last and together: the rows of sellers are locked for a moment, and in one order.
        if self._rung:
            self._connection.run(sql.RING, {"nos": sorted(self._rung)})
        self._connection.commit()

    def _run(self, statement: str, seat: Seat, **parameters: Any) -> None:
        self._connection.run(statement, {"s": seat.no, **parameters})

    def _fetch(self, statement: str, seat: Seat, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.fetch(statement, {"s": seat.no, **parameters})

    def _look(self, *statements: str, seat: Seat, **parameters: Any) -> list[list[tuple[Any, ...]]]:
        """Read at one moment, outside of a transaction that writes."""
        return self._connection.transaction([(each, {"s": seat.no, **parameters}) for each in statements])

    # -- decisions --

    def listed(self, seat: Seat, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        last = {row[0]: row for row in rows}.values()  # one statement cannot write a row twice
        self._run(sql.LISTED_AT, seat)
        self._run(
            sql.LISTED,
            seat,
            at=listed_at,
            ids=[pack_id for pack_id, _, _ in last],
            counts=[min(count, 2**62) for _, count, _ in last],
            resources=[resource for _, _, resource in last],
        )

    def claim(self, seat: Seat, pack_id: str) -> None:
        self._run(sql.CLAIM, seat, p=pack_id)

    def reopen(self, seat: Seat, pack_id: str, wait: float, *, outcome_unknown: bool) -> None:
        self._run(sql.REOPEN, seat, p=pack_id, wait=wait, unknown=outcome_unknown)

    def park(
        self, seat: Seat, pack_id: str, wait: float, *, count: int, attempts: int, error: str, outcome_unknown: bool
    ) -> None:
        self._run(
            sql.PARK,
            seat,
            p=pack_id,
            wait=wait,
            count=min(count, 2**62),
            attempts=attempts,
            error=error,
            unknown=outcome_unknown,
        )

    def reopen_claims(self, seat: Seat, settle_time: float) -> int:
        [(count,)] = self._fetch(sql.REOPEN_CLAIMS, seat, wait=settle_time)
        return int(count)

    def postpone(self, seat: Seat, failed: FailedDelivery) -> None:
        self._run(sql.POSTPONE, seat, p=failed.pack_id, tries=failed.tries, wait=failed.wait, error=failed.error)

    def delivered(self, seat: Seat, pack_id: str) -> None:
        self._run(sql.DELIVERED, seat, p=pack_id)

    def dead_letter(self, seat: Seat, pack_id: str, ids: Sequence[str], error: str) -> None:
        self.delivered(seat, pack_id)
        self._run(sql.DEAD, seat, ids=list(dict.fromkeys(ids)), error=error)

    def retry_dead_letters(self, seat: Seat) -> int:
        [(count,)] = self._fetch(sql.RETRY_DEAD, seat)
        return int(count)

    def update_check(self, seat: Seat, check: PendingCheck) -> None:
        self._run(sql.LATER, seat, id=check.message_id, tries=check.tries, wait=check.wait, parked=check.parked)

    def forget_checks(self, seat: Seat, parked_for: float) -> None:
        self._run(sql.FORGET_CHECKS, seat, wait=parked_for)

    # -- facts --

    def read(
        self,
        seat: Seat,
        pack_id: str,
        entries: Sequence[StoredMessage],
        status: bytes | None,
        *,
        held: bool,
        again: float | None = None,
    ) -> Stored:
        fresh = self._store(seat, pack_id, entries)
        if not held:
            self._rung.add(seat.no)
            return Stored(fresh)
        done = self._fetch(sql.DONE, seat, p=pack_id, status=status, again=again)
        if not done or done[0][0] == DONE:
            return Stored(fresh)
        return Stored(fresh, done[0][1])

    def _store(self, seat: Seat, pack_id: str, entries: Sequence[StoredMessage], *names: str) -> list[str]:
        """Store the entries that are not known; return their ids, in order."""
        given = {entry.id: entry for entry in entries}
        ids = list(given)
        if not ids:
            return []
        found = self._fetch(
            sql.IDS,
            seat,
            p=pack_id,
            ids=ids,
            raws=[self._keys.seal(seat.seller_id, entry.raw) for entry in given.values()],
            unread=[entry.unread for entry in given.values()],
            gone=[*ids, *names],
        )
        fresh = {id_ for (id_,) in found}
        return [id_ for id_ in ids if id_ in fresh]

    def acknowledge(self, seat: Seat, pack_id: str, ids: Sequence[str], *, held: bool) -> None:
        self._run(sql.ACK, seat, ids=list(ids))
        if not held:
            self._rung.add(seat.no)

    def found(self, seat: Seat, pack_id: str, entry: StoredMessage, named: str, *, held: bool) -> bool:
        fresh = self._store(seat, pack_id, [entry], named)
        if not held:
            self._rung.add(seat.no)
        return bool(fresh)

    def add_check(self, seat: Seat, message_id: str, wait: float, *, held: bool) -> bool:
        return self._notice(seat.seller_id, message_id, wait, held=held) or False

    def notice(self, seller_id: str, message_id: str, wait: float) -> bool:
        return self._notice(seller_id, message_id, wait, held=False) is not None

    def _notice(self, seller_id: str, message_id: str, wait: float, *, held: bool) -> bool | None:
        """Return whether it is new; None: there is no such seller."""
        given = {"seller": seller_id, "id": message_id, "wait": wait, "most": MOST_CHECKS}
        [(no, known, full, added)] = self._connection.fetch(sql.NOTICE, given)
        if no is None:
            return None
        if full and not known:
            self._make_room(Seat(seller_id, no))
            [(_, _, full, added)] = self._connection.fetch(sql.NOTICE, given)
        if not held and (added or (full and not known)):
            self._rung.add(no)  # the listing shows what it is about, also where there is no room
        if full and not known:
            raise TooManyChecks(
                f"notifications have named {MOST_CHECKS} messages that are not known: are they forged?"
                " No more are taken"
            )
        return bool(added)

    def _make_room(self, seat: Seat) -> None:
        self.forget_checks(seat, CHECKS_KEPT)
        self._run(sql.FORGET_KNOWN, seat)
        self._run(sql.FORGET_OLDEST, seat, most=MOST_CHECKS // 100)

    def settle_checks(self, seat: Seat, message_ids: Sequence[str]) -> list[str]:
        known = {id_ for (id_,) in self._fetch(sql.SETTLE, seat, ids=list(message_ids))}
        return [id_ for id_ in message_ids if id_ in known]

    def once(self, seat: Seat, message_ids: Sequence[str], name: str) -> bool:
        ids = list(dict.fromkeys(message_ids))
        [(count,)] = self._fetch(sql.ONCE, seat, ids=ids, name=name)
        return bool(count == len(ids))

    def undo_once(self, seat: Seat, message_ids: Sequence[str], name: str) -> None:
        self._run(sql.UNDO_ONCE, seat, ids=list(message_ids), name=name)

    # -- what there is --

    def rows(self, seat: Seat) -> list[Row]:
        [found] = self._look(sql.ROWS, seat=seat)
        return [Row(*row) for row in found]

    def undelivered(self, seat: Seat) -> list[str]:
        [found] = self._look(sql.UNDELIVERED, seat=seat)
        return [pack_id for (pack_id,) in found]

    def entries(self, seat: Seat, pack_id: str) -> tuple[list[StoredMessage], bytes | None]:
        found, status = self._look(sql.ENTRIES, sql.STATUS, seat=seat, p=pack_id)
        entries = [StoredMessage(id_, self._keys.unseal(seat.seller_id, raw), unread) for id_, raw, unread in found]
        return entries, status[0][0] if status else None

    def pending_checks(self, seat: Seat) -> list[PendingCheck]:
        [found] = self._look(sql.CHECKS, seat=seat)
        return [PendingCheck(*row) for row in found]

    def failed_deliveries(self, seat: Seat) -> list[FailedDelivery]:
        [found] = self._look(sql.LETTERS, seat=seat)
        return [FailedDelivery(*row) for row in found]

    def dead_letters(self, seat: Seat) -> dict[str, tuple[str, str]]:
        [found] = self._look(sql.DEAD_LETTERS, seat=seat)
        return {id_: (pack_id, error) for id_, pack_id, error in found}

    def purge(self) -> bool:
        return True  # the database vacuums by itself

    # -- seats --

    def add_seller(self, seller_id: str) -> None:
        self._connection.run(sql.ADD_SELLER, {"seller": seller_id})

    def register(self, worker: str, name: str, lease: float) -> None:
        given = {"worker": worker, "name": name, "version": self._version, "lease": lease}
        self._connection.run(sql.REGISTER, given)

    def renew(self, worker: str, lease: float) -> bool:
        return bool(self._connection.fetch(sql.RENEW, {"worker": worker, "lease": lease}))

    def retire(self, worker: str) -> None:
        self._connection.run(sql.RENEW, {"worker": worker, "lease": 0.0})

    def share(self, worker: str, *, shares: bool) -> None:
        self._connection.run(sql.SHARE, {"worker": worker, "shares": shares})

    def seats(self, worker: str) -> list[Held]:
        [found] = self._connection.transaction([(sql.SEATS, {"worker": worker})])
        return [Held(Seat(id_, no, epoch), rings) for no, id_, epoch, rings in found]

    def count(self) -> tuple[int, int]:
        [(sellers, workers)] = self._connection.fetch(sql.COUNT, {})
        return sellers, workers

    def take(
        self, worker: str, most: int, *, settle_time: float, second_look: float, seller_id: str | None = None
    ) -> list[Taken]:
        found = self._connection.fetch(sql.TAKE, {"worker": worker, "most": most, "seller": seller_id})
        if not found:
            return []
        given = {
            "nos": [no for no, *_ in found],
            "ended": [ended for *_, ended in found],
            "settle_time": settle_time,
            "second_look": second_look,
        }
        reopened = Counter(no for (no,) in self._connection.fetch(sql.REOPEN_CLAIMS_OF, given))
        return [Taken(Seat(id_, no, epoch), rings, reopened[no]) for no, id_, epoch, rings, _ in found]

    def release(self, worker: str, seat: Seat) -> None:
        self._connection.run(sql.RELEASE, {"no": seat.no, "epoch": seat.epoch, "worker": worker})

    def holder(self, seller_id: str) -> str | None:
        found = self._connection.fetch(sql.HOLDER, {"seller": seller_id})
        return found[0][0] if found else None

    def stop_seller(self, seat: Seat, reason: str) -> float:
        [(wait,)] = self._fetch(sql.STOP, seat, reason=reason)
        return float(wait)

    def resume_seller(self, seller_id: str) -> None:
        self._connection.run(sql.RESUME, {"seller": seller_id})

    def ring(self, seller_id: str) -> bool:
        found = self._connection.fetch(sql.NUMBER, {"seller": seller_id})
        self._rung.update(no for (no,) in found)
        return bool(found)

    def sellers(self) -> list[Seller]:
        [found] = self._connection.transaction([(sql.SELLERS, {})])
        return [Seller(*row) for row in found]

    def remove_seller(self, seller_id: str) -> bool:
        for statement in sql.EMPTY:
            self._connection.run(statement, {"seller": seller_id})
        return bool(self._connection.fetch(sql.REMOVE, {"seller": seller_id}))

    def claim_duty(self, name: str, every: float) -> bool:
        return bool(self._connection.fetch(sql.DUE, {"duty": name, "every": every}))

    def sweep(self) -> None:
        if self.claim_duty("sweep", 3600.0):
            for statement in (sql.SWEEP_PACKS, sql.SWEEP_DEAD, sql.SWEEP_CHECKS, sql.SWEEP_WORKERS):
                self._connection.run(statement, {})

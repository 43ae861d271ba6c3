"""A store in memory that many engines can share: nothing of it is durable. For tests and simulations.

It follows the protocol alone, as a second witness beside the stores on disks. Time is what its `clock` says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from attrs import evolve

from ..errors import JournalError
from .memory_tables import NEVER, BodyRow, CheckRow, FailedRow, Memory, PackRow, SeatRow, SellerRows, WorkerRow
from .store import (
    DONE,
    ISSUED,
    MOST_CHECKS,
    OPEN,
    PARKED,
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

__all__ = ["Memory", "MemoryStore"]

V = TypeVar("V")


class MemoryStore:
    """A `SharedStore` over a `Memory`; alone, over one of its own."""

    patience: float | None = None

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory: Final = memory if memory is not None else Memory()
        self._undo: list[Callable[[], object]] | None = None

    # -- transactions: what is changed leaves its way back --

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        self._memory.lock.acquire()
        self._undo = []
        return frozenset(seat for seat in seats if self._holds(seat))

    def _holds(self, seat: Seat) -> bool:
        seller = self._memory.sellers.get(seat.seller_id)
        return seller is not None and (seller.no, seller.seat[""].epoch) == (seat.no, seat.epoch)

    def commit(self) -> None:
        if self._undo is not None:
            self._undo = None
            self._memory.lock.release()

    def rollback(self) -> None:
        if self._undo is not None:
            for step in reversed(self._undo):
                step()
            self._undo = None
            self._memory.lock.release()

    def close(self) -> None:
        self.rollback()

    def interrupt(self) -> None:
        pass

    def explain(self, error: Exception) -> JournalError | None:
        if isinstance(error, OSError):
            return JournalError(f"the journal cannot be written: {error.strerror}")
        return None

    def _seller(self, seat: Seat) -> SellerRows:
        return self._memory.sellers[seat.seller_id]

    def _put(self, table: dict[str, V], key: str, value: V) -> None:
        before: Any = table.get(key)
        if self._undo is None:
            raise RuntimeError("a store is written in a transaction")
        self._undo.append(lambda: table.pop(key, None) if before is None else table.__setitem__(key, before))
        table[key] = value

    def _drop(self, table: dict[str, V], key: str) -> bool:
        if self._undo is None:
            raise RuntimeError("a store is written in a transaction")
        if key not in table:
            return False
        before = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, before))
        return True

    def _change(self, seat: Seat, pack_id: str, **changes: Any) -> None:
        packs = self._seller(seat).packs
        if pack_id in packs:
            self._put(packs, pack_id, evolve(packs[pack_id], **changes))

    def _moment(self, wait: float) -> float:
        return self._memory.clock() + wait if wait else NEVER

    def _wait(self, moment: float) -> float:
        return max(moment - self._memory.clock(), 0.0)

    # -- decisions --

    def listed(self, seat: Seat, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        seller, packs = self._seller(seat), self._seller(seat).packs
        self._put(seller.seat, "", evolve(seller.seat[""], listed_at=self._memory.clock()))
        for pack_id, count, resource in rows:
            pack = packs.get(pack_id, PackRow())
            pack = evolve(pack, resource=resource)
            if pack.state != PARKED or count == 0:
                pack = evolve(pack, count=min(count, 2**62))
            if pack.state == DONE:
                pack = evolve(pack, state=OPEN, listed_at=listed_at, outcome_unknown=False, attempts=0)
            self._put(packs, pack_id, pack)

    def claim(self, seat: Seat, pack_id: str) -> None:
        packs = self._seller(seat).packs
        pack = packs.get(pack_id, PackRow())
        is_ahead = pack.again is not None and pack.again > self._memory.clock()
        self._put(packs, pack_id, evolve(pack, state=ISSUED, again=pack.again if is_ahead else None))

    def reopen(self, seat: Seat, pack_id: str, wait: float, *, outcome_unknown: bool) -> None:
        self._change(seat, pack_id, state=OPEN, not_before=self._moment(wait), outcome_unknown=outcome_unknown)

    def park(
        self, seat: Seat, pack_id: str, wait: float, *, count: int, attempts: int, error: str, outcome_unknown: bool
    ) -> None:
        self._change(
            seat,
            pack_id,
            state=PARKED,
            count=min(count, 2**62),
            not_before=self._moment(wait),
            attempts=attempts,
            error=error,
            outcome_unknown=outcome_unknown,
        )

    def reopen_claims(self, seat: Seat, settle_time: float) -> int:
        claimed = [pack_id for pack_id, pack in self._seller(seat).packs.items() if pack.state == ISSUED]
        for pack_id in claimed:
            self._change(seat, pack_id, state=OPEN, outcome_unknown=True, not_before=self._moment(settle_time))
        return len(claimed)

    def postpone(self, seat: Seat, failed: FailedDelivery) -> None:
        kept = FailedRow(failed.tries, self._moment(failed.wait), failed.error)
        self._put(self._seller(seat).failed, failed.pack_id, kept)

    def delivered(self, seat: Seat, pack_id: str) -> None:
        self._drop(self._seller(seat).failed, pack_id)

    def dead_letter(self, seat: Seat, pack_id: str, ids: Sequence[str], error: str) -> None:
        self.delivered(seat, pack_id)
        for id_ in ids:
            self._put(self._seller(seat).dead, id_, error)

    def retry_dead_letters(self, seat: Seat) -> int:
        seller, dead = self._seller(seat), self.dead_letters(seat)
        for pack_id, _ in dead.values():
            self._put(seller.failed, pack_id, FailedRow(0, NEVER, ""))
        for id_ in [*seller.dead]:
            self._drop(seller.dead, id_)
        return len(dead)

    def update_check(self, seat: Seat, check: PendingCheck) -> None:
        checks = self._seller(seat).checks
        if check.message_id in checks:
            self._put(checks, check.message_id, CheckRow(check.tries, self._moment(check.wait), check.parked))

    def forget_checks(self, seat: Seat, parked_for: float) -> None:
        checks, before = self._seller(seat).checks, self._memory.clock() - parked_for
        for id_ in [id_ for id_, check in checks.items() if check.parked and check.not_before < before]:
            self._drop(checks, id_)

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
        seller = self._seller(seat)
        fresh = [entry for entry in entries if self._store_body(seller, pack_id, entry)]
        for entry in entries:
            self._drop(seller.checks, entry.id)
        if not held:
            self._ring(seller)
            return Stored([entry.id for entry in fresh])
        pack = seller.packs.get(pack_id)
        if pack is None or pack.state != ISSUED:
            return Stored([entry.id for entry in fresh])
        due = pack.again if again is None else self._moment(again)
        self._change(
            seat,
            pack_id,
            state=DONE if due is None else OPEN,
            attempts=0,
            outcome_unknown=due is not None,
            not_before=NEVER if due is None else due,
            error=None,
            status=status,
        )
        return Stored([entry.id for entry in fresh], None if due is None else self._wait(due))

    def _ring(self, seller: SellerRows) -> None:
        self._put(seller.seat, "", evolve(seller.seat[""], rings=seller.seat[""].rings + 1))

    def _store_body(self, seller: SellerRows, pack_id: str, entry: StoredMessage) -> bool:
        if entry.id in seller.known:
            return False
        self._memory.seq += 1
        self._put(seller.known, entry.id, True)
        self._put(seller.bodies, entry.id, BodyRow(self._memory.seq, pack_id, entry))
        return True

    def acknowledge(self, seat: Seat, pack_id: str, ids: Sequence[str], *, held: bool) -> None:
        for id_ in ids:
            self._drop(self._seller(seat).bodies, id_)
        if not held:
            self._ring(self._seller(seat))

    def found(self, seat: Seat, pack_id: str, entry: StoredMessage, named: str, *, held: bool) -> bool:
        seller = self._seller(seat)
        for id_ in (entry.id, named):
            self._drop(seller.checks, id_)
        if not held:
            self._ring(seller)
        return self._store_body(seller, pack_id, entry)

    def add_check(self, seat: Seat, message_id: str, wait: float, *, held: bool) -> bool:
        seller = self._seller(seat)
        if message_id in seller.known or message_id in seller.checks:
            return False
        if len(seller.checks) >= MOST_CHECKS:
            parked = sorted((check.not_before, id_) for id_, check in seller.checks.items() if check.parked)
            for _, id_ in parked[: MOST_CHECKS // 100]:
                self._drop(seller.checks, id_)
            if not parked:
                raise TooManyChecks(f"notifications have named {len(seller.checks)} messages that are not known")
        self._put(seller.checks, message_id, CheckRow(0, self._moment(wait), parked=False))
        if not held:
            self._ring(seller)
        return True

    def settle_checks(self, seat: Seat, message_ids: Sequence[str]) -> list[str]:
        seller = self._seller(seat)
        known = [id_ for id_ in message_ids if id_ in seller.known]
        for id_ in known:
            self._drop(seller.checks, id_)
        return known

    def once(self, seat: Seat, message_ids: Sequence[str], name: str) -> bool:
        done, keys = self._seller(seat).once, {f"{id_}\0{name}" for id_ in message_ids}
        new = keys - done.keys()
        for key in new:
            self._put(done, key, True)
        return new == keys

    def undo_once(self, seat: Seat, message_ids: Sequence[str], name: str) -> None:
        for id_ in message_ids:
            self._drop(self._seller(seat).once, f"{id_}\0{name}")

    # -- what there is --

    def rows(self, seat: Seat) -> list[Row]:
        return [
            Row(
                pack_id,
                pack.state,
                pack.count,
                pack.resource,
                pack.listed_at,
                self._wait(pack.not_before),
                pack.attempts,
                pack.outcome_unknown,
                pack.error,
                pack.state == OPEN and pack.again == pack.not_before,
            )
            for pack_id, pack in self._seller(seat).packs.items()
            if pack.state != DONE
        ]

    def _bodies(self, seat: Seat) -> list[BodyRow]:
        return sorted(self._seller(seat).bodies.values(), key=lambda body: body.seq)

    def undelivered(self, seat: Seat) -> list[str]:
        return list(dict.fromkeys(body.pack_id for body in self._bodies(seat)))

    def entries(self, seat: Seat, pack_id: str) -> tuple[list[StoredMessage], bytes | None]:
        pack = self._seller(seat).packs.get(pack_id)
        entries = [body.entry for body in self._bodies(seat) if body.pack_id == pack_id]
        return entries, pack.status if pack is not None else None

    def pending_checks(self, seat: Seat) -> list[PendingCheck]:
        checks = sorted(self._seller(seat).checks.items(), key=lambda item: item[1].not_before)
        return [PendingCheck(id_, check.tries, self._wait(check.not_before), check.parked) for id_, check in checks]

    def failed_deliveries(self, seat: Seat) -> list[FailedDelivery]:
        failed = self._seller(seat).failed.items()
        return [
            FailedDelivery(pack_id, each.tries, self._wait(each.not_before), each.error) for pack_id, each in failed
        ]

    def dead_letters(self, seat: Seat) -> dict[str, tuple[str, str]]:
        dead = self._seller(seat).dead
        return {
            body.entry.id: (body.pack_id, dead[body.entry.id]) for body in self._bodies(seat) if body.entry.id in dead
        }

    def purge(self) -> bool:
        return True

    # -- seats --

    def add_seller(self, seller_id: str) -> None:
        sellers = self._memory.sellers
        if seller_id not in sellers:
            self._memory.last_no += 1
            self._put(sellers, seller_id, SellerRows(self._memory.last_no, {"": SeatRow()}))

    def register(self, worker: str, name: str, lease: float) -> None:
        self._put(self._memory.workers, worker, WorkerRow(name, self._memory.clock() + lease))

    def renew(self, worker: str, lease: float) -> bool:
        known = self._memory.workers.get(worker)
        if known is None:
            return False
        self._put(self._memory.workers, worker, evolve(known, until=self._memory.clock() + lease))
        return True

    def share(self, worker: str, *, shares: bool) -> None:
        known = self._memory.workers.get(worker)
        if known is not None:
            self._put(self._memory.workers, worker, evolve(known, shares=shares))

    def retire(self, worker: str) -> None:
        self.renew(worker, 0.0)

    def seats(self, worker: str) -> list[Held]:
        found = self._memory.sellers.items()
        return [
            Held(Seat(id_, seller.no, seller.seat[""].epoch), seller.seat[""].rings)
            for id_, seller in found
            if seller.seat[""].worker == worker
        ]

    def count(self) -> tuple[int, int]:
        workers = self._memory.workers.values()
        now = self._memory.clock()
        sellers = sum(seller.seat[""].stopped_until <= now for seller in self._memory.sellers.values())
        return sellers, sum(worker.shares and worker.until > now for worker in workers)

    def take(
        self, worker: str, most: int, *, settle_time: float, second_look: float, seller_id: str | None = None
    ) -> list[Taken]:
        free = [
            (seller.seat[""].listed_at, seller.no, id_)
            for id_, seller in self._memory.sellers.items()
            if seller_id in (None, id_) and self._live(seller.seat[""].worker) is None
            if seller_id is not None or seller.seat[""].stopped_until <= self._memory.clock()
        ]
        return [self._take(worker, id_, settle_time, second_look) for _, _, id_ in sorted(free)[:most]]

    def _take(self, worker: str, seller_id: str, settle_time: float, second_look: float) -> Taken:
        seller, now = self._memory.sellers[seller_id], self._memory.clock()
        before = seller.seat[""]
        last = self._memory.workers.get(before.worker or "")
        ended = now if last is None else last.until
        self._put(seller.seat, "", evolve(before, epoch=before.epoch + 1, worker=worker))
        seat = Seat(seller_id, seller.no, before.epoch + 1)
        claimed = [pack_id for pack_id, pack in seller.packs.items() if pack.state == ISSUED]
        for pack_id in claimed:
            self._change(
                seat,
                pack_id,
                state=OPEN,
                outcome_unknown=True,
                not_before=ended + settle_time,
                again=now + second_look,
            )
        return Taken(seat, before.rings, len(claimed))

    def _live(self, worker: str | None) -> WorkerRow | None:
        known = self._memory.workers.get(worker or "")
        return known if known is not None and known.until > self._memory.clock() else None

    def release(self, worker: str, seat: Seat) -> None:
        seller = self._seller(seat)
        if (seller.seat[""].epoch, seller.seat[""].worker) == (seat.epoch, worker):
            self._put(seller.seat, "", evolve(seller.seat[""], worker=None))

    def stop_seller(self, seat: Seat, reason: str) -> float:
        table = self._seller(seat).seat
        wait = 3600.0 * min(24, 1 << table[""].stops)
        until = self._memory.clock() + wait
        self._put(table, "", evolve(table[""], stopped=reason, stops=table[""].stops + 1, stopped_until=until))
        return wait

    def resume_seller(self, seller_id: str) -> None:
        if (seller := self._memory.sellers.get(seller_id)) is not None:
            self._put(seller.seat, "", evolve(seller.seat[""], stopped=None, stops=0, stopped_until=NEVER))

    def sellers(self) -> list[Seller]:
        now = self._memory.clock()
        return [
            Seller(id_, self.holder(id_), seller.seat[""].stopped if seller.seat[""].stopped_until > now else None)
            for id_, seller in self._memory.sellers.items()
        ]

    def remove_seller(self, seller_id: str) -> bool:
        return self._drop(self._memory.sellers, seller_id)

    def notice(self, seller_id: str, message_id: str, wait: float) -> bool:
        if seller_id not in self._memory.sellers:
            return False
        self.add_check(Seat(seller_id), message_id, wait, held=False)
        return True

    def ring(self, seller_id: str) -> bool:
        seller = self._memory.sellers.get(seller_id)
        if seller is not None:
            self._ring(seller)
        return seller is not None

    def claim_duty(self, name: str, every: float) -> bool:
        duties, now = self._memory.duties, self._memory.clock()
        if duties.get(name, NEVER) > now:
            return False
        self._put(duties, name, now + every)
        return True

    def sweep(self) -> None:
        pass  # it does not last that long

    def holder(self, seller_id: str) -> str | None:
        seller = self._memory.sellers.get(seller_id)
        worker = None if seller is None else self._live(seller.seat[""].worker)
        return None if worker is None else worker.name

"""A worker: one process start, which holds the seats of sellers for as long as it renews its lease.

A marking request cannot be fenced: Mercado Libre knows no epochs. So a worker trusts its lease for two thirds of its
length alone, counted from before the last renewal was sent, also where the machine was suspended meanwhile. Another
worker waits for the whole of it, and `settle_time` more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from attrs import define, frozen

from ..errors import JournalError, LeaseLost
from ..moments import Moment
from .engine import Engine
from .journal import Place
from .store import Held, Seat, SharedStore, Taken

SECOND_LOOK: Final = 900.0  # seconds after a takeover: a worker that was stopped between check and write has sent
_RENEWALS: Final = 6  # in a lease
_HEARTBEATS: Final = 30  # in a lease: each asks which seats are still held, and what rang
_TRUSTED: Final = 2 / 3  # of a lease: what is sent after it may meet the next holder

_log: Final = logging.getLogger("mlmessages")


@frozen
class SeatChange:
    """What happened to a seat.

    - ``taken``: it is held from now on.
    - ``rung``: another worker has written something that its holder has not seen.
    - ``lost``: another worker has it, or may have: nothing is decided or sent for it any more.
    - ``released``: it was given back.
    """

    what: Literal["taken", "rung", "lost", "released"]
    seat: Seat


@define(eq=False)
class _Holding:
    seat: Seat
    rings: int
    rung: Callable[[], None] | None = None


class Worker:
    """One process start among those that share a store: it takes seats, renews its lease, and gives seats back.

    `name` is for people, such as the machine's. `lease`: seconds after whose end others take over what a dead worker
    held. `told` is called with each `SeatChange`, in the event loop.
    """

    def __init__(
        self, engine: Engine, *, name: str, lease: float = 30.0, told: Callable[[SeatChange], None] | None = None
    ) -> None:
        self.engine: Final = engine
        self.id = str(uuid.uuid4())
        self.name: Final = name
        self.lease: Final = lease
        self._told: list[Callable[[SeatChange], None]] = [told] if told is not None else []
        self._held: dict[str, _Holding] = {}
        self._renewed: Moment | None = None  # when the last renewal was sent
        self._beating: asyncio.Task[None] | None = None
        self._breaks = 0
        self._troubles = False
        self._taking = 0  # calls under way that may take seats

    def listen(self, told: Callable[[SeatChange], None]) -> None:
        """Call `told` with each change from now on."""
        self._told.append(told)

    def unlisten(self, told: Callable[[SeatChange], None]) -> None:
        """Do not call `told` any more."""
        self._told.remove(told)

    async def start(self) -> None:
        """Begin the lease. Raises `JournalError`."""
        sent, self.id = Moment.now(), str(uuid.uuid4())  # never used twice: a row outlives its process
        await self._decide(lambda store: store.register(self.id, self.name, self.lease))
        self._renewed, self._breaks = sent, self.engine.breaks
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Give all seats back, and end the lease: what is held here must be over."""
        if self._beating is None:
            return
        beating, self._beating = self._beating, None
        beating.cancel()
        await asyncio.wait([beating])
        with suppress(JournalError):  # it ends by itself
            for holding in [*self._held.values()]:
                await self.release(holding.seat)
            await self._decide(lambda store: store.retire(self.id))
        self._held.clear()

    # -- seats --

    @property
    def seats(self) -> tuple[Seat, ...]:
        """The seats that this worker holds."""
        return tuple(holding.seat for holding in self._held.values())

    def check(self, seat: Seat) -> None:
        """Raise `LeaseLost` unless the seat is held and the lease can be trusted: called directly before a request."""
        holding = self._held.get(seat.seller_id)
        if holding is None or holding.seat != seat or self.engine.breaks != self._breaks:
            raise LeaseLost(f"seller {seat.seller_id} is not held here any more: nothing more is sent")
        if not self.is_trusted:
            raise LeaseLost(f"the lease of worker {self.name} could not be renewed in time: nothing more is sent")

    @property
    def is_trusted(self) -> bool:
        """True while it is certain that no other worker has taken over."""
        return self._renewed is not None and self._renewed.age < self.lease * _TRUSTED

    async def take(self, seller_id: str, *, settle_time: float) -> Seat:
        """Take one seller's seat. Raises `JournalError` that names its holder, if there is one."""

        def work(store: SharedStore) -> tuple[list[Taken], str | None]:
            store.add_seller(seller_id)
            taken = store.take(self.id, 1, settle_time=settle_time, second_look=SECOND_LOOK, seller_id=seller_id)
            return taken, store.holder(seller_id)

        while True:
            taken, holder = await self._renewing(work)
            if taken:
                return self._take_in(taken)[0]
            if holder is not None:
                raise JournalError(f"seller {seller_id} is held by worker {holder}: one inbox a seller at a time")
            # Its lease has ended in between, or a worker that was stopped in a transaction still keeps a lock.
            await asyncio.sleep(self.lease / _HEARTBEATS)

    async def take_free(self, most: int, *, settle_time: float) -> list[Seat]:
        """Take up to `most` seats that no live worker holds; return them. Raises `JournalError`."""
        if most <= 0:
            return []
        return self._take_in(
            await self._renewing(
                lambda store: store.take(self.id, most, settle_time=settle_time, second_look=SECOND_LOOK)
            )
        )

    async def balance(self, served: Collection[Seat], *, settle_time: float) -> tuple[list[Seat], list[Seat]]:
        """Take up to an equal share of all sellers; return what was taken, and what is more, to be released.

        `served`: the seats that count, those of the caller; this worker may hold others. Raises `JournalError`.
        """

        def work(store: SharedStore) -> tuple[int, int]:
            store.share(self.id, shares=True)
            return store.count()

        sellers, workers = await self._decide(work)
        share = math.ceil(sellers / max(workers, 1))
        mine = [seat for seat in self.seats if seat in served]
        taken = await self.take_free(share - len(mine), settle_time=settle_time)
        return taken, mine[share:]

    async def stop_sharing(self) -> None:
        """End `balance`: the other workers share what is given back. Raises `JournalError`."""
        await self._decide(lambda store: store.share(self.id, shares=False))

    async def release(self, seat: Seat) -> None:
        """Give a seat back, of which nothing is under way: another worker may take it at once.

        Raises `JournalError`.
        """
        holding = self._held.get(seat.seller_id)
        if holding is not None and holding.seat == seat:
            del self._held[seat.seller_id]
            self._tell("released", seat)
        # After all that was written for this seat before.
        with suppress(LeaseLost):
            await self.engine.write(seat, lambda store, _: store.release(self.id, seat), decision=True)

    async def stop_seller(self, seat: Seat, reason: str) -> float:
        """Let no worker take the seat for a while, and say why; return for how many seconds. It is still held.

        Raises `JournalError`; `LeaseLost` where another worker holds it.
        """
        return await self.engine.write(seat, lambda store, _: store.stop_seller(seat, reason), decision=True)

    def place(self, seat: Seat) -> Place:
        """Return the place of a journal whose seat is held; leaving it does not give the seat back."""
        return _HeldPlace(self, seat)

    def place_of(self, seller_id: str, settle_time: float) -> Place:
        """Return the place of a seller's journal: entering takes the seat, leaving gives it back."""
        return _TakenPlace(self, seller_id, settle_time)

    def _take_in(self, taken: Iterable[Taken]) -> list[Seat]:
        seats = []
        for each in taken:
            self._held[each.seat.seller_id] = _Holding(each.seat, each.rings)
            seats.append(each.seat)
            self._tell("taken", each.seat)
        return seats

    def on_rung(self, seat: Seat, rung: Callable[[], None]) -> None:
        """Call `rung` when another worker has written something for this seat."""
        holding = self._held.get(seat.seller_id)
        if holding is not None:
            holding.rung = rung

    # -- the heartbeat --

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.lease / _HEARTBEATS)
            try:
                await self.beat()
            except Exception as error:  # whatever it is: without a heartbeat the lease would end in silence
                if not self._troubles:
                    _log.warning("worker %s cannot renew its lease: %s", self.name, _in_words(error))
                self._troubles = True
            else:
                self._troubles = False

    async def beat(self) -> None:
        """Renew the lease if that is due, and see which seats are lost and which rang. Raises `JournalError`."""
        if self.engine.breaks != self._breaks:
            await self._give_up_all()
        if self._renewed is None or self._renewed.age >= self.lease / _RENEWALS:
            await self._renewing(lambda store: store.sweep())
        expected = self.seats
        found = await self.engine.ask(lambda store: store.seats(self.id))
        self._compare(expected, found)
        if not self._taking:
            for held in found:
                if held.seat.seller_id not in self._held:  # the caller that took it was cancelled meanwhile
                    await self.release(held.seat)

    def _compare(self, expected: Iterable[Seat], found: Iterable[Held]) -> None:
        rings = {held.seat: held.rings for held in found}
        for seat in expected:
            holding = self._held.get(seat.seller_id)
            if holding is None or holding.seat != seat:
                continue  # given back meanwhile
            if seat not in rings:
                del self._held[seat.seller_id]
                _log.warning("another worker has taken seller %s over", seat.seller_id)
                self._tell("lost", seat)
            elif rings[seat] != holding.rings:
                holding.rings = rings[seat]
                self._tell("rung", seat)
                if holding.rung is not None:
                    holding.rung()

    async def _give_up_all(self) -> None:
        """The connection broke: what was decided last is unknown, so that all is given back, and read anew."""
        breaks = self.engine.breaks
        lost = [*self._held.values()]
        self._held.clear()
        for holding in lost:
            self._tell("lost", holding.seat)
        for held in await self.engine.ask(lambda store: store.seats(self.id)):
            await self._release_row(held.seat)
        self._breaks = breaks

    async def _release_row(self, seat: Seat) -> None:
        await self._decide(lambda store: store.release(self.id, seat))

    def _tell(self, what: Literal["taken", "rung", "lost", "released"], seat: Seat) -> None:
        for told in self._told:
            told(SeatChange(what, seat))

    async def _renewing(self, work: Callable[[SharedStore], Any]) -> Any:
        """Renew the lease, and do `work`, in one transaction."""

        def renewed(store: SharedStore) -> Any:
            if not store.renew(self.id, self.lease):  # its row was swept, a day after the lease had ended
                store.register(self.id, self.name, self.lease)
            return work(store)

        if self.engine.breaks != self._breaks:
            await self._give_up_all()
        sent = Moment.now()
        self._taking += 1
        try:
            result = await self._decide(renewed)
        finally:
            self._taking -= 1
        self._renewed = sent
        return result

    async def _decide(self, work: Callable[[Any], Any]) -> Any:
        return await self.engine.write(None, lambda store, _: work(store), decision=True)


class _HeldPlace:
    """The place of a journal whose seat is held."""

    def __init__(self, worker: Worker, seat: Seat) -> None:
        self._worker = worker
        self._seat = seat

    async def enter(self) -> tuple[Engine, Seat]:
        self._worker.check(self._seat)
        return self._worker.engine, self._seat

    async def leave(self) -> None:
        pass

    def check(self) -> None:
        self._worker.check(self._seat)

    def listen(self, rung: Callable[[], None]) -> None:
        self._worker.on_rung(self._seat, rung)

    async def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        pass  # the budget of many machines is in the database

    async def spent(self) -> list[tuple[str, float, int]]:
        return []


class _TakenPlace:
    """The place of a journal whose seat is taken by entering."""

    def __init__(self, worker: Worker, seller_id: str, settle_time: float) -> None:
        self._worker = worker
        self._seller_id = seller_id
        self._settle_time = settle_time
        self._seat: Seat | None = None

    async def enter(self) -> tuple[Engine, Seat]:
        self._seat = await self._worker.take(self._seller_id, settle_time=self._settle_time)
        return self._worker.engine, self._seat

    async def leave(self) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            with suppress(JournalError):  # it is free when the lease has ended
                await self._worker.release(seat)

    def check(self) -> None:
        if self._seat is None:
            raise LeaseLost(f"seller {self._seller_id} is not held here")
        self._worker.check(self._seat)

    def listen(self, rung: Callable[[], None]) -> None:
        if self._seat is not None:
            self._worker.on_rung(self._seat, rung)

    async def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        pass  # the budget of many machines is in the database

    async def spent(self) -> list[tuple[str, float, int]]:
        return []


def _in_words(error: Exception) -> str:
    """Return the text of an error of ours, and the name alone of another, which may quote what was stored."""
    return str(error) if isinstance(error, JournalError) else type(error).__name__

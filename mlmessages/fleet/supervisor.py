"""Which sellers this process serves: takes its share of the seats, and lets go of what is lost or too much."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..errors import JournalError
from ..events import Events, SeatEvent
from ..journal.seats import SeatChange
from ..journal.shared import SharedJournals
from ..journal.store import Seat
from ..models import FleetReport
from .seller import SellerService

_log: Final = logging.getLogger("mlmessages")
_EVERY: Final = 1.0  # seconds: a seat that is given back has a new holder within two


class Supervisor:
    """The services of one run of a fleet, one for each seat that is held.

    `serve` starts the service of a seat. `sellers`: the only ones that are served; None: all.
    """

    def __init__(
        self,
        journals: SharedJournals,
        serve: Callable[[Seat], SellerService],
        *,
        settle_time: float,
        sellers: frozenset[str] | None,
        events: Events,
    ) -> None:
        self.services: Final[dict[str, SellerService]] = {}
        self.count = 1  # of the sellers in the database
        self._journals = journals
        self._worker = journals.worker
        self._serve = serve
        self._settle_time = settle_time
        self._sellers = sellers
        self._events = events
        self._over = FleetReport()  # what the services did that have ended
        self._stopped: dict[str, str] = {}
        self._served: set[Seat] = set()  # this worker may hold others, for an `Inbox` or another fleet
        self._running: set[asyncio.Task[None]] = set()  # of services, also those that were replaced and still end
        self._in_trouble = False

    async def run(self, stop: asyncio.Event) -> None:
        """Hold a fair share of the sellers until `stop` is set; then end every service in order."""
        self._worker.listen(self._told)
        try:
            while not stop.is_set():
                await self._balance()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY):
                        await stop.wait()
        finally:
            with suppress(JournalError):  # its lease ends by itself
                await self._worker.stop_sharing()
            await self._end()
            self._worker.unlisten(self._told)

    async def _balance(self) -> None:
        try:
            self.count, _ = await self._journals.count()
            surplus = await self._take()
        except JournalError as error:
            if not self._in_trouble:
                _log.warning("no sellers are taken, the database does not answer: %s", error)
            self._in_trouble = True
            return
        self._in_trouble = False
        for seat in surplus:
            if (service := self.services.get(seat.seller_id)) is not None:
                service.stop()

    async def _take(self) -> list[Seat]:
        """Take what is free; return what is more than this process's share."""
        if self._sellers is None:
            taken, surplus = await self._worker.balance(self._served, settle_time=self._settle_time)
            for seat in taken:
                self._start(seat)
            return surplus
        wanted = self._sellers - {seat.seller_id for seat in self._worker.seats}
        if wanted:
            wanted -= {each.seller_id for each in await self._journals.sellers() if each.holder or each.stopped}
        for seller_id in sorted(wanted):
            with suppress(JournalError):  # another machine has it by now
                self._start(await self._worker.take(seller_id, settle_time=self._settle_time))
        return []

    def _start(self, seat: Seat) -> None:
        self._served.add(seat)
        self._stopped.pop(seat.seller_id, None)
        self._events.emit(SeatEvent(seat.seller_id, "taken", seat.epoch))
        service = self.services[seat.seller_id] = self._serve(seat)
        self._running.add(service.task)
        service.task.add_done_callback(self._running.discard)
        service.task.add_done_callback(lambda _: self._ended(service))

    def _told(self, change: SeatChange) -> None:
        if change.what not in ("lost", "released") or change.seat not in self._served:
            return
        seller_id = change.seat.seller_id
        self._served.discard(change.seat)
        self._events.emit(SeatEvent(seller_id, change.what, change.seat.epoch))
        service = self.services.get(seller_id)
        if change.what == "lost" and service is not None and service.seat == change.seat:
            service.stop(grace=0.0)

    def _ended(self, service: SellerService) -> None:
        seller_id = service.seat.seller_id
        if self.services.get(seller_id) is service:
            del self.services[seller_id]
        self._over = _added(self._over, service)
        if service.stopped_for is not None:
            self._stopped[seller_id] = service.stopped_for
        if not service.task.cancelled() and (error := service.task.exception()) is not None:
            _log.error("the service of seller %s failed: %s", seller_id, type(error).__name__, exc_info=error)

    async def _end(self) -> None:
        for service in [*self.services.values()]:
            service.stop()
        if self._running:
            await asyncio.wait(self._running)

    @property
    def report(self) -> FleetReport:
        """What this process has done so far, and what is owed here."""
        report = self._over
        for service in self.services.values():
            report = _added(report, service, held=True)
        return FleetReport(
            sellers=tuple(sorted(self.services)),
            conversations=report.conversations,
            messages=report.messages,
            listings=report.listings,
            requests=report.requests,
            owed=report.owed,
            waiting=report.waiting,
            parked=report.parked,
            stopped=tuple(sorted(self._stopped.items())),
        )


def _added(report: FleetReport, service: SellerService, *, held: bool = False) -> FleetReport:
    """Add what a service did; and where its seat is `held`, what it owes."""
    more = service.report
    return FleetReport(
        conversations=report.conversations + more.conversations,
        messages=report.messages + more.messages,
        listings=report.listings + more.listings,
        requests=report.requests + more.requests,
        owed=report.owed + (more.owed if held else 0),
        waiting=report.waiting + (more.waiting if held else 0),
        parked=report.parked + (len(more.parked) if held else 0),
    )

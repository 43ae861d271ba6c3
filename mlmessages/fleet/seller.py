"""One seller while its seat is held here: a client, an inbox, and the service that runs it."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Final

from ..client import MessagesClient
from ..errors import AuthError, JournalError, LeaseLost, MessagesError
from ..events import Events, StopEvent, extra
from ..inbox.dispatcher import Handler, OnError, Settings
from ..inbox.inbox import Inbox, run_service, stop_service
from ..journal.seats import Worker
from ..journal.store import Seat
from ..models import InboxReport

_log: Final = logging.getLogger("mlmessages")


class LentClient(MessagesClient):
    """A client of a fleet's seller: open while its service runs, and then entering and leaving it change nothing."""

    _lent = False

    @property
    def is_lent(self) -> bool:
        """True between `lend` and `take_back`."""
        return self._lent

    async def __aenter__(self) -> MessagesClient:
        return self if self._lent else await super().__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._lent:
            await super().__aexit__(exc_type, exc, traceback)

    async def lend(self) -> None:
        """Open the client; from now on entering and leaving it change nothing."""
        await super().__aenter__()
        self._lent = True

    async def take_back(self) -> None:
        """Close the client, and forget the lending: entering it again is a `RuntimeError`, as with any closed one."""
        self._lent = False
        await super().__aexit__(None, None, None)


class SellerService:
    """Serves one seller, as a task, until its seat is lost or given back, or it cannot be served."""

    def __init__(
        self,
        seat: Seat,
        worker: Worker,
        client: LentClient,
        *,
        settle_time: float,
        handler: Handler,
        settings: Settings,
        on_error: OnError | None,
        events: Events,
    ) -> None:
        self.seat: Final = seat
        self.client: Final = client
        self.stopped_for: str | None = None  # why this seller is not served for some time
        self.last_report = InboxReport()
        self._worker = worker
        self._handler = handler
        self._settings = settings
        self._on_error = on_error
        self._events = events
        self._inbox = Inbox(client, worker.place(seat), concurrency=settings.concurrency, settle_time=settle_time)
        self._open = False
        self.task: Final = asyncio.create_task(self._run())

    @property
    def report(self) -> InboxReport:
        """What was done, and what is owed."""
        return self._inbox.report if self._open else self.last_report

    def stop(self, grace: float | None = None) -> None:
        """Stop in order: what is in flight has `grace` seconds, by default those of the settings."""
        if self._open:
            stop_service(self._inbox, grace)
        else:
            self.task.cancel()

    async def _run(self) -> None:
        try:
            await self.client.lend()
            try:
                await self._serve()
            finally:
                await self.client.take_back()
        except LeaseLost:
            pass  # another machine has the seller
        except JournalError as error:
            _log.warning("seller %s is given back: %s", self.seat.seller_id, error)
        except MessagesError as error:
            await self._stop(error)
        finally:
            await self._give_back()

    async def _serve(self) -> None:
        async with self._inbox:
            self._open = True
            try:
                await run_service(self._inbox, self._handler, self._settings, self._on_error)
            finally:
                self.last_report = self._inbox.report
                self._open = False

    async def _stop(self, error: MessagesError) -> None:
        """Leave a seller alone whose token or listing is refused, and let the others go on."""
        self.stopped_for = f"{type(error).__name__}: {error}" if isinstance(error, AuthError) else str(error)
        try:
            seconds = await self._worker.stop_seller(self.seat, self.stopped_for)
        except JournalError as away:
            _log.warning("seller %s cannot be stopped: %s", self.seat.seller_id, away)
        else:
            hint = f". {error.hint}" if error.hint else ""
            event = StopEvent(self.seat.seller_id, self.stopped_for, seconds)
            self._events.emit(event)
            _log.warning(
                "seller %s is stopped for %.0f minutes: %s%s",
                self.seat.seller_id,
                seconds / 60,
                self.stopped_for,
                hint,
                extra=extra(event),
            )

    async def _give_back(self) -> None:
        try:
            await self._worker.release(self.seat)
        except JournalError as error:  # it is free when the lease has ended
            _log.debug("seller %s is not given back: %s", self.seat.seller_id, error)

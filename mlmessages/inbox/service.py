"""One run of an inbox as a service: it reads for ever, hands over, repeats what the handler failed at, and ends well.

One loop decides what is asked next. Notifications, a timer and the backlog ask for listings; no two leave within five
seconds. Each conversation is handed over by a task of its own, one delivery at a time for each pack.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

from ..conversations.backlog import Step
from ..conversations.drain_loop import DrainLoop
from ..conversations.reader import Reader
from ..errors import DecodeError, JournalError, LeaseLost, MessagesError, RateLimited, ServerError, TransportError
from ..http.pipeline import RequestCount
from ..journal.journal import Journal
from ..journal.store import TooManyChecks
from .dispatcher import Dispatcher, Handler, OnError, Settings
from .drain import InboxDrain
from .ingest import Ingest, ReadResult
from .notified import Doorbell, MissingMessageCheck

_log: Final = logging.getLogger("mlmessages")
_PACE: Final = 5.0  # seconds between two listings
_PACE_STALLED: Final = 60.0  # where parked packs fill the listing
_LONGEST_SILENCE: Final = 60.0  # seconds without a request after errors that pass
# A notification is listed as missed when its repetitions are over, an hour later [documented: notifications].
_MISSED_EVERY: Final = 3600.0
_LONGEST_END: Final = 5.0  # seconds
_BEHIND: Final = 300.0  # seconds of uninterrupted work that are worth a warning
# Errors that pass by themselves: the service goes on. A refusal of the listing or of the token does not.
_PASSING: Final = (TransportError, RateLimited, ServerError, DecodeError)


class Service:
    """One run of an inbox, from `Inbox.run` to its return."""

    def __init__(
        self,
        *,
        drain: InboxDrain,
        doorbell: Doorbell,
        ingest: Ingest,
        journal: Journal,
        reader: Reader,
        handler: Handler,
        on_error: OnError | None,
        settings: Settings,
    ) -> None:
        self._drain = drain
        self._drain_loop: DrainLoop[ReadResult] = drain.loop
        self._doorbell = doorbell
        self._ingest = ingest
        self._reader = reader
        self._settings = settings
        self._undelivered = ingest.undelivered
        self._dispatcher = Dispatcher(
            ingest.undelivered, journal, handler=handler, on_error=on_error, settings=settings, changed=self._wake
        )
        self._checks = MissingMessageCheck(
            doorbell, journal, ingest, reader, budget=settings.look_ups, changed=self._wake
        )
        self._waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._grace = settings.grace
        self._over = asyncio.Event()
        self._listing: asyncio.Task[None] | None = None
        self._wanted = True  # a listing is
        self._stalled = False
        self._listed_at = float("-inf")  # when the last listing left
        self._silent_until = float("-inf")
        self._troubles = 0  # in a row
        self._next_listing: float | None = None  # when it is asked for what waits, if not before
        self._busy_since: float | None = None
        self._warned_at = float("-inf")

    async def run(self) -> None:
        """Run until it is stopped, cancelled, or an error comes that does not pass, which is raised."""
        self._doorbell.listener = self._wake
        loops: list[asyncio.Task[None]] = []
        stopped = asyncio.create_task(self._stop.wait())
        try:
            with stopping_on_sigterm(self.stop) if self._settings.stops_on_sigterm else nullcontext():
                await self._dispatcher.load()
                loops += [asyncio.create_task(self._read()), asyncio.create_task(self._checks.run())]
                if self._settings.app_id is not None:
                    loops.append(asyncio.create_task(self._take_missed(self._settings.app_id)))
                await asyncio.wait([*loops, stopped], return_when=asyncio.FIRST_COMPLETED)
                ended = [task for task in loops if task.done()]
                lost = any(not task.cancelled() and isinstance(task.exception(), LeaseLost) for task in ended)
                await self._end(loops, 0.0 if lost else self._grace)
        finally:
            stopped.cancel()
            await self._end(loops, self._grace)
        for task in ended:
            task.result()  # also a cancellation that did not come from here: it must not look like an end

    def stop(self, grace: float | None = None) -> None:
        """Claim nothing more; `run` returns when what is in flight is finished, or its `grace` is over."""
        if grace is not None:
            self._grace = grace
        self._stop.set()

    async def stopped(self) -> None:
        """Stop, and wait until `run` is about to return."""
        self.stop()
        await self._over.wait()

    async def _end(self, loops: list[asyncio.Task[None]], grace: float) -> None:
        if self._over.is_set():
            return
        self._drain_loop.close()
        self._doorbell.listener = None
        under_way = [task for task in (*loops, self._listing) if task is not None]
        for task in under_way:
            task.cancel()
        try:
            # Not longer: a message that was looked up is stored for as long as the database is away.
            _, late = await asyncio.wait(under_way, timeout=_LONGEST_END) if under_way else (set(), set())
            for task in late:
                task.add_done_callback(_noticed)
            await asyncio.gather(self._dispatcher.end(grace), self._drain.aclose())
        finally:
            self._doorbell.pending.clear()  # they are in the journal
            self._over.set()

    def _wake(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)

    # -- reading --

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._drain_loop.closed:
            await self._take_answers()
            if await self._ingest.reload():
                await self._checks.load()
            await self._dispatcher.fill()
            self._send()
            due = [self._next_due(), self._dispatcher.due]
            until = min((moment for moment in due if moment is not None), default=None)
            reads = self._drain_loop.reads_in_flight
            waited_for: list[asyncio.Future[Any]] = [*reads, self._waiter]
            if self._listing is not None:
                waited_for.append(self._listing)
            timeout = None if until is None else max(until - loop.time(), 0)
            await asyncio.wait(waited_for, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._waiter.done():
                self._waiter = loop.create_future()

    async def _take_answers(self) -> None:
        """Take in the listing and the reads that are answered. Raises what does not pass."""
        if self._listing is not None and self._listing.done():
            listing, self._listing = self._listing, None
            try:
                listing.result()
            except _PASSING as error:
                self._wanted = True
                self._back_off(error)
            else:
                self._troubles = 0
                self._ingest.forget_done()
        for task in [task for task in self._drain_loop.reads_in_flight if task.done()]:
            try:
                await self._drain_loop.finish(task)
            except _PASSING as error:
                self._back_off(error)

    def _back_off(self, error: MessagesError) -> None:
        """Send nothing for a while, longer with each error in a row."""
        now = asyncio.get_running_loop().time()
        if now < self._silent_until:
            return
        wait = min(_PACE * 2.0 ** min(self._troubles, 10), _LONGEST_SILENCE)
        self._troubles += 1
        self._silent_until = now + wait
        _log.warning("the service goes on in %.0f s: %s", wait, error)

    def _send(self) -> None:
        """Send what may be sent now: reads of packs, or a listing, which is sent when no read is under way."""
        now = asyncio.get_running_loop().time()
        room = self._settings.concurrency - self._undelivered.read_ahead
        if self._listing is not None or now < self._silent_until or room <= 0:
            return
        self._drain_loop.read_ahead(room)
        if self._drain_loop.reads_in_flight:
            self._warn_if_behind(now)
            return
        self._decide_listing(now)
        if not self._wanted:
            return
        if now < self._listed_at + self._pace:
            self._busy_since = None  # there is time to spare
            return
        self._wanted = self._doorbell.rung = False
        self._listed_at = now
        self._ingest.retry_parked()  # not at the end of a drain alone: where there is always news, there is none
        self._listing = asyncio.create_task(self._drain_loop.refresh_listing())

    def _decide_listing(self, now: float) -> None:
        """Decide whether a listing is wanted, where there is no pack to read."""
        if self._wanted:
            return
        backlog = self._drain_loop.backlog
        step = backlog.step(now)
        self._next_listing = step if isinstance(step, float) else None
        self._wanted = step is Step.LIST
        over = step is Step.END or step is Step.STALLED
        if step is not Step.LIST:
            self._busy_since = None
            self._warn_if_stalled(step is Step.STALLED)
        if not self._wanted and (self._doorbell.rung or now >= self._listed_at + self._settings.interval()):
            self._wanted = True
            if over:
                self._ingest.begin()

    def _next_due(self) -> float | None:
        """Return the moment at which there is something to send, if nothing happens before; None: there is none."""
        now = asyncio.get_running_loop().time()
        if now < self._silent_until:
            return self._silent_until
        room = self._settings.concurrency - self._undelivered.read_ahead
        if self._listing is not None or room <= 0:
            return None
        moments = [self._drain_loop.backlog.next_read(now)]
        if not self._drain_loop.reads_in_flight:  # else a listing waits for them
            moments.append(self._listed_at + (self._pace if self._wanted else self._settings.interval()))
            if not self._wanted:
                moments.append(self._next_listing)
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _pace(self) -> float:
        return _PACE_STALLED if self._stalled else _PACE

    def _warn_if_stalled(self, stalled: bool) -> None:
        if stalled and not self._stalled:
            _log.warning(
                "%d parked packs fill the unread listing, and what is behind them cannot be seen: free them."
                " Notified messages are still read",
                len(self._drain_loop.backlog.parked),
            )
        self._stalled = stalled

    def _warn_if_behind(self, now: float) -> None:
        if self._busy_since is None:
            self._busy_since = now
        if now - max(self._busy_since, self._warned_at) >= _BEHIND:
            self._warned_at = now
            _log.warning(
                "the inbox has been behind for %s and owes %d conversations: they come as fast as they are read",
                timedelta(seconds=round(now - self._busy_since)),
                self._drain_loop.backlog.owed,
            )

    # -- what was missed --

    async def _take_missed(self, app_id: str) -> None:
        while True:
            try:
                await self._take_missed_once(app_id)
            except TooManyChecks:
                pass  # the doorbell has warned, and the listing shows what is new
            except JournalError:
                raise
            except MessagesError as error:
                _log.warning("the missed notifications cannot be read: %s", error)
            await asyncio.sleep(_MISSED_EVERY)

    async def _take_missed_once(self, app_id: str) -> None:
        """Take what is missed by now, page after page, with a pause after each: the feed may be long, or endless."""
        seller_id, topic = self._reader.seller_id, self._reader.topic
        tally, taken = RequestCount(), 0
        try:
            async with aclosing(self._reader.missed(app_id, topic, tally)) as missed:
                async for notification in missed:
                    if notification.user_id in (None, seller_id):
                        await self._doorbell.take(notification)
                    if tally.requests > taken:
                        await asyncio.sleep((tally.requests - taken) * self._checks.budget.pace)
                        taken = tally.requests
        finally:
            self._ingest.count(tally)


def _noticed(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # it ended too late to be told


_stops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, list[Callable[[], None]]]] = WeakKeyDictionary()


@contextmanager
def stopping_on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM, unless the program has decided what SIGTERM means.

    One SIGTERM calls the `stop` of every block that runs in the event loop.
    """
    loop = asyncio.get_running_loop()
    stops = _stops.setdefault(loop, [])
    if not stops and not _take_sigterm(loop):
        yield
        return
    stops.append(stop)
    try:
        yield
    finally:
        stops.remove(stop)
        if not stops:
            _leave_sigterm(loop)


def _take_sigterm(loop: asyncio.AbstractEventLoop) -> bool:
    """Handle SIGTERM; return False where that is not possible, or the program does."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False

    def stop_all() -> None:
        for stop in [*_stops[loop]]:
            stop()

    if sys.platform == "win32":
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop_all))
    else:
        loop.add_signal_handler(signal.SIGTERM, stop_all)
    return True


def _leave_sigterm(loop: asyncio.AbstractEventLoop) -> None:
    if sys.platform != "win32":
        loop.remove_signal_handler(signal.SIGTERM)
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""What `Inbox.run` does: reads for ever, hands over, repeats what the handler failed at, and ends well.

One loop decides what is asked next. Notifications, a timer and the backlog ask for listings; no two leave within five
seconds. Each conversation is handed over by a task of its own, one at a time for each pack.
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
from typing import Final

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
_LONGEST_HOLD: Final = 60.0
_MISSED_EVERY: Final = 3600.0  # what was missed is listed when its repetitions are over, an hour later [documented]
_BEHIND: Final = 300.0  # seconds of uninterrupted work that are worth a warning
# What passes by itself: the service goes on. A refusal of the listing or of the token does not.
_PASSING: Final = (TransportError, RateLimited, ServerError, DecodeError)


class Service:
    """One run of an inbox."""

    def __init__(
        self,
        *,
        drain: InboxDrain,
        doorbell: Doorbell,
        intake: Ingest,
        journal: Journal,
        reader: Reader,
        handler: Handler,
        on_error: OnError | None,
        settings: Settings,
    ) -> None:
        self._drain = drain
        self._rounds: DrainLoop[ReadResult] = drain.rounds
        self._doorbell = doorbell
        self._intake = intake
        self._reader = reader
        self._settings = settings
        self._deliveries = Dispatcher(
            intake, journal, handler=handler, on_error=on_error, settings=settings, changed=self._wake
        )
        self._checks = MissingMessageCheck(
            doorbell, journal, intake, reader, budget=settings.look_ups, changed=self._wake
        )
        self._waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._over = asyncio.Event()
        self._listing: asyncio.Task[None] | None = None
        self._wanted = True  # a listing
        self._stalled = False
        self._listed_at = float("-inf")  # when the last listing left
        self._held_until = float("-inf")
        self._troubles = 0  # in a row
        self._next_look: float | None = None  # when a pack that waits may be looked at
        self._busy_since: float | None = None
        self._warned_at = float("-inf")

    async def run(self) -> None:
        """Until it is stopped, cancelled, or something goes wrong that does not pass."""
        self._doorbell.listener = self._wake
        loops: list[asyncio.Task[None]] = []
        stopped = asyncio.create_task(self._stop.wait())
        try:
            with _on_sigterm(self.stop) if self._settings.stops_on_sigterm else nullcontext():
                await self._deliveries.load()
                loops += [asyncio.create_task(self._read()), asyncio.create_task(self._checks.run())]
                if self._settings.app_id is not None:
                    loops.append(asyncio.create_task(self._take_missed(self._settings.app_id)))
                await asyncio.wait([*loops, stopped], return_when=asyncio.FIRST_COMPLETED)
                failed = [task for task in loops if task.done() and not task.cancelled()]
                lost = any(isinstance(task.exception(), LeaseLost) for task in failed)
                await self._end(loops, 0.0 if lost else self._settings.grace)
        finally:
            stopped.cancel()
            await self._end(loops, self._settings.grace)
        for task in failed:
            task.result()

    def stop(self) -> None:
        """Stop claiming; `run` returns when what is in flight is finished, or its time is over."""
        self._stop.set()

    async def stopped(self) -> None:
        """Stop, and wait until `run` is about to return."""
        self.stop()
        await self._over.wait()

    async def reload(self) -> None:
        """Take in what others have written to this journal, and ask for a listing."""
        await self._intake.reload()
        await self._checks.load()
        self._doorbell.ring()

    async def _end(self, loops: list[asyncio.Task[None]], grace: float) -> None:
        if self._over.is_set():
            return
        self._rounds.close()
        self._doorbell.listener = None
        under_way = [task for task in (*loops, self._listing) if task is not None]
        for task in under_way:
            task.cancel()
        try:
            await asyncio.gather(*under_way, return_exceptions=True)
            await asyncio.gather(self._deliveries.end(grace), self._drain.aclose())
        finally:
            self._doorbell.pending.clear()  # they are in the journal
            self._over.set()

    def _wake(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)

    # -- reading --

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._rounds.closed:
            await self._settle()
            await self._deliveries.fill()
            self._ask()
            due = [self._due(), self._deliveries.due]
            until = min((moment for moment in due if moment is not None), default=None)
            waited_for: list[asyncio.Future[object]] = [*self._rounds.looks, self._waiter]  # type: ignore[list-item]
            if self._listing is not None:
                waited_for.append(self._listing)  # type: ignore[arg-type]
            timeout = None if until is None else max(until - loop.time(), 0)
            await asyncio.wait(waited_for, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._waiter.done():
                self._waiter = loop.create_future()

    async def _settle(self) -> None:
        """Take in what was answered."""
        if self._listing is not None and self._listing.done():
            listing, self._listing = self._listing, None
            try:
                listing.result()
            except _PASSING as error:
                self._wanted = True
                self._hold(error)
            else:
                self._troubles = 0
        for task in [task for task in self._rounds.looks if task.done()]:
            try:
                await self._rounds.settle(task)
            except _PASSING as error:
                self._hold(error)

    def _hold(self, error: MessagesError) -> None:
        """Leave the server alone for a while."""
        now = asyncio.get_running_loop().time()
        if now < self._held_until:
            return
        wait = min(_PACE * 2.0 ** min(self._troubles, 10), _LONGEST_HOLD)
        self._troubles += 1
        self._held_until = now + wait
        _log.warning("the service goes on in %.0f s: %s", wait, error)

    def _ask(self) -> None:
        """Send what may be sent now: looks at packs, or a listing, which is taken in when no look is under way."""
        now = asyncio.get_running_loop().time()
        room = self._settings.concurrency - len(self._intake.ready)
        if self._listing is not None or now < self._held_until or room <= 0:
            return
        self._rounds.look_ahead(room)
        if self._rounds.looks:
            self._say_if_behind(now)
            return
        self._want(now)
        if self._wanted and now >= self._listed_at + self._pace:
            self._wanted = self._doorbell.rung = False
            self._listed_at = now
            self._listing = asyncio.create_task(self._rounds.ask())

    def _want(self, now: float) -> None:
        """Decide whether a listing is wanted, where nothing can be looked at."""
        if self._wanted:
            return
        backlog = self._rounds.backlog
        step = backlog.step(now)
        self._next_look = step if isinstance(step, float) else None
        self._wanted = step is Step.LIST
        over = step is Step.END or step is Step.STALLED
        if step is not Step.LIST:
            self._busy_since = None
            self._tell_stalled(step is Step.STALLED)
        if step is Step.END:
            self._intake.forget_done()
        if not self._wanted and (self._doorbell.rung or now >= self._listed_at + self._settings.interval()):
            self._wanted = True
            if over:
                self._intake.begin()

    def _due(self) -> float | None:
        """When there is something to ask for, if nothing happens before."""
        now = asyncio.get_running_loop().time()
        if now < self._held_until:
            return self._held_until
        room = self._settings.concurrency - len(self._intake.ready)
        if self._listing is not None or self._rounds.looks or room <= 0:
            return None
        if self._wanted:
            return self._listed_at + self._pace
        periodic = self._listed_at + self._settings.interval()
        return periodic if self._next_look is None else min(self._next_look, periodic)

    @property
    def _pace(self) -> float:
        return _PACE_STALLED if self._stalled else _PACE

    def _tell_stalled(self, stalled: bool) -> None:
        if stalled and not self._stalled:
            _log.warning(
                "%d parked packs fill the unread listing, and what is behind them cannot be seen: free them."
                " Notified messages are still read",
                len(self._rounds.backlog.set_aside),
            )
        self._stalled = stalled

    def _say_if_behind(self, now: float) -> None:
        if self._busy_since is None:
            self._busy_since = now
        if now - max(self._busy_since, self._warned_at) >= _BEHIND:
            self._warned_at = now
            _log.warning(
                "the inbox has been behind for %s and owes %d conversations: they come as fast as they are read",
                timedelta(seconds=round(now - self._busy_since)),
                self._rounds.backlog.owed,
            )

    # -- what was missed --

    async def _take_missed(self, app_id: str) -> None:
        while True:
            try:
                await self._take_missed_once(app_id)
            except TooManyChecks:
                pass  # the doorbell has said so, and the listing shows what there is
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
            self._intake.count(tally)


@contextmanager
def _on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM calls `stop`, unless somebody else decides what it means."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop))
    else:
        loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if sys.platform != "win32":
            loop.remove_signal_handler(signal.SIGTERM)
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""Notifications as a doorbell and a checksum: each rings for a listing, and its message must be known a minute later.

Strangers can post notifications too. What these can cause is bounded: rows in the journal, one listing in five
seconds, and one fiftieth of the request budget.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define

from ..api import decoding
from ..api.notifications import Notification
from ..conversations.reader import Reader
from ..errors import (
    APIError,
    AuthError,
    DecodeError,
    MessagesError,
    RateLimited,
    ServerError,
    TransportError,
    Unauthorized,
)
from ..events import ParkEvent, extra
from ..failpoints import failpoint
from ..http.limits import Limits
from ..http.pipeline import RequestCount
from ..journal.journal import Journal
from ..journal.store import (
    CHECKED_AFTER,
    CHECKS_KEPT,
    MOST_CHECKS,
    PendingCheck,
    StoredMessage,
    TooManyChecks,
    Unstorable,
)
from .ingest import Ingest
from .undelivered import NewMessages, to_the_end

_log: Final = logging.getLogger("mlmessages")
_TRIES: Final = 5
_LONGEST_WAIT: Final = 3600.0  # seconds between two tries while the server fails
_SHARE: Final = 0.02  # of the budget of reads, for looking messages up
_FORGOTTEN_EVERY: Final = 3600.0


@define(eq=False)
class _Check:
    """When a message is looked for, by the loop's clock, and how often it was.

    `tries`: with an answer about the message. `troubles`: with a 5xx or an unreadable answer, in a row.
    """

    due: float
    tries: int = 0
    troubles: int = 0


class Doorbell:
    """Takes notifications in, also while no service runs.

    `rung`: since the last listing was sent. `pending`: the messages that are looked up if no listing leads to them.
    `listener`: called when it rings.
    """

    def __init__(self, journal: Journal) -> None:
        self.rung = False
        self.pending: Final[dict[str, _Check]] = {}
        self.listener: Callable[[], None] | None = None
        self._journal = journal
        self._taking: set[asyncio.Task[None]] = set()
        self._warned_at = float("-inf")

    async def take(self, notification: Notification) -> None:
        """Ring, and write down the message that is named, durably.

        A receipt, another topic, and a message that is known or was named before change nothing. Raises `JournalError`;
        its subclass `TooManyChecks` where it has rung and is not written down.
        """
        if not notification.is_news:
            return
        id_ = notification.message_id
        if id_ is None:  # it names a conversation, or something that is not documented: a listing shows what it means
            self.ring()
            return
        taking = asyncio.create_task(self._take(id_))
        self._taking.add(taking)
        taking.add_done_callback(self._taken)
        # A caller that gives up ends its own wait and nothing else, or the message would be written down and not rung.
        await asyncio.shield(taking)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have given up

    async def _take(self, id_: str) -> None:
        try:
            if not await self._journal.add_check(id_, CHECKED_AFTER):
                return
        except TooManyChecks:
            self._warn()
            self.ring()  # the listing shows what it may be about
            raise
        failpoint("notified")
        if self.listener is not None:
            self.pending.setdefault(id_, _Check(asyncio.get_running_loop().time() + CHECKED_AFTER))
        self.ring()

    def ring(self) -> None:
        """Ask the service for a listing."""
        self.rung = True
        if self.listener is not None:
            self.listener()

    def _warn(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= CHECKED_AFTER:
            self._warned_at = now
            _log.warning(
                "%d notifications name messages that are not known: are they forged? Each one still asks for a listing,"
                " but no more of them are written down",
                MOST_CHECKS,
            )


class CheckBudget:
    """The share of the budget of reads for looking messages up: so many requests in a period."""

    def __init__(self, limits: Limits) -> None:
        self._period = limits.period
        self._most = max(1, int(limits.reads * _SHARE))
        self._sent: deque[float] = deque(maxlen=self._most)  # when the last ones were, by the loop's clock

    @property
    def pace(self) -> float:
        """Seconds between two requests that keep to the share."""
        return self._period / self._most

    def opens_in(self, now: float) -> float:
        """Return the seconds until another request fits, 0 if it does now."""
        if len(self._sent) < self._most:
            return 0.0
        return max(self._sent[0] + self._period - now, 0.0)

    def spend(self, now: float, requests: int) -> None:
        """Count requests that were sent."""
        self._sent.extend([now] * requests)


class MissingMessageCheck:
    """Looks each notified message up by its id that no listing has led to: the checksum."""

    def __init__(
        self,
        doorbell: Doorbell,
        journal: Journal,
        ingest: Ingest,
        reader: Reader,
        *,
        budget: CheckBudget | None,
        changed: Callable[[], None],
    ) -> None:
        self._changed = changed
        self._pending = doorbell.pending
        self._journal = journal
        self._ingest = ingest
        self._reader = reader
        self.budget: Final = budget or CheckBudget(ingest.limits)

    async def load(self) -> None:
        """Take up the checks that are in the journal and not in memory."""
        now = asyncio.get_running_loop().time()
        for check in await self._journal.pending_checks():
            if not check.parked:  # at the most the longest: a wall clock that jumped must not make it wait for ever
                wait = min(check.wait, _wait_after(_TRIES))
                self._pending.setdefault(check.message_id, _Check(now + wait, check.tries))

    async def run(self) -> None:
        """Look until it is cancelled. Raises `JournalError`."""
        loop = asyncio.get_running_loop()
        await self.load()
        forgotten_at = float("-inf")
        while True:
            if loop.time() - forgotten_at >= _FORGOTTEN_EVERY:
                forgotten_at = loop.time()
                await self._journal.forget_checks(CHECKS_KEPT)
            await self._check(loop.time())
            now = loop.time()
            # What is notified meanwhile is not due before this is over.
            wait = min([CHECKED_AFTER, *(check.due - now for check in self._pending.values())])
            await asyncio.sleep(max(wait, self.budget.opens_in(now) if wait <= 0 else 0.0))

    async def _check(self, now: float) -> None:
        """Forget the messages that are known by now; look one of the others up."""
        due = [id_ for id_, check in self._pending.items() if check.due <= now]
        if not due:
            return
        for id_ in await self._journal.settle_checks(due):
            self._pending.pop(id_, None)
        missing = next((id_ for id_ in due if id_ in self._pending), None)
        if missing is not None and not self.budget.opens_in(now):
            self.budget.spend(now, 1)  # before it is sent: others may share the budget
            await self._look_up(missing, self._pending[missing])

    async def _look_up(self, id_: str, check: _Check) -> None:
        count = RequestCount()
        try:
            message = await self._reader.message(id_, count)
            unread = not message.is_from(self._reader.seller_id)
            entry = StoredMessage(message.id, decoding.dump_raw(message.raw), unread)
            news = NewMessages(message.pack_id or "", (message,), frozenset([message.id] if unread else []), None)
            await to_the_end(self._keep(id_, news, entry))
        except (TransportError, RateLimited, AuthError, Unauthorized):
            check.due = asyncio.get_running_loop().time() + CHECKED_AFTER  # says nothing about the message
        except (APIError, DecodeError, Unstorable) as error:
            if isinstance(error, ServerError) or (isinstance(error, DecodeError) and not error.final):
                # Neither does an outage or its HTML page. If it is always answered so, it costs less and less.
                check.troubles += 1
                check.due = asyncio.get_running_loop().time() + min(_wait_after(check.troubles), _LONGEST_WAIT)
            else:
                await self._again(id_, check, error)
        finally:
            self.budget.spend(asyncio.get_running_loop().time(), max(count.requests - 1, 0))  # its retries
            self._ingest.count(count)

    async def _keep(self, id_: str, news: NewMessages, entry: StoredMessage) -> None:
        fresh = await self._journal.found(news.pack_id, entry, id_)
        failpoint("found")
        self._pending.pop(id_, None)
        if fresh:
            _log.info("a notified message was in no read of its conversation, and was looked up")
            self._ingest.found(news)
            self._changed()

    async def _again(self, id_: str, check: _Check, error: MessagesError) -> None:
        """Look again later, a few times: a message may be later than its notification [documented: messages]."""
        check.tries += 1
        check.troubles = 0
        parked = check.tries >= _TRIES
        wait = _wait_after(check.tries)
        check.due = asyncio.get_running_loop().time() + wait
        if parked:
            self._pending.pop(id_, None)
            event = ParkEvent("notification", id_, type(error).__name__, None)
            _log.warning(
                "a notified message did not appear in %d tries: %s", check.tries, event.error, extra=extra(event)
            )
            self._ingest.events.emit(event)
        await self._journal.update_check(PendingCheck(id_, check.tries, wait, parked))


def _wait_after(tries: int) -> float:
    """Return the seconds from one try to the next: five tries take a quarter of an hour."""
    return CHECKED_AFTER * 2.0 ** min(max(tries - 1, 0), 20)

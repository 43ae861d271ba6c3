"""From the unread listing to the journal: which packs are owed, how one is claimed, marked, read and stored.

The rules stand in the docstring of `mlmessages.inbox`. A pack has three records: `Pack` is what the backlog needs to
choose the next read, `_Owed` what else the inbox has to know of it, `Row` both as the journal keeps them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from attrs import define, frozen

from .. import errors
from ..api import decoding
from ..api.paging import UpToKnown, newest_first
from ..conversations.backlog import (
    MOST_UNKNOWN_MARKS,
    Backlog,
    Next,
    Pack,
    State,
    listed_again,
    rows_by_pack,
    still_listed,
)
from ..conversations.reader import ConversationRead, Reader
from ..errors import (
    AuthError,
    DecodeError,
    JournalError,
    MessagesError,
    NotFound,
    NotSent,
    RateLimited,
    StillListed,
    Unauthorized,
)
from ..events import Events, ParkEvent, extra
from ..failpoints import failpoint
from ..http.limits import Limits
from ..http.pipeline import RequestCount
from ..journal.journal import Journal
from ..journal.seats import SECOND_LOOK
from ..journal.store import PARKED, Row, StoredMessage, Unstorable
from ..models import InboxReport, Message, UnreadListing
from .undelivered import NewMessages, Undelivered, to_the_end

_log: Final = logging.getLogger("mlmessages")
# Seconds between two tries at a 404: a pack may be listed before it can be read [observed: integrators].
_LISTED_TOO_EARLY: Final = 5.0
_FIRST_PARKING: Final = 3600.0  # seconds; doubled each time
_LONGEST_PARKING: Final = 24 * 3600.0


@frozen
class ReadResult:
    """What became of one read of a pack.

    `news`: what was not known before. `again`: the pack has to be read once more after so many seconds, because the
    answer to the mark was unreadable, or for its second look after a takeover; None: what was read is all there is.
    """

    news: NewMessages | None
    read: ConversationRead
    again: float | None = None


@define(eq=False)
class _Owed:
    """What the journal knows of a pack that is owed, beside what the backlog knows."""

    listed_at: float | None = None  # by the server's clock, in POSIX seconds
    outcome_unknown: bool = False  # it may have been marked by a request whose answer was not seen
    parkings: int = 0


class Ingest:
    """What one inbox owes: the backlog in memory, the journal on the disk, and the way between them."""

    def __init__(
        self,
        reader: Reader,
        journal: Journal,
        undelivered: Undelivered,
        *,
        events: Events,
        limits: Limits,
        limit: int,
        settle_time: float,
        park_after: int,
        verify: bool,
    ) -> None:
        self.backlog: Final = Backlog(settle_time)
        self.undelivered: Final = undelivered
        self.events: Final = events
        self.limits: Final = limits
        self._reader = reader
        self._journal = journal
        self._limit = limit
        self._settle_time = settle_time
        self._park_after = park_after
        self._verify = verify
        self._rung = False  # another process has written to the journal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listings = RequestCount()
        self._requests = 0  # but for those of listings, and of reads that are under way
        self._counts: dict[str, RequestCount] = {}  # of the packs that are being read
        self._owed: dict[str, _Owed] = {}
        self._parked: dict[Pack, float] = {}  # until when, by the loop's clock

    # -- what other processes left --

    async def recover(self) -> None:
        """Take up what is owed. The claims of a dead process are of unknown outcome, and wait from now on."""
        self._loop = asyncio.get_running_loop()
        await self._journal.reopen_claims(self._settle_time)
        for row in await self._journal.rows():
            self._restore(row)
        await self.undelivered.recover()

    def ring(self) -> None:
        """Note that another process has written to this journal."""
        self._rung = True

    async def reload(self) -> bool:
        """Take in what other processes have written since the last time; return False if it was nothing.

        That is what they read late, and packs that are owed again. Raises `JournalError`.
        """
        if not self._rung:
            return False
        self._rung = False
        for row in await self._journal.rows():
            if self.backlog.state(row.pack_id) is None:
                self._restore(row)
        await self.undelivered.reload()
        return True

    def _restore(self, row: Row) -> None:
        pack = Pack(row.pack_id, row.count, row.resource, outcome_unknown=row.outcome_unknown)
        self._owed[row.pack_id] = _Owed(row.listed_at, row.outcome_unknown, row.attempts)
        # At the most the longest: a wall clock that was set must not make it wait for ever.
        longest = _LONGEST_PARKING if row.state == PARKED else max(self._settle_time, SECOND_LOOK)
        wait = min(row.wait, longest)
        if wait > 0 and row.state == PARKED:
            self.backlog.restore_parked(pack, errors.load(row.error))
            self._parked[pack] = self._in(wait)
        elif wait > 0:
            due = self._in(wait)
            if row.second_look:
                pack.seen, pack.second_look = True, due
            self.backlog.restore(pack, due=due)
        else:
            self.backlog.restore(pack)

    def begin(self) -> None:
        """Begin a drain: packs that were parked long enough are tried again."""
        self.backlog.start_drain()
        self.retry_parked()

    def retry_parked(self) -> None:
        """Owe the packs again that were parked long enough."""
        for pack in [pack for pack, until in self._parked.items() if until <= self._in(0)]:
            self._unpark(pack)

    def forget_done(self) -> None:
        """Forget what is over, directly after a listing: a service goes on for months."""
        self.backlog.forget_done()
        self.undelivered.forget_rebuilt()

    # -- the listing --

    async def list_unread(self) -> UnreadListing:
        """Return the unread listing, when every pack of it is written down as owed."""
        listing = await self._reader.unread(count=self._listings)
        listed_at = None if listing.answered_at is None else listing.answered_at.timestamp()
        rows = rows_by_pack(listing)
        # A pack that is listed again after its mark may be so by a listing that lags: it is owed when it is claimed.
        owed = [
            (row.pack_id, row.count, row.resource)
            for row in rows.values()
            if not self.backlog.only_if_listed(row.pack_id)
        ]
        await self._journal.listed([*owed, *self._no_longer_listed(listing, rows)], listed_at)
        failpoint("listed")
        for pack_id in rows:
            if self.backlog.state(pack_id) in (None, State.DONE):
                self._owed[pack_id] = _Owed(listed_at)
        return listing

    def _no_longer_listed(self, listing: UnreadListing, shown: Collection[str]) -> list[tuple[str, int, str | None]]:
        """Return the packs with hidden messages that have left the listing: when they are back, something is new."""
        if listing.capped:
            return []
        return [
            (pack.pack_id, 0, pack.resource)
            for pack in self._parked
            if isinstance(pack.error, StillListed) and pack.count and pack.pack_id not in shown
        ]

    # -- one read --

    async def read(self, pack: Pack) -> ReadResult:
        """Claim a pack, mark and read it, and store what it shows. Raises `MessagesError`."""
        count = self._counts[pack.pack_id] = RequestCount()
        try:
            shown = await self._mark_and_read(pack, count)
        except MessagesError:
            raise
        except Exception:  # of a token source
            await self.give_up(pack)
            raise
        try:
            result = await to_the_end(self._store(pack, shown))
        except MessagesError:
            raise
        except Exception as error:
            raise DecodeError(f"what was read cannot be stored ({type(error).__name__})") from None
        failpoint("stored")
        return result

    async def _mark_and_read(self, pack: Pack, count: RequestCount) -> ConversationRead:
        shown, claim = ConversationRead(), _Claim(self._journal, pack.pack_id)
        if pack.by_pages:
            await self._reader.mark_pages(
                shown,
                pack.pack_id,
                self._limit,
                pack.unread_offsets,
                known=pack.known,
                total=pack.total,
                count=count,
                before_marking=claim,
            )
        else:
            await self._reader.walk(shown, pack.pack_id, self._limit, mark=True, count=count, before_marking=claim)
        failpoint("read")
        if self._verify:  # what came inside the server's read-and-mark step, if that is not atomic
            again, known = ConversationRead(), {message.id for message in shown.messages}
            until = UpToKnown(known, shown.counted)
            await self._reader.walk(again, pack.pack_id, self._limit, until=until, count=count)
            shown.messages += again.messages
        return shown

    async def _store(self, pack: Pack, shown: ConversationRead) -> ReadResult:
        # Each message once, as the first answer showed it: before the marks that followed.
        once = {message.id: message for message in reversed(shown.messages)}
        messages = newest_first(once.values())[::-1]
        unread = self._unread(pack, messages)
        entries = [StoredMessage(row.id, decoding.dump_raw(row.raw), row.id in unread) for row in messages]
        # An unreadable answer to the mark was read again at once, perhaps from a replica that is behind.
        again = self._settle_time if shown.mark_unreadable else None
        stored = await self._journal.read(pack.pack_id, entries, decoding.dump_status(shown.status), again=again)
        news = NewMessages(pack.pack_id, messages, unread, shown.status).only(set(stored.fresh).__contains__)
        return ReadResult(news, shown, stored.again)

    def _unread(self, pack: Pack, messages: Collection[Message]) -> frozenset[str]:
        """Return the counterparty's messages, but for those that were provably read before the pack was listed.

        The proof takes two clocks that agree: the server's when it sent the listing, and its dates in this
        conversation, where a later message of the counterparty came after the read. After an unknown outcome there is
        none: that request may have been the read.
        """
        theirs = self._by_counterparty(messages)
        owed = self._owed[pack.pack_id]
        last = max((message.created for message in theirs if message.created is not None), default=None)
        if owed.outcome_unknown or owed.listed_at is None or last is None:
            return frozenset(message.id for message in theirs)
        before = min(last, datetime.fromtimestamp(owed.listed_at - 1, UTC))
        return frozenset(message.id for message in theirs if message.read is None or message.read >= before)

    def _by_counterparty(self, messages: Iterable[Message]) -> list[Message]:
        return [message for message in messages if not message.is_from(self._reader.seller_id)]

    # -- what became of a read: memory first, then the journal, which writes in the order of the calls. A consumer that
    # is cancelled at the await leaves nothing half done --

    async def on_read(self, pack: Pack, result: ReadResult) -> None:
        """Deliver what is new of a pack that was read and stored, and decide what it needs next."""
        self._end_count(pack)
        # What comes next was not in the listing that is behind us; until it is read once more, a late request may mark.
        parkings = self._owed[pack.pack_id].parkings
        self._owed[pack.pack_id] = _Owed(outcome_unknown=result.again is not None, parkings=parkings)
        if result.news is not None:
            self.undelivered.add(result.news)
        pack.by_pages = False  # the next read walks again: one of single pages finds nothing on the others
        if result.read.mark_unreadable and result.again is not None:
            await self._read_once_more(pack, result.again)
        else:
            pack.second_look = None if result.again is None else self._in(result.again)
            await self._decide(pack, result)

    async def _decide(self, pack: Pack, result: ReadResult) -> None:
        """Follow the decision table."""
        news, offsets = result.news, tuple(result.read.unread_offsets)
        if offsets and offsets != pack.unread_offsets:
            pack.fruitless = 0
        following = listed_again(
            unknown_ids=not pack.seen or (news is not None and bool(self._by_counterparty(news.messages))),
            outcome_unknown=False,  # this read was itself a mark, and was answered
            unread_beyond=bool(offsets),
            fruitless=pack.fruitless,
        )
        pack.seen, pack.outcome_unknown, pack.unknown_marks = True, False, 0
        if following is Next.MARK_PAGES:
            pack.by_pages, pack.unread_offsets, pack.total = True, offsets, result.read.counted
            pack.learn(result.read.messages)
            self.backlog.reopen(pack)
        elif following is Next.READ_AGAIN:
            self.backlog.reopen_if_listed(pack, self._in(0))
        elif following is Next.PARK and pack.second_look is not None:
            self.backlog.wait_for_second_look(pack)
        elif following is Next.PARK:
            await self._park(pack, still_listed(pack))
        else:
            pack.fruitless = 0
            if pack.second_look is None:
                del self._owed[pack.pack_id]
            self.backlog.marked(pack)

    async def _read_once_more(self, pack: Pack, wait: float) -> None:
        """Treat a pack that was read as one whose mark is of unknown outcome: what was read may not be all."""
        pack.seen = pack.outcome_unknown = True
        pack.unknown_marks += 1
        if pack.unknown_marks > MOST_UNKNOWN_MARKS:
            await self._park(pack, DecodeError("the answers to marking requests cannot be read"))
        else:
            self.backlog.reopen(pack, self._in(wait))

    async def on_failure(self, pack: Pack, error: MessagesError) -> None:
        """Decide what a pack needs that was not stored.

        Raises `error` where it is not the pack's own, such as a refused token: the pack is still owed.
        """
        in_doubt = self._end_count(pack)
        pack.tries += 1
        pack.by_pages = False
        if isinstance(error, Unstorable):
            error = DecodeError(f"what was read cannot be stored: {error}")
        if isinstance(error, JournalError):  # on the disk the claim stands; here it is owed as one of a dead process
            self._put_back(pack, in_doubt=in_doubt)
            raise error
        if isinstance(error, DecodeError):
            self._owed[pack.pack_id].outcome_unknown |= in_doubt
            await self._park(pack, error)
        elif in_doubt and pack.unknown_marks >= MOST_UNKNOWN_MARKS:
            await self._park(pack, error)
        elif in_doubt:
            self.backlog.wait_for_outcome(pack, error, self._in(0))
            await self._reopen(pack, self._settle_time, outcome_unknown=True)
        elif isinstance(error, NotFound) and pack.tries < self._park_after:
            self.backlog.reopen(pack, self._in(_LISTED_TOO_EARLY))
            await self._reopen(pack, _LISTED_TOO_EARLY)
        elif isinstance(error, (NotSent, RateLimited, AuthError, Unauthorized)):
            self.backlog.reopen(pack)
            await self._reopen(pack)
            raise error
        else:
            await self._park(pack, error)

    def in_doubt(self, pack: Pack) -> bool:
        """True if a request has left that may mark this pack."""
        count = self._counts.get(pack.pack_id)
        return count is not None and count.in_doubt

    async def give_up(self, pack: Pack) -> None:
        """Owe a pack again whose read was cancelled, or ended in an error of the token source."""
        if pack.state is State.ISSUED:
            in_doubt = self._end_count(pack)
            self._put_back(pack, in_doubt=in_doubt)
            await self._reopen(pack, self._settle_time if in_doubt else 0.0, outcome_unknown=in_doubt)

    def _put_back(self, pack: Pack, *, in_doubt: bool) -> None:
        if in_doubt:
            self._owed[pack.pack_id].outcome_unknown = pack.outcome_unknown = True
            self.backlog.reopen(pack, self._in(self._settle_time))
        else:
            self.backlog.reopen(pack)

    async def _reopen(self, pack: Pack, wait: float = 0.0, *, outcome_unknown: bool = False) -> None:
        owed = self._owed[pack.pack_id]
        owed.outcome_unknown |= outcome_unknown
        await self._journal.reopen(pack.pack_id, wait, outcome_unknown=owed.outcome_unknown)

    async def _park(self, pack: Pack, error: MessagesError) -> None:
        owed = self._owed[pack.pack_id]
        owed.parkings += 1
        wait = min(_FIRST_PARKING * 2.0 ** min(owed.parkings - 1, 10), _LONGEST_PARKING)
        self.backlog.park(pack, error)
        self._parked[pack] = self._in(wait)
        event = ParkEvent("pack", pack.pack_id, type(error).__name__, wait)
        _log.info("pack %s is parked: %s", pack.pack_id, event.error, extra=extra(event))
        self.events.emit(event)
        await self._journal.park(
            pack.pack_id,
            wait,
            count=pack.count,
            attempts=owed.parkings,
            error=errors.dump(error),
            outcome_unknown=owed.outcome_unknown,
        )

    def _unpark(self, pack: Pack) -> None:
        del self._parked[pack]
        if pack.state is State.PARKED:
            self._owed.setdefault(pack.pack_id, _Owed())
            pack.fruitless = 0
            self.backlog.reopen(pack)

    def found(self, news: NewMessages) -> None:
        """Deliver a message that was read by its id and is stored.

        Its pack is read again if it was parked because nothing explained what is hidden in it.
        """
        self.undelivered.add(news)
        for pack in [pack for pack in self._parked if pack.pack_id == news.pack_id]:
            if isinstance(pack.error, StillListed):
                self._unpark(pack)

    # -- counts --

    def count(self, count: RequestCount) -> None:
        """Add requests that were no reads of a pack."""
        self._requests += count.requests

    def _end_count(self, pack: Pack) -> bool:
        """Add the requests of a read that is over; return True if one of them may have marked the pack."""
        count = self._counts.pop(pack.pack_id, None)
        if count is None:
            return False
        self._requests += count.requests
        return count.in_doubt

    @property
    def report(self) -> InboxReport:
        """What was done so far, and what is owed."""
        waits_until = None
        if self._loop is not None and (due := self.backlog.waits_until) is not None:
            left = max(due - self._loop.time(), 0)
            waits_until = datetime.now(UTC) + timedelta(seconds=left)
        under_way = sum(count.requests for count in self._counts.values())
        return InboxReport(
            self.undelivered.conversations,
            self.undelivered.messages,
            self._listings.requests,
            self._listings.requests + self._requests + under_way,
            self.backlog.owed,
            self.backlog.waiting,
            waits_until,
            self.backlog.parked,
        )

    @property
    def seller_id(self) -> str:
        """The id of the seller whose conversations these are."""
        return self._reader.seller_id

    @property
    def refusals(self) -> int:
        """The number of 429s so far."""
        return self.limits.refusals

    def _in(self, seconds: float) -> float:
        """Return the moment so many seconds from now, by the loop's clock."""
        return asyncio.get_running_loop().time() + seconds


class _Claim:
    """The intent, written down before the first byte of a marking request: awaited when nothing is left to wait for.

    So only what is in flight is in doubt after a crash, and not what waits for the request budget.
    """

    def __init__(self, journal: Journal, pack_id: str) -> None:
        self._journal = journal
        self._pack_id = pack_id
        self._written = False

    async def __call__(self) -> None:
        if not self._written:
            await self._journal.claim(self._pack_id)
            self._written = True
            failpoint("claimed")
        self._journal.check()
        failpoint("checked")

"""The protocol that loses nothing: a pack is claimed durably, marked and read, stored, and only then delivered.

The rules are those of a write-ahead log. The intent is on the disk before the first byte of a marking GET leaves. A
pack is done only in the transaction that stores every id of its walk. What is new is what is not in the ledger of ids:
never what a date, a count or ``read`` says. A claim whose outcome is unknown waits until it can no longer be executed,
and is then read again; so is the claim of a dead process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from attrs import define, evolve, frozen

from .. import errors
from ..api import decoding
from ..api.paging import UpToKnown, newest_first
from ..conversations.backlog import Backlog, Next, Pack, State, listed_again, rows_by_pack, still_listed
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
from ..events import DeliveryEvent, Events, ParkEvent, extra
from ..failpoints import failpoint
from ..http.pipeline import RequestCount
from ..journal.journal import Journal
from ..journal.store import PARKED, Row, StoredMessage, Unstorable
from ..models import ConversationStatus, InboxReport, Message, UnreadListing

T = TypeVar("T")
_log: Final = logging.getLogger("mlmessages")
_RACE: Final = (
    5.0  # seconds between two tries at a 404: a pack may be listed before it can be read [observed of messages]
)
_FIRST_PARKING: Final = 3600.0  # seconds; doubled each time
_LONGEST_PARKING: Final = 24 * 3600.0
_MOST_UNKNOWN: Final = 5


@frozen
class NewMessages:
    """What is new of one pack, oldest first; `unread`: the ids that `Delivery.unread` names."""

    pack_id: str
    messages: tuple[Message, ...]
    unread: frozenset[str]
    status: ConversationStatus | None
    redelivered: bool = False


@frozen
class ReadResult:
    """What became of one read of a pack: what was new, all that it showed, and when it has to be read once more.

    `again`: in seconds; None: what was read is all there is.
    """

    news: NewMessages | None
    shown: ConversationRead
    again: float | None = None


@define(eq=False)
class _Owed:
    """What the journal knows of a pack beside the backlog."""

    listed_at: float | None = None  # by the server's clock
    doubtful: bool = False  # it may have been marked by a request that nobody saw answered
    parkings: int = 0


class Ingest:
    """What one inbox owes: the backlog in memory, the journal on the disk, and the way between them."""

    def __init__(
        self, reader: Reader, journal: Journal, *, limit: int, settle_time: float, park_after: int, verify: bool
    ) -> None:
        self.backlog: Final = Backlog(settle_time)
        self.ready: Final[deque[NewMessages]] = deque()
        self.conversations = self.messages = 0
        self._reader = reader
        self._journal = journal
        self._limit = limit
        self._settle_time = settle_time
        self._park_after = park_after
        self._verify = verify
        self._requests = 0
        self._listings = RequestCount()
        self._tallies: dict[str, RequestCount] = {}  # of the packs that are being looked at
        self._owed: dict[str, _Owed] = {}
        self._parked: dict[Pack, float] = {}  # until when, by the loop's clock
        self._loop: asyncio.AbstractEventLoop | None = None
        # Packs whose stored messages come from the journal; True: they may have been handed over before.
        self._left_over: dict[str, bool] = {}
        self._handed: set[str] = set()  # ids that were handed over in this process and are not acknowledged
        self._failed: set[str] = set()  # those of them that the handler of a service failed at
        self._rebuilt: set[str] = set()  # packs of which a delivery came from the journal

    # -- what a process before this one left --

    async def recover(self) -> None:
        """Take up what is owed.

        Whoever made the claims is dead: their outcome is unknown, and the wait runs from now.
        """
        self._loop = asyncio.get_running_loop()
        await self._journal.reopen_claims(self._settle_time)
        for row in await self._journal.rows():
            self._restore(row)
        self._left_over.update(dict.fromkeys(await self._journal.undelivered(), True))

    def _restore(self, row: Row) -> None:
        pack = Pack(row.pack_id, row.count, row.resource, mark_unknown=row.outcome_unknown)
        self._owed[row.pack_id] = _Owed(row.listed_at, row.outcome_unknown, row.attempts)
        # At the most the longest: a wall clock that jumped must not make it wait for ever.
        longest = _LONGEST_PARKING if row.state == PARKED else max(self._settle_time, _RACE)
        wait = min(row.wait, longest)
        due = asyncio.get_running_loop().time() + wait
        if wait > 0 and row.state == PARKED:
            self.backlog.restore(pack, State.SET_ASIDE, error=errors.load(row.error))
            self._parked[pack] = due
        elif wait > 0:
            self.backlog.restore(pack, State.WAITING, due=due)
        else:
            self.backlog.restore(pack, State.OPEN)

    async def reload(self) -> None:
        """Take in what others have written to this journal: what they read late, and packs that are owed again."""
        for pack_id in await self._journal.undelivered():
            self._left_over.setdefault(pack_id, False)  # what was handed over already is left out when it is its turn
        for row in await self._journal.rows():
            if self.backlog.state(row.pack_id) is None:
                self._restore(row)

    def begin(self) -> None:
        """A drain begins: packs that were parked long enough are tried again."""
        self.backlog.begin()
        now = asyncio.get_running_loop().time()
        for pack in [pack for pack, until in self._parked.items() if until <= now]:
            del self._parked[pack]
            if pack.state is State.SET_ASIDE:
                pack.fruitless = 0
                self.backlog.reopen(pack)

    # -- what is handed over: what the journal still holds of it, and nothing twice --

    async def left_over(self, waits: Callable[[str], bool] = lambda _: False) -> NewMessages | None:
        """Return the next delivery that comes from the journal, or None. A pack for which `waits` is true stays."""
        while True:
            pack_id = next((pack_id for pack_id in self._left_over if not waits(pack_id)), None)
            if pack_id is None:
                return None
            news = await self.stored(pack_id)
            redelivered = self._left_over.pop(pack_id, False)  # not before: a caller may be cancelled at the await
            if news is not None:
                return evolve(news, redelivered=redelivered)

    async def just_read(self, waits: Callable[[str], bool] = lambda _: False) -> NewMessages | None:
        """Return the next delivery of what this process has read, or None.

        Where `waits` is true for its pack, it comes from the journal later, together with what came before it.
        """
        while self.ready:
            news = self.ready[0]
            fresh = None if waits(news.pack_id) else await self._still_owed(news)
            self.ready.popleft()
            if fresh is not None:
                return fresh
            if waits(news.pack_id):
                self._left_over.setdefault(news.pack_id, False)
        return None

    async def _still_owed(self, news: NewMessages) -> NewMessages | None:
        """Leave out what a delivery that came from the journal has taken along."""
        if news.pack_id not in self._rebuilt:
            return news
        entries, _ = await self._journal.entries(news.pack_id)
        owed = {entry.id for entry in entries} - self._handed
        messages = tuple(row for row in news.messages if row.id in owed)
        return evolve(news, messages=messages) if messages else None

    async def stored(self, pack_id: str, *, again: bool = False) -> NewMessages | None:
        """Rebuild a delivery from the journal: all of a pack that is to be handed over, oldest first; None: nothing is.

        What was handed over in this process and is not acknowledged is left out; with `again` only as far as the
        handler has not failed at it.
        """
        entries, status = await self._journal.entries(pack_id)
        handed = self._handed - self._failed if again else self._handed
        owed = [entry for entry in entries if entry.id not in handed]
        if not owed:
            return None
        self._rebuilt.add(pack_id)
        # Several reads may have stored them, in another order than that of the messages.
        messages = newest_first(decoding.stored_message(entry.raw, pack_id) for entry in reversed(owed))[::-1]
        unread = frozenset(entry.id for entry in owed if entry.unread)
        return NewMessages(pack_id, messages, unread, decoding.load_status(status), redelivered=again)

    def record_delivery(self, news: NewMessages, attempt: int = 1) -> None:
        """Count a delivery that is handed over, for the `attempt`-th time."""
        if attempt == 1:
            self.conversations += 1
            self.messages += len(news.messages)
        self._handed.update(row.id for row in news.messages)
        failpoint("delivered")
        self.events.emit(DeliveryEvent(news.pack_id, len(news.messages), news.redelivered, attempt))

    def delivery_failed(self, news: NewMessages) -> None:
        """The handler of a service failed at it: the service may hand it over again, a drain of this process not."""
        self._failed.update(row.id for row in news.messages)

    def delivery_cut_off(self, news: NewMessages, *, begun: bool) -> None:
        """Hand a delivery over again that the handler did not finish, or did not get, before its service ended."""
        self._handed.difference_update(row.id for row in news.messages)
        self._left_over[news.pack_id] = begun or news.redelivered

    async def acknowledge(self, news: NewMessages) -> None:
        """Take the consumer's acknowledgement: it is on the disk when this returns."""
        ids = [row.id for row in news.messages]
        await self._journal.acknowledge(news.pack_id, ids)
        self._handed.difference_update(ids)
        self._failed.difference_update(ids)
        failpoint("acknowledged")

    async def once(self, news: NewMessages, name: str) -> bool:
        """Note that `name` happens for these messages; False: it did for one of them before."""
        return await self._journal.once([row.id for row in news.messages], name)

    def forget_done(self) -> None:
        """Forget what is over, when nothing is left to read: a service goes on for months."""
        self.backlog.forget_done()
        if not self.ready:
            self._rebuilt.clear()

    # -- the protocol --

    async def unread(self) -> UnreadListing:
        """The listing, when every pack of it is owed."""
        listing = await self._reader.unread(tally=self._listings)
        listed_at = None if listing.answered_at is None else listing.answered_at.timestamp()
        rows = {row.pack_id: (row.pack_id, row.count, row.resource) for row in rows_by_pack(listing).values()}
        # A pack that is listed again after its mark may be so by a listing that lags: it is owed when it is claimed.
        owed = [row for row in rows.values() if self.backlog.state(row[0]) is not State.LAGGING]
        await self._journal.listed([*owed, *self._unlisted(listing)], listed_at)
        failpoint("listed")
        for pack_id in rows:
            if self.backlog.state(pack_id) in (None, State.DONE):
                self._owed[pack_id] = _Owed(listed_at)
        return listing

    def _unlisted(self, listing: UnreadListing) -> list[tuple[str, int, str | None]]:
        """Packs with hidden messages that have left the listing: when they are back, something has changed."""
        shown = {row.pack_id for row in listing.packs}
        return [
            (pack.pack_id, 0, pack.resource)
            for pack in self._parked
            if isinstance(pack.error, StillListed) and pack.count and pack.pack_id not in shown and not listing.capped
        ]

    async def look(self, pack: Pack) -> ReadResult:
        """Claim a pack, mark and read it, and store what it shows."""
        tally = self._tallies[pack.pack_id] = RequestCount()
        try:
            look = await self._marked(pack, tally)
            try:
                result = await to_the_end(self._store(pack, look))
            except MessagesError:
                raise
            except Exception as error:
                raise DecodeError(f"what was read cannot be stored ({type(error).__name__})") from None
        except MessagesError:
            raise
        except Exception:  # of a token source
            await self.given_up(pack)
            raise
        failpoint("stored")
        return result

    async def _marked(self, pack: Pack, tally: RequestCount) -> ConversationRead:
        look, claim = ConversationRead(), _Claim(self._journal, pack.pack_id)
        if pack.by_pages:
            await self._reader.mark_pages(
                look,
                pack.pack_id,
                self._limit,
                pack.unread_offsets,
                known=pack.known,
                total=pack.total,
                tally=tally,
                before_marking=claim,
            )
        else:
            await self._reader.walk(look, pack.pack_id, self._limit, mark=True, tally=tally, before_marking=claim)
        failpoint("read")
        if self._verify:  # what came inside the server's read-and-mark step, if that is not atomic
            again, known = ConversationRead(), {row.id for row in look.messages}
            await self._reader.walk(
                again,
                pack.pack_id,
                self._limit,
                until=UpToKnown(known, look.counted),
                tally=tally,
            )
            look.messages += again.messages
        return look

    async def _store(self, pack: Pack, look: ConversationRead) -> ReadResult:
        messages = newest_first({row.id: row for row in reversed(look.messages)}.values())[::-1]
        unread = self._unread(pack, messages)
        entries = [StoredMessage(row.id, decoding.dump_raw(row.raw), row.id in unread) for row in messages]
        # An unreadable answer to the mark was read again at once, perhaps from a replica that is behind.
        again = self._settle_time if look.mark_unreadable else None
        stored = await self._journal.read(pack.pack_id, entries, decoding.dump_status(look.status), again=again)
        fresh = set(stored.fresh)
        messages = tuple(row for row in messages if row.id in fresh)
        news = NewMessages(pack.pack_id, messages, unread, look.status) if messages else None
        return ReadResult(news, look, stored.again)

    def _unread(self, pack: Pack, messages: Collection[Message]) -> frozenset[str]:
        """The counterparty's messages, but for those that were provably read before the pack was listed.

        The proof takes two clocks that agree: the server's when it sent the listing, and its dates in this
        conversation, where a later message of the counterparty came after the read. After an unknown outcome there is
        none: that request may have been the read.
        """
        theirs = self._theirs(messages)
        owed = self._owed[pack.pack_id]
        last = max((row.created for row in theirs if row.created is not None), default=None)
        if owed.doubtful or owed.listed_at is None or last is None:
            return frozenset(row.id for row in theirs)
        before = min(last, datetime.fromtimestamp(owed.listed_at - 1, UTC))
        return frozenset(row.id for row in theirs if row.read is None or row.read >= before)

    def _theirs(self, messages: Iterable[Message]) -> list[Message]:
        return [row for row in messages if not row.is_from(self._reader.seller_id)]

    # -- what became of a look: memory first, then the journal, which writes in the order of the calls. A consumer that
    # is cancelled at the await leaves nothing half done --

    async def looked(self, pack: Pack, result: ReadResult) -> None:
        """It was stored: deliver what is new, or find out why the pack is listed again."""
        news, look = result.news, result.shown
        self._forget_tally(pack)
        # What comes next was not in the listing that is behind us.
        self._owed[pack.pack_id] = _Owed(parkings=self._owed[pack.pack_id].parkings)
        if news is not None:
            self.ready.append(news)
        if result.again is not None:
            await self._read_once_more(pack, result.again, unreadable=look.mark_unreadable)
            return
        pack.by_pages = False  # the next look walks again: a page by page one finds nothing on other pages
        offsets = tuple(look.unread_offsets)
        if offsets and offsets != pack.unread_offsets:
            pack.fruitless = 0
        following = listed_again(
            unknown_ids=not pack.seen or (news is not None and bool(self._theirs(news.messages))),
            mark_unknown=False,  # the look was itself a mark, and was answered
            unread_beyond=bool(offsets),
            fruitless=pack.fruitless,
        )
        pack.seen, pack.mark_unknown, pack.unknown_marks = True, False, 0
        if following is Next.MARK_PAGES:
            pack.by_pages, pack.unread_offsets, pack.total = True, offsets, look.counted
            pack.learn(look.messages)
            self.backlog.reopen(pack)
        elif following is Next.LOOK_AGAIN:
            self.backlog.lagging(pack, asyncio.get_running_loop().time())
        elif following is Next.SET_ASIDE:
            await self._park(pack, still_listed(pack))
        else:
            pack.fruitless = 0
            del self._owed[pack.pack_id]
            self.backlog.marked(pack)

    async def _read_once_more(self, pack: Pack, wait: float, *, unreadable: bool) -> None:
        """Leave a pack that was read as one whose mark is of unknown outcome: what was read may not be all."""
        self._owed[pack.pack_id].doubtful = pack.seen = pack.mark_unknown = True
        pack.by_pages = False
        pack.unknown_marks += unreadable
        if pack.unknown_marks > _MOST_UNKNOWN:
            await self._park(pack, DecodeError("the answers to marking requests cannot be read"))
        else:
            self.backlog.again(pack, asyncio.get_running_loop().time() + wait)

    async def failed(self, pack: Pack, error: MessagesError) -> None:
        """It was not stored. Raises `error` where it is not the pack's own: the pack is still owed."""
        in_doubt = self._forget_tally(pack)
        pack.tries += 1
        pack.by_pages = False
        now = asyncio.get_running_loop().time()
        if isinstance(error, Unstorable):
            error = DecodeError(f"what was read cannot be stored: {error}")
        if isinstance(error, JournalError):  # on the disk the claim stands; here it is owed as one of a dead process
            self._put_back(pack, in_doubt=in_doubt)
            raise error
        if isinstance(error, DecodeError):
            self._owed[pack.pack_id].doubtful |= in_doubt
            await self._park(pack, error)
        elif in_doubt and pack.unknown_marks >= _MOST_UNKNOWN:
            await self._park(pack, error)
        elif in_doubt:
            self.backlog.mark_unknown(pack, error, now)
            await self._reopen(pack, self._settle_time, doubtful=True)
        elif isinstance(error, NotFound) and pack.tries < self._park_after:
            self.backlog.again(pack, now + _RACE)
            await self._reopen(pack, _RACE)
        elif isinstance(error, (NotSent, RateLimited, AuthError, Unauthorized)):
            self.backlog.reopen(pack)
            await self._reopen(pack)
            raise error
        else:
            await self._park(pack, error)

    def in_doubt(self, pack: Pack) -> bool:
        """True if a request has left that may mark this pack."""
        tally = self._tallies.get(pack.pack_id)
        return tally is not None and tally.in_doubt

    async def given_up(self, pack: Pack) -> None:
        """Its look came to no end."""
        if pack.state is State.TAKEN:
            in_doubt = self._forget_tally(pack)
            self._put_back(pack, in_doubt=in_doubt)
            await self._reopen(pack, self._settle_time if in_doubt else 0.0, doubtful=in_doubt)

    def _put_back(self, pack: Pack, *, in_doubt: bool) -> None:
        if in_doubt:
            self._owed[pack.pack_id].doubtful = pack.mark_unknown = True
            self.backlog.again(pack, asyncio.get_running_loop().time() + self._settle_time)
        else:
            self.backlog.reopen(pack)

    def found(self, news: NewMessages) -> None:
        """A message was read by its id, and is stored: hand it over, and look at its pack again, if that was given up
        because nothing explained what is hidden in it.
        """
        self.ready.append(news)
        for pack in [pack for pack in self._parked if pack.pack_id == news.pack_id]:
            if isinstance(pack.error, StillListed):
                del self._parked[pack]
                self._owed.setdefault(pack.pack_id, _Owed())
                pack.fruitless = 0
                self.backlog.reopen(pack)

    def count(self, tally: RequestCount) -> None:
        """Requests that no pack was looked at with."""
        self._requests += tally.requests

    async def _reopen(self, pack: Pack, wait: float = 0.0, *, doubtful: bool = False) -> None:
        owed = self._owed[pack.pack_id]
        owed.doubtful |= doubtful
        await self._journal.reopen(pack.pack_id, wait, outcome_unknown=owed.doubtful)

    async def _park(self, pack: Pack, error: MessagesError) -> None:
        owed = self._owed[pack.pack_id]
        owed.parkings += 1
        wait = min(_FIRST_PARKING * 2.0 ** min(owed.parkings - 1, 10), _LONGEST_PARKING)
        self.backlog.failed(pack, error)
        event = ParkEvent("pack", pack.pack_id, type(error).__name__, wait)
        _log.info("pack %s is parked: %s", pack.pack_id, event.error, extra=extra(event))
        self.events.emit(event)
        self._parked[pack] = asyncio.get_running_loop().time() + wait
        await self._journal.park(
            pack.pack_id,
            wait,
            count=pack.count,
            attempts=owed.parkings,
            error=errors.dump(error),
            outcome_unknown=owed.doubtful,
        )

    def _forget_tally(self, pack: Pack) -> bool:
        """End the account of a look; True if a request of it may have marked the pack."""
        tally = self._tallies.pop(pack.pack_id, None)
        if tally is None:
            return False
        self._requests += tally.requests
        return tally.in_doubt

    # -- to look at --

    @property
    def report(self) -> InboxReport:
        """What was done so far, and what is owed."""
        waits_until = None
        if self._loop is not None and (due := self.backlog.waits_until) is not None:
            left = max(due - self._loop.time(), 0)
            waits_until = datetime.now(UTC) + timedelta(seconds=left)
        return InboxReport(
            self.conversations,
            self.messages,
            self._listings.requests,
            self._listings.requests + self._requests + sum(tally.requests for tally in self._tallies.values()),
            self.backlog.owed,
            self.backlog.waiting,
            waits_until,
            self.backlog.set_aside,
        )

    @property
    def seller_id(self) -> str:
        """Whose conversations these are."""
        return self._reader.seller_id

    @property
    def events(self) -> Events:
        """Where events go."""
        return self._reader.session.events

    @property
    def refusals(self) -> int:
        """How many 429s there were."""
        return self._reader.session.limits.refusals


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, also where the caller is cancelled meanwhile: what is stored is delivered."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


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

"""`Drain`: every unread conversation, past the listing's cap; each is marked when its consumer asks for the next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

from attrs import define

from ..api.arguments import check_int, check_seconds
from ..api.outcomes import Outcome, outcome
from ..api.paging import UpToKnown, newest_first
from ..errors import AnswerLost, MessagesError
from ..http.pipeline import RequestCount
from ..models import Conversation, DrainReport, Message
from .backlog import Backlog, Next, Pack, listed_again, still_listed
from .drain_loop import DrainLoop
from .reader import ConversationRead, Reader
from .single_consumer import SingleConsumer

_log: Final = logging.getLogger("mlmessages")


@define(eq=False)
class _Found:
    """A conversation that is ready to be handed over, and its pack.

    `in_doubt`: a mark may have reached it already, and what the server shows does not say so.
    """

    pack: Pack
    conversation: Conversation
    in_doubt: bool = False


class Drain(SingleConsumer[Conversation]):
    """Every unread conversation of a seller: an async iterator and async context manager of `Conversation`.

    Conversations are read without marking, a few ahead, and yielded as they come. Coming back for the next one
    acknowledges the last one: only then is it marked as read. `break`, an exception or a cancellation leaves it unread.
    The unread query is repeated until one that was sent after the last read shows nothing left, which gets past its cap
    of 1,000.

    A message that only the marking answer showed is yielded as a second `Conversation` with `marked` true: the server
    already shows it as read. One that came later than that is yielded as any other. A mark of unknown outcome is not
    repeated: that pack is read again `settle_time` seconds later; where the drain ends before, the pack is in
    `report.in_doubt`, and in a warning in the log. A pack that fails is set aside (`report.set_aside`) and the rest
    goes on.

    Raises `DrainStalled` if packs that were set aside fill the capped listing, the error of a listing that is refused,
    and `Forbidden` where the listing is of another user than the client's and its first packs are refused; each ends
    the drain. Made by `MessagesClient.drain`.
    """

    _NAME: ClassVar[str] = "a drain"

    def __init__(
        self,
        reader: Reader,
        *,
        concurrency: int,
        limit: int,
        settle_time: float,
        refusals: Callable[[], int],
        check_open: Callable[[], None],
        on_doubt: Callable[[Drain], None],
        on_close: Callable[[Drain], None],
    ) -> None:
        super().__init__()
        self._concurrency: Final = check_int("concurrency", concurrency, 1)
        self._limit: Final = check_int("limit", limit, 1)
        self._reader = reader
        self._check_open = check_open
        self._on_doubt = on_doubt
        self._on_close = on_close
        self._count = RequestCount()
        self._listing_count = RequestCount()
        self._mark_count = RequestCount()  # of the mark in flight
        self._ready: deque[_Found] = deque()
        self._handed: _Found | None = None  # the conversation that the consumer holds
        self._marking: asyncio.Task[None] | None = None
        self._being_marked: Pack | None = None
        self._over = False
        self._conversations = self._messages = 0
        self._unseen: tuple[Conversation, ...] = ()
        self._loop = DrainLoop(
            Backlog(check_seconds("settle_time", settle_time, zero=True)),
            list_unread=lambda: reader.unread(count=self._listing_count),
            read=self._read,
            on_read=self._on_read,
            on_failure=self._on_failure,
            refusals=refusals,
            seller_id=reader.seller_id,
        )

    @property
    def report(self) -> DrainReport:
        """What was done so far; true at every moment."""
        return DrainReport(
            self._conversations,
            self._messages,
            self._listing_count.requests,
            self._listing_count.requests + self._count.requests + self._mark_count.requests,
            self._loop.backlog.waiting,
            self._loop.backlog.parked,
            self._unseen,
            self._in_doubt,
        )

    @property
    def _in_doubt(self) -> tuple[str, ...]:
        """The packs where a mark may have reached what the consumer has not seen."""
        packs = dict.fromkeys(self._loop.backlog.in_doubt)
        packs.update(dict.fromkeys(found.pack.pack_id for found in self._ready if found.in_doubt))
        if self._marking is not None and self._being_marked is not None and self._mark_count.in_doubt:
            packs[self._being_marked.pack_id] = None
        return tuple(packs)

    # -- the consumer's side --

    def _is_closed(self) -> bool:
        return self._loop.closed

    def _check(self) -> None:
        self._check_open()

    async def _next(self) -> Conversation | None:
        await self._acknowledge()
        while not self._ready and not self._loop.closed and await self._loop.advance(self._room):
            pass
        return self._hand_over() if self._ready and not self._loop.closed else None

    async def aclose(self) -> None:
        """End the drain: cancel reads, and wait for a mark in flight. What was not acknowledged stays unread."""
        self._handed = None
        await self._loop.cancel()
        if self._marking is not None and not self._mark_count.in_doubt:
            self._marking.cancel()  # it has not left: the conversation stays unread
            await asyncio.wait([self._marking])
            self._marking = None
        try:
            await self._marked()
        finally:
            if self._marking is None and not self._over:
                self._over = True
                self._unseen += tuple(found.conversation for found in self._ready if found.conversation.marked)
                self._ready = deque(found for found in self._ready if found.in_doubt)
                self._on_close(self)
                self._warn_of_doubts()

    def _warn_of_doubts(self) -> None:
        if in_doubt := self._in_doubt:
            _log.warning(
                "the drain has ended, and %d of its marks may have been executed without being read again:"
                " messages that came just before may look read, look at pack %s",
                len(in_doubt),
                ", ".join(in_doubt),
            )

    def _hand_over(self) -> Conversation:
        found = self._handed = self._ready.popleft()
        self._conversations += 1
        self._messages += len(found.conversation.messages)
        return found.conversation

    async def _acknowledge(self) -> None:
        """Mark the conversation that the consumer came back from, while others are being read."""
        found, self._handed = self._handed, None
        if found is not None and not found.conversation.marked:
            self._start_marking(found.pack)
        self._loop.read_ahead(self._room)
        await self._marked()

    @property
    def _room(self) -> int:
        """How many conversations may be read at a time, beside those that are ready."""
        return self._concurrency - len(self._ready)

    # -- reading --

    async def _read(self, pack: Pack) -> ConversationRead:
        """Read the whole of a pack without marking: what is new may stand on any page."""
        read = ConversationRead()
        await self._reader.walk(read, pack.pack_id, self._limit, count=self._count)
        return read

    async def _on_failure(self, pack: Pack, error: MessagesError) -> None:
        if pack.in_doubt:  # the read after the wait: its mark may have been executed, so it is tried again
            self._wait_for_outcome(pack, error)
        else:
            self._loop.backlog.park(pack, error)

    async def _on_read(self, pack: Pack, read: ConversationRead) -> None:
        """Decide what follows from a read."""
        fresh = pack.learn(read.messages)
        pack.total = read.counted
        in_doubt, pack.in_doubt = pack.in_doubt, False
        if not pack.seen:
            pack.seen = True
            self._ready.append(self._found(pack, read, fresh, [row for row in fresh if row.read is None]))
            return
        unread = sum(row.read is None for row in self._theirs(read.messages))
        following = listed_again(
            unknown_ids=bool(self._theirs(fresh)),
            outcome_unknown=pack.outcome_unknown,
            unread_beyond=0 < unread < pack.still_unread,  # once more only where it helped: a drain ends
            fruitless=pack.fruitless,
        )
        if following is Next.DELIVER:
            pack.fruitless, pack.reopenings, pack.still_unread = 0, 0, float("inf")
            self._ready.append(self._found(pack, read, fresh, fresh, in_doubt=in_doubt))
        elif following is Next.READ_AGAIN:
            self._loop.backlog.reopen_if_listed(pack, asyncio.get_running_loop().time())
        elif following is Next.PARK:
            self._loop.backlog.park(pack, still_listed(pack))
        else:
            by_pages = following is Next.MARK_PAGES
            pack.still_unread = unread if by_pages else float("inf")
            await self._marked()
            self._start_marking(pack, read.unread_offsets if by_pages else ())
            await self._marked()

    def _found(
        self,
        pack: Pack,
        read: ConversationRead,
        messages: Iterable[Message],
        unread: Iterable[Message],
        *,
        marked: bool = False,
        in_doubt: bool = False,
    ) -> _Found:
        conversation = Conversation(
            pack.pack_id,
            read.status,
            newest_first(messages),
            newest_first(self._theirs(unread))[::-1],
            marked,
            pack.resource,
        )
        return _Found(pack, conversation, in_doubt)

    def _theirs(self, messages: Iterable[Message]) -> list[Message]:
        return [row for row in messages if not row.is_from(self._reader.seller_id)]

    # -- marking: one at a time, in a task of its own, so that no cancellation of the consumer cuts it off --

    def _start_marking(self, pack: Pack, offsets: Sequence[int] = ()) -> None:
        self._count.requests += self._mark_count.requests
        self._mark_count = RequestCount()
        self._being_marked = pack
        self._marking = asyncio.create_task(self._mark(pack, offsets))

    async def _marked(self) -> None:
        """Wait for the mark in flight."""
        marking = self._marking
        if marking is None:
            return
        try:
            await asyncio.wait([marking])  # neither cancelled with the consumer nor the consumer with it
        finally:
            if marking.done() and marking is self._marking:  # another task may have waited for it too
                self._marking = None
        if not (marking.cancelled() and self._loop.closed):
            marking.result()

    async def _mark(self, pack: Pack, offsets: Sequence[int]) -> None:
        read, known = ConversationRead(), len(pack.known)
        failure: MessagesError | None = None
        try:
            if offsets:
                await self._reader.mark_pages(
                    read,
                    pack.pack_id,
                    self._limit,
                    offsets,
                    known=pack.known,
                    total=pack.total,
                    count=self._mark_count,
                )
            else:
                # An answer without any known id is a burst of arrivals: read on, without marking, until a known one.
                until = UpToKnown(pack.known, pack.total)
                await self._reader.walk(read, pack.pack_id, self._limit, mark=True, until=until, count=self._mark_count)
        except MessagesError as error:
            failure = error
        except asyncio.CancelledError:
            if self._mark_count.in_doubt or not self._loop.closed:
                self._wait_for_outcome(pack, AnswerLost("the request was cancelled"))
            raise
        if failure is None and read.mark_unreadable:  # and what was read instead may be a replica's that is behind
            failure = AnswerLost("the answer to the mark could not be read")
        more = self._arrived(pack, read, answered=failure is None)
        if failure is None:
            shown = len(pack.known) - known
            pack.total = None if pack.total is None or read.total is None else min(read.total, pack.total + shown)
            self._loop.backlog.marked(pack, more=more)
        elif read.pages == 0 and not read.mark_unreadable and outcome(failure) is Outcome.NOT_EXECUTED:
            self._loop.backlog.park(pack, failure)
        else:
            self._wait_for_outcome(pack, failure)

    def _wait_for_outcome(self, pack: Pack, error: MessagesError) -> None:
        self._loop.backlog.wait_for_outcome(pack, error, asyncio.get_running_loop().time())
        self._on_doubt(self)

    def _arrived(self, pack: Pack, read: ConversationRead, *, answered: bool) -> bool:
        """Have what a mark showed for the first time handed over; return True if some of that is not marked yet.

        Marked is what the answer to a marking request showed, or what shows `read`; not what the pages behind showed
        besides.
        """
        marked = pack.learn(row for row in read.messages if row.id in read.marked or row.read is not None)
        others = pack.learn(read.messages) if answered else ()  # else the read after the wait shows them
        if not self._theirs(marked):
            marked, others = (), marked + others  # the seller's own: they come with what comes
        for rows, are_marked in ((others, False), (marked, True)):
            if self._theirs(rows):
                pack.still_unread = float("inf")
                found = self._found(pack, read, rows, rows, marked=are_marked, in_doubt=not are_marked)
                self._ready.appendleft(found)
                if found.in_doubt:
                    self._on_doubt(self)
        return bool(self._theirs(others))

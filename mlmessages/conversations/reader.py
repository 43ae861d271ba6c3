"""Read and mark conversations: the coroutines that the client, the drain and the inbox stand on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Container, Iterable
from typing import Final

from attrs import define, evolve, field

from ..api.arguments import describe
from ..api.endpoints import Endpoints
from ..api.notifications import Notification
from ..api.paging import PageWalk, UpToKnown, newest_first
from ..errors import DecodeError, MessagesError
from ..failpoints import failpoint
from ..http.pipeline import Guard, Pipeline, RequestCount
from ..models import Conversation, ConversationStatus, Message, MessagePage, UnreadListing

_log: Final = logging.getLogger("mlmessages")
_MISSED: Final = 50  # missed notifications in a page; 10 is the default, the most is unknown


@define
class ConversationRead:
    """What a walk through a conversation has shown so far; it is true also where the walk raises.

    - `messages`: each once, in the server's order.
    - `marked`: the ids that the answers to marking requests showed.
    - `mark_unreadable`: such an answer could not be read, and the page was read again without marking, perhaps from a
      replica that is behind.
    - `total`: how many messages the last page counted; None: none, or not so that it can be believed.
    - `steady`: nothing was seen to be hidden meanwhile.
    - `unread_offsets`: where the pages begin that show a message of the counterparty as unread; without the marked page
      itself, whose answer may show what was so before the mark.
    - `pages`: how many were read.
    """

    messages: list[Message] = field(factory=list)
    marked: set[str] = field(factory=set)
    mark_unreadable: bool = False
    total: int | None = None
    steady: bool = True
    status: ConversationStatus | None = None
    unread_offsets: list[int] = field(factory=list)
    pages: int = 0

    @property
    def counted(self) -> int | None:
        """How many of the counted messages were shown; None: none were counted, or some were hidden meanwhile.

        It is less than `total` where messages arrived while the pages were read.
        """
        return None if self.total is None or not self.steady else min(self.total, len(self.messages))


class Reader:
    """Reads and marks the conversations of one seller."""

    def __init__(self, pipeline: Pipeline, endpoints: Endpoints, seller_id: str) -> None:
        self._pipeline = pipeline
        self.seller_id: Final = seller_id
        self._endpoints = endpoints
        self._warned = False
        self._odd_rows: tuple[str, ...] = ()  # of the last listing, told of once

    async def unread(
        self, role: str = "seller", user_id: int | str | None = None, count: RequestCount | None = None
    ) -> UnreadListing:
        """Return the unread listing; a listing of another user, and rows that name no pack, are warned of."""
        listing = await self._pipeline.execute(self._endpoints.unread(role, user_id), count)
        if user_id is None and listing.user_id not in (None, self.seller_id) and not self._warned:
            self._warned = True  # which of a Global Selling seller's ids stands there is unknown: no error
            # `describe`: a line of the log is not the server's to write
            _log.warning(
                "the unread listing is of user %s, not of seller %s", describe(listing.user_id), self.seller_id
            )
        if listing.problems and listing.problems != self._odd_rows:
            _log.warning(
                "%d of %d rows of the unread listing name no pack and are left out: %s",
                len(listing.problems),
                len(listing.problems) + len(listing.packs),
                "; ".join(listing.problems[:5]),
            )
        self._odd_rows = listing.problems
        return listing

    async def unread_count(self, pack_id: int | str) -> int:
        """Return how many messages of one conversation count as unread."""
        listing = await self._pipeline.execute(self._endpoints.unread_of(pack_id))
        return sum(row.count for row in listing.packs if row.pack_id == str(pack_id))

    async def message(self, message_id: int | str, count: RequestCount | None = None) -> Message:
        """Return one message by its id."""
        return await self._pipeline.execute(self._endpoints.message(message_id), count)

    @property
    def topic(self) -> str:
        """The topic of this seller's notifications."""
        return self._endpoints.topic

    async def missed(
        self, app_id: str, topic: str | None, count: RequestCount | None = None
    ) -> AsyncGenerator[Notification, None]:
        """Yield the missed notifications, each once: page after page, until one shows nothing that is new."""
        seen: set[str] = set()
        offset = 0
        while True:
            page = await self._pipeline.execute(self._endpoints.missed(app_id, topic, _MISSED, offset), count)
            fresh = {key: row for row in page if (key := f"{row.id}\0{row.resource}\0{row.actions}") not in seen}
            if not fresh:
                return
            seen.update(fresh)
            offset += len(page)  # not the limit: this server gives fewer than asked for
            for row in fresh.values():
                yield row

    async def page(
        self,
        pack_id: int | str,
        limit: int,
        offset: int = 0,
        *,
        mark: bool = False,
        read: ConversationRead | None = None,
        count: RequestCount | None = None,
        before_marking: Guard | None = None,
    ) -> MessagePage:
        """Return one page; `mark`: the request marks.

        Where the answer to a marking request cannot be read, it was executed all the same: the page is read again,
        without marking. `read` notes what a marking answer showed, or that it could not be read. `before_marking` is
        awaited before a marking request leaves, when nothing is left to wait for.
        """
        call = self._endpoints.page(pack_id, limit, offset, mark=mark)
        try:
            page = await self._pipeline.execute(call, count, before_sending=before_marking if mark else None)
            if mark and read is not None:
                read.marked.update(row.id for row in page.messages)
            return page
        except DecodeError as error:
            if not mark:
                raise
            unreadable = error
            if read is not None:
                read.mark_unreadable = True
        try:
            return await self._pipeline.execute(self._endpoints.page(pack_id, limit, offset, mark=False), count)
        except MessagesError:
            pass
        raise unreadable  # and nothing that sounds as if it had not been executed

    async def pages(
        self, pack_id: int | str, limit: int, *, mark: bool = False, count: RequestCount | None = None
    ) -> AsyncGenerator[MessagePage, None]:
        """Yield the whole conversation page by page, each with the messages that no page before it showed.

        `mark`: the first page marks.
        """
        walk = PageWalk(limit, marked=mark)
        while not walk.done:
            if walk.wait:
                await asyncio.sleep(walk.wait)
            first = walk.pages == 0
            page = await self.page(pack_id, limit, walk.offset, mark=mark and first, count=count)
            fresh = walk.take(page)
            if first or fresh:
                yield page if fresh == page.messages else evolve(page, messages=fresh)

    async def walk(
        self,
        read: ConversationRead,
        pack_id: str,
        limit: int,
        *,
        mark: bool = False,
        until: Callable[[MessagePage], bool] | None = None,
        count: RequestCount | None = None,
        before_marking: Guard | None = None,
    ) -> None:
        """Read the whole conversation into `read`, or up to the page for which `until` is true.

        `mark`: the first page marks.
        """
        walk = PageWalk(limit, marked=mark)
        await self._walk(walk, read, pack_id, mark=mark, until=until, count=count, before_marking=before_marking)

    async def _walk(
        self,
        walk: PageWalk,
        read: ConversationRead,
        pack_id: str,
        *,
        mark: bool = False,
        closing: bool = False,
        until: Callable[[MessagePage], bool] | None = None,
        count: RequestCount | None = None,
        before_marking: Guard | None = None,
    ) -> None:
        while not walk.done:
            if walk.wait:
                await asyncio.sleep(walk.wait)
            offset, marks = walk.offset, mark and walk.pages == 0
            page = await self.page(
                pack_id, walk.limit, offset, mark=marks, read=read, count=count, before_marking=before_marking
            )
            fresh = walk.take(page)
            read.messages += fresh
            read.pages += 1
            read.total, read.steady = walk.total, read.steady and walk.steady
            read.status = read.status or page.conversation
            failpoint("page read")
            if not marks and not closing and self._unread(fresh):
                read.unread_offsets.append(offset)
            if until is not None and not walk.wait and until(page):
                return

    async def mark_pages(
        self,
        read: ConversationRead,
        pack_id: str,
        limit: int,
        offsets: Iterable[int],
        *,
        known: Container[str],
        total: int | None,
        count: RequestCount | None = None,
        before_marking: Guard | None = None,
    ) -> None:
        """Mark the pages at `offsets`, for a server that marks no more than it returns.

        It closes with a walk that marks nothing, until nothing new can stand behind: where that server marks the whole
        pack after all, and only shows it late, a burst of arrivals was marked with it. `known` and `total`: the ids
        that were shown before, and how many messages were counted then. All that the answers show is added to `read`,
        where an id may stand twice: one that is new there is data.
        """
        walk = PageWalk(limit)
        for offset in offsets:
            page = await self.page(
                pack_id, limit, offset, mark=True, read=read, count=count, before_marking=before_marking
            )
            walk.expect(page)
            read.messages += page.messages
            read.status = read.status or page.conversation
            read.pages += 1
            failpoint("page read")
        await self._walk(walk, read, pack_id, closing=True, until=UpToKnown(known, total), count=count)

    def conversation(self, read: ConversationRead, pack_id: str, *, marked: bool) -> Conversation:
        """Return all that `read` shows, each message once, as the first answer showed it: before the marks that
        followed.
        """
        shown = {row.id: row for row in read.messages}
        if len(shown) < len(read.messages):
            shown.update({row.id: row for row in reversed(read.messages)})
        messages = newest_first(shown.values())
        return Conversation(pack_id, read.status, messages, tuple(self._unread(reversed(messages))), marked)

    def _unread(self, messages: Iterable[Message]) -> list[Message]:
        return [row for row in messages if row.read is None and row.sender_id != self.seller_id]

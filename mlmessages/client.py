"""`MessagesClient`: the session manager, whose coroutines and generators are the library."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal

import aiohttp

from .arguments import base_url as checked_base_url
from .arguments import digits, seconds, whole
from .auth import Secret, StaticToken, TokenSource
from .drain import Drain
from .endpoints import Endpoints, Routes, routes
from .fetch import Fetch
from .limits import Limits
from .models import Conversation, Message, MessagePage, UnreadListing
from .paging import ascending, newest_first
from .reader import Look, Reader
from .retry import Retry
from .session import Session
from .transport import Transport


class MessagesClient:
    """The messages of one seller: an async context manager; nothing opens before it is entered.

    - `auth`: an access token, or a `TokenSource`.
    - `seller_id`: an int or a string of digits.
    - `api`: ``"marketplace"`` (Global Selling), ``"domestic"``, or `Routes` of your own.
    - `base_url`: https; plain http for loopback addresses alone.
    - `limits`, `retry`: None is a `Limits()` and a `Retry()` of its own. Clients of one application share one `Limits`.
    - `timeout`: seconds for one attempt, from the permit to the last byte.
    - `session`: an `aiohttp.ClientSession` to borrow (for a proxy, an own CA, own DNS); it is never closed here.

    Leaving the context closes the drains and fetches that are still open. A client belongs to the event loop in which
    it was entered.

    Every call raises `TransportError`, `APIError` (such as `Forbidden`), `DecodeError` or `AuthError`; `ValueError` for
    wrong arguments, before anything is sent; and `RuntimeError` before entering and after closing.
    """

    def __init__(
        self,
        auth: str | TokenSource,
        *,
        seller_id: int | str,
        api: Literal["marketplace", "domestic"] | Routes = "marketplace",
        base_url: str = "https://api.mercadolibre.com",
        limits: Limits | None = None,
        retry: Retry | None = None,
        timeout: float = 30.0,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        auth = Secret(auth) if isinstance(auth, str) else auth  # first: from here on no traceback shows it
        auth = StaticToken(auth) if isinstance(auth, str) else auth
        if not isinstance(auth, TokenSource):
            raise ValueError("auth must be an access token or a TokenSource")
        for name, value, cls in (
            ("limits", limits, Limits),
            ("retry", retry, Retry),
            ("session", session, aiohttp.ClientSession),
        ):
            if value is not None and not isinstance(value, cls):
                raise ValueError(f"{name} must be a {cls.__name__}")
        seller = digits("seller_id", seller_id)
        transport = Transport(checked_base_url(base_url), session, seconds("timeout", timeout))
        self._session = Session(transport, auth, limits or Limits(), retry or Retry())
        self._reader = Reader(self._session, Endpoints(routes(api), seller), seller)
        self._open: set[Drain | Fetch] = set()

    def __repr__(self) -> str:
        reader = getattr(self, "_reader", None)  # a traceback with locals shows it half made
        return f"MessagesClient(seller_id={reader.seller_id!r})" if reader else "MessagesClient(?)"

    async def __aenter__(self) -> MessagesClient:
        await self._session.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as closing:  # all of it, whatever one of them raises
            closing.push_async_callback(self._session.close)
            for generator in self._open:
                closing.push_async_callback(generator.aclose)

    # -- what is unread --

    async def unread(
        self, role: Literal["seller", "buyer"] = "seller", *, user_id: int | str | None = None
    ) -> UnreadListing:
        """Which conversations have unread messages: one request, which marks nothing.

        At most 1,000 (500 on domestic sites), and no paging ("Pending messages"): `UnreadListing.capped` says when
        there may be more.
        """
        return await self._reader.unread(role, user_id)

    async def unread_count(self, pack_id: int | str) -> int:
        """How many messages of one conversation count as unread: one request, which marks nothing."""
        return await self._reader.unread_count(pack_id)

    def drain(self, *, concurrency: int = 8, limit: int = 50, settle_time: float = 120.0) -> Drain:
        """Every unread conversation, past the cap; each is marked as read when you come back for the next. See `Drain`.

        `concurrency`: how many conversations are read ahead at most. `limit`: messages asked for in a page.
        `settle_time`: seconds after which a marking request of unknown outcome can no longer arrive.
        """
        self._session.check_open()
        drain = Drain(
            self._reader, concurrency=concurrency, limit=limit, settle_time=settle_time, on_close=self._open.discard
        )
        self._open.add(drain)
        return drain

    def fetch(
        self,
        pack_ids: Iterable[int | str] | AsyncIterable[int | str],
        *,
        concurrency: int = 8,
        limit: int = 50,
        mark_as_read: bool = False,
    ) -> Fetch:
        """Many conversations, whole, each once, in completion order; a `PackFailure` where a pack fails.

        `pack_ids` may be endless: no more than `concurrency` conversations are read ahead, and of what was read nothing
        is kept but the ids. `mark_as_read` marks before you hold it: for unread conversations `drain` and the `Inbox`
        are made.
        """
        self._session.check_open()
        fetch = Fetch(
            self._reader,
            pack_ids,
            concurrency=concurrency,
            limit=limit,
            mark=_flag(mark_as_read),
            on_close=self._open.discard,
        )
        self._open.add(fetch)
        return fetch

    # -- one conversation --

    async def page(
        self, pack_id: int | str, *, limit: int = 50, offset: int = 0, mark_as_read: bool = False
    ) -> MessagePage:
        """One page of a conversation: one request.

        With `mark_as_read` the server marks the conversation as read ("Pending messages"). Such a request is never
        repeated when its outcome is unknown: `AnswerLost`, or the `ServerError` that was answered; if its answer cannot
        be read, the page is read again without marking.
        """
        return await self._reader.page(pack_id, limit, offset, mark=_flag(mark_as_read))

    def pages(
        self, pack_id: int | str, *, limit: int = 50, mark_as_read: bool = False
    ) -> AsyncGenerator[MessagePage, None]:
        """The whole conversation page by page; each page holds what no page before it showed.

        With `mark_as_read` the first page marks.
        """
        self._session.check_open()
        pack = digits("pack_id", pack_id)
        return self._reader.pages(pack, whole("limit", limit, 1), mark=_flag(mark_as_read))

    def messages(
        self, pack_id: int | str, *, limit: int = 50, mark_as_read: bool = False
    ) -> AsyncGenerator[Message, None]:
        """The messages of a conversation, newest first, each once, page after page as they are needed."""
        return _messages(self.pages(pack_id, limit=limit, mark_as_read=mark_as_read))

    async def mark_read(self, pack_id: int | str) -> Conversation:
        """Mark a conversation as read; all that the marking answers showed: look, a message may have come meanwhile.

        The first page marks. Further pages are marked only where one still shows a message of the counterparty as
        unread after that: some servers mark no more than they return [observed].
        """
        pack, look, limit = digits("pack_id", pack_id), Look(), 50
        await self._reader.walk(look, pack, limit, mark=True)
        if look.unread_offsets:
            await self._reader.mark_pages(look, pack, limit, tuple(look.unread_offsets))
        return self._reader.conversation(look, pack, marked=True)

    async def message_by_id(self, message_id: int | str) -> Message:
        """One message; its `pack_id` is what its resources name. It marks nothing."""
        return await self._reader.message(message_id)


def reader_of(client: MessagesClient) -> Reader:
    """What a client reads with: for the inbox, which stands on it."""
    return client._reader


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("mark_as_read must be True or False")


async def _messages(pages: AsyncGenerator[MessagePage, None]) -> AsyncGenerator[Message, None]:
    """The messages of `pages`, newest first: as they come, once the server is seen to send the newest first."""
    held: list[Message] = []
    as_they_come = False
    try:
        async for page in pages:
            held += page.messages
            as_they_come = as_they_come or ascending(held[::-1])
            if as_they_come:
                for message in newest_first(held):
                    yield message
                held.clear()
        for message in newest_first(held):
            yield message
    finally:
        await pages.aclose()

"""`MessagesClient`: the session manager, whose coroutines and generators are the library."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import AsyncExitStack
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal
from weakref import WeakSet

import aiohttp

from .api.arguments import check_base_url, check_id, check_int, check_proxy_url, check_seconds, check_topic
from .api.endpoints import Endpoints, Routes, routes
from .api.notifications import Notification
from .api.outcomes import SETTLE_TIME
from .api.paging import descending, newest_first
from .api.redacted import redact
from .auth.source import Secret, StaticToken, TokenSource, conceal
from .conversations.attachments import Attachments
from .conversations.drain import Drain
from .conversations.fetch import Fetch
from .conversations.reader import ConversationRead, Reader
from .conversations.writer import Writer
from .events import Events, Hook
from .http.limits import Limits
from .http.pipeline import Pipeline
from .http.retry import Retry
from .http.transport import Transport
from .models import Attachment, Conversation, Message, MessagePage, Reasons, UnreadListing


class MessagesClient:
    """The messages of one seller: an async context manager; nothing opens before it is entered.

    - `auth`: an access token, or a `TokenSource`, such as `OAuthToken`.
    - `seller_id`: an int or a string of digits.
    - `api`: ``"marketplace"`` (Global Selling), ``"domestic"``, or `Routes` of your own.
    - `base_url`: https; plain http for loopback addresses alone.
    - `limits`, `retry`: None is a `Limits()` and a `Retry()` of its own. Clients of one application share one `Limits`.
    - `timeout`: seconds for one attempt, from the permit to the last byte.
    - `session`: an `aiohttp.ClientSession` to borrow (for an own CA, own DNS); it is never closed here.
    - `on_event`: is called with each value of `mlmessages.events` as it happens, and must not block.
    - `proxy`: the URL of an HTTP proxy, which may hold a user and a password; not together with `session`, which has a
      proxy of its own. What the environment names is not used by itself.

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
        on_event: Hook | None = None,
        proxy: str | None = None,
    ) -> None:
        proxy = conceal(proxy)  # it may hold a password
        auth = conceal(auth)  # first: from here on no traceback shows it
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
        seller = check_id("seller_id", seller_id)
        if on_event is not None and not callable(on_event):
            raise ValueError("on_event must be callable")
        if proxy is not None and session is not None:
            raise ValueError("proxy is for the client's own session: give the lent one its proxy")
        through = None if proxy is None else Secret(check_proxy_url(proxy))
        transport = Transport(check_base_url(base_url), session, check_seconds("timeout", timeout), through)
        self._pipeline = Pipeline(transport, auth, limits or Limits(), retry or Retry(), Events(on_event))
        endpoints = Endpoints(routes(api), seller)
        self._reader = Reader(self._pipeline, endpoints, seller)
        self._writer = Writer(self._pipeline, endpoints, self._reader)
        self._attachments = Attachments(self._pipeline, endpoints)
        self._open: WeakSet[Drain | Fetch] = WeakSet()  # one that is left by `break` and let go is not kept
        self._in_doubt: set[Drain] = set()  # but these are, to say so when they end

    def __repr__(self) -> str:
        reader = getattr(self, "_reader", None)  # a traceback with locals shows it half made
        return f"MessagesClient(seller_id={reader.seller_id!r})" if reader else "MessagesClient(?)"

    async def __aenter__(self) -> MessagesClient:
        await self._pipeline.open()
        try:
            await self._tell_source("bind")
        except BaseException:
            await self._pipeline.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as closing:  # all of it, whatever one of them raises
            closing.push_async_callback(self._pipeline.close)
            closing.push_async_callback(self._tell_source, "unbind")
            for generator in [*self._open]:
                closing.push_async_callback(generator._leave)

    async def _tell_source(self, what: Literal["bind", "unbind"]) -> None:
        """A source that renews its token is given our way to the token endpoint, for as long as the client is open."""
        method = getattr(self._pipeline.source, what, None)
        if method is not None:
            done = method(self._pipeline.transport)
            if isawaitable(done):
                await done

    # -- what is unread --

    async def unread(
        self, role: Literal["seller", "buyer"] = "seller", *, user_id: int | str | None = None
    ) -> UnreadListing:
        """Return which conversations have unread messages: one request, which marks nothing.

        At most 1,000 (500 on domestic sites), and no paging ("Pending messages"): `UnreadListing.capped` says when
        there may be more.
        """
        return await self._reader.unread(role, user_id)

    async def unread_count(self, pack_id: int | str) -> int:
        """Return how many messages of one conversation count as unread: one request, which marks nothing."""
        return await self._reader.unread_count(pack_id)

    def drain(self, *, concurrency: int = 8, limit: int = 50, settle_time: float = SETTLE_TIME) -> Drain:
        """Drain every unread conversation, past the cap; each is marked when you ask for the next. See `Drain`.

        `concurrency`: how many conversations are read ahead at most. `limit`: messages asked for in a page.
        `settle_time`: seconds after which a marking request of unknown outcome can no longer arrive.
        """
        self._pipeline.check_open()
        drain = Drain(
            self._reader,
            concurrency=concurrency,
            limit=limit,
            settle_time=settle_time,
            refusals=lambda: self._pipeline.limits.refusals,
            check_open=self._pipeline.check_open,
            on_doubt=self._in_doubt.add,
            on_close=self._in_doubt.discard,
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
        """Yield many conversations, whole, each once, in completion order; a `PackFailure` where a pack fails.

        `pack_ids` may be endless: no more than `concurrency` conversations are read ahead, and of what was read nothing
        is kept but the ids. `mark_as_read` marks before you hold it: for unread conversations `drain` and the `Inbox`
        are made.
        """
        self._pipeline.check_open()
        fetch = Fetch(
            self._reader,
            pack_ids,
            concurrency=concurrency,
            limit=limit,
            mark=_flag(mark_as_read),
            check_open=self._pipeline.check_open,
        )
        self._open.add(fetch)
        return fetch

    # -- one conversation --

    async def page(
        self, pack_id: int | str, *, limit: int = 50, offset: int = 0, mark_as_read: bool = False
    ) -> MessagePage:
        """Return one page of a conversation: one request.

        With `mark_as_read` the server marks the conversation as read ("Pending messages"). Such a request is never
        repeated when its outcome is unknown: `AnswerLost`, or the `ServerError` that was answered; if its answer cannot
        be read, the page is read again without marking.
        """
        return await self._reader.page(pack_id, limit, offset, mark=_flag(mark_as_read))

    def pages(
        self, pack_id: int | str, *, limit: int = 50, mark_as_read: bool = False
    ) -> AsyncGenerator[MessagePage, None]:
        """Yield the whole conversation page by page; each page holds what no page before it showed.

        With `mark_as_read` the first page marks.
        """
        self._pipeline.check_open()
        pack = check_id("pack_id", pack_id)
        return self._reader.pages(pack, check_int("limit", limit, 1), mark=_flag(mark_as_read))

    def messages(
        self, pack_id: int | str, *, limit: int = 50, mark_as_read: bool = False
    ) -> AsyncGenerator[Message, None]:
        """Yield the messages of a conversation, newest first, each once, page after page as they are needed."""
        return _messages(self.pages(pack_id, limit=limit, mark_as_read=mark_as_read))

    async def mark_read(self, pack_id: int | str) -> Conversation:
        """Mark a conversation as read, and return all that its answers showed: a message may have come meanwhile.

        The first page marks. Further pages are marked only where one still shows a message of the counterparty as
        unread after that: some servers mark no more than they return [observed: integrators].

        Where the marking answer cannot be read, the conversation is read at once without marking. That read may come
        from a replica that is behind, and lack what came last: `drain` and the `Inbox` look again later, this does not.
        """
        pack, look, limit = check_id("pack_id", pack_id), ConversationRead(), 50
        await self._reader.walk(look, pack, limit, mark=True)
        if look.unread_offsets:
            known = {row.id for row in look.messages}
            await self._reader.mark_pages(
                look, pack, limit, tuple(look.unread_offsets), known=known, total=look.counted
            )
        return self._reader.conversation(look, pack, marked=True)

    async def message_by_id(self, message_id: int | str) -> Message:
        """Return one message; its `pack_id` is what its resources name. It marks nothing."""
        return await self._reader.message(message_id)

    def missed_notifications(
        self, app_id: int | str, *, topic: str | None = None
    ) -> AsyncGenerator[Notification, None]:
        """Yield the notifications of the last two days that were not answered with 200, each once.

        `app_id` is the application's id; `topic`: ``"messages"``, ``"marketplace_messages"``, or None for all. It
        acknowledges nothing: the same ones come again until they expire [documented: notifications].
        """
        self._pipeline.check_open()
        return self._reader.missed(
            check_id("app_id", app_id), check_topic("topic", topic) if topic is not None else None
        )

    # -- writing --

    async def send(
        self,
        pack_id: int | str,
        text: str,
        *,
        to: int | str | None = None,
        attachments: Iterable[str | Attachment] = (),
    ) -> Message:
        """Reply in a conversation. At most one message is sent, whatever happens on the way.

        `to=None` writes to the one who wrote last on the other side: the buyer, or an agent who speaks for them.
        `attachments`: what `upload` returned, at most 25. Two requests: the conversation is read before, without
        marking.

        When the outcome of the POST is unknown, it is not repeated: the conversation is read again, and a message of
        the seller's that was not there before, with the same text, is returned. Else `AnswerLost`: it may or may not
        have been sent.

        The server can take a message and not deliver it: look at `Message.status` and `.moderation`; a rejection is
        also a warning in the log. A blocked conversation is a `Forbidden` with the reason in words, and a conversation
        without a message of the other side a `BadRequest`; then nothing was sent. `ValueError`: a text longer than the
        conversation allows, counted in Unicode code points (350 on domestic sites that do not say), and on domestic
        sites one with characters that they refuse.
        """
        text = redact(text)
        return await self._writer.send(pack_id, text, to, attachments)

    async def contact_reasons(self, pack_id: int | str) -> Reasons:
        """Return for which reasons the seller may start this conversation, and how often (the action guide).

        One request, or a second one where the first does not say how often. It sends nothing.
        """
        return await self._writer.contact_reasons(pack_id)

    async def start_conversation(
        self,
        pack_id: int | str,
        option_id: str,
        *,
        text: str | None = None,
        template_id: str | None = None,
        variables: Mapping[str, str | float] | None = None,
    ) -> Message:
        """Start a conversation by an option of the action guide, with a `text` or a template and its `variables`.

        Once at most, as `send`. Another option on the same sale at this moment (409) is waited for. Where the action
        guide is not for this pack (an exception, or the buyer has answered), a text is sent as a plain message instead.
        A text that is longer than the option allows is a `ValueError`.
        """
        text = redact(text)
        if isinstance(variables, Mapping):
            variables = {name: redact(value) for name, value in variables.items()}
        return await self._writer.start(pack_id, option_id, text, template_id, variables)

    async def upload(
        self,
        file: str | os.PathLike[str] | bytes | BinaryIO,
        *,
        filename: str | None = None,
        site_id: str,
        check_type: bool = True,
    ) -> str:
        """Upload a file; return the id to `send` it by, within 48 hours: then the server deletes it.

        `file`: a path, bytes, or a binary file that can seek, which is read from where it stands and not closed. It is
        sent in pieces, once at most. `filename`: what the receiver sees; None: the file's own. `site_id`: the site of
        the sale, such as ``"MLM"``. `ValueError`: more than 25 MB, a name of more than 200 characters or with a slash;
        on domestic sites, unless `check_type` is False, anything but JPG, PNG, PDF and TXT, the types they document.
        What else the server refuses is told when the message is sent (`Message.refused_files`). The client's `timeout`
        is for the whole file.
        """
        file = io.BytesIO(file) if isinstance(file, bytes) else file  # no traceback shows its content
        checked = _flag(check_type, "check_type")
        return await self._attachments.upload(file, filename=filename, site=site_id, check_type=checked)

    async def download(
        self,
        attachment: Attachment | str,
        destination: str | os.PathLike[str],
        *,
        site_id: str | None = None,
        allow_threat: bool = False,
    ) -> Path:
        """Download an attachment (of a message, or by its id) to `destination`.

        What exists is not touched: `FileExistsError`. It comes in pieces, into a temporary file beside `destination`,
        which gets the name when it is whole; its owner alone can read it. `site_id`: the site of the sale
        (`Message.site_id`), needed for Global Selling. A file that the server warns of is a `ValueError` unless
        `allow_threat`; an id alone does not tell of it.
        """
        threat = _flag(allow_threat, "allow_threat")
        return await self._attachments.download(attachment, destination, site=site_id, threat=threat)


def reader_of(client: MessagesClient) -> Reader:
    """Return what a client reads with: for the inbox, which stands on it."""
    return client._reader


def pipeline_of(client: MessagesClient) -> Pipeline:
    """Return what a client sends through: for the inbox, which needs its events and its budget."""
    return client._pipeline


def _flag(value: object, name: str = "mark_as_read") -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be True or False")


async def _messages(pages: AsyncGenerator[MessagePage, None]) -> AsyncGenerator[Message, None]:
    """The messages of `pages`, newest first: as they come, once the server is seen to send the newest first."""
    held: list[Message] = []
    as_they_come = False
    try:
        async for page in pages:
            held += page.messages
            as_they_come = as_they_come or descending(held)
            if as_they_come:
                for message in newest_first(held):
                    yield message
                held.clear()
        for message in newest_first(held):
            yield message
    finally:
        await pages.aclose()

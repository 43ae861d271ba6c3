"""Where Mercado Libre posts its notifications: routes for an aiohttp.web application, or a small server of their own.

Posts are not signed [documented nowhere], so the path is the secret, and nothing that a post says is believed: it is
written down, and what it names is asked for with our own token. Sender addresses are not looked at: the published list
changes, and headers such as X-Forwarded-For are anybody's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from attrs import define

from .api.arguments import check_id, seconds
from .api.notifications import TOPICS, Notification
from .auth.source import Secret
from .errors import DecodeError, JournalError
from .inbox.inbox import Inbox

__all__ = ["Counts", "NotificationRoutes", "serve"]

_log: Final = logging.getLogger("mlmessages")
MOST_BYTES: Final = 16 * 1024
_SECRET: Final = re.compile(r"[0-9A-Za-z._~-]{16,200}", re.ASCII)
_PREFIX: Final = re.compile(r"(?:/[0-9A-Za-z._~-]+)*", re.ASCII)


@define
class Counts:
    """What became of the posts behind the right path.

    `taken`: answered 200, and on the disk. `ignored`: answered 200, for another topic or another seller of the
    application, or without a message's id. `refused`: too large, unreadable, or of another application. `failed`:
    answered 503, for Mercado Libre to send again, because the journal did not answer in time.
    """

    taken: int = 0
    ignored: int = 0
    refused: int = 0
    failed: int = 0


class NotificationRoutes:
    """``POST {prefix}/{secret}``, for `aiohttp.web.Application.add_routes`: one durable insert, then 200.

    - `inbox`: where notifications go; or several by the user id that their notifications name: an application has one
      address for all of its sellers.
    - `secret`: at least 16 characters that may stand in a path, such as `secrets.token_urlsafe` makes. A wrong one is a
      404, like any other path. Whatever logs paths logs it: switch access logs off.
    - `application_id`: posts that name another one are refused.
    - `answer_within`: seconds; Mercado Libre gives an answer 500 ms, and switches the topic off for those that are
      late [documented].

    Raises `ValueError` for anything else.
    """

    def __init__(
        self,
        inbox: Inbox | Mapping[str, Inbox],
        *,
        secret: str,
        application_id: int | str,
        prefix: str = "/notifications",
        answer_within: float = 0.4,
    ) -> None:
        secret = Secret(secret) if isinstance(secret, str) else secret  # first: no traceback shows it
        if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
            raise ValueError("secret must be 16 to 200 ASCII letters, digits and . _ ~ -")
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ValueError("prefix must be empty or a path such as '/notifications'")
        inboxes = {inbox.seller_id: inbox} if isinstance(inbox, Inbox) else inbox
        if not isinstance(inboxes, Mapping) or not all(isinstance(each, Inbox) for each in inboxes.values()):
            raise ValueError("inbox must be an Inbox, or a mapping from user ids to them")
        self._inboxes = {check_id("user id", user): each for user, each in inboxes.items()}
        self._secret = secret.encode()
        self._application_id = check_id("application_id", application_id)
        self._answer_within = seconds("answer_within", answer_within)
        self._route = web.post(f"{prefix}/{{secret}}", self._post)
        self.counts: Final = Counts()

    def __iter__(self) -> Iterator[web.AbstractRouteDef]:
        yield self._route

    async def _post(self, request: web.Request) -> web.Response:
        given = request.match_info["secret"].encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._secret):
            raise web.HTTPNotFound
        try:
            async with asyncio.timeout(self._answer_within):
                return web.Response(status=await self._answer(request))
        except (JournalError, TimeoutError) as error:
            # Whether it will be on the disk after all does not matter: it is sent again, and twice is once.
            self.counts.failed += 1
            _log.warning("a notification was not taken, and will be sent again: %s", type(error).__name__)
            return web.Response(status=503)

    async def _answer(self, request: web.Request) -> int:
        body = await _read(request)
        if body is None:
            self.counts.refused += 1
            return 413
        try:
            notification = Notification.parse(body)
        except DecodeError:
            self.counts.refused += 1
            return 400
        if notification.application_id != self._application_id:
            self.counts.refused += 1
            return 403
        inbox = self._inboxes.get(notification.user_id or "")
        # 200 for what is nobody's here too: one address gets every topic and seller of an application, and one that
        # refuses is switched off.
        if inbox is None or notification.topic not in TOPICS or notification.message_id is None:
            self.counts.ignored += 1
            return 200
        await inbox.notify(notification)
        self.counts.taken += 1
        return 200


async def _read(request: web.Request) -> bytes | None:
    """The body, unpacked; None where it is too large: no more of it is read."""
    if (request.content_length or 0) > MOST_BYTES:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


@asynccontextmanager
async def serve(
    inbox: Inbox | Mapping[str, Inbox],
    *,
    secret: str,
    application_id: int | str,
    host: str = "127.0.0.1",
    port: int = 8080,
) -> AsyncIterator[str]:
    """A server of `NotificationRoutes` alone, for as long as the context lasts; the URL of its root.

    It speaks plain HTTP: what is public belongs behind a proxy that ends TLS. Port 0 is any free one.
    """
    application = web.Application(client_max_size=MOST_BYTES)
    application.add_routes(NotificationRoutes(inbox, secret=secret, application_id=application_id))
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        address = runner.addresses[0]
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        yield f"http://{name}:{address[1]}"
    finally:
        await runner.cleanup()

"""Where Mercado Libre posts its notifications: routes for an aiohttp.web application, or a small server of their own.

Posts are not signed [documented nowhere], so the path is the secret, and nothing that a post says is believed: it is
written down, and what it names is asked for with the seller's own token. Sender addresses are not looked at: the
published list changes, and anybody can write headers such as X-Forwarded-For.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import define

from .api.arguments import check_id, check_int, seconds
from .api.notifications import TOPICS, Notification
from .auth.source import Secret
from .errors import DecodeError, JournalError
from .escaping import one_line
from .inbox.inbox import Inbox

__all__ = ["Counts", "NotificationRoutes", "serve"]

_log: Final = logging.getLogger("mlmessages")
MOST_BYTES: Final = 16 * 1024
_SECRET: Final = re.compile(r"[0-9A-Za-z._~-]{16,200}", re.ASCII)
_PREFIX: Final = re.compile(r"(?:/[0-9A-Za-z._~-]+)*", re.ASCII)
_WARN_EVERY: Final = 300.0  # seconds between two warnings of the same kind
_HEALTH_EVERY: Final = 1.0  # seconds for which an answer of the health path holds: anybody may ask
_BACKLOG: Final = 64  # connections that asyncio accepts at a time, beyond those that are let in
_LISTEN_AGAIN_AFTER: Final = 0.5  # seconds between two looks at the listening socket


@define
class Counts:
    """What became of the posts behind the right path.

    `taken`: answered 200, and on the disk. `ignored`: answered 200, for another topic or another seller of the
    application. `refused`: too large, unreadable, or of another application. `failed`: answered 503, for Mercado Libre
    to send again, because the journal did not take it in time.
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
      404, like any other path; a slash behind it changes nothing. Access logs show it: switch them off.
    - `application_id`: posts that name another one are refused.
    - `answer_within`: seconds; Mercado Libre gives an answer 500 ms, and switches the topic off for those that are
      late [documented].

    ``GET {prefix}/health`` answers 200 while the journal can be read, else 503. Whatever is refused or left out is told
    in a warning, one of a kind in five minutes. Raises `ValueError` for wrong arguments.
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
        self._routes = [
            web.post(f"{prefix}/{{secret}}", self._post),
            web.post(f"{prefix}/{{secret}}/", self._post),
            web.get(f"{prefix}/health", self._health),
        ]
        self._warnings = _Warnings()
        self._healthy = False
        self._health_is_good_until = float("-inf")
        self.counts: Final = Counts()

    def __iter__(self) -> Iterator[web.AbstractRouteDef]:
        yield from self._routes

    async def _post(self, request: web.Request) -> web.Response:
        given = request.match_info["secret"].encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._secret):
            self._warnings.tell(
                "path",
                "a post to another path than the secret one was refused: if notifications do not arrive, compare the"
                " address in the application's settings",
            )
            raise web.HTTPNotFound
        try:
            async with asyncio.timeout(self._answer_within):
                return web.Response(status=await self._answer(request))
        except (JournalError, TimeoutError) as error:
            # It may be on the disk after all; it is sent again then, and written down once.
            self.counts.failed += 1
            _log.warning("a notification was not taken, and will be sent again: %s", type(error).__name__)
            return web.Response(status=503)

    async def _answer(self, request: web.Request) -> int:
        body = await _read(request)
        if body is None:
            return self._refuse(413, "size", f"a notification of more than {MOST_BYTES:,} bytes was refused")
        try:
            notification = Notification.parse(body)
        except DecodeError:
            return self._refuse(400, "unreadable", "a post that is no notification was refused")
        named = notification.application_id
        if named != self._application_id:
            return self._refuse(
                403,
                "application",
                f"notifications are refused: they are of application {named or 'without an id'}, and this address is"
                f" that of {self._application_id}: check --app-id (application_id)",
            )
        # 200 also for what is not for this service: one address gets every topic and every seller of an application,
        # and one that refuses is switched off.
        if notification.topic not in TOPICS:
            return self._ignore(
                "topic",
                f"notifications of the topic {one_line(notification.topic)[:60]} are answered and left out: only"
                f" {' and '.join(TOPICS)} are for this service",
            )
        inbox = self._inboxes.get(notification.user_id or "")
        if inbox is None:
            here = next(iter(self._inboxes)) if len(self._inboxes) == 1 else f"one of {len(self._inboxes):,}"
            return self._ignore(
                "user",
                f"notifications are answered and left out: they are of user {notification.user_id or 'without an id'},"
                f" and the seller here is {here}",
            )
        await inbox.notify(notification)
        self.counts.taken += 1
        return 200

    def _refuse(self, status: int, kind: str, warning: str) -> int:
        self.counts.refused += 1
        self._warnings.tell(kind, warning)
        return status

    def _ignore(self, kind: str, warning: str) -> int:
        self.counts.ignored += 1
        self._warnings.tell(kind, warning)
        return 200

    async def _health(self, _: web.Request) -> web.Response:
        if time.monotonic() >= self._health_is_good_until:
            self._healthy = await self._journals_answer()
            self._health_is_good_until = time.monotonic() + _HEALTH_EVERY
        if self._healthy:
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "the journal does not answer"}, status=503)

    async def _journals_answer(self) -> bool:
        try:
            async with asyncio.timeout(self._answer_within):
                for inbox in self._inboxes.values():
                    await inbox.dead_letters()
        except (JournalError, RuntimeError, TimeoutError):
            return False
        return True


class _Warnings:
    """Warnings of which one of a kind is written in some minutes: strangers can cause them."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def tell(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now < self._due.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._due[kind] = now + _WARN_EVERY
        more = self._left_out.pop(kind, 0)
        _log.warning("%s%s", text, f" ({more:,} more like it before)" if more else "")


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
    connections: int | None = None,
    idle_seconds: float = 30.0,
) -> AsyncIterator[str]:
    """A server of `NotificationRoutes` alone, for as long as the context lasts; the URL of its root.

    It speaks plain HTTP: what is public belongs behind a proxy that ends TLS. Port 0 is any free one.

    - `connections`: the most that are open at a time; None: 256, or a quarter of the file descriptors that the process
      may have. When more come, the oldest is closed that has not brought a notification yet.
    - `idle_seconds`: a connection is closed after so long without a whole request.
    """
    most = _room_for_connections() if connections is None else check_int("connections", connections, 1)
    routes = NotificationRoutes(inbox, secret=secret, application_id=application_id)
    door = _Door(most)
    application = web.Application(client_max_size=MOST_BYTES, middlewares=[door.remember])
    application.add_routes(routes)
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
        keepalive_timeout=seconds("idle_seconds", idle_seconds),
        lingering_time=1.0,
        logger=_quiet_log(),
    )
    await runner.setup()
    try:
        assert runner.server is not None  # after setup
        door.server = runner.server
        async with _listening(door, host, port) as address:
            name = f"[{address[0]}]" if ":" in address[0] else address[0]
            yield f"http://{name}:{address[1]}"
    finally:
        await runner.cleanup()


class _Door:
    """Lets connections in, and closes one where there are too many: silent strangers must not keep the others out.

    asyncio accepts until the descriptors are used up: then no notification is taken and the client has no socket.
    """

    server: web.Server

    def __init__(self, most: int) -> None:
        self.most: Final = most
        self._known: set[web.RequestHandler] = set()  # those that brought a notification
        self._busy: set[web.RequestHandler] = set()  # those that are being answered
        self._closed: set[web.RequestHandler] = set()  # those of which the server does not know it yet

    def __call__(self) -> asyncio.Protocol:
        connections = self.server.connections
        self._known.intersection_update(connections)
        self._closed.intersection_update(connections)
        left = [each for each in connections if each not in self._closed]  # oldest first
        if len(left) >= self.most:
            idle = [each for each in left if each not in self._busy]
            oldest = next((each for each in idle if each not in self._known), next(iter(idle), None))
            if oldest is not None:
                self._closed.add(oldest)
                oldest.force_close()
        return self.server()

    @web.middleware
    async def remember(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Note which connections are being answered, and which know the secret."""
        connection = request.protocol
        self._busy.add(connection)
        try:
            response = await handler(request)
            if request.method == "POST":  # a wrong path has raised
                self._known.add(connection)
            return response
        finally:
            self._busy.discard(connection)


@asynccontextmanager
async def _listening(door: _Door, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Listen at every address of `host`, and again where the event loop has closed the socket; the first address."""
    loop = asyncio.get_running_loop()

    async def listen(address: tuple[str, int]) -> tuple[tuple[str, int], asyncio.Server]:
        server = await loop.create_server(door, *address, backlog=_BACKLOG)
        return server.sockets[0].getsockname()[:2], server

    async def keep_listening() -> None:
        # On Windows the loop closes the socket for good when accepting fails once, as after a reset at a wrong moment.
        while True:
            await asyncio.sleep(_LISTEN_AGAIN_AFTER)
            for address in [each for each, server in servers.items() if server.sockets[0].fileno() == -1]:
                try:
                    _, servers[address] = await listen(address)
                except OSError as error:
                    _log.warning("port %d cannot be opened again: %s", address[1], error.strerror)
                else:
                    _log.warning("the socket of port %d was closed by the system, and is opened again", address[1])

    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    servers: dict[tuple[str, int], asyncio.Server] = {}
    try:
        for *_, address in found:
            servers.update([await listen((str(address[0]), int(address[1])))])
        keeper = asyncio.create_task(keep_listening())
        try:
            yield next(iter(servers))
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
    finally:
        for server in servers.values():
            server.close()


def _room_for_connections() -> int:
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:  # Windows: sockets are no file descriptors
        return 256
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if limit == resource.RLIM_INFINITY else max(min(256, limit // 4), 4)


def _quiet_log() -> logging.Logger:
    """The server's log, for aiohttp: a traceback shows the secret path, and malformed requests are many."""
    log = logging.getLogger("mlmessages.web")
    if not log.filters:
        log.addFilter(_without_traceback)
    return log


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if record.levelno < logging.WARNING or isinstance(error, HttpProcessingError):
        return False
    record.msg, record.args = "a request could not be answered: %s", (type(error).__name__,)
    record.exc_info = None
    return True

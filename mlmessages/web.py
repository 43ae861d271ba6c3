"""Where Mercado Libre posts its notifications: routes for an aiohttp.web application, or a small server of their own.

`mlmessages.asgi` has the same for other frameworks.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .api.arguments import check_int, check_seconds
from .auth.source import conceal
from .inbox.receiver import MOST_BYTES, Counts, Receiver, Target

__all__ = ["Counts", "NotificationRoutes", "serve"]

_log: Final = logging.getLogger("mlmessages")
_QUEUED: Final = 128  # connections that wait in the system until they are accepted
_ACCEPTED: Final = 16  # in one step of the event loop, before those that are too many are closed
_LISTEN_AGAIN_AFTER: Final = 0.5  # seconds between two looks at the listening socket


class NotificationRoutes:
    """``POST {prefix}/{secret}``, for `aiohttp.web.Application.add_routes`: one durable insert, then 200.

    - `inbox`: where notifications go; or several by the user id that their notifications name: an application has one
      address for all of its sellers; or a `Database`, in any process that has opened it.
    - `secret`: at least 16 characters that may stand in a path, such as `secrets.token_urlsafe` makes. A wrong one is a
      404, like any other path; a slash behind it changes nothing. Access logs show it: switch them off.
    - `application_id`: posts that name another one are refused.
    - `answer_within`: seconds; Mercado Libre gives an answer 500 ms, and switches the topic off for those that are
      late [documented: notifications].

    ``GET {prefix}/health`` answers 200 while the journal can be read, else 503. What is refused or left out is told
    in a warning, one of a kind in five minutes. Raises `ValueError` for wrong arguments.
    """

    def __init__(
        self,
        inbox: Target,
        *,
        secret: str,
        application_id: int | str,
        prefix: str = "/notifications",
        answer_within: float = 0.4,
    ) -> None:
        secret = conceal(secret)  # first: no traceback shows it
        self._receiver = Receiver(
            inbox, secret=secret, application_id=application_id, prefix=prefix, answer_within=answer_within
        )
        self._routes = [
            web.post(f"{prefix}/{{secret}}", self._post),
            web.post(f"{prefix}/{{secret}}/", self._post),
            web.get(f"{prefix}/health", self._health),
        ]

    def __iter__(self) -> Iterator[web.AbstractRouteDef]:
        yield from self._routes

    @property
    def counts(self) -> Counts:
        """What became of the posts so far."""
        return self._receiver.counts

    async def _post(self, request: web.Request) -> web.Response:
        body = request.content.iter_any()
        status = await self._receiver.answer(request.match_info["secret"], request.content_length, body)
        if status == 404:
            raise web.HTTPNotFound
        return web.Response(status=status)

    async def _health(self, _: web.Request) -> web.Response:
        if await self._receiver.is_healthy():
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "the journal does not answer"}, status=503)


@asynccontextmanager
async def serve(
    inbox: Target,
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
    secret = conceal(secret)  # first: no traceback shows it
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
        keepalive_timeout=check_seconds("idle_seconds", idle_seconds),
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
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listening = socket.create_server(address, family=family)
        listening.setblocking(False)
        server = await loop.create_server(door, sock=listening, backlog=_ACCEPTED)
        listening.listen(_QUEUED)  # asyncio knows one number for both
        return listening.getsockname()[:2], server

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

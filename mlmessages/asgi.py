"""Where Mercado Libre posts its notifications, as an ASGI application: for FastAPI, Starlette, Django and others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from .auth.source import conceal
from .inbox.receiver import Counts, Receiver, Target

__all__ = ["Counts", "NotificationApp"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON: Final = [(b"content-type", b"application/json")]


class NotificationApp:
    """``POST /{secret}`` as an ASGI application, to mount: one durable insert, then 200.

    The arguments and answers are those of `mlmessages.web.NotificationRoutes`; ``GET /health`` answers 200 while the
    journal can be read, else 503. The framework's own path stands in front: ``app.mount("/notifications",
    NotificationApp(...))``. It must run in the event loop of the inbox. Raises `ValueError` for wrong arguments.
    """

    def __init__(
        self,
        inbox: Target,
        *,
        secret: str,
        application_id: int | str,
        answer_within: float = 0.4,
    ) -> None:
        secret = conceal(secret)  # first: no traceback shows it
        self._receiver = Receiver(
            inbox, secret=secret, application_id=application_id, prefix="", answer_within=answer_within
        )

    @property
    def counts(self) -> Counts:
        """What became of the posts so far."""
        return self._receiver.counts

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request. Raises `RuntimeError` for what is not HTTP: the server's lifespan is its host's."""
        if scope["type"] != "http":
            raise RuntimeError(f"NotificationApp answers http, not {scope['type']}: mount it in an application")
        path = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        if scope["method"] == "GET" and path == "health":
            healthy = await self._receiver.is_healthy()
            text = b'{"status": "ok"}' if healthy else b'{"status": "the journal does not answer"}'
            await _respond(send, 200 if healthy else 503, text)
        elif scope["method"] == "POST":
            await _respond(send, await self._receiver.answer(path, _content_length(scope), _body(receive)))
        else:
            await _respond(send, 404)


async def _respond(send: Send, status: int, body: bytes = b"") -> None:
    headers = [*(_JSON if body else []), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _content_length(scope: Mapping[str, Any]) -> int | None:
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) < 20 else None


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the sender is gone: what came is no notification
            return
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return

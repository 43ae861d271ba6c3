"""Servers that say what they like over real sockets, a client of them, and a deadline for each test."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field

from mlmessages import MessagesClient, Retry

TOKEN = "APP_USR-edges"
PACK = 2000000000000001
PAGE = json.dumps({"paging": {"limit": 50, "offset": 0, "total": 1}, "messages": [{"id": "m1"}]}).encode()

Answer = Callable[["Wire", asyncio.StreamWriter], Awaitable[None]]


def within(seconds: float) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., Any]]:
    """Fail a test that takes longer: nothing here may hang."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
        @functools.wraps(test)
        async def run(*args: Any, **kwargs: Any) -> None:
            async with asyncio.timeout(seconds):
                await test(*args, **kwargs)

        return run

    return decorate


@define
class Wire:
    """What a server saw. `requests` are the heads, in order of arrival."""

    base_url: str = ""
    connections: int = 0
    requests: list[bytes] = field(factory=list)

    @property
    def marks(self) -> int:
        """How many marking requests came: each of them would have been executed."""
        return sum(b"/packs/" in head and b"mark_as_read=false" not in head for head in self.requests)


@asynccontextmanager
async def server(
    answer: Answer, context: ssl.SSLContext | None = None, *, until: bytes = b"\r\n\r\n"
) -> AsyncIterator[Wire]:
    """A server that gives each request to `answer`, which writes what it likes, until the writer is closed.

    `until` is how a request ends.
    """
    wire = Wire()
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        wire.connections += 1
        try:
            while not writer.is_closing():
                wire.requests.append(await reader.readuntil(until))
                await answer(wire, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the client has gone, or the test is over
        finally:
            tasks.discard(task)
            writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    wire.base_url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield wire
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


def answering(body: bytes = PAGE, status: str = "200 OK", *headers: str) -> Answer:
    """An honest answer, on a connection that stays open."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]

    async def answer(_: Wire, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return answer


def saying(data: bytes, *, close: bool = True) -> Answer:
    """These bytes and no others; then it closes the connection, or says nothing more."""

    async def answer(_: Wire, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return answer


def repeating(head: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    """`head`, and then `piece` for ever."""

    async def answer(_: Wire, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def client_at(base_url: str, **options: Any) -> MessagesClient:
    """A client that gives up after two attempts and half a second each, unless a test says otherwise."""
    options = {"retry": Retry(attempts=2, base=0.01), "timeout": 0.5, **options}
    return MessagesClient(options.pop("auth", TOKEN), seller_id=700100200, base_url=base_url, **options)

"""HTTP in memory: aiohttp's client on one side, a coroutine that answers on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from attrs import frozen


@frozen
class Reply:
    """An answer. Where there is none, the connection breaks."""

    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"

    def encoded(self) -> bytes:
        """What goes over the wire."""
        lines = [f"HTTP/1.1 {self.status} OK", f"Content-Type: {self.content_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body


Answer = Callable[[str], Awaitable[Reply | None]]


class Wire(aiohttp.BaseConnector):
    """Every request goes to `answer`, which gets its target. What it began goes on when the client has given up."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(force_close=True)  # kept connections cost a timer every 15 virtual seconds
        self.answer = answer
        self.at_work: set[asyncio.Task[None]] = set()
        self.is_cut = False

    def cut(self) -> None:
        """Let nothing more through: the client's process is gone. What it had sent goes on at the server."""
        self.is_cut = True

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        if self.is_cut:
            raise OSError("the process is gone")
        client = ResponseHandler(self._loop)
        client.connection_made(_Connection(client, self))
        return client

    async def stop(self) -> None:
        """End what is still at work."""
        for task in self.at_work:
            task.cancel()
        await asyncio.gather(*self.at_work, return_exceptions=True)


class _Connection(asyncio.Transport):
    """The client's end of a connection: what it writes is a request."""

    def __init__(self, client: ResponseHandler, wire: Wire) -> None:
        super().__init__()
        self._client = client
        self._wire = wire
        self._written = b""
        self._closed = False

    def write(self, data: Any) -> None:
        self._written += data
        if self._wire.is_cut:
            return
        if b"\r\n\r\n" in self._written:
            target = self._written.split(b" ", 2)[1].decode()
            self._written = b""
            task = asyncio.ensure_future(self._serve(target))
            self._wire.at_work.add(task)
            task.add_done_callback(self._wire.at_work.discard)

    async def _serve(self, target: str) -> None:
        reply = await self._wire.answer(target)
        if self._closed or self._wire.is_cut:
            return
        if reply is None:
            self.close()
        else:
            self._client.data_received(reply.encoded())

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._client.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

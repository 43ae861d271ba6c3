"""The HTTP face: aiohttp's low-level server over a sandbox, and a real socket for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING

import attrs
from aiohttp import web

from . import wire
from .asked import read_request
from .connection import Connection
from .faults import EXECUTE, Delay, Ending, Hold
from .packs import Sender

if TYPE_CHECKING:
    from .sandbox import Exchange, Sandbox


@attrs.frozen
class Server:
    """A sandbox that is being served."""

    base_url: str
    sandbox: Sandbox

    @property
    def token(self) -> str:
        """The access token that the API takes now."""
        return self.sandbox.token

    @property
    def seller_id(self) -> str:
        """Whose conversations these are."""
        return self.sandbox.seller_id

    def send(
        self, pack_id: int | str, text: str = "Test message", sender: Sender = "buyer", **overrides: object
    ) -> str:
        """A message arrives; its id."""
        return self.sandbox.send(pack_id, text, sender, **overrides)


class HttpFrontend:
    """Plays requests against a sandbox, on one loop; a request goes on though its client has gone."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._loop = asyncio.get_running_loop()
        self._manager = web.Server(self._handle)
        self._requests: set[asyncio.Task[object]] = set()

    def connection(self) -> Connection:
        """A protocol for one more connection."""
        return Connection(self._manager, loop=self._loop)

    async def stop(self) -> None:
        """End what is held, hanging or slow, then close every connection."""
        requests = list(self._requests)
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await self._manager.shutdown(timeout=1.0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        try:
            return await self._play(request)
        except ConnectionError:
            return wire.abandoned(request)
        finally:
            self._requests.discard(task)

    async def _play(self, request: web.BaseRequest) -> web.StreamResponse:
        body = b"".join([piece async for piece in request.content.iter_any()]) if request.can_read_body else b""
        asked = read_request(
            request.method,
            request.raw_path,
            request.headers.get("Authorization"),
            body,
            request.headers.get("Content-Type", ""),
        )
        latency = self._sandbox.behaviour.next_latency()
        if latency:
            await asyncio.sleep(latency / 2)
        visit = self._sandbox.arrive(asked)
        ending = await self._go_through(visit)
        if latency:
            await asyncio.sleep(latency / 2)
        status = wire.status_of(ending, visit.answer)
        if status is not None:
            self._sandbox.told(visit, status)
        answer = await wire.end(ending, visit.answer, request)
        if not answer.prepared:  # a server's clock and its messages' dates agree
            answer.headers.setdefault("Date", formatdate(self._sandbox.calendar, usegmt=True))
        return answer

    async def _go_through(self, visit: Exchange) -> Ending | None:
        if visit.rule is None:
            self._sandbox.carry_out(visit, EXECUTE)
            return None
        for step in visit.rule.steps:
            match step:
                case Delay(seconds):
                    await asyncio.sleep(seconds)
                case Hold(gate):
                    await self._sandbox.gates.passed(gate)
                case _ if isinstance(step, Ending):
                    return step
                case _:
                    self._sandbox.carry_out(visit, step)
        return None


@asynccontextmanager
async def serve(sandbox: Sandbox, host: str, port: int) -> AsyncIterator[Server]:
    """A listening socket over a sandbox."""
    face = sandbox.open_face()
    listener = await asyncio.get_running_loop().create_server(face.connection, host, port, backlog=1024)
    try:
        address = listener.sockets[0].getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        yield Server(f"http://{name}:{address[1]}", sandbox)
    finally:
        listener.close()
        await face.stop()
        await listener.wait_closed()

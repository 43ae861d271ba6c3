"""Plays HTTP requests against an engine, with aiohttp's low-level server."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

from aiohttp import web

from ..engine import Engine, Exchange
from ..faults import EXECUTE, Delay, Ending, Hold
from ..model.requests import ParsedRequest, parse_request
from . import wire_faults
from .connection import Connection


class HttpFrontend:
    """The HTTP face of an engine on one loop. A request goes on though its client has gone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._manager = web.Server(self._handle)
        self._requests: set[asyncio.Task[object]] = set()
        engine.calendar.start()

    def connection(self) -> Connection:
        """Return a protocol for one more connection."""
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
            return wire_faults.abandoned(request)
        finally:
            self._requests.discard(task)

    async def _play(self, request: web.BaseRequest) -> web.StreamResponse:
        parsed = await _parsed(request)
        latency = self._engine.behaviour.next_latency()
        if latency:
            await asyncio.sleep(latency / 2)
        exchange = self._engine.arrive(parsed)
        ending = await self._go_through(exchange)
        if latency:
            await asyncio.sleep(latency / 2)
        status = wire_faults.status_of(ending, exchange.answer)
        if status is not None:
            self._engine.told(exchange, status)
        response = await wire_faults.end(ending, exchange.answer, request)
        if not response.prepared:  # a server's clock and its messages' dates agree
            response.headers.setdefault("Date", formatdate(self._engine.calendar.today, usegmt=True))
        return response

    async def _go_through(self, exchange: Exchange) -> Ending | None:
        """Play the steps of the request's rule; return the ending, or None where the answer is sent whole."""
        if exchange.rule is None:
            self._engine.carry_out(exchange, EXECUTE)
            return None
        for step in exchange.rule.steps:
            match step:
                case Delay(seconds):
                    await asyncio.sleep(seconds)
                case Hold(gate):
                    await self._engine.gates.passed(gate)
                case _ if isinstance(step, Ending):
                    return step
                case _:
                    self._engine.carry_out(exchange, step)
        return None


async def _parsed(request: web.BaseRequest) -> ParsedRequest:
    body = b"".join([piece async for piece in request.content.iter_any()]) if request.can_read_body else b""
    headers = request.headers
    return parse_request(
        request.method, request.raw_path, headers.get("Authorization"), body, headers.get("Content-Type", "")
    )

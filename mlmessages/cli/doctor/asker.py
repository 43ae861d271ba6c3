"""Requests that are sent once each, counted, and shown with all that their answers say."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Generic, TypeVar

import attrs

from ...api.arguments import check_base_url
from ...api.calls import Call
from ...api.refusals import check
from ...api.scalars import http_date
from ...auth.source import Secret, TokenSource, current_token
from ...errors import APIError, MessagesError
from ...http.transport import Transport
from ..settings import Settings

T = TypeVar("T")

_TIMEOUT = 30.0


@attrs.frozen
class Reply(Generic[T]):
    """What came of one request. `value` is None where `error` is not; `status` is None where no answer came.

    `clock`: how many seconds the server's clock is ahead of this machine's; its header has whole seconds.
    """

    value: T | None
    error: MessagesError | None
    status: int | None
    headers: Mapping[str, str]
    seconds: float
    clock: float | None

    def brief(self) -> str:
        """Return the status, or why there is no answer, without anything that the server wrote."""
        if self.status is not None:
            return str(self.status)
        return type(self.error).__name__


class Asker:
    """Sends each call once, without retries and outside of the budget: what the server says first is what counts."""

    def __init__(self, transport: Transport, source: TokenSource) -> None:
        self._transport = transport
        self._source = source
        self.requests = 0

    async def ask(self, call: Call[T]) -> Reply[T]:
        """Return what came of `call`; no error of the API is raised."""
        began, at = time.monotonic(), time.time()
        status: int | None = None
        headers: Mapping[str, str] = {}
        value, failure = None, None
        try:
            token = await self.token()
            self.requests += 1
            response = await self._transport.send(call.request, token, _TIMEOUT)
            status, headers = response.status, {name.lower(): text for name, text in response.headers.items()}
            check(response)
            value = call.read(response)
        except MessagesError as error:
            failure = error.with_traceback(None)
            status = error.status if isinstance(error, APIError) else status
        took = time.monotonic() - began
        return Reply(value, failure, status, headers, took, _ahead(headers, at + took / 2))

    async def token(self) -> Secret:
        """Return the access token; what is wrong with it is an `AuthError`."""
        return await current_token(self._source)


def _ahead(headers: Mapping[str, str], now: float) -> float | None:
    sent = http_date(headers.get("date"))
    if sent is None:
        return None
    return (sent - datetime.fromtimestamp(now, UTC)).total_seconds() + 0.5  # half of the second that is cut off


@asynccontextmanager
async def asking(settings: Settings, source: TokenSource) -> AsyncIterator[Asker]:
    """Open a way to the API for as long as the context lasts."""
    proxy = None if settings.proxy is None else Secret(settings.proxy)
    transport = Transport(check_base_url(settings.base_url), None, _TIMEOUT, proxy)
    await transport.open()
    bind, unbind = getattr(source, "bind", None), getattr(source, "unbind", None)
    try:
        if bind is not None:
            bind(transport)
        yield Asker(transport, source)
    finally:
        if unbind is not None:
            await unbind(transport)
        await transport.close()

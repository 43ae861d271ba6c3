"""H1: no token, code or client secret in any error, traceback, pickle, repr or log line of the token endpoint's side."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from cases import case
from edges.sockets import Answer, Wire, answering, client_at, repeating, saying, server, within
from edges.test_canary import Heard, outputs
from mlmessages import Limits, OAuthToken, Retry
from mlmessages.auth import grants, token_endpoint
from mlmessages.errors import MessagesError
from mlmessages.http.transport import Transport
from mlmessages.models import Token
from tokens.conftest import MemoryStore

CANARY = "canary"
SECRET, ACCESS, REFRESH = "canary-secret/1+2=", "APP_USR-canary-a", "TG-canary-r"
ECHO = f'{{"error": "invalid_grant", "message": "no {REFRESH} of {SECRET}", "cause": ["{SECRET}"]}}'.encode()
OK = b"HTTP/1.1 200 OK\r\n"

ANSWERS: dict[str, Answer] = {
    "invalid_grant": answering(ECHO, "400 Bad Request", f"X-Request-Id: {REFRESH}"),
    "invalid_client": answering(ECHO.replace(b"invalid_grant", b"invalid_client"), "401 Unauthorized"),
    "403 text": answering(REFRESH.encode(), "403 Forbidden"),
    "429": answering(ECHO, "429 Too Many", "Retry-After: 9999"),
    "500": answering(ECHO, "500 Oops"),
    "a redirect": answering(b"", "302 Found", f"Location: https://elsewhere.invalid/?t={REFRESH}"),
    "no json": answering(f"<p>{ACCESS}".encode()),
    "no access token": answering(f'{{"refresh_token": "{REFRESH}"}}'.encode()),
    "an access token that is none": answering(f'{{"access_token": "{ACCESS}\\n"}}'.encode()),
    "too large": answering(ACCESS.encode() * 600_000),
    "cut off": saying(OK + b"Content-Length: 999\r\n\r\n" + ECHO),
    "no http": saying(f"{ACCESS} {REFRESH}\r\n\r\n".encode()),
    "dropped": saying(b""),
    "hangs": saying(b"", close=False),
    "trickles": repeating(OK + b"Content-Length: 99999\r\n\r\n", REFRESH.encode(), 0.01),
}


@pytest.fixture
def heard() -> Any:
    """All loggers at DEBUG, aiohttp's and asyncio's among them."""
    handler, root = Heard(), logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("mlmessages", "aiohttp", "aiohttp.client", "asyncio"))]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def assert_clean(lines: Any) -> None:
    for line in lines:
        if line.rpartition(" in ")[2].startswith("test_"):
            continue  # a frame of these tests, whose locals are not ours to judge
        assert CANARY not in line, line[max(0, line.index(CANARY) - 200) :][:500]


def token(hours: float) -> Token:
    """One whose refresh was sent long ago, so that a lost answer is the second and nobody waits."""
    end = datetime.now(UTC) + timedelta(hours=hours)
    return Token(ACCESS, REFRESH, end, end - timedelta(hours=6), "1", None, end - timedelta(days=9))


@case("H1")
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@within(10)
async def test_no_answer_of_the_token_endpoint_tells(answer: Answer, heard: Heard) -> None:
    """Expired, or still good for an hour: whatever the endpoint answers, nothing of it or of the form is shown."""
    for hours in (-1, 1):
        async with server(answer, until=b"refresh_token=TG-canary-r") as wire:
            source = OAuthToken(1, SECRET, MemoryStore(token(hours)), wire.base_url)
            options = {"timeout": 0.2, "retry": Retry(attempts=1), "limits": Limits(per_second=None)}
            async with client_at(wire.base_url, auth=source, **options) as client:
                if hours > 0:
                    assert await source.token() == ACCESS
                with pytest.raises((MessagesError, RuntimeError)) as refused:
                    await (client.unread() if hours < 0 else source.refresh())
                assert_clean(outputs(refused.value))
                assert_clean([repr(source), str(source), repr(client), repr(vars(source))])
            assert wire.requests
    assert_clean(heard.lines)


@case("H1")
@within(10)
async def test_a_post_that_is_cancelled_tells_nothing(heard: Heard) -> None:
    """Every frame, aiohttp's too, is without the form."""
    arrived = asyncio.Event()

    async def answer(_: Wire, __: Any) -> None:
        arrived.set()

    async with server(answer, until=b"refresh_token=TG-canary-r") as wire:
        transport = Transport(wire.base_url, None, 8)
        await transport.open()
        form = grants.refresh_form("1", SECRET, REFRESH)
        posting = asyncio.ensure_future(token_endpoint.request_grant(transport, form))
        await arrived.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await posting
        await transport.close()
    assert_clean(outputs(cancelled.value))
    assert_clean(heard.lines)


@case("H2")
@within(10)
async def test_a_redirect_of_the_token_endpoint_is_not_followed() -> None:
    """The second host sees nothing, and the body goes as a form, not in the URL."""
    async with server(answering()) as other:
        location = f"Location: {other.base_url}/oauth/token"
        async with server(
            answering(b"", "307 Temporary Redirect", location), until=b"refresh_token=TG-canary-r"
        ) as wire:
            transport = Transport(wire.base_url, None, 8)
            await transport.open()
            with pytest.raises(MessagesError, match="redirect"):
                await token_endpoint.request_grant(transport, grants.refresh_form("1", SECRET, REFRESH))
            await transport.close()
        assert other.requests == []
    (request,) = wire.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /oauth/token HTTP/1.1")
    assert b"canary" not in head
    assert b"Authorization" not in head
    assert b"application/x-www-form-urlencoded" in head
    assert body.startswith(b"grant_type=refresh_token&client_id=1&client_secret=canary-secret%2F1%2B2%3D")


@case("H2")
@within(10)
async def test_a_dropped_post_is_sent_once() -> None:
    """Neither aiohttp nor we send a form again by ourselves, on a fresh connection or on a reused one."""
    async with server(saying(b""), until=b"refresh_token=TG-canary-r") as wire:
        transport = Transport(wire.base_url, None, 8)
        await transport.open()
        with pytest.raises(token_endpoint.GrantLost):
            await token_endpoint.request_grant(transport, grants.refresh_form("1", SECRET, REFRESH))
        await transport.close()
    assert len(wire.requests) == 1


@within(10)
async def test_the_canary_sings() -> None:
    """The check finds the secret in what bare aiohttp shows of a cancelled form."""
    arrived = asyncio.Event()

    async def answer(_: Wire, __: Any) -> None:
        arrived.set()

    async with server(answer) as wire, aiohttp.ClientSession() as session:
        posting = asyncio.ensure_future(session.post(wire.base_url, data={"client_secret": SECRET}).__aenter__())
        await arrived.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await posting
    with pytest.raises(AssertionError):
        assert_clean(outputs(cancelled.value))

"""Servers that are too slow, say too much or nonsense, or point elsewhere: a typed error, and no one else gets the token."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import mlmessages
from cases import case
from edges.sockets import PACK, PAGE, Answer, answering, client_at, repeating, saying, server, within
from mlmessages import Retry, errors
from mlmessages.errors import AnswerLost, APIError, DecodeError, MessagesError, ServerError
from mlmessages.testing import (
    ENDLESS_HEADERS,
    EXECUTE,
    HANG,
    Gzip,
    Redirect,
    Sandbox,
    Slice,
    Trickle,
    on,
    serve_in_thread,
)

OK = b"HTTP/1.1 200 OK\r\n"
MB = 1024 * 1024


# -- slow --------------------------------------------------------------------------------------------------------------

SLOW: dict[str, Answer] = {
    "hangs": saying(b"", close=False),
    "status line, then nothing": saying(OK, close=False),
    "headers for ever": repeating(OK, b"X-More: " + b"x" * 60 + b"\r\n"),
    "headers for ever, slowly": repeating(OK, b"X-More: x\r\n", 0.01),
    "one header for ever": repeating(OK + b"X-More: ", b"x" * 1000),
    "continue for ever": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "no status for ever": repeating(b"", b"\r\n", 0.01),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
@within(3)
async def test_a_server_that_never_comes_to_the_point_is_given_up(answer: Answer) -> None:
    """A marking request is `AnswerLost` within the timeout, after one request."""
    async with server(answer) as wire, client_at(wire.base_url) as client:
        with pytest.raises(AnswerLost):
            await client.page(PACK, mark_as_read=True)
        assert len(wire.requests) == 1


TRICKLE = repeating(OK + b"Content-Length: 100000\r\n\r\n", b" ", 0.01)


@within(5)
async def test_a_body_that_trickles_is_given_up() -> None:
    """A read is `AnswerLost` after its retries; a mark was executed, so it is read again, and then a `DecodeError`."""
    async with server(TRICKLE) as wire, client_at(wire.base_url, timeout=0.2) as client:
        with pytest.raises(AnswerLost):
            await client.page(PACK)
        assert len(wire.requests) == 2
        with pytest.raises(DecodeError):
            await client.page(PACK, mark_as_read=True)
        assert wire.marks == 1


@within(5)
async def test_a_slow_refusal_is_still_a_refusal() -> None:
    """The status was seen: 503 with a body that never ends is the `ServerError` that it says."""
    refusal = repeating(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100000\r\n\r\n", b" ", 0.01)
    async with server(refusal) as wire, client_at(wire.base_url) as client:
        with pytest.raises(ServerError):
            await client.page(PACK, mark_as_read=True)


@pytest.mark.parametrize("ending", [HANG, ENDLESS_HEADERS, Trickle(1)], ids=lambda ending: type(ending).__name__)
@within(5)
async def test_the_sandboxes_slow_endings_are_given_up_too(ending: Any) -> None:
    """The sandbox's own ways to hang end in a typed error as well."""
    sandbox = Sandbox(packs=1, rules=[on("pack").do(EXECUTE, ending)])
    async with sandbox.serve() as served, client_at(served.base_url, auth=served.token) as client:
        with pytest.raises((AnswerLost, DecodeError)):
            await client.page(PACK, mark_as_read=True)
    assert sandbox.count("mark") == 1


@within(5)
async def test_an_answer_in_many_small_segments_is_whole() -> None:
    """A page in pieces of three bytes is read like any other."""
    sandbox = Sandbox(packs=1, messages=5, rules=[on("pack").do(EXECUTE, Slice(3))])
    async with sandbox.serve() as served, client_at(served.base_url, auth=served.token, timeout=4) as client:
        assert len((await client.page(PACK)).messages) == 5


# -- much --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        answering(b'{"messages": []' + b" " * (8 * MB) + b"}"),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        repeating(OK + b"Connection: close\r\n\r\n", b" " * 65536),
        repeating(OK + b"Content-Length: 1000000000000\r\n\r\n", b" " * 65536),
    ],
    ids=["8 MB and a little", "chunks for ever", "bytes until it closes", "a terabyte"],
)
@within(10)
async def test_an_answer_beyond_the_cap_is_an_error(answer: Answer) -> None:
    """More than 8 MB is a `DecodeError` at once, not repeated, and the connection is not used again."""
    async with server(answer) as wire, client_at(wire.base_url, timeout=8) as client:
        with pytest.raises(DecodeError, match="8 MB"):
            await client.page(PACK)
        assert len(wire.requests) == 1


@within(10)
async def test_an_answer_just_below_the_cap_is_read() -> None:
    """8 MB of it are no error."""
    body = b'{"messages": []' + b" " * (8 * MB - 16) + b"}"
    async with server(answering(body)) as wire, client_at(wire.base_url, timeout=8) as client:
        assert (await client.page(PACK)).messages == ()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@within(10)
async def test_the_cap_is_on_what_was_decoded(encoding: str) -> None:
    """30 MB in 30 kB, with an honest Content-Length: a `DecodeError`, not a page."""
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    body = packer.compress(b'{"messages": []' + b" " * 30 * MB + b"}") + packer.flush()
    packed = answering(body, "200 OK", f"Content-Encoding: {encoding}")
    async with server(packed) as wire, client_at(wire.base_url, timeout=8) as client:
        with pytest.raises(DecodeError, match="8 MB"):
            await client.page(PACK)


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway"])
@within(10)
async def test_a_refusal_beyond_the_cap_is_the_refusal(status: str) -> None:
    """An error page of 9 MB says no more than its status."""
    async with server(answering(b"x" * 9 * MB, status)) as wire, client_at(wire.base_url, timeout=8) as client:
        with pytest.raises(APIError) as refused:
            await client.page(PACK, mark_as_read=True)
    assert str(refused.value.status) == status[:3]
    assert len(str(refused.value)) < 1000


MEASURE = """
import asyncio, resource, sys
from mlmessages import MessagesClient, Retry
from mlmessages.errors import DecodeError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

async def main(base_url, token):
    async with MessagesClient(token, seller_id=700100200, base_url=base_url) as client:
        await client.page(2000000000000001)
        before = peak()
        try:
            await client.page(2000000000000002)
        except DecodeError as error:
            print(peak() - before, error)

asyncio.run(main(*sys.argv[1:]))
"""

if sys.platform != "win32":  # which has no `resource`

    def test_a_gzip_bomb_stays_small() -> None:
        """200 MB in 200 kB: `DecodeError`, and the process grows by less than 32 MB."""
        sandbox = Sandbox(packs=2, clock=time.monotonic, rules=[on("pack", pack=PACK + 1).do(Gzip(200 * 10**6))])
        with serve_in_thread(sandbox) as served:
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, served.base_url, served.token],
                env={"PYTHONPATH": ":".join(sys.path)},
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
        growth, _, error = done.stdout.partition(" ")
        assert "8 MB" in error
        assert int(growth) < 32 * MB


DEEP: dict[str, bytes] = {
    "arrays": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"messages":' * 100_000 + b"1" + b"}" * 100_000,
    "inside a message": b'{"messages": [{"id": "1", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "never closed": b"[" * 100_000,
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
@within(5)
async def test_json_100000_deep_is_an_error(body: bytes) -> None:
    """A `DecodeError`, in an answer as in a refusal; the client lives on."""
    async with server(answering(body)) as wire, client_at(wire.base_url) as client:
        for call in (
            client.page(PACK),
            client.page(PACK, mark_as_read=True),
            client.unread(),
            client.message_by_id("1"),
        ):
            with pytest.raises(DecodeError):
                await call
    async with server(answering(body, "400 Bad Request")) as wire, client_at(wire.base_url) as client:
        with pytest.raises(errors.BadRequest):
            await client.page(PACK)


# -- nonsense ----------------------------------------------------------------------------------------------------------

NONSENSE: dict[str, bytes] = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a bad status line": b"HTTP/1.1 two hundred OK\r\n\r\n",
    "a long status": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "bytes": bytes(range(256)) * 4,
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "a header without a name": OK + b": x\r\nContent-Length: 0\r\n\r\n",
    "a length that is none": OK + b"Content-Length: -5\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "bad chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
    "a length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
@within(5)
async def test_nonsense_is_no_answer(data: bytes) -> None:
    """Whether a mark was executed cannot be known: a typed error after one marking request."""
    async with server(saying(data)) as wire, client_at(wire.base_url) as client:
        with pytest.raises((AnswerLost, DecodeError)):
            await client.page(PACK, mark_as_read=True)
        assert wire.marks == 1


BROKEN: dict[str, bytes] = {
    "cut off": OK + b"Content-Length: 100\r\n\r\n" + PAGE[:20],
    "chunks cut off": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "no gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "half a gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    "empty": OK + b"Content-Length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "206 of something": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello",
    "html": OK + b"Content-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>",
    "a page without messages": OK + b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@within(5)
async def test_a_2xx_that_cannot_be_read_was_executed(data: bytes) -> None:
    """A marking request is sent once and read again without marking; what stays unreadable is a `DecodeError`."""
    async with server(saying(data)) as wire, client_at(wire.base_url) as client:
        with pytest.raises(DecodeError):
            await client.page(PACK, mark_as_read=True)
        assert wire.marks == 1
        assert len(wire.requests) > 1


STATUSES: list[tuple[str, bytes, type[APIError]]] = [
    ("300 Multiple Choices", b"", APIError),
    ("304 Not Modified", b"", APIError),
    ("308 Permanent Redirect", b"", APIError),
    ("400 Bad Request", b"", errors.BadRequest),
    ("401 Unauthorized", b"<html>", errors.Unauthorized),
    ("402 Payment Required", b"{}", APIError),
    ("403 Forbidden", b"null", errors.Forbidden),
    ("404 Not Found", b"plain", errors.NotFound),
    ("409 Conflict", b"[]", errors.Conflict),
    ("451 Unavailable For Legal Reasons", b"", APIError),
    ("500 Oops", b"", ServerError),
    ("502 Bad Gateway", b"<html><body>nginx</body></html>", ServerError),
    ("599 Odd", b"\xff\xfe", ServerError),
]


@pytest.mark.parametrize(
    ("status", "body", "error"), STATUSES, ids=lambda value: value[:3] if isinstance(value, str) else ""
)
@within(5)
async def test_every_status_has_its_error(status: str, body: bytes, error: type[APIError]) -> None:
    """Redirects, 451, HTML and empty bodies: the status decides, and one request was sent."""
    async with server(answering(body, status)) as wire, client_at(wire.base_url) as client:
        with pytest.raises(error) as refused:
            await client.page(PACK, mark_as_read=True)
        assert refused.value.status == int(status[:3])
        assert type(refused.value) is error
        assert len(wire.requests) == 1


# -- from elsewhere ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@within(5)
async def test_a_redirect_is_not_followed(status: str) -> None:
    """Another host is never asked, and never sees the token: an `APIError` that says it was a redirect."""
    async with server(answering()) as elsewhere:
        moved = answering(b"", status, f"Location: {elsewhere.base_url}/messages/packs/{PACK}")
        async with server(moved) as wire, client_at(wire.base_url) as client:
            with pytest.raises(APIError, match="redirect") as refused:
                await client.page(PACK, mark_as_read=True)
        assert type(refused.value) is APIError
        assert elsewhere.connections == 0
        assert len(wire.requests) == 1


@within(5)
async def test_the_sandboxes_redirect_is_not_followed() -> None:
    """The same with the sandbox's fault, to the same host."""
    sandbox = Sandbox(packs=1)
    async with sandbox.serve() as served, client_at(served.base_url, auth=served.token) as client:
        sandbox.add(on("listing").do(Redirect(f"{served.base_url}/messages/unread?role=seller")))
        with pytest.raises(APIError, match="redirect"):
            await client.unread()
    assert len(sandbox.log) == 1


@case("H11", "P4")
@pytest.mark.parametrize("keeps_cookies", [False, True])
@within(5)
async def test_cookies_are_not_sent_back(keeps_cookies: bool) -> None:
    """What a server with a name sets, no later request carries; a borrowed session with a jar shows that one could."""
    setting = answering(PAGE, "200 OK", "Set-Cookie: spy=1; Path=/", "Set-Cookie: other=2")
    async with server(setting) as wire, aiohttp.ClientSession() as jar:
        url = wire.base_url.replace("127.0.0.1", "localhost")  # aiohttp's usual jar ignores addresses
        async with client_at(url, session=jar if keeps_cookies else None) as client:
            for _ in range(3):
                await client.page(PACK)
    assert len(wire.requests) == 3
    assert any(b"cookie" in head.lower() for head in wire.requests) is keeps_cookies


@case("R7")
@within(5)
async def test_requests_say_who_sends_them() -> None:
    """`User-Agent: mlmessages/VERSION`; a borrowed session keeps its own."""
    async with server(answering()) as wire, aiohttp.ClientSession(headers={"User-Agent": "theirs"}) as borrowed:
        for session in (None, borrowed):
            async with client_at(wire.base_url, session=session) as client:
                await client.page(PACK)
    ours, theirs = wire.requests
    assert f"\r\nUser-Agent: mlmessages/{mlmessages.__version__}\r\n".encode() in ours
    assert b"\r\nUser-Agent: theirs\r\n" in theirs


@within(5)
async def test_proxies_and_netrc_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`HTTP_PROXY`, `ALL_PROXY` and `.netrc` change nothing: the request goes where it should, with our token."""
    async with server(answering()) as proxy, server(answering()) as wire:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login mallory password hunter2\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        async with client_at(wire.base_url) as client:
            await client.page(PACK)
    assert proxy.connections == 0
    [head] = wire.requests
    assert b"Authorization: Bearer APP_USR-edges\r\n" in head
    assert b"Basic" not in head


@within(5)
async def test_a_borrowed_session_brings_its_own_proxy() -> None:
    """Who lends a session with a proxy gets the request through it."""
    async with (
        server(answering()) as proxy,
        aiohttp.ClientSession(proxy=proxy.base_url) as session,
        client_at("http://127.0.0.1:9", session=session) as client,
    ):
        assert len((await client.page(PACK)).messages) == 1
    [head] = proxy.requests
    assert head.startswith(b"GET http://127.0.0.1:9/messages/packs/")


@within(5)
async def test_a_request_is_what_it_should_be() -> None:
    """The target goes out as it was made, with one Authorization, JSON asked for, and no body."""
    async with server(answering()) as wire, client_at(f"{wire.base_url}/ml/") as client:
        await client.page(PACK, limit=7)
    [head] = wire.requests
    assert head.startswith(
        b"GET /ml/messages/packs/2000000000000001/sellers/700100200"
        b"?tag=post_sale&limit=7&offset=0&mark_as_read=false HTTP/1.1\r\n"
    )
    lines = head.lower().split(b"\r\n")
    assert lines.count(b"authorization: bearer app_usr-edges") == 1
    assert b"accept: application/json" in lines
    assert not any(line.startswith((b"content-length", b"transfer-encoding", b"cookie")) for line in lines)


@within(10)
async def test_one_slow_call_does_not_hold_the_others() -> None:
    """A hanging request beside twenty good ones: they come while it waits."""

    async def answer(wire: Any, writer: asyncio.StreamWriter) -> None:
        if b"/packs/9/" not in wire.requests[-1]:
            await answering()(wire, writer)

    async with server(answer) as wire, client_at(wire.base_url, timeout=8, retry=Retry(attempts=1)) as client:
        slow = asyncio.ensure_future(client.page(9))
        pages = await asyncio.gather(*(client.page(PACK) for _ in range(20)))
        assert len(pages) == 20
        assert not slow.done()
        slow.cancel()
        with pytest.raises((asyncio.CancelledError, MessagesError)):
            await slow

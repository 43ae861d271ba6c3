"""Servers that cannot be reached: `NotSent`, after the retries, with nothing sent."""

from __future__ import annotations

import asyncio
import datetime
import logging
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from edges.sockets import PACK, Wire, answering, client_at, saying, server, within
from mlmessages import Inbox, MessagesClient, Retry
from mlmessages.errors import NotSent
from mlmessages.models import DrainReport, InboxReport

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that nobody but the tests knows."""
    return trustme.CA()


def of_server(authority: trustme.CA, *names: str, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    validity = {"not_before": LONG_AGO, "not_after": LONG_AGO} if expired else {}
    authority.issue_cert(*names, **validity).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> aiohttp.ClientSession:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def fails(client: MessagesClient, *, mark: bool) -> None:
    with pytest.raises(NotSent):
        await client.page(PACK, mark_as_read=mark)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("attempts", [1, 3])
@within(5)
async def test_a_refused_connection_is_not_sent(attempts: int, mark: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens: it was certainly not executed, so a marking request is repeated like a read; it says where."""
    port = closed_port()
    with caplog.at_level(logging.INFO, "mlmessages"):
        async with client_at(
            f"http://127.0.0.1:{port}", retry=Retry(attempts=attempts, base=0.01), timeout=2
        ) as client:
            with pytest.raises(NotSent) as failed:
                await client.page(PACK, mark_as_read=mark)
    assert str(failed.value) == f"no connection to 127.0.0.1:{port}: refused"
    assert "base URL" in (failed.value.hint or "")
    told = [record for record in caplog.records if f"NotSent: {failed.value}" in record.getMessage()]
    assert len(told) == attempts - 1


@within(5)
async def test_a_report_does_not_count_what_never_left(tmp_path: Path) -> None:
    """Nobody listens: after three attempts the reports of a drain and of an inbox count no request and no listing."""
    async with client_at(f"http://127.0.0.1:{closed_port()}", retry=Retry(attempts=3, base=0.01)) as client:
        drain = client.drain()
        with pytest.raises(NotSent):
            await anext(drain)
        assert drain.report == DrainReport()
        async with Inbox(client, tmp_path / "inbox.db") as inbox:
            with pytest.raises(NotSent):
                await anext(inbox.drain())
            assert inbox.report == InboxReport()


@pytest.mark.parametrize("host", ["mlmessages.invalid", f"{'a' * 64}.invalid", f"{'a.' * 130}invalid"], ids=len)
@within(10)
async def test_a_name_that_does_not_exist_is_not_sent(host: str) -> None:
    """No address: `NotSent`, with or without a network, also for a name that no resolver can be asked for."""
    async with client_at(f"https://{host}", retry=Retry(attempts=2, base=0.01), timeout=1) as client:
        await fails(client, mark=True)


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("wrong", ["unknown authority", "another host", "expired"])
@within(5)
async def test_a_server_that_cannot_prove_who_it_is_gets_no_token(
    authority: trustme.CA, wrong: str, attempts: int
) -> None:
    """A certificate of an unknown authority, for another host, or expired: `NotSent`, and no request arrives."""
    context = of_server(
        authority, "elsewhere.example" if wrong == "another host" else "127.0.0.1", expired=wrong == "expired"
    )
    async with server(answering(), context) as wire, trusting(authority) as lent:
        session = None if wrong == "unknown authority" else lent
        async with client_at(
            wire.base_url, session=session, retry=Retry(attempts=attempts, base=0.01), timeout=2
        ) as client:
            await fails(client, mark=True)
    assert wire.requests == []


@within(5)
async def test_an_authority_of_ones_own_is_a_session_of_ones_own(authority: trustme.CA) -> None:
    """The same server, with a certificate for its name, and a session that trusts it: the page comes."""
    async with (
        server(answering(), of_server(authority, "127.0.0.1")) as wire,
        trusting(authority) as session,
        client_at(wire.base_url, session=session, timeout=2) as client,
    ):
        assert len((await client.page(PACK)).messages) == 1


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28"], ids=ascii)
@within(5)
async def test_a_port_that_speaks_no_tls_is_not_sent(says: bytes) -> None:
    """It accepts and says nothing, or something else: `NotSent` within the timeout."""
    hello = b"\x16"  # how a TLS handshake begins
    async with server(saying(says, close=bool(says)), until=hello) as wire:
        url = wire.base_url.replace("http:", "https:")
        async with client_at(url, timeout=0.3, retry=Retry(attempts=1)) as client:
            await fails(client, mark=True)


@within(5)
async def test_a_server_that_comes_back_is_found() -> None:
    """The first attempt is refused, the port opens, the second attempt is answered: one execution."""
    port = closed_port()
    seen = Wire()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.requests.append(await reader.readuntil(b"\r\n\r\n"))
        await answering(b'{"messages": []}')(seen, writer)
        writer.close()

    opening: list[asyncio.Task[asyncio.Server]] = []

    class Opening(logging.Handler):
        """The retry's log line is the moment at which the server comes up."""

        def emit(self, record: logging.LogRecord) -> None:
            if not opening and "NotSent" in record.getMessage():
                opening.append(asyncio.create_task(asyncio.start_server(serve, "127.0.0.1", port)))

    log, handler = logging.getLogger("mlmessages"), Opening()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        async with client_at(f"http://127.0.0.1:{port}", retry=Retry(attempts=6, base=0.05), timeout=2) as client:
            assert (await client.page(PACK, mark_as_read=True)).messages == ()
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    async with await opening[0]:
        assert seen.marks == 1

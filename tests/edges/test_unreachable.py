"""Servers that cannot be reached: `NotSent`, after the retries, with nothing sent."""

from __future__ import annotations

import asyncio
import datetime
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from cases import case
from edges.sockets import PACK, Wire, answering, client_at, saying, server, within
from mlmessages import Inbox, Limits, MessagesClient, Retry
from mlmessages.errors import NotSent
from mlmessages.models import DrainReport, InboxReport

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
FAR_AHEAD = datetime.datetime(2101, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that the tests alone know."""
    return trustme.CA()


def of_server(
    authority: trustme.CA, *names: str, validity: tuple[datetime.datetime, datetime.datetime] | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    dates: dict[str, Any] = {"not_before": validity[0], "not_after": validity[1]} if validity else {}
    authority.issue_cert(*names, **dates).configure_cert(context)
    return context


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server whose certificate is one of an authority, signed by itself."""
    alone = trustme.CA()
    alone.cert_pem.write_to_path(folder / "alone.pem")
    alone.private_key_pem.write_to_path(folder / "alone.pem", append=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "alone.pem")
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
    """No server listens: it was certainly not executed, so a marking request is repeated like a read; it says where."""
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
    """No server listens: after three attempts the reports of a drain and of an inbox count no request and no listing."""
    async with client_at(f"http://127.0.0.1:{closed_port()}", retry=Retry(attempts=3, base=0.01)) as client:
        drain = client.drain()
        with pytest.raises(NotSent):
            await anext(drain)
        assert drain.report == DrainReport()
        async with Inbox(client, tmp_path / "inbox.db") as inbox:
            with pytest.raises(NotSent):
                await anext(inbox.drain())
            assert inbox.report == InboxReport()


@within(5)
async def test_what_never_left_costs_no_budget() -> None:
    """Five refused connections: all of the budget is still there."""
    limits = Limits(reads=1)
    async with client_at(
        f"http://127.0.0.1:{closed_port()}", limits=limits, retry=Retry(attempts=5, base=0.01)
    ) as client:
        await fails(client, mark=False)
        assert limits.used == 0


@pytest.mark.parametrize("host", ["mlmessages.invalid", f"{'a' * 64}.invalid", f"{'a.' * 130}invalid"], ids=len)
@within(10)
async def test_a_name_that_does_not_exist_is_not_sent(host: str) -> None:
    """No address: `NotSent`, with or without a network, also for a name that no resolver can be asked for."""
    async with client_at(f"https://{host}", retry=Retry(attempts=2, base=0.01), timeout=1) as client:
        await fails(client, mark=True)


@case("L5")
@pytest.mark.parametrize(
    ("wrong", "says", "hint"),
    [
        ("unknown authority", "signed by an authority that this machine does not know", "Install Certificates.command"),
        ("self-signed", "certificate is self-signed", "may be in between"),
        ("another host", "certificate is for another host", "Is the base URL right"),
        ("expired", "certificate has expired", "clock"),
        ("not yet valid", "certificate is not valid yet", "clock"),
        ("no TLS", "no TLS connection (WRONG_VERSION_NUMBER)", "speaks TLS"),
    ],
)
@within(5)
async def test_a_server_that_cannot_prove_who_it_is_gets_no_token(
    authority: trustme.CA, wrong: str, says: str, hint: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Each told by its name with what to do; no request arrives, and nothing is tried again: it does not pass."""
    name = "elsewhere.example" if wrong == "another host" else "127.0.0.1"
    validity = {"expired": (LONG_AGO, LONG_AGO), "not yet valid": (FAR_AHEAD, FAR_AHEAD)}.get(wrong)
    context = None if wrong == "no TLS" else of_server(authority, name, validity=validity)
    if wrong == "self-signed":
        context = self_signed(tmp_path)
    answer = saying(b"HTTP/1.1 400 Bad Request\r\n\r\n") if context is None else answering()
    async with server(answer, context, until=b"\x16" if context is None else b"\r\n\r\n") as wire:
        async with trusting(authority) as lent:
            session = None if wrong == "unknown authority" else lent
            url = wire.base_url.replace("http:", "https:")
            with caplog.at_level(logging.INFO, "mlmessages"):
                async with client_at(url, session=session, retry=Retry(attempts=6, base=0.01), timeout=2) as client:
                    with pytest.raises(NotSent) as failed:
                        await client.page(PACK, mark_as_read=True)
    assert says in str(failed.value)
    assert hint in (failed.value.hint or "")
    assert failed.value.final
    assert not any(b"HTTP" in request for request in wire.requests)
    assert caplog.records == []


@case("L5")
@within(5)
async def test_a_handshake_that_is_cut_off_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is going down closes in the middle of the handshake: that passes."""
    async with server(saying(b""), until=b"\x16") as wire:
        url = wire.base_url.replace("http:", "https:")
        with caplog.at_level(logging.INFO, "mlmessages"):
            async with client_at(url, retry=Retry(attempts=3, base=0.01), timeout=2) as client:
                await fails(client, mark=True)
    assert len(caplog.records) == 2


@case("L5")
@pytest.mark.parametrize(
    ("status", "hint", "attempts"), [(407, "user name and a password", 1), (403, "may not let", 1), (503, None, 3)]
)
@within(5)
async def test_a_proxy_that_refuses_is_told_as_that(status: int, hint: str | None, attempts: int) -> None:
    """The proxy's refusal, which no retry mends, or its trouble, which may pass; its password is in neither."""
    refusal = saying(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
    async with server(refusal) as wire:
        proxy = wire.base_url.replace("http://", "http://user:hunter2@")
        url = "https://mlmessages.invalid"
        async with client_at(url, proxy=proxy, retry=Retry(attempts=3, base=0.01)) as client:
            with pytest.raises(NotSent) as failed:
                await client.page(PACK, mark_as_read=True)
    assert str(failed.value) == f"no connection: the proxy answered {status}"
    assert (hint or "None") in str(failed.value.hint)
    assert len(wire.requests) == attempts


@case("L5")
@within(5)
async def test_a_proxy_that_is_not_there_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is the connection to the proxy, not to the server; the environment's proxy is not spoken of."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    port = closed_port()
    proxy = f"http://user:hunter2@127.0.0.1:{port}"
    async with client_at("https://mlmessages.invalid", proxy=proxy, retry=Retry(attempts=1)) as client:
        with pytest.raises(NotSent) as failed:
            await client.page(PACK)
    assert str(failed.value) == f"no connection to 127.0.0.1:{port}: the proxy: refused"
    assert failed.value.hint == "Is the proxy's URL right, and does it run?"


@case("N7")
@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
@within(5)
async def test_a_proxy_that_only_the_environment_names_is_spoken_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection, and a proxy in the environment: the hint says that it was not used, and never its password."""
    for each in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.lower(), raising=False)
    url = f"http://127.0.0.1:{closed_port()}"
    hints = []
    for proxy in (None, "http://user:hunter2@proxy.example:3128"):
        if proxy is not None:
            monkeypatch.setenv(name, proxy)
        async with client_at(url, retry=Retry(attempts=1)) as client:
            with pytest.raises(NotSent) as failed:
                await client.page(PACK)
        hints.append(failed.value.hint or "")
    assert f"{name} is set, and is not used" not in hints[0]
    assert f"{name} is set, and is not used" in hints[1]
    assert "hunter2" not in hints[1]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with client_at(url, retry=Retry(attempts=1)) as client:
        with pytest.raises(NotSent) as failed:
            await client.page(PACK)
    assert failed.value.hint == hints[0]


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

"""`web.serve` facing strangers: idle connections, malformed requests, refusals, health, a closed listening socket."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cases import case
from mlmessages import Inbox, web
from mlmessages.testing import Sandbox
from needs import needs
from worlds import client_of

SECRET = "a-secret-of-24-characters"
APP = 5503910054140000
GOOD: dict[str, Any] = {
    "topic": "messages",
    "resource": "m1",
    "user_id": "700100200",
    "application_id": APP,
    "actions": ["created"],
}


class Served:
    """A server of notifications, and its address."""

    def __init__(self, inbox: Inbox, root: str, path: Path, session: aiohttp.ClientSession) -> None:
        self.inbox, self.root, self.path, self._session = inbox, root, path, session
        self.port = int(root.rpartition(":")[2])

    async def post(self, path: str = f"/notifications/{SECRET}", **changes: Any) -> int:
        async with self._session.post(self.root + path, json={**GOOD, **changes}) as answer:
            return answer.status

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(self.root + path) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[None]:
        """A connection on which nothing is sent."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        yield
        writer.close()

    async def raw(self, data: bytes) -> bytes:
        """What is answered to `data`, up to the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def serving(tmp_path: Path, **options: Any) -> AsyncIterator[Served]:
    path = tmp_path / "inbox.db"
    async with (
        client_of(Sandbox(packs=0)) as client,
        Inbox(client, path) as inbox,
        web.serve(inbox, **{"secret": SECRET, "application_id": APP, "port": 0, **options}) as root,
        aiohttp.ClientSession() as session,
    ):
        yield Served(inbox, root, path, session)


def descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(list(Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd").iterdir()))


@case("K27")
@needs("limits")
async def test_idle_connections_do_not_keep_a_notification_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Four times as many silent strangers as there is room for: each notification is taken, and nothing is logged."""
    async with serving(tmp_path, connections=16) as served, AsyncExitStack() as strangers:
        before = descriptors()
        for n in range(64):
            await strangers.enter_async_context(served.silent())
            if n % 16 == 15:
                assert await served.post(resource=f"m{n}") == 200
        assert descriptors() < before + 64 + 2 * 16 + 10  # theirs are in this process too
    assert not caplog.records


@case("K27")
async def test_a_connection_that_has_proved_itself_is_closed_last(tmp_path: Path) -> None:
    """Strangers that come later do not close the connection on which a notification came."""
    body = json.dumps(GOOD).encode()
    post = f"POST /notifications/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    async with serving(tmp_path, connections=4) as served, AsyncExitStack() as strangers:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for _ in range(3):
            writer.write(post)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for _ in range(8):
                await strangers.enter_async_context(served.silent())
        writer.close()


@case("K27")
async def test_a_request_that_never_ends_is_closed(tmp_path: Path) -> None:
    """Headers that trickle, and a connection without a byte: both are closed when their seconds are over."""
    async with serving(tmp_path, idle_seconds=0.2) as served:
        assert await served.raw(b"POST /notifications/") == b""
        assert await served.raw(b"") == b""


@case("M4")
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nx\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 3 + b"\r\n\r\n",
        f"POST /notifications/{SECRET} HTTP/1.1\r\nContent-Length: x\r\n\r\n".encode(),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["header", "tls", "length", "chunk", "long"],
)
async def test_a_malformed_request_writes_nothing(
    data: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered with a 4xx, and no log has a line of it: anybody can send a million of them."""
    async with serving(tmp_path) as served:
        assert b" 4" in (await served.raw(data))[:12]
        assert await served.post() == 200
    assert not caplog.records
    assert capfd.readouterr().err == ""


@case("K29")
@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"application_id": 7}, 403, "application 7, and this address is that of 5503910054140000: check --app-id"),
        ({"user_id": 8}, 200, "user 8, and the seller here is 700100200"),
        ({"topic": "items\x1b[1m"}, 200, r"topic items\x1b[1m"),
    ],
    ids=["application", "user", "topic"],
)
async def test_a_refusal_is_told_once(
    change: dict[str, Any], status: int, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names what is refused and why; a hundred more within the minutes are counted, and not repeated."""
    async with serving(tmp_path) as served:
        for _ in range(5):
            assert await served.post(**change) == status
    [record] = caplog.records
    assert said in record.getMessage()
    assert record.levelno == logging.WARNING


@case("K29")
async def test_a_notification_at_a_wrong_path_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The address in the application's settings may be wrong; neither secret is in the line."""
    async with serving(tmp_path) as served:
        for _ in range(3):
            assert await served.post("/notifications/another-secret-of-30-chars") == 404
    [record] = caplog.records
    assert "another path than the secret one" in record.getMessage()
    assert SECRET not in caplog.text
    assert "another-secret" not in caplog.text


@case("K29")
async def test_a_trailing_slash_is_the_same_path(tmp_path: Path) -> None:
    """An address that was entered with one gets its notifications."""
    async with serving(tmp_path) as served:
        assert await served.post(f"/notifications/{SECRET}/") == 200
        assert await served.post("/notifications/another-secret-of-30-chars/") == 404


@case("K29")
async def test_the_health_path_says_whether_notifications_are_taken(tmp_path: Path) -> None:
    """200 while the journal answers, 503 when it is closed; it needs no secret and tells none."""
    async with serving(tmp_path) as served:
        assert await served.get("/notifications/health") == (200, {"status": "ok"})
        assert await served.get("/notifications/health") == (200, {"status": "ok"})
    async with serving(tmp_path) as served:
        await served.inbox.__aexit__(None, None, None)
        assert (await served.get("/notifications/health"))[0] == 503


@case("P1")
async def test_a_broken_journal_is_a_503(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The table is gone: the answer is 503, for Mercado Libre to send it again, with a warning and no traceback."""
    async with serving(tmp_path) as served:
        db = sqlite3.connect(served.path, isolation_level=None)
        db.execute("DROP TABLE notification")
        db.close()
        assert await served.post() == 503
    assert "will be sent again" in caplog.text
    assert "Traceback" not in caplog.text


@case("P1")
async def test_no_log_shows_the_secret_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not at the finest level: no access log is written."""
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path) as served:
        assert await served.post() == 200
        assert await served.post(f"/notifications/{SECRET}x") == 404
        assert await served.raw(f"POST /notifications/{SECRET} HTTP/1.1\r\nbad\r\n\r\n".encode())
    ours = [record for record in caplog.records if not record.name.startswith("asyncio")]
    assert SECRET not in "".join(record.getMessage() for record in ours)
    assert not [record for record in ours if record.name == "aiohttp.access"]


def _setting(event: asyncio.Event) -> logging.Filter:
    class Setting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            event.set()
            return True

    return Setting()


def _listening(port: int) -> socket.socket:
    [found] = [
        each
        for each in gc.get_objects()
        if isinstance(each, socket.socket) and each.fileno() != -1 and _listens_at(each, port)
    ]
    return found


def _listens_at(each: socket.socket, port: int) -> bool:
    try:
        return each.getsockname()[1] == port and bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except (OSError, IndexError):
        return False


@case("O5")
async def test_a_listening_socket_that_was_closed_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On Windows the event loop closes it when a connection is reset at the wrong moment: a warning, and it goes on."""
    told = asyncio.Event()
    async with serving(tmp_path) as served:
        with caplog.filtering(_setting(told)):
            lost = _listening(served.port)
            asyncio.get_running_loop().remove_reader(lost.fileno())
            lost.close()
            async with asyncio.timeout(10):
                await told.wait()
        assert await served.post() == 200
    assert "is opened again" in caplog.text

"""`mlmessages.asgi`: the same answers as the aiohttp routes, from what any ASGI server hands over."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages import Inbox, Notification
from mlmessages.asgi import NotificationApp
from mlmessages.testing import Sandbox
from worlds import client_of

SECRET = "a-secret-of-24-characters"
APP = 5503910054140000
GOOD = {"topic": "messages", "resource": "m1", "user_id": 700100200, "application_id": APP}


async def ask(
    app: NotificationApp, method: str, path: str, *chunks: bytes, root: str = "", length: int | None = None
) -> tuple[int, bytes]:
    """What an ASGI server does with one request: the status and the body of the answer."""
    received = [
        {"type": "http.request", "body": chunk, "more_body": n < len(chunks) - 1} for n, chunk in enumerate(chunks)
    ] or [{"type": "http.request"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0) if received else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    await app(
        {"type": "http", "method": method, "path": root + path, "root_path": root, "headers": headers}, receive, send
    )
    start, body = sent
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    return start["status"], body["body"]


@asynccontextmanager
async def app_of(tmp_path: Path) -> AsyncIterator[NotificationApp]:
    async with client_of(Sandbox(packs=0)) as client, Inbox(client, tmp_path / "inbox.db") as inbox:
        yield NotificationApp(inbox, secret=SECRET, application_id=APP)


def rows(tmp_path: Path) -> list[str]:
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as db:
        return [row[0] for row in db.execute("SELECT id FROM notification")]


@case("R1")
@pytest.mark.parametrize("root", ["", "/notifications", "/api/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_200_means_that_it_is_on_the_disk(root: str, slash: str, tmp_path: Path) -> None:
    """Wherever the framework mounts it, in one piece or several; another process sees the row."""
    body = json.dumps(GOOD).encode()
    async with app_of(tmp_path) as app:
        assert await ask(app, "POST", f"/{SECRET}{slash}", body[:20], body[20:], root=root) == (200, b"")
        assert rows(tmp_path) == ["m1"]
        assert app.counts.taken == 1


@case("R1", "G4")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/another-secret-of-24-characters", json.dumps(GOOD).encode(), 404),
        ("POST", "/", json.dumps(GOOD).encode(), 404),
        ("GET", f"/{SECRET}", b"", 404),
        ("POST", f"/{SECRET}", b"no JSON", 400),
        ("POST", f"/{SECRET}", b"", 400),
        ("POST", f"/{SECRET}", b" " * 20_000, 413),
        ("POST", f"/{SECRET}", json.dumps({**GOOD, "application_id": 1}).encode(), 403),
        ("POST", f"/{SECRET}", json.dumps({**GOOD, "user_id": 1}).encode(), 200),
    ],
)
async def test_what_is_not_taken_has_no_effect(
    method: str, path: str, body: bytes, status: int, tmp_path: Path
) -> None:
    """The statuses are those of the aiohttp routes, and nothing is written."""
    async with app_of(tmp_path) as app:
        assert (await ask(app, method, path, body))[0] == status
        assert rows(tmp_path) == []
        assert app.counts.taken == 0


async def test_a_post_that_calls_itself_too_large_is_not_read(tmp_path: Path) -> None:
    """413 by the length that it gives; a length that is no number is left out of account."""
    async with app_of(tmp_path) as app:
        assert (await ask(app, "POST", f"/{SECRET}", b"", length=10**6))[0] == 413


async def test_a_sender_who_goes_away_leaves_nothing(tmp_path: Path) -> None:
    """What came before the connection was cut is no notification."""
    async with app_of(tmp_path) as app:

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": f"/{SECRET}", "headers": [(b"content-length", b"x")]}
        await app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert rows(tmp_path) == []


async def test_the_health_path_says_whether_the_journal_answers(tmp_path: Path) -> None:
    """200 while it can be read; 503 when the inbox is closed."""
    async with app_of(tmp_path) as app:
        assert await ask(app, "GET", "/health") == (200, b'{"status": "ok"}')
    async with app_of(tmp_path) as closed:
        pass
    status, body = await ask(closed, "GET", "/health")
    assert status == 503
    assert json.loads(body) == {"status": "the journal does not answer"}


class Slow:
    """A destination whose check lasts until `answer` is set."""

    def __init__(self) -> None:
        self.checks = 0
        self.answer = asyncio.Event()

    async def notify(self, _: Notification) -> bool:
        return True

    async def check(self) -> None:
        self.checks += 1
        await self.answer.wait()


@case("T13")
async def test_a_flood_at_the_health_path_costs_one_check() -> None:
    """Strangers may ask: those who come while the journal is asked get the same answer."""
    slow = Slow()
    app = NotificationApp(slow, secret=SECRET, application_id=APP, answer_within=60.0)
    asking = [asyncio.ensure_future(ask(app, "GET", "/health")) for _ in range(100)]
    await asyncio.sleep(0)
    slow.answer.set()
    assert {status for status, _ in await asyncio.gather(*asking)} == {200}
    assert slow.checks == 1


async def test_a_path_with_half_a_character_is_a_404(tmp_path: Path) -> None:
    """Which some servers hand over: no traceback."""
    async with app_of(tmp_path) as app:
        assert await ask(app, "POST", "/\ud800", b"{}") == (404, b"")


async def test_the_lifespan_of_a_server_is_not_its_own(tmp_path: Path) -> None:
    """It is mounted in an application, and says so."""
    async with app_of(tmp_path) as app:
        with pytest.raises(RuntimeError, match="mount it"):
            await app({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

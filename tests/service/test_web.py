"""`mlmessages.web` over real sockets: one durable insert, then 200; everything else has no effect. G1, G2, G4, G5, G10."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web as aiohttp_web

from cases import case
from mlmessages import Inbox
from mlmessages.testing import Sandbox
from mlmessages.web import NotificationRoutes
from worlds import client_of

SECRET = "a-secret-of-24-characters"
APP = 5503910054140000
GOOD: dict[str, Any] = {"_id": "x", "topic": "marketplace_messages", "resource": "/marketplace/messages/m1", "user_id": "700100200",
                        "application_id": APP, "attempts": 1}  # fmt: skip


class Endpoint:
    """A server of the routes, and a client that posts."""

    def __init__(
        self, inbox: Inbox, routes: NotificationRoutes, session: aiohttp.ClientSession, root: str, path: Path
    ) -> None:
        self.inbox, self.counts, self.session, self.root, self.path = inbox, routes.counts, session, root, path

    async def post(
        self, body: bytes | dict[str, Any], *, path: str = f"/notifications/{SECRET}", **options: Any
    ) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.root + path, data=data, **options) as answer:
            return answer.status

    def rows(self) -> list[str]:
        """The messages that are written down, as another process sees them."""
        db = sqlite3.connect(self.path)
        try:
            return [row[0] for row in db.execute("SELECT id FROM notification ORDER BY id")]
        finally:
            db.close()


@asynccontextmanager
async def endpoint(tmp_path: Path, **options: Any) -> AsyncIterator[Endpoint]:
    sandbox = Sandbox(packs=0)
    path = tmp_path / "inbox.db"
    async with client_of(sandbox) as client, Inbox(client, path) as inbox, aiohttp.ClientSession() as session:
        routes = NotificationRoutes(inbox, **{"secret": SECRET, "application_id": APP, **options})
        application = aiohttp_web.Application()
        application.add_routes(routes)
        runner = aiohttp_web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await aiohttp_web.TCPSite(runner, "127.0.0.1", 0).start()
            yield Endpoint(inbox, routes, session, f"http://127.0.0.1:{runner.addresses[0][1]}", path)
            assert sandbox.log == []  # no post has caused a request
        finally:
            await runner.cleanup()


async def test_a_200_means_that_it_is_on_the_disk(tmp_path: Path) -> None:
    """Another process sees the row when the answer is there."""
    async with endpoint(tmp_path) as served:
        assert await served.post(GOOD) == 200
        assert served.rows() == ["m1"]
        assert served.counts.taken == 1


@case("G2")
async def test_eight_duplicates_are_one_row(tmp_path: Path) -> None:
    """At once, each with an id and a count of its own: all are answered 200."""
    async with endpoint(tmp_path) as served:
        posts = [served.post({**GOOD, "_id": str(n), "attempts": n}) for n in range(8)]
        assert await asyncio.gather(*posts) == [200] * 8
        assert served.rows() == ["m1"]


@pytest.mark.parametrize("path", ["/", "/notifications", "/notifications/", "/notifications/wrong-secret-of-24-chars", f"/notifications/{SECRET}x",
                                  f"/notifications/{SECRET[:-1]}", f"/{SECRET}", f"/notifications/{SECRET}/x", "/notifications/%ff%fe"])  # fmt: skip
async def test_another_path_is_no_path(path: str, tmp_path: Path) -> None:
    """404, whatever is posted there: nothing says how near it was."""
    async with endpoint(tmp_path) as served:
        assert await served.post(GOOD, path=path) == 404
        assert served.rows() == []


async def test_only_post_is_a_method(tmp_path: Path) -> None:
    """A browser that comes by the right path sees nothing."""
    async with endpoint(tmp_path) as served, served.session.get(f"{served.root}/notifications/{SECRET}") as answer:
        assert answer.status == 405


@case("G4", "G5")
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"application_id": 1}, 403), ({"application_id": None}, 403), ({"application_id": [APP]}, 403), ({"application_id": f"{APP}x"}, 403),
        ({"user_id": 1}, 200), ({"user_id": None}, 200), ({"user_id": {}}, 200),
        ({"topic": "orders_v2"}, 200), ({"topic": "items", "resource": "/items/MLB1"}, 200), ({"topic": None}, 400),
        ({"resource": "//evil.example/m1"}, 200), ({"resource": "/messages/../oauth/token"}, 200), ({"resource": "/messages/%2e%2e"}, 200),
        ({"resource": "m1\r\nX: y"}, 200), ({"actions": ["read"]}, 200),
    ],
    ids=str,
)  # fmt: skip
async def test_a_forged_or_foreign_notification_has_no_effect(
    change: dict[str, Any], status: int, tmp_path: Path
) -> None:
    """Nothing is written. What is only not for us is a 200: who refuses is switched off [documented]."""
    async with endpoint(tmp_path) as served:
        assert await served.post({**GOOD, **change}) == status
        assert served.rows() == []


@case("G4")
@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"[" * 16_000, b'{"topic":' * 1700, b"\xff" * 100, b"1" * 5000], ids=range(7)
)
async def test_what_is_no_notification_is_a_400(body: bytes, tmp_path: Path) -> None:
    """Not JSON, or nested without end."""
    async with endpoint(tmp_path) as served:
        assert await served.post(body) == 400
        assert served.counts.refused == 1


@case("G4")
async def test_a_body_beyond_16_kb_is_not_parsed(tmp_path: Path) -> None:
    """With its length told, without it, and packed: 413, though a notification is in it."""
    body = json.dumps({**GOOD, "x": "y" * 20_000}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with endpoint(tmp_path) as served:
        assert await served.post(body) == 413
        async with served.session.post(f"{served.root}/notifications/{SECRET}", data=chunks()) as answer:
            assert answer.status == 413
        async with served.session.post(f"{served.root}/notifications/{SECRET}", data=body, compress="gzip") as answer:
            assert answer.status == 413
        assert served.rows() == []


@case("G1")
async def test_a_locked_journal_is_a_503_in_time_and_nothing_is_lost(tmp_path: Path) -> None:
    """503 while another process holds the file, so that it is sent again; then 200, and one row."""
    async with endpoint(tmp_path, answer_within=0.2) as served:
        db = sqlite3.connect(served.path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        assert await served.post(GOOD) == 503
        db.execute("ROLLBACK")
        db.close()
        assert await served.post(GOOD) == 200
        assert served.rows() == ["m1"]
        assert (served.counts.taken, served.counts.failed) == (1, 1)


@case("K28")
async def test_beyond_the_bound_a_notification_is_a_503(tmp_path: Path) -> None:
    """After 20,000 forged ones a real one is not on the disk, so it is not a 200: it is sent again, and then taken."""
    async with endpoint(tmp_path) as served:
        forged = [(f"forged{n}", time.time() + 60) for n in range(20_000)]
        with closing(sqlite3.connect(served.path)) as db, db:
            db.executemany("INSERT INTO notification (id, not_before) VALUES (?, ?)", forged)
        assert await served.post(GOOD) == 503
        assert len(served.rows()) == 20_000
        with closing(sqlite3.connect(served.path)) as db, db:
            db.execute("DELETE FROM notification")
        assert await served.post(GOOD) == 200
        assert served.rows() == ["m1"]


@case("G10")
async def test_no_header_and_no_address_opens_anything(tmp_path: Path) -> None:
    """The published addresses in X-Forwarded-For do not replace the secret; any sender with the secret is taken."""
    async with endpoint(tmp_path) as served:
        headers = {"X-Forwarded-For": "54.88.218.97", "Forwarded": "for=54.88.218.97", "X-Real-IP": "54.88.218.97"}
        assert await served.post(GOOD, path="/notifications/x", headers=headers) == 404
        assert await served.post(GOOD, headers={"X-Forwarded-For": "192.0.2.1"}) == 200


async def test_one_address_serves_several_sellers(tmp_path: Path) -> None:
    """A mapping from user ids: each notification goes to the inbox of the user whom it names."""
    one, other = Sandbox(packs=0, seller_id=1), Sandbox(packs=0, seller_id=2)
    async with (
        client_of(one) as a,
        client_of(other) as b,
        Inbox(a, tmp_path / "1.db") as first,
        Inbox(b, tmp_path / "2.db") as second,
    ):
        async with endpoint(tmp_path) as served:
            routes = NotificationRoutes({"1": first, "2": second}, secret=SECRET, application_id=APP, prefix="/other")
            application = aiohttp_web.Application()
            application.add_routes(routes)
            runner = aiohttp_web.AppRunner(application, access_log=None)
            await runner.setup()
            await aiohttp_web.TCPSite(runner, "127.0.0.1", 0).start()
            served.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
            for user in ("1", "2", "3"):
                assert (
                    await served.post({**GOOD, "user_id": user, "resource": f"m{user}"}, path=f"/other/{SECRET}") == 200
                )
            await runner.cleanup()
    for name in ("1", "2"):
        db = sqlite3.connect(tmp_path / f"{name}.db")
        assert db.execute("SELECT id FROM notification").fetchall() == [(f"m{name}",)]
        db.close()


@pytest.mark.parametrize("wrong", [{"secret": ""}, {"secret": "short"}, {"secret": "with/a/slash/in/it"}, {"secret": None}, {"secret": "x" * 15},
                                   {"application_id": "x"}, {"prefix": "no-slash"}, {"prefix": "/{x}"}, {"answer_within": 0}, {"inbox": None}], ids=str)  # fmt: skip
async def test_wrong_arguments_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    """The secret is required, and long; its text is not in the error."""
    async with client_of(Sandbox(packs=0)) as client:
        options = {"inbox": Inbox(client, tmp_path / "x.db"), "secret": SECRET, "application_id": APP, **wrong}
        with pytest.raises(ValueError) as caught:
            NotificationRoutes(options.pop("inbox"), **options)
    assert "slash/in" not in str(caught.value)

"""The webhook at any replica: one statement, then 200; whoever holds the seller hears of it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import psycopg
import pytest

from cases import case
from mlmessages import Database, Delivery, Inbox, web
from mlmessages.postgres.statements import ADD_SELLER
from mlmessages.testing import Sandbox
from worlds import client_of

SECRET, APP = "a-secret-of-24-characters", 5503910054140000


def named(seller: str, message: str, **more: Any) -> dict[str, Any]:
    return {"topic": "messages", "resource": message, "user_id": int(seller), "application_id": APP, **more}


@case("S30")
async def test_any_replica_takes_a_notification_and_the_holder_delivers(database_url: str) -> None:
    """The replica holds no seat; the message is handled before the periodic listing would have come."""
    sandbox = Sandbox(packs=1)
    delivered: asyncio.Queue[Delivery] = asyncio.Queue()
    async with (
        Database(database_url, key=None, name="worker", lease=3.0) as database,
        Database(database_url, key=None, name="replica") as replica,
        web.serve(replica, secret=SECRET, application_id=APP, port=0) as root,
        aiohttp.ClientSession() as session,
        client_of(sandbox) as client,
        Inbox(client, database) as inbox,
    ):
        running = asyncio.create_task(inbox.run(delivered.put, interval=3600.0))
        async with asyncio.timeout(30):
            await delivered.get()
        message = sandbox.send(sandbox.pack_ids()[0], "¿Y bien?")
        async with session.post(f"{root}/notifications/{SECRET}", json=named(sandbox.seller_id, message)) as answer:
            assert answer.status == 200
        async with asyncio.timeout(30):
            again = await delivered.get()
        assert [each.id for each in again.messages] == [message]
        assert again.seller_id == sandbox.seller_id
        running.cancel()
        await asyncio.wait([running])


@case("S30", "G2", "G4")
async def test_what_is_for_no_seller_of_the_database_is_answered_and_left_out(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """200, counted as ignored, told once; a receipt changes nothing; eight duplicates are one row."""
    async with (
        Database(database_url, key=None, name="replica") as replica,
        web.serve(replica, secret=SECRET, application_id=APP, port=0) as root,
        aiohttp.ClientSession() as session,
        client_of(Sandbox(packs=0)) as client,
    ):
        async with Inbox(client, replica):
            pass  # its seller is known now

        async def post(body: dict[str, Any]) -> int:
            async with session.post(f"{root}/notifications/{SECRET}", json=body) as answer:
                return answer.status

        async def unknown() -> int:
            return sum(row.unknown_notifications for row in await replica.overview())

        assert await post(named("1", "m1")) == 200
        assert "no seller of this service" in caplog.text
        assert await post(named("700100200", "m1", actions=["read"])) == 200
        assert await unknown() == 0
        assert await asyncio.gather(*(post(named("700100200", "m1")) for _ in range(8))) == [200] * 8
        assert await unknown() == 1


@case("Q70")
async def test_replicas_that_are_told_the_same_in_another_order_do_not_wait_for_each_other(database_url: str) -> None:
    """Two of them write many notifications of many sellers together: the database never has to end one of the two."""
    names = [(str(seller), f"m{n}") for n in range(10) for seller in range(700100200, 700100220)]
    async with (
        Database(database_url, key=None, name="one") as one,
        Database(database_url, key=None, name="other") as other,
    ):
        await one.statements.run(*((ADD_SELLER, {"seller": seller}) for seller in dict(names)))
        for _ in range(3):
            await asyncio.gather(
                *(one.journals.notice(seller, message) for seller, message in names),
                *(other.journals.notice(seller, message) for seller, message in reversed(names)),
            )
            rung = await one.statements.run(("SELECT min(rings) FROM mlmessages.seller", {}))
            assert rung[0][0][0] >= 1
            await one.statements.run(("DELETE FROM mlmessages.notification", {}))
    with psycopg.connect(database_url) as admin:  # what they counted is told when they end
        asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert admin.execute(asked).fetchall() == [(0,)]

"""`Inbox(client, database)`: the same promises as on a file, and one holder at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from cases import case
from inbox.conftest import Consumer
from mlmessages import Inbox
from mlmessages.errors import JournalError, LeaseLost
from mlmessages.postgres.database import Database
from mlmessages.testing import DROP, EXECUTE, Message, Pack, Sandbox, on
from mlmessages.testing.clock import VirtualClockLoop
from worlds import client_of, on_virtual_clock

KEY = Fernet.generate_key()


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as admin:
        found = admin.execute(statement)  # type: ignore[arg-type]
        return found.fetchall() if found.description else []


@asynccontextmanager
async def process(
    url: str, sandbox: Sandbox, *, name: str = "one", lease: float = 3600.0, **options: Any
) -> AsyncIterator[tuple[Database, Inbox]]:
    """A process with an inbox on the database. The lease is the server's time, all else is virtual."""
    async with (
        Database(url, key=KEY, name=name, lease=lease) as database,
        client_of(sandbox) as client,
        Inbox(client, database, **options) as inbox,
    ):
        yield database, inbox


@contextmanager
def clock_of_the_loop(url: str) -> Iterator[None]:
    """The server's clock goes on with the virtual one, at each of its jumps."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    jump, begun = loop.jump, loop.time()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE TABLE mlmessages.passed AS SELECT clock_timestamp() AS begun, 0.0::float8 AS seconds")
        admin.execute(
            "CREATE OR REPLACE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " $$SELECT begun + seconds * interval '1 s' FROM mlmessages.passed$$"
        )

        def jump_together(seconds: float) -> None:
            jump(seconds)
            admin.execute("UPDATE mlmessages.passed SET seconds = %s", (loop.time() - begun,))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "jump", jump_together)
            yield


@on_virtual_clock
async def test_a_drain_delivers_everything_once(database_url: str) -> None:
    """2,500 messages in 300 packs: one marking GET each, none lost, none twice; what is acknowledged is gone."""
    sandbox = Sandbox([Pack(messages=n % 16 + 1) for n in range(100)])
    consumer = Consumer()
    async with process(database_url, sandbox) as (_, inbox):
        await consumer.empty(inbox)
        assert inbox.report.owed == 0
    assert set(consumer.ids) == sandbox.message_ids()
    assert len(consumer.ids) == len(set(consumer.ids))
    assert rows(database_url, "SELECT count(*) FROM mlmessages.body") == [(0,)]
    assert rows(database_url, "SELECT worker, epoch FROM mlmessages.seller") == [(None, 1)]


@on_virtual_clock
async def test_what_was_not_acknowledged_comes_again_in_the_next_process(database_url: str) -> None:
    """With `redelivered`, from the database, decrypted."""
    sandbox = Sandbox([Pack(messages=[Message("canary text")]) for _ in range(3)])
    first, second = Consumer(), Consumer()
    async with process(database_url, sandbox) as (_, inbox):
        await first.empty(inbox, ack=False)
    for (raw,) in rows(database_url, "SELECT raw FROM mlmessages.body"):
        assert b"canary" not in raw
    async with process(database_url, sandbox, name="two") as (_, inbox):
        await second.empty(inbox)
    assert sorted(second.ids) == sorted(first.ids)
    assert all(delivery.redelivered for delivery in second.deliveries)
    assert {message.text for delivery in second.deliveries for message in delivery.messages} == {"canary text"}


@case("Q2")
@on_virtual_clock
async def test_a_second_inbox_is_refused_and_told_who_holds_the_seller(database_url: str) -> None:
    """In another process, and in the same one; when the first has left, it may enter."""
    sandbox = Sandbox(packs=3)
    async with process(database_url, sandbox, name="machine-1") as (database, _):
        with pytest.raises(JournalError, match=f"seller {sandbox.seller_id} is held by worker machine-1"):
            async with process(database_url, sandbox, name="machine-2"):
                pass
        async with client_of(sandbox) as client:
            with pytest.raises(JournalError, match="is held by worker machine-1"):
                async with Inbox(client, database):
                    pass
    async with process(database_url, sandbox, name="machine-2") as (_, inbox):
        consumer = Consumer()
        await consumer.empty(inbox)
    assert set(consumer.ids) == sandbox.message_ids()


@case("Q3")
@on_virtual_clock
async def test_a_takeover_waits_looks_twice_and_the_one_that_lost_decides_nothing(database_url: str) -> None:
    """The first stops renewing with requests of unknown outcome; the second takes over and delivers all; the first's
    next step is `LeaseLost`, and nothing of it leaves.
    """
    sandbox = Sandbox([Pack(messages=2) for _ in range(10)], rules=[on("mark", nth=3).do(EXECUTE, DROP)])
    one, two = Consumer(), Consumer()
    async with AsyncExitStack() as stack:
        database, inbox = await stack.enter_async_context(process(database_url, sandbox, concurrency=1))
        drain = inbox.drain()
        for _ in range(2):
            one.deliveries.append(await anext(drain))
            await one.deliveries[-1].ack()
        assert database.worker._beating is not None
        database.worker._beating.cancel()
        stack.enter_context(clock_of_the_loop(database_url))
        rows(database_url, "UPDATE mlmessages.worker SET until = mlmessages.clock() - interval '1 s'")
        async with process(database_url, sandbox, name="two") as (_, second):
            await two.empty(second)
        before = len(sandbox.log)
        with pytest.raises(LeaseLost):
            while True:
                one.deliveries.append(await anext(drain))
        assert len([entry for entry in sandbox.log[before:] if "mark_as_read" in str(entry)]) == 0
    assert set(one.ids) | set(two.ids) == sandbox.message_ids()
    assert sandbox.marked_ids() <= set(one.ids) | set(two.ids)


@case("Q3")
@on_virtual_clock
async def test_a_claim_of_a_dead_process_waits_from_the_end_of_its_lease_and_is_read_twice(database_url: str) -> None:
    """Killed with a marking request under way: read after `settle_time`, and once more a quarter of an hour later."""
    sandbox = Sandbox(packs=2)
    async with process(database_url, sandbox):
        claimed = (
            f"INSERT INTO mlmessages.pack (seller, id, state, count) SELECT no, '{sandbox.pack_ids()[0]}', 'issued', 1"
        )
        rows(database_url, f"{claimed} FROM mlmessages.seller")
        loop = asyncio.get_running_loop()
        with clock_of_the_loop(database_url):
            rows(database_url, "UPDATE mlmessages.worker SET until = mlmessages.clock() - interval '1 s'")
            async with process(database_url, sandbox, name="two", settle_time=120.0) as (_, second):
                begun, consumer = loop.time(), Consumer()
                assert second.report.waiting == 1
                await consumer.empty(second)
                assert loop.time() - begun == pytest.approx(900, abs=20)
        assert set(consumer.ids) == sandbox.message_ids()
        marks = [entry for entry in sandbox.log if sandbox.pack_ids()[0] in entry.path]
        assert len(marks) == 2


@case("Q7")
@on_virtual_clock
async def test_a_service_hears_of_notifications_taken_elsewhere(database_url: str) -> None:
    """Another process writes one down; the holder lists within seconds and delivers."""
    from mlmessages.api.notifications import Notification

    sandbox = Sandbox(packs=1)
    consumer, arrived = Consumer(), asyncio.Event()

    async def handler(delivery: Any) -> None:
        consumer.deliveries.append(delivery)
        arrived.set()

    async with (
        process(database_url, sandbox) as (_, inbox),
        Database(database_url, key=KEY, name="replica") as replica,
    ):
        running = asyncio.create_task(inbox.run(handler, interval=3000.0))
        await arrived.wait()
        arrived.clear()
        await asyncio.sleep(100)
        message = sandbox.send(sandbox.pack_ids()[0])
        sent = asyncio.get_running_loop().time()
        body = {"topic": "messages", "resource": message, "user_id": int(sandbox.seller_id), "actions": ["created"]}
        assert await replica.notify(Notification.parse(body))
        await arrived.wait()
        assert asyncio.get_running_loop().time() - sent < 200
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert consumer.ids[-1] == message

"""The primary dies and its standby takes its place: what was acknowledged is there, if a commit waits for the standby."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import psycopg
import pytest

from cases import case
from journal.stores import entry
from mlmessages import Delivery, Inbox, MessagesClient
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Journal
from mlmessages.postgres.database import Database
from mlmessages.testing import Sandbox
from postgres.proxy import Proxy
from postgres.server import Server
from worlds import client_of, ids, lost

WRITERS = 8


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary, and a standby that every commit waits for."""
    primary = Server()
    standby = Server(primary)
    with psycopg.connect(primary.url("postgres"), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        admin.execute("SELECT pg_reload_conf()")
        while not admin.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchall():
            pass
    yield primary, standby
    standby.stop()
    primary.stop()


@case("Q2")
async def test_nothing_that_was_acknowledged_is_missing_after_a_failover(pair: tuple[Server, Server]) -> None:
    """A URL with both hosts, SIGKILL of the primary in the middle of writing, promotion: no acknowledged read is lost,
    what was under way is written after all, and the seat can be taken on the new primary.
    """
    primary, standby = pair
    url = f"postgresql://tester@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    stored: set[str] = set()
    dying = asyncio.Event()
    async with Database(url, key=None, lease=600.0) as database:
        journal = Journal(database.place("7", 120.0))
        await journal.open()

        async def write(writer: int) -> None:
            for n in range(1000):
                pack = f"{writer}-{n}"
                await journal.read(pack, [entry(pack)], None)
                stored.add(pack)
                if len(stored) > 200:
                    dying.set()
                if not primary.alive:
                    return

        writing = [asyncio.create_task(write(writer)) for writer in range(WRITERS)]
        await dying.wait()
        primary.kill()
        await asyncio.to_thread(standby.promote)
        await asyncio.gather(*writing)
        with pytest.raises(JournalError, match="open the inbox again"):
            await journal.claim("1")
        await journal.close()
        await database.worker.beat()
        again = Journal(database.place("7", 120.0))
        await again.open()
        assert len(await again.undelivered()) >= len(stored)
        assert stored <= set(await again.undelivered())
        await again.close()
    assert len(stored) > 200


@pytest.fixture
def apart() -> Iterator[tuple[Server, Proxy, Server]]:
    """A primary, a network, and a standby that no commit waits for."""
    primary = Server()
    network = Proxy(primary.port)
    standby = Server(primary, through=network.port)
    yield primary, network, standby
    standby.stop()
    network.close()
    primary.stop()


def caught_up(primary: Server) -> None:
    """Wait until the standby has all that was committed."""
    with psycopg.connect(primary.url("postgres"), autocommit=True) as admin:
        behind = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
        while not admin.execute(behind).fetchall():
            pass


async def opened(client: MessagesClient, database: Database) -> Inbox:
    """An inbox, when the connection is made again and the seat was given back."""
    while True:
        try:
            return await Inbox(client, database, settle_time=0.1).__aenter__()
        except JournalError:
            await asyncio.sleep(0.02)


@case("Q3")
@pytest.mark.parametrize("received", [True, False])
async def test_a_failover_to_an_asynchronous_standby_loses_what_it_had_not_received_and_warns(
    received: bool, apart: tuple[Server, Proxy, Server], caplog: pytest.LogCaptureFixture
) -> None:
    """As README says: the last instants, and what was marked in them; all of before is there. The log says so."""
    primary, network, standby = apart
    url = f"postgresql://tester@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    sandbox, deliveries = Sandbox(2), list[Delivery]()
    first, second = sandbox.pack_ids()
    async with Database(url, key=None) as database, client_of(sandbox) as client:
        async with Inbox(client, database) as inbox:
            async for delivery in inbox.drain():
                await delivery.ack()
                deliveries.append(delivery)
        late = [sandbox.send(first)]
        async with Inbox(client, database) as inbox:
            await anext(inbox.drain())  # stored, and no handler takes it before the failover
        caught_up(primary)
        if not received:
            network.silence()
        late.append(sandbox.send(second))
        async with Inbox(client, database) as inbox, inbox.drain() as drain:
            while (delivery := await anext(drain)).pack_id != second:
                pass
        if received:
            caught_up(primary)
        primary.kill()
        await asyncio.to_thread(standby.promote)
        with caplog.at_level(logging.WARNING, "mlmessages"):
            inbox = await opened(client, database)
        async for delivery in inbox.drain():
            await delivery.ack()
            deliveries.append(delivery)
        await inbox.__aexit__(None, None, None)
    [warning] = [record.getMessage() for record in caplog.records if "standby" in record.getMessage()]
    assert "has failed over to a standby" in warning
    assert "may never be handed over" in warning
    assert set(late) <= sandbox.marked_ids()
    assert lost(sandbox, deliveries) == (set() if received else {late[1]})
    assert late[0] in ids(deliveries)

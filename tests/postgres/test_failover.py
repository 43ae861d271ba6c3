"""The primary dies and its synchronous standby takes its place: what was acknowledged is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from cases import case
from journal.stores import entry
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Journal
from mlmessages.postgres.database import Database
from postgres.server import Server

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

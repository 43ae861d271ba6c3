"""`Database`: its schema, what it demands of a server, its sellers."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from cases import case
from mlmessages.api.notifications import Notification
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Journal
from mlmessages.journal.store import Seller, StoredMessage, Unstorable
from mlmessages.postgres import schema
from mlmessages.postgres.address import Address
from mlmessages.postgres.database import Database
from mlmessages.postgres.keys import Keys
from mlmessages.postgres.store import PostgresStore

KEY = Fernet.generate_key()


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as admin:
        found = admin.execute(statement)  # type: ignore[arg-type]
        return found.fetchall() if found.description else []


def notified(message_id: str, user_id: str = "7") -> Notification:
    body = {"topic": "messages", "resource": message_id, "user_id": int(user_id), "actions": ["created"]}
    return Notification.parse(body)


async def test_the_first_one_makes_the_schema_and_many_at_once_make_one(database_url: str) -> None:
    """Eight processes start together: one schema, no error; entering again changes nothing."""

    async def enter() -> None:
        async with Database(database_url, key=KEY):
            pass

    await asyncio.gather(*(enter() for _ in range(8)))
    await enter()
    assert rows(database_url, "SELECT version, oldest FROM mlmessages.meta") == [(schema.VERSION, 1)]


async def test_a_schema_of_another_name_is_apart(database_url: str) -> None:
    """Two in one database know nothing of each other."""
    async with (
        Database(database_url, key=None, schema="one") as one,
        Database(database_url, key=None, schema="two") as two,
    ):
        await one.journals.write(lambda store: store.add_seller("7"))
        assert [seller.seller_id for seller in await one.sellers()] == ["7"]
        assert await two.sellers() == ()


@case("Q2")
async def test_who_may_not_create_is_told_what_to_run_and_can_use_what_was_run(database_url: str) -> None:
    """The error names `mlmessages database schema`; its output, run by the owner, is all that is needed."""
    name = database_url.rsplit("/", 1)[1]
    rows(database_url, "DROP ROLE IF EXISTS plain")
    rows(database_url, "CREATE ROLE plain LOGIN")
    try:
        rows(database_url, f'REVOKE CREATE ON DATABASE "{name}" FROM plain, PUBLIC')
        url = database_url.replace("tester@", "plain@")
        with pytest.raises(JournalError, match=r"mlmessages database schema \| psql"):
            async with Database(url, key=KEY):
                pass
        rows(database_url, schema.script("mlmessages"))
        rows(database_url, "GRANT USAGE ON SCHEMA mlmessages TO plain")
        rows(database_url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mlmessages TO plain")
        async with Database(url, key=KEY) as database:
            await database.journals.write(lambda store: store.add_seller("7"))
            assert [seller.seller_id for seller in await database.sellers()] == ["7"]
    finally:
        rows(database_url, "DROP OWNED BY plain")
        rows(database_url, "DROP ROLE plain")


async def test_a_schema_that_needs_a_newer_program_is_refused(database_url: str) -> None:
    """A newer one that old programs may use is not."""
    async with Database(database_url, key=KEY):
        pass
    rows(database_url, "UPDATE mlmessages.meta SET version = 99, oldest = 1")
    async with Database(database_url, key=KEY):
        pass
    rows(database_url, "UPDATE mlmessages.meta SET oldest = 99")
    with pytest.raises(JournalError, match="needs a newer mlmessages"):
        async with Database(database_url, key=KEY):
            pass


@case("Q2")
async def test_a_server_that_may_forget_is_refused(database_url: str) -> None:
    """A user whose synchronous_commit is off gets it on; what is written is acknowledged when it is on the disk."""
    rows(database_url, "ALTER ROLE tester SET synchronous_commit = off")
    try:
        async with Database(database_url, key=KEY) as database:
            [[(setting,)]] = await database.statements.run(("SELECT current_setting('synchronous_commit')", {}))
            assert setting == "on"
    finally:
        rows(database_url, "ALTER ROLE tester RESET synchronous_commit")


async def test_it_is_opened_once_and_closed_for_good(database_url: str) -> None:
    """Entering twice is misuse; what is asked of a closed one is a `JournalError`; it can be entered again."""
    database = Database(database_url, key=KEY)
    with pytest.raises(JournalError, match="not open"):
        await database.notify(notified("m1"))
    async with database:
        with pytest.raises(RuntimeError, match="open already"):
            await database.__aenter__()
    async with database:
        assert await database.sellers() == ()


@case("Q7")
async def test_a_notification_is_taken_by_any_process(database_url: str) -> None:
    """For a seller of the database, held or not; twice is once; for another user, False; a receipt changes nothing."""
    async with Database(database_url, key=KEY) as one, Database(database_url, key=KEY) as two:
        await one.journals.write(lambda store: store.add_seller("7"))
        assert await two.notify(notified("m1"))
        assert await one.notify(notified("m1"))
        assert await one.notify(notified("m2"))
        assert not await two.notify(notified("m1", "8"))
        receipt = Notification.parse({"topic": "messages", "resource": "m3", "user_id": 7, "actions": ["read"]})
        assert await two.notify(receipt)
        [seller] = await two.overview()
        assert (seller.seller_id, seller.unknown_notifications, seller.holder) == ("7", 2, None)
        with pytest.raises(ValueError, match="must be a Notification"):
            await one.notify("m1")  # type: ignore[arg-type]
    assert rows(database_url, "SELECT rings FROM mlmessages.seller") == [(2,)]


async def test_the_overview_says_who_holds_whom_and_what_is_owed(database_url: str) -> None:
    """One row a seller."""
    async with Database(database_url, key=KEY, name="machine-1") as database:
        worker = database.worker
        seat = await worker.take("7", settle_time=120.0)
        await database.journals.write(lambda store: store.add_seller("8"))
        journal = Journal(worker.place(seat))
        await journal.open()
        await journal.listed([(p, 1, None) for p in "12345"], None)
        await journal.claim("1")
        await journal.claim("2")
        await journal.read("2", [StoredMessage("a", b'{"text":"canary"}', True)], None)
        await journal.reopen("3", 60.0, outcome_unknown=True)
        await journal.park("4", 60.0, count=1, attempts=1, error="{}", outcome_unknown=False)
        first, second = await database.overview()
        assert (first.holder, first.alive, first.owed, first.issued, first.waiting, first.parked) == (
            "machine-1",
            True,
            3,
            1,
            1,
            1,
        )
        assert (first.undelivered, first.dead, first.stopped) == (1, 0, None)
        assert first.oldest_undelivered is not None
        assert first.oldest_undelivered.tzinfo is not None
        assert (second.holder, second.alive, second.owed, second.listed_at) == (None, False, 0, None)
        assert await database.sellers() == (Seller("7", "machine-1", None), Seller("8", None, None))
        [(raw,)] = rows(database_url, "SELECT raw FROM mlmessages.body")
        assert b"canary" not in raw
        await journal.close()
        assert await database.remove(7)
        assert not await database.remove("7")
    assert rows(database_url, "SELECT count(*) FROM mlmessages.body") == [(0,)]


async def test_nothing_is_kept_of_a_seller_that_was_removed(database_url: str) -> None:
    """An answer that comes late is stored no more: no one would ever see it, or sweep it."""
    async with Database(database_url, key=None) as database:
        journal = Journal(database.place("7", 120.0))
        await journal.open()
        await journal.listed([("1", 1, None)], None)
        await journal.claim("1")
        assert await database.remove("7")
        with pytest.raises(JournalError):
            await journal.read("1", [StoredMessage("a", b"{}", True)], None)
        await journal.close()
    assert rows(
        database_url, "SELECT (SELECT count(*) FROM mlmessages.body), (SELECT count(*) FROM mlmessages.message)"
    ) == [(0, 0)]


async def test_what_cannot_be_stored_fails_alone(database_url: str) -> None:
    """A NUL in an id, half a surrogate pair, a number beyond 64 bits: the others of that moment are committed."""
    async with Database(database_url, key=None) as database:
        journal = Journal(database.place("7", 120.0))
        await journal.open()
        bad = ["canary\0", "canary\ud800"]
        results = await asyncio.gather(
            journal.listed([("1", 1, None)], None),
            *(journal.read("1", [StoredMessage(id_, b"{}", True)], None) for id_ in bad),
            journal.listed([("2", -(10**30), None)], None),
            journal.listed([("3", 10**30, None)], None),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), Unstorable, Unstorable, Unstorable, type(None)]
        assert not any("canary" in str(result) for result in results)
        assert [(row.pack_id, row.count) for row in await journal.rows()] == [("1", 1), ("3", 2**62)]
        await journal.close()


def test_a_statement_outside_of_a_transaction_is_misuse(database_url: str) -> None:
    """It would be in none, or leave one half open; and the connection can be used afterwards."""
    store = PostgresStore(Address(database_url), "mlmessages", Keys(None), "0.1")
    schema.migrate(store.connection, "mlmessages")
    for call in (store.count, lambda: store.add_seller("7"), lambda: store.claim_duty("any", 1.0)):
        with pytest.raises(RuntimeError, match="outside of a transaction"):
            call()
    store.begin()
    assert store.count() == (0, 0)
    store.commit()
    with pytest.raises(RuntimeError, match="outside of a transaction"):
        store.count()
    assert store.sellers() == []
    store.close()


async def test_what_is_done_is_swept_and_ids_are_kept(database_url: str) -> None:
    """Hourly, by one of all workers."""
    async with Database(database_url, key=None) as database:
        await database.journals.write(lambda store: store.sweep())  # the next one is due in an hour
        journal = Journal(database.place("7", 120.0))
        await journal.open()
        for pack in ("1", "2"):
            await journal.listed([(pack, 1, None)], None)
            await journal.claim(pack)
            await journal.read(pack, [StoredMessage(f"m{pack}", b"{}", True)], None)
        await journal.acknowledge("1", ["m1"])
        await database.journals.write(lambda store: store.sweep())  # it is not due
        assert rows(database_url, "SELECT id FROM mlmessages.pack ORDER BY id") == [("1",), ("2",)]
        rows(database_url, "UPDATE mlmessages.duty SET due = '-infinity'")
        await database.journals.write(lambda store: store.sweep())
        assert rows(database_url, "SELECT id FROM mlmessages.pack") == [("2",)]
        assert (await journal.read("1", [StoredMessage("m1", b"{}", True)], None)).fresh == []
        await journal.claim("1")
        assert [row.pack_id for row in await journal.rows()] == ["1"]
        await journal.close()


@case("Q2")
async def test_an_old_worker_goes_on_beside_a_newer_schema(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new program migrates while it works: only what was added is new. It may not enter anew once the schema says so."""
    added = "ALTER TABLE mlmessages.pack ADD COLUMN later text;\nCREATE TABLE mlmessages.later (id text PRIMARY KEY);\n"
    known = schema.migration
    async with Database(database_url, key=None) as old:
        journal = Journal(old.place("7", 120.0))
        await journal.open()
        await journal.listed([("1", 1, None)], None)
        with monkeypatch.context() as newer:
            newer.setattr(schema, "VERSION", 2)
            newer.setattr(schema, "migration", lambda number: added if number == 2 else known(number))
            async with Database(database_url, key=None, name="new") as new:
                await new.notify(notified("m1"))
                assert rows(database_url, "SELECT version, oldest FROM mlmessages.meta") == [(2, 1)]
                await journal.claim("1")
                await journal.read("1", [StoredMessage("a", b"{}", True)], None)
                assert [check.message_id for check in await journal.pending_checks()] == ["m1"]
        await old.worker.beat()
        await journal.close()
    async with Database(database_url, key=None):
        pass
    rows(database_url, "UPDATE mlmessages.meta SET oldest = 2")
    with pytest.raises(JournalError, match="needs a newer mlmessages"):
        async with Database(database_url, key=None):
            pass

"""`journal move`: a file becomes a seller of a database, wherever it is ended and begun again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from cases import case
from inbox.conftest import Consumer
from journal.stores import SEAT, SELLER, entry, whole
from mlmessages import Inbox
from mlmessages.errors import JournalError
from mlmessages.journal.sqlite import SqliteStore, contents
from mlmessages.journal.store import FailedDelivery, PendingCheck, Seat
from mlmessages.postgres.database import Database
from mlmessages.postgres.move import Moved, move
from mlmessages.testing import Pack, Sandbox
from postgres import moving
from worlds import client_of, on_virtual_clock

KEY = Fernet.generate_key()


def filled(path: Path) -> Path:
    """A journal with some of everything."""
    store = SqliteStore(path, SELLER)
    with whole(store):
        store.listed(SEAT, [(str(pack), pack, f"/packs/{pack}") for pack in range(1, 9)], 5.0)
        for pack in (1, 2, 3, 4):
            store.claim(SEAT, str(pack))
        store.read(SEAT, "1", [entry("1a"), entry("1b", unread=False)], b'{"status":"active"}', held=True)
        store.read(SEAT, "2", [entry("2a")], None, held=True)
        store.acknowledge(SEAT, "1", ["1a"], held=True)
        store.acknowledge(SEAT, "2", ["2a"], held=True)
        store.reopen(SEAT, "4", 60.0, outcome_unknown=True)
        store.park(SEAT, "5", 3600.0, count=5, attempts=2, error="{}", outcome_unknown=False)
        store.claim(SEAT, "6")
        store.read(SEAT, "6", [entry("6a"), entry("6b")], None, held=True)
        store.dead_letter(SEAT, "6", ["6a"], "KeyError")
        store.postpone(SEAT, FailedDelivery("1", 3, 30.0, "OSError"))
        for id_ in ("named", "parked"):
            store.add_check(SEAT, id_, 60.0, held=True)
        store.update_check(SEAT, PendingCheck("parked", 5, 10.0, parked=True))
        store.once(SEAT, ["1a"], "greet")
    store.close()
    return path


async def moved_seat(database: Database) -> Any:
    """The seat, and the store, after the move."""
    return await database.worker.take(SELLER, settle_time=120.0)


@case("Q7")
async def test_everything_of_the_file_is_in_the_database(tmp_path: Path, database_url: str) -> None:
    """Packs, waits, ids, bodies, dead letters, failed deliveries, notified messages, what happened once."""
    path = filled(tmp_path / "inbox.db")
    async with Database(database_url, key=KEY) as database:
        assert await move(path, database) == Moved(SELLER, 5, 3)
        seat: Seat = await moved_seat(database)
        ask = database.journals.engine.ask
        rows = {row.pack_id: row for row in await ask(lambda store: store.rows(seat))}
        assert {pack: row.state for pack, row in rows.items()} == {
            "3": "open",
            "4": "open",
            "5": "parked",
            "7": "open",
            "8": "open",
        }
        assert {pack: row.outcome_unknown for pack, row in rows.items() if row.outcome_unknown} == {
            "3": True,
            "4": True,
        }
        assert [round(rows[pack].wait, -1) for pack in "3457"] == [120, 120, 3600, 0]
        assert (rows["5"].attempts, rows["5"].count, rows["7"].resource) == (2, 5, "/packs/7")
        assert await ask(lambda store: store.undelivered(seat)) == ["1", "6"]
        assert await ask(lambda store: store.entries(seat, "1")) == (
            [entry("1b", unread=False)],
            b'{"status":"active"}',
        )
        assert await ask(lambda store: store.dead_letters(seat)) == {"6a": ("6", "KeyError")}
        [failed] = await ask(lambda store: store.failed_deliveries(seat))
        assert (failed.pack_id, failed.tries, failed.error) == ("1", 3, "OSError")
        checks = await ask(lambda store: store.pending_checks(seat))
        assert [(check.message_id, check.tries, check.parked) for check in checks] == [
            ("parked", 5, True),
            ("named", 0, False),
        ]
        write = database.journals.write
        assert not await write(lambda store: store.once(seat, ["1a"], "greet"))
        known = [entry(id_) for id_ in ("1a", "1b", "2a", "6a", "6b", "new")]
        assert (await write(lambda store: store.read(seat, "7", known, None, held=True))).fresh == ["new"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["inbox.db.lock", "inbox.db.moved"]
    with pytest.raises(JournalError, match="was moved to a database"):
        SqliteStore(tmp_path / "inbox.db.moved", SELLER)


@case("Q7")
@pytest.mark.parametrize("place", ["marked as moving", "about to copy", "copied", "renamed"])
async def test_ended_anywhere_and_run_again_it_goes_on(place: str, tmp_path: Path, database_url: str) -> None:
    """kill -9 at each step: no program opens the file in between, and afterwards all of it is there, once."""
    path = filled(tmp_path / "inbox.db")
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, moving.__file__, database_url, str(path), place],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == 77, killed.stderr
    async with Database(database_url, key=None) as database:
        if place == "renamed":
            assert not path.exists()
        else:
            for refused in (lambda: SqliteStore(path, SELLER), lambda: contents(path)):
                with pytest.raises(JournalError):
                    refused()
            assert await move(path, database) == Moved(SELLER, 5, 3)
        seat = await moved_seat(database)
        assert await database.journals.engine.ask(lambda store: store.undelivered(seat)) == ["1", "6"]
    with psycopg.connect(database_url) as admin:
        assert admin.execute("SELECT count(*) FROM mlmessages.message").fetchall() == [(5,)]
    assert (tmp_path / "inbox.db.moved").exists()


@case("Q7")
async def test_what_cannot_be_moved_stays_as_it_was(tmp_path: Path, database_url: str) -> None:
    """In use; a seller that is held, or that has messages already; a file that is none: nothing is changed."""
    path = filled(tmp_path / "inbox.db")
    before = contents(path)
    async with Database(database_url, key=None, name="machine-1") as database:
        store = SqliteStore(path, SELLER)
        with pytest.raises(JournalError, match="another inbox is using this journal"):
            await move(path, database)
        store.close()
        seat = await database.worker.take(SELLER, settle_time=120.0)
        with pytest.raises(JournalError, match=f"seller {SELLER} is held by worker machine-1"):
            await move(path, database)
        await database.journals.write(lambda store: store.read(seat, "99", [entry("x")], None, held=True))
        await database.worker.release(seat)
        with pytest.raises(JournalError, match="holds messages of seller .* already"):
            await move(path, database)
        with pytest.raises(JournalError, match="no such file"):
            await move(tmp_path / "none.db", database)
        assert not (tmp_path / "none.db").exists()
    assert [row.pack_id for row in contents(path).rows] == [row.pack_id for row in before.rows]
    SqliteStore(path, SELLER).close()
    with pytest.raises(RuntimeError, match="not open"):
        await move(path, database)


@case("Q7")
@on_virtual_clock
async def test_an_inbox_goes_on_in_the_database_where_it_was_in_the_file(tmp_path: Path, database_url: str) -> None:
    """Half of it delivered from the file, the rest from the database: everything once, what was marked before too."""
    sandbox = Sandbox([Pack(messages=n % 3 + 1) for n in range(12)])
    path, consumer = tmp_path / "inbox.db", Consumer()
    async with client_of(sandbox) as client, Inbox(client, path, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            for _ in range(5):
                consumer.deliveries.append(await anext(drain))
                await consumer.deliveries[-1].ack()
    async with Database(database_url, key=KEY, lease=3600.0) as database:
        await move(path, database)
        async with client_of(sandbox) as client, Inbox(client, database) as inbox:
            await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert not sandbox.unread

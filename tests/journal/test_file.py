"""The journal's file: whose it is, what is refused, and what an old one still owes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cases import case
from journal.stores import SEAT, SELLER, entry, whole
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Journal, SqlitePlace
from mlmessages.journal.sqlite import SqliteStore, contents
from mlmessages.testing import Pack, Sandbox
from worlds import client_of, ids, lost, on_virtual_clock


def made(path: Path, packs: int = 3) -> Path:
    """A journal with some of everything."""
    store = SqliteStore(path, SELLER)
    with whole(store):
        store.listed(SEAT, [(str(p), 1, f"/packs/{p}") for p in range(packs)], 5.0)
        for p in range(packs):
            store.claim(SEAT, str(p))
            store.read(SEAT, str(p), [entry(f"{p}-{i}") for i in range(20)], b"{}", held=True)
        store.acknowledge(SEAT, "0", [f"0-{i}" for i in range(20)], held=True)
        store.listed(SEAT, [("0", 1, None)], 6.0)
    store.close()
    return path


def test_the_files_are_the_owners_alone_under_any_umask(journal: Path) -> None:
    """0600 for the journal, its log, its index and its lock file, under umask 0, and where the file was wider before."""
    journal.touch()
    if sys.platform != "win32":
        journal.chmod(0o666)
    before = os.umask(0)
    try:

        async def main() -> list[int]:
            opened = Journal(SqlitePlace(journal, SELLER))
            await opened.open()
            await opened.listed([("1", 1, None)], None)
            modes = [stat.S_IMODE(p.stat().st_mode) for p in sorted(journal.parent.iterdir())]
            await opened.close()
            return modes

        modes = asyncio.run(main())
    finally:
        os.umask(before)
    assert len(modes) == 4
    assert sys.platform == "win32" or modes == [0o600] * 4


@case("A14")
def test_every_commit_is_on_the_disk(journal: Path) -> None:
    """Write-ahead log, synchronous=FULL (2), and deleted content is overwritten."""
    store = SqliteStore(journal, SELLER)
    values = {
        name: store._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "secure_delete")
    }
    store.close()
    assert values == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


@case("A17")
def test_flipped_bytes_at_every_page_header_are_found(tmp_path: Path) -> None:
    """Each byte of each page's header, flipped: a loud `JournalError`, or nothing that the journal says has changed."""
    path = made(tmp_path / "a.db", packs=60)
    sound = path.read_bytes()
    said = everything(path)
    page_size = int.from_bytes(sound[16:18])
    silent, found = [], 0
    for page in range(len(sound) // page_size):
        for offset in range(8):
            at = page * page_size + offset + (100 if page == 0 else 0)
            damaged = tmp_path / f"{page}-{offset}.db"
            damaged.write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
            try:
                if everything(damaged) != said:
                    silent.append((page, offset))
            except JournalError:
                found += 1
            for leftover in tmp_path.glob(f"{page}-{offset}.db*"):
                leftover.unlink()
    assert silent == []
    assert found > len(sound) // page_size * 4


def everything(path: Path) -> object:
    """All that a journal says."""
    store = SqliteStore(path, SELLER)
    try:
        return store.rows(SEAT), store.undelivered(SEAT), [store.entries(SEAT, str(p)) for p in range(60)]
    finally:
        store.close()


@case("A15")
def test_another_sellers_journal_is_refused(journal: Path) -> None:
    """`JournalError` that names both; the file is untouched."""
    before = made(journal).read_bytes()
    with pytest.raises(JournalError, match="is of seller 700100200, not of 9"):
        SqliteStore(journal, "9")
    assert journal.read_bytes() == before


def test_a_journal_of_a_newer_version_is_refused(journal: Path) -> None:
    """`JournalError` that says what to do; the file is untouched."""
    made(journal)
    with closing(sqlite3.connect(journal)) as db:
        db.execute("UPDATE identity SET schema = 99")
        db.commit()
    before = journal.read_bytes()
    with pytest.raises(JournalError, match=r"newer version \(schema 99\): update mlmessages"):
        SqliteStore(journal, SELLER)
    assert journal.read_bytes() == before


@case("A15")
def test_another_programs_database_is_refused_and_untouched(journal: Path) -> None:
    """An SQLite file that is no journal keeps its bytes and its mode."""
    with closing(sqlite3.connect(journal)) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
        db.commit()
    journal.chmod(0o644)
    before = journal.read_bytes(), journal.stat().st_mode
    with pytest.raises(JournalError, match="another program"):
        SqliteStore(journal, SELLER)
    assert (journal.read_bytes(), journal.stat().st_mode) == before


@pytest.mark.parametrize(
    "content", [b"not a database, but a text of some length" * 50, b"SQLite format 3\0" + b"\0" * 200]
)
def test_what_is_no_database_is_refused_and_untouched(content: bytes, journal: Path) -> None:
    """`JournalError`, and the bytes stay."""
    journal.write_bytes(content)
    with pytest.raises(JournalError):
        SqliteStore(journal, SELLER)
    assert journal.read_bytes() == content


def test_a_directory_or_a_symlink_in_its_place_is_refused(tmp_path: Path) -> None:
    """`JournalError`; nothing is written through a link."""
    with pytest.raises(JournalError):
        SqliteStore(tmp_path, SELLER)
    if sys.platform != "win32":
        (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
        with pytest.raises(JournalError):
            SqliteStore(tmp_path / "link.db", SELLER)
        assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("missing", ["no/such/directory/inbox.db", "file/inbox.db"])
@on_virtual_clock
async def test_a_place_that_cannot_be_written_is_refused_before_anything_is_asked(missing: str, tmp_path: Path) -> None:
    """`JournalError`, no request, no mark. (As root no mode of a directory forbids writing.)"""
    from mlmessages import Inbox

    (tmp_path / "file").touch()
    sandbox = Sandbox(packs=2)
    async with client_of(sandbox) as client:
        with pytest.raises(JournalError, match="cannot be opened"):
            async with Inbox(client, tmp_path / missing):
                pass
    assert sandbox.log == []


def test_an_unfinished_file_is_a_new_journal(journal: Path) -> None:
    """An empty file, as a crash at the first start leaves it, is started anew; one with half its tables is refused."""
    journal.touch()
    SqliteStore(journal, SELLER).close()
    assert contents(journal).seller_id == SELLER
    with closing(sqlite3.connect(journal)) as db:
        db.execute("DROP TABLE message")
    opened = None
    with pytest.raises((JournalError, sqlite3.Error)):
        opened = SqliteStore(journal, SELLER)
        with whole(opened):
            opened.listed(SEAT, [("1", 1, None)], 0)
            opened.read(SEAT, "1", [entry("a")], None, held=True)
    if opened is not None:
        opened.close()


@case("A15")
@on_virtual_clock
async def test_a_deleted_journal_starts_anew(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """Also where its log was left behind: what is unread comes, what was marked before is not unread any more."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    journal.unlink()
    arrival = sandbox.send(sandbox.pack_ids()[0])
    async with inbox_of(sandbox) as inbox:
        [delivery] = await consumer.empty(inbox)
    assert delivery.messages[-1].id == arrival
    assert len(delivery.messages) == 2  # the whole conversation: the journal does not know it any more
    assert not delivery.redelivered


@case("A16")
@on_virtual_clock
async def test_an_old_backup_repeats_and_loses_nothing(
    tmp_path: Path, journal: Path, inbox_of: Any, consumer: Any, copy_files: Any
) -> None:
    """Copied with a delivery unacknowledged, advanced, restored: duplicates, never loss."""
    sandbox = Sandbox([Pack(messages=2) for _ in range(4)])
    backup = tmp_path / "backup.db"
    async with inbox_of(sandbox, concurrency=1) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            if len(consumer.deliveries) == 2:
                copy_files(journal, backup)
            await delivery.ack()
    for pack_id in sandbox.pack_ids():
        sandbox.send(pack_id)
    async with inbox_of(sandbox, path=backup) as inbox:
        again = await consumer.empty(inbox)
    assert again[0].redelivered
    assert len(consumer.ids) > len(set(consumer.ids))
    assert set(consumer.ids) == sandbox.message_ids()
    assert not lost(sandbox, consumer.deliveries)
    assert sandbox.unread == 0


# -- size --------------------------------------------------------------------------------------------------------------


def big(path: Path, packs: int, ids_: int, undelivered: int) -> None:
    """A journal after years, built with SQL."""
    SqliteStore(path, SELLER).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous=OFF")
        numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
        db.execute(
            f"INSERT INTO pack (id, state, count, resource, listed_at) {numbers}"
            " SELECT 2000000000000000 + i, iif(i % 1000, 'done', 'open'), 1, '/packs/' || (2000000000000000 + i), 1.0 FROM n",
            (packs,),
        )
        db.execute(
            f"INSERT INTO message {numbers} SELECT printf('019cae6b660070008%015x', (i * 2654435761) % 4294967296) FROM n",
            (ids_,),
        )
        db.execute(
            f"INSERT INTO body (pack, id, raw, unread) {numbers}"
            " SELECT 2000000000000000 + i, 'b' || i, CAST(printf('{\"id\":\"b%d\"}', i) AS BLOB), 1 FROM n",
            (undelivered,),
        )
        db.commit()


@on_virtual_clock
async def test_a_journal_of_years_is_taken_up(journal: Path, inbox_of: Any) -> None:
    """100,000 packs and 1,000,000 ids: what is owed and undelivered is known after entering, and nothing else is loaded."""
    big(journal, 100_000, 1_000_000, 50)
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        assert inbox.report.owed == 100
        async with inbox.drain() as drain:
            first = [await anext(drain) for _ in range(50)]
        assert len(ids(first)) == 50
        assert all(d.redelivered for d in first)
    assert sandbox.log == []
    said = contents(journal)
    assert (said.done, len(said.rows), len(said.undelivered)) == (99_900, 100, 50)


def test_a_journal_of_any_version_between_is_opened(journal: Path) -> None:
    """Each table that was added later may be missing alone: it is made, and the inbox works."""
    made(journal)
    with closing(sqlite3.connect(journal)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    added = tables - {"identity", "pack", "message", "body"}
    assert len(added) >= 5
    for missing in sorted(added):
        with closing(sqlite3.connect(journal)) as db:
            db.execute(f"DROP TABLE {missing}")
        store = SqliteStore(journal, SELLER)
        store.close()
        with closing(sqlite3.connect(journal)) as db:
            assert db.execute("SELECT name FROM sqlite_master WHERE name = ?", [missing]).fetchone() == (missing,)

"""What happens to the journal's files from outside, and places where a journal cannot be."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gzip
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from cases import case
from journal.stores import SEAT, SELLER, entry, whole
from mlmessages.errors import Forbidden, JournalError, load
from mlmessages.journal.sqlite import SqliteStore, contents, retry_parked
from mlmessages.journal.sqlite.file import is_network_share
from mlmessages.journal.store import DONE, ISSUED, OPEN, PARKED
from mlmessages.testing import DROP, EXECUTE, Sandbox, on
from worlds import client_of, on_virtual_clock

OLD = Path(__file__).with_name("journal-0.1.db.gz")  # written by version 0.1, at commit f5957f6
FIRST = 2000000000000000


def test_a_journal_of_version_0_1_opens_with_everything_owed(journal: Path) -> None:
    """Its packs, waits, bodies, ids, dead letters, failed deliveries and notified messages are all there."""
    journal.write_bytes(gzip.decompress(OLD.read_bytes()))
    journal.chmod(0o600)
    store = SqliteStore(journal, SELLER)
    try:
        rows = {int(row.pack_id) - FIRST: row for row in store.rows(SEAT)}
        states = {n: row.state for n, row in rows.items()}
        assert states == {1: OPEN, 2: OPEN, 5: ISSUED, 6: OPEN, 7: PARKED}
        assert DONE not in states.values()
        assert (rows[6].outcome_unknown, rows[7].attempts, rows[7].count) == (True, 2, 7)
        assert rows[1].resource == f"/packs/{FIRST + 1}/sellers/{SELLER}"
        assert isinstance(load(rows[7].error), Forbidden)
        assert store.undelivered(SEAT) == [str(FIRST + 3), str(FIRST + 8)]
        [kept], status = store.entries(SEAT, str(FIRST + 3))
        assert (kept.id, kept.raw, kept.unread) == ("a2", b'{"id":"a2","text":"Hola"}', False)
        assert status == b'{"status":"active"}'
        assert store.dead_letters(SEAT) == {"c1": (str(FIRST + 8), "KeyError")}
        [failed] = store.failed_deliveries(SEAT)
        assert (failed.pack_id, failed.tries, failed.error) == (str(FIRST + 3), 3, "ValueError")
        checks = [(check.message_id, check.tries, check.parked) for check in store.pending_checks(SEAT)]
        assert checks == [("named1", 0, False), ("named2", 5, True)]
        with whole(store):
            assert store.reopen_claims(SEAT, 120.0) == 1
            known = [entry(id_) for id_ in ("a1", "a2", "b1", "c1", "c2", "new")]
            assert store.read(SEAT, str(FIRST + 1), known, None, held=True).fresh == ["new"]
        waits = {int(row.pack_id) - FIRST: row.wait for row in store.rows(SEAT) if row.outcome_unknown}
        assert waits == {5: pytest.approx(120.0, abs=10), 6: pytest.approx(120.0, abs=10)}
    finally:
        store.close()
    assert contents(journal).done == 4
    assert retry_parked(journal) == 1


@case("T6")
def test_a_parked_pack_of_unknown_outcome_waits_although_it_is_opened_by_hand(journal: Path) -> None:
    """Its mark may still be executed, and would mark what came after a read that does not wait."""
    store = SqliteStore(journal, SELLER)
    with whole(store):
        store.listed(SEAT, [("1", 1, None), ("2", 1, None)], 5.0)
        for pack, unknown in (("1", True), ("2", False)):
            store.park(SEAT, pack, 3600.0, count=1, attempts=1, error="", outcome_unknown=unknown)
    store.close()
    assert retry_parked(journal) == 2
    store = SqliteStore(journal, SELLER)
    with whole(store):
        store.reopen_claims(SEAT, 120.0)
    rows = {row.pack_id: (row.state, row.outcome_unknown, row.wait) for row in store.rows(SEAT)}
    store.close()
    assert rows == {"1": (OPEN, True, pytest.approx(120.0, abs=10)), "2": (OPEN, False, 0.0)}


# -- while it is in use --------------------------------------------------------------------------------------------------


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    path.rename(path.with_name("moved.db"))
    SqliteStore(path.with_name("other.db"), SELLER).close()
    path.with_name("other.db").rename(path)


def unlocked(path: Path) -> None:
    path.with_name(path.name + ".lock").unlink()


@case("K20")
@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be deleted there")
@pytest.mark.parametrize("change", [deleted, replaced, unlocked])
@on_virtual_clock
async def test_a_journal_that_is_deleted_or_replaced_under_a_drain_marks_nothing_more(
    change: Callable[[Path], None], journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """Its lock file too: `JournalError` before the next claim; what had been read is still delivered by this inbox."""
    sandbox = Sandbox(packs=20)
    async with inbox_of(sandbox, concurrency=2) as inbox:
        drain = inbox.drain()
        consumer.deliveries.append(await anext(drain))
        marked = len(sandbox.marked_ids())
        change(journal)
        await consumer.deliveries[0].ack()
        with pytest.raises(JournalError, match="deleted, moved or replaced"):
            await consumer.empty(inbox)
        with pytest.raises(JournalError, match="deleted, moved or replaced"):
            await consumer.empty(inbox)
    assert len(sandbox.marked_ids()) <= marked + 2  # what was claimed already
    assert sandbox.marked_ids() <= set(consumer.ids)


@case("K10")
@on_virtual_clock
async def test_an_unknown_outcome_waits_from_the_restart_whatever_the_wall_clock_says(
    inbox_of: Any, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is set an hour ahead between two processes: the second waits `settle_time` all the same."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with inbox_of(sandbox, settle_time=100) as inbox:
        async with inbox.drain() as drain:
            consumer.deliveries.append(await anext(drain))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    restarted = asyncio.get_running_loop().time()
    async with inbox_of(sandbox, settle_time=100) as inbox:
        assert inbox.report.waiting == 1
        await consumer.empty(inbox)
    assert 99 <= asyncio.get_running_loop().time() - restarted <= 101  # two clocks, and a disk between them
    assert set(consumer.ids) == sandbox.message_ids()


# -- the files -----------------------------------------------------------------------------------------------------------


@case("N4")
@pytest.mark.skipif(sys.platform == "win32", reason="modes say nothing there")
def test_a_log_and_an_index_from_before_are_made_private(journal: Path, tmp_path: Path) -> None:
    """Left behind by a crash under a wide umask: 0600 for both when the journal is opened."""
    store = SqliteStore(journal, SELLER)
    with whole(store):
        store.listed(SEAT, [("1", 1, None)], None)
    left = {suffix: journal.with_name(journal.name + suffix).read_bytes() for suffix in ("-wal", "-shm")}
    before = journal.read_bytes()
    store.close()
    journal.write_bytes(before)
    for suffix, content in left.items():
        journal.with_name(journal.name + suffix).write_bytes(content)
        journal.with_name(journal.name + suffix).chmod(0o644)
    store = SqliteStore(journal, SELLER)
    try:
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert set(modes.values()) == {0o600}
        assert len(modes) == 4
        assert [row.pack_id for row in store.rows(SEAT)] == ["1"]
    finally:
        store.close()


@case("N4")
@pytest.mark.skipif(sys.platform == "win32", reason="links to files need rights there")
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_is_a_symbolic_link_is_refused(suffix: str, journal: Path, tmp_path: Path) -> None:
    """What it leads to keeps its mode and its bytes."""
    SqliteStore(journal, SELLER).close()
    target = tmp_path / "target"
    target.write_bytes(b"")
    target.chmod(0o644)
    journal.with_name(journal.name + suffix).symlink_to(target)
    with pytest.raises(JournalError):
        SqliteStore(journal, SELLER)
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"", 0o644)


@case("N4")
def test_a_hard_link_of_a_journal_is_refused(journal: Path, tmp_path: Path) -> None:
    """By either name: two inboxes could have one journal, each with a lock file of its own."""
    SqliteStore(journal, SELLER).close()
    os.link(journal, tmp_path / "second.db")
    for name in ("inbox.db", "second.db"):
        with pytest.raises(JournalError, match="hard link"):
            SqliteStore(tmp_path / name, SELLER)
    (tmp_path / "second.db").unlink()
    SqliteStore(journal, SELLER).close()


@case("K34")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_told_as_that(
    number: int, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not "another inbox"; no journal is made."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(JournalError, match="cannot lock") as caught:
        SqliteStore(journal, SELLER)
    assert "another inbox" not in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert not journal.exists()


@case("O6")
def test_a_commit_reaches_the_disk_on_macos_too(journal: Path) -> None:
    """Its fsync stops at the disk's own memory: SQLite is asked for F_FULLFSYNC, in the log and in the file."""
    store = SqliteStore(journal, SELLER)
    asked = [store._db.execute(f"PRAGMA {name}").fetchone() for name in ("fullfsync", "checkpoint_fullfsync")]
    store.close()
    assert asked == [(1,), (1,)]


@case("O7")
@pytest.mark.parametrize(
    ("path", "shared"),
    [
        (PureWindowsPath(r"\\server\share\inbox.db"), True),
        (PureWindowsPath("//server/share/inbox.db"), True),
        (PureWindowsPath(r"\\?\UNC\server\share\inbox.db"), True),
        (PureWindowsPath(r"\\?\C:\inbox.db"), False),
        (PureWindowsPath(r"C:\inbox.db"), False),
        (PureWindowsPath("inbox.db"), False),
        (PurePosixPath("//data/inbox.db"), False),
    ],
)
def test_a_unc_path_is_known_as_a_network_share(path: PureWindowsPath | PurePosixPath, shared: bool) -> None:
    """SQLite's write-ahead log does not work there."""
    assert is_network_share(path) == shared


@case("O7")
@on_virtual_clock
async def test_a_sqlite_that_is_too_old_is_refused_before_anything_is_asked(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lowest version is named; no file is made."""
    from mlmessages import Inbox

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 7, 17))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.7.17")
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(JournalError, match=r"SQLite is 3\.7\.17; a journal needs 3\.26\.0 or newer"):
            async with Inbox(client, journal):
                pass
    assert sandbox.log == []
    assert not journal.exists()

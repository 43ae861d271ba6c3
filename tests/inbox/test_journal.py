"""The journal: what every `Store` keeps, what the file is, and what the thread in front of it promises."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Entry, Journal, SqliteStore, Store, contents
from mlmessages.testing import Message, Pack, Sandbox
from worlds import client_of, ids, lost, on_virtual_clock

SELLER = "700100200"


# -- a second engine, which can fail -----------------------------------------------------------------------------------


class MemoryStore:
    """A `Store` in memory, written from the protocol alone: packs, ids and bodies in dicts, a transaction is a copy."""

    def __init__(self) -> None:
        self._state: tuple[dict[str, dict[str, Any]], set[str], dict[str, tuple[str, Entry]]] = ({}, set(), {})
        self._before: Any = None

    def begin(self) -> None:
        packs, known, bodies = self._state
        self._before = ({k: dict(v) for k, v in packs.items()}, set(known), dict(bodies))

    def commit(self) -> None:
        self._before = None

    def rollback(self) -> None:
        if self._before is not None:
            self._state, self._before = self._before, None

    def close(self) -> None:
        pass

    def listed(self, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        for pack_id, count, resource in rows:
            row = self._state[0].setdefault(
                pack_id, {"state": "done", "count": count, "error": None, "status": None, "not_before": 0.0}
            )
            if row["state"] != "parked" or count == 0:
                row["count"] = count
            row["resource"] = resource
            if row["state"] == "done":
                row.update(state="open", listed_at=listed_at, doubtful=0, attempts=0)

    def claim(self, pack_id: str) -> None:
        self._state[0][pack_id]["state"] = "issued"

    def read(self, pack_id: str, entries: Sequence[Entry], status: bytes | None) -> list[str]:
        packs, known, bodies = self._state
        fresh = [entry for entry in entries if entry.id not in known]
        known.update(entry.id for entry in fresh)
        bodies.update((entry.id, (pack_id, entry)) for entry in fresh)
        packs[pack_id].update(state="done", attempts=0, doubtful=0, not_before=0.0, error=None, status=status)
        return [entry.id for entry in fresh]

    def reopen(self, pack_id: str, not_before: float, doubtful: bool) -> None:
        self._state[0][pack_id].update(state="open", not_before=not_before, doubtful=int(doubtful))

    def park(self, pack_id: str, count: int, not_before: float, attempts: int, error: str, *, doubtful: bool) -> None:
        self._state[0][pack_id].update(
            state="parked", count=count, not_before=not_before, attempts=attempts, error=error, doubtful=int(doubtful)
        )

    def acknowledge(self, pack_id: str, ids: Sequence[str]) -> None:
        for id_ in ids:
            self._state[2].pop(id_, None)

    def reopen_claims(self, not_before: float) -> int:
        claimed = [row for row in self._state[0].values() if row["state"] == "issued"]
        for row in claimed:
            row.update(state="open", doubtful=1, not_before=not_before)
        return len(claimed)

    def rows(self) -> list[Any]:
        from mlmessages.journal.journal import Row

        return [
            Row(
                pack_id,
                row["state"],
                row["count"],
                row["resource"],
                row["listed_at"],
                row["not_before"],
                row["attempts"],
                row["doubtful"],
                row["error"],
            )
            for pack_id, row in self._state[0].items()
            if row["state"] != "done"
        ]

    def undelivered(self) -> list[str]:
        return list(dict.fromkeys(pack_id for pack_id, _ in self._state[2].values()))

    def entries(self, pack_id: str) -> tuple[list[Entry], bytes | None]:
        status = self._state[0][pack_id]["status"] if pack_id in self._state[0] else None
        return [entry for owner, entry in self._state[2].values() if owner == pack_id], status

    def purge(self) -> bool:
        return True


class Wrapped:
    """A store around a store: counts the transactions, and fails or waits where it is told to."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.transactions = 0
        self.writes = 0
        self.fail_at = float("inf")
        self.before_commit: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in ("listed", "claim", "read", "reopen", "park", "acknowledge", "reopen_claims"):
            return method

        def write(*args: Any, **named: Any) -> Any:
            self.writes += 1
            if self.writes >= self.fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return method(*args, **named)

        return write

    def commit(self) -> None:
        self.before_commit()
        self.inner.commit()
        self.transactions += 1


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, journal: Path) -> Any:
    """Every engine there is."""
    made: Store = SqliteStore(journal, SELLER) if request.param == "sqlite" else MemoryStore()
    yield made
    made.close()


def entry(id_: str, *, unread: bool = True) -> Entry:
    return Entry(id_, f'{{"id":"{id_}"}}'.encode(), unread)


class whole:  # noqa: N801 - reads as a phrase
    """One transaction of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Store:
        self.store.begin()
        return self.store

    def __exit__(self, kind: object, *_: object) -> None:
        self.store.commit() if kind is None else self.store.rollback()


# -- conformance -------------------------------------------------------------------------------------------------------


def test_a_listing_owes_every_pack_once(store: Any) -> None:
    """Listed again, a pack that is owed keeps when it was first listed; its count and resource are the new ones."""
    with whole(store):
        store.listed([("1", 2, "/packs/1"), ("2", 0, None)], 10.0)
    with whole(store):
        store.listed([("1", 5, "/packs/1/x")], 20.0)
    rows = {row.pack_id: row for row in store.rows()}
    assert {k: (r.state, r.count, r.resource, r.listed_at) for k, r in rows.items()} == {
        "1": ("open", 5, "/packs/1/x", 10.0),
        "2": ("open", 0, None, 10.0),
    }
    assert all((r.not_before, r.attempts, r.doubtful, r.error) == (0, 0, 0, None) for r in rows.values())


def test_read_stores_what_was_not_known_and_ends_the_debt(store: Any) -> None:
    """The new ids alone come back, in order; the pack is owed no more, its messages are undelivered, its status kept."""
    with whole(store):
        store.listed([("1", 1, None)], 1.0)
        store.claim("1")
    with whole(store):
        assert store.read("1", [entry("a"), entry("b", unread=False)], b"status") == ["a", "b"]
    with whole(store):
        assert store.read("1", [entry("b"), entry("c"), entry("a")], b"later") == ["c"]
    assert store.rows() == []
    assert store.undelivered() == ["1"]
    assert store.entries("1") == ([entry("a"), entry("b", unread=False), entry("c")], b"later")
    assert store.entries("9") == ([], None)


def test_an_id_is_known_for_ever_and_in_every_pack(store: Any) -> None:
    """Acknowledged, its body is gone; shown again, by another pack too, it is not new; 2,000 ids at once are no problem."""
    many = [entry(f"m{i}") for i in range(2000)]
    with whole(store):
        store.listed([("1", 1, None), ("2", 1, None)], None)
        assert len(store.read("1", many, None)) == 2000
    with whole(store):
        store.acknowledge("1", [row.id for row in many])
        store.acknowledge("1", ["m0", "unheard of"])
    assert store.undelivered() == []
    assert store.entries("1") == ([], None)
    with whole(store):
        assert store.read("2", [*many, entry("new")], None) == ["new"]


def test_what_was_read_first_is_redelivered_first(store: Any) -> None:
    """The order of reading, whatever the packs are called, and whatever was acknowledged in between."""
    for pack_id, id_ in [("9", "a"), ("1", "b"), ("5", "c"), ("1", "d")]:
        with whole(store):
            store.listed([(pack_id, 1, None)], None)
            store.read(pack_id, [entry(id_)], None)
    assert store.undelivered() == ["9", "1", "5"]
    with whole(store):
        store.acknowledge("1", ["b"])
    assert store.undelivered() == ["9", "5", "1"]


def test_dead_claims_become_doubtful(store: Any) -> None:
    """Claimed packs alone are owed again, doubtful, not before a moment; how many they were."""
    with whole(store):
        store.listed([(p, 1, None) for p in "12345"], 1.0)
        for claimed in "234":
            store.claim(claimed)
        store.read("4", [entry("x")], None)
        store.park("5", 1, 99.0, 1, "why", doubtful=False)
    with whole(store):
        assert store.reopen_claims(50.0) == 2
    rows = {r.pack_id: (r.state, r.doubtful, r.not_before) for r in store.rows()}
    assert rows == {"1": ("open", 0, 0), "2": ("open", 1, 50.0), "3": ("open", 1, 50.0), "5": ("parked", 0, 99.0)}
    with whole(store):
        assert store.reopen_claims(60.0) == 0


def test_doubt_ends_with_the_next_read(store: Any) -> None:
    """Reopened doubtful, it stays so through claims and listings until it is read; then it is as new."""
    with whole(store):
        store.listed([("1", 1, None)], 1.0)
        store.reopen("1", 7.0, True)
    with whole(store):
        store.claim("1")
        store.listed([("1", 2, None)], 2.0)
        store.reopen_claims(8.0)
    [row] = store.rows()
    assert (row.state, row.doubtful, row.not_before, row.listed_at, row.count) == ("open", 1, 8.0, 1.0, 2)
    with whole(store):
        store.read("1", [], None)
        store.listed([("1", 3, None)], 3.0)
    [row] = store.rows()
    assert (row.doubtful, row.not_before, row.listed_at) == (0, 0, 3.0)


def test_a_parked_pack_stays_parked_and_keeps_the_count_it_was_parked_with(store: Any) -> None:
    """A listing does not reopen it, nor hide that its count has changed; 0 says that it had left the listing."""
    with whole(store):
        store.listed([("1", 2, None)], 1.0)
        store.park("1", 3, 99.0, 3, "why", doubtful=True)
    with whole(store):
        store.listed([("1", 5, None)], 2.0)
    [row] = store.rows()
    assert (row.state, row.count, row.attempts, row.error, row.doubtful) == ("parked", 3, 3, "why", 1)
    with whole(store):
        store.listed([("1", 0, None)], 3.0)
    assert store.rows()[0].count == 0
    with whole(store):
        store.claim("1")
        store.read("1", [], None)
    assert store.rows() == []


def test_a_transaction_happens_whole_or_not_at_all(store: Any) -> None:
    """Rolled back in the middle: no pack, no id, no body, no acknowledgement of it is there."""
    with whole(store):
        store.listed([("1", 1, None)], 1.0)
        store.read("1", [entry("kept")], None)
    store.begin()
    store.listed([("1", 9, None), ("2", 1, None)], 1.0)
    store.claim("2")
    store.read("2", [entry("gone")], b"gone")
    store.acknowledge("1", ["kept"])
    store.rollback()
    store.rollback()  # once more is nothing
    assert store.rows() == []
    assert store.undelivered() == ["1"]
    with whole(store):
        store.listed([("2", 1, None)], 1.0)
        assert store.read("2", [entry("gone")], None) == ["gone"]


def test_bytes_come_back_as_they_were(store: Any) -> None:
    """Raw JSON is bytes: no encoding, no NUL, no size changes it."""
    raws = [b"\x00\xff", "\U0001f600".encode(), b"x" * 200_000, b"", b"{}"]
    with whole(store):
        store.listed([("1", 2**62, "r" * 5000)], None)
        store.read("1", [Entry(f"i{i}", raw, True) for i, raw in enumerate(raws)], b"\x00")
    entries, status = store.entries("1")
    assert [e.raw for e in entries] == raws
    assert status == b"\x00"


# -- the file ----------------------------------------------------------------------------------------------------------


def made(path: Path, packs: int = 3) -> Path:
    """A journal with some of everything."""
    store = SqliteStore(path, SELLER)
    with whole(store):
        store.listed([(str(p), 1, f"/packs/{p}") for p in range(packs)], 5.0)
        for p in range(packs):
            store.claim(str(p))
            store.read(str(p), [entry(f"{p}-{i}") for i in range(20)], b"{}")
        store.acknowledge("0", [f"0-{i}" for i in range(20)])
        store.listed([("0", 1, None)], 6.0)
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
            opened = Journal(journal, SELLER)
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
        return store.rows(), store.undelivered(), [store.entries(str(p)) for p in range(60)]
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
            opened.listed([("1", 1, None)], 0)
            opened.read("1", [entry("a")], None)
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
    assert len(delivery.messages) == 2  # the whole conversation: the ledger does not know it any more
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


# -- bodies ------------------------------------------------------------------------------------------------------------


def on_the_disk(directory: Path, canary: bytes) -> list[str]:
    """The files that hold `canary`."""
    return sorted(p.name for p in directory.iterdir() if canary in p.read_bytes())


@case("H10")
@pytest.mark.parametrize("length", [10, 20_000], ids=["short", "on overflow pages"])
@on_virtual_clock
async def test_bodies_are_gone_from_every_file_when_a_drain_has_ended(
    length: int, tmp_path: Path, inbox_of: Any, consumer: Any
) -> None:
    """After the drain, and after closing, no file holds a buyer's words: not the log, not a free page. The ids stay."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY" * length)] * 3) for _ in range(5)])
    async with inbox_of(sandbox) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            assert on_the_disk(tmp_path, b"CANARY")
            await delivery.ack()
        assert on_the_disk(tmp_path, b"CANARY") == []
        assert on_the_disk(tmp_path, consumer.ids[0].encode())
    assert on_the_disk(tmp_path, b"CANARY") == []
    assert on_the_disk(tmp_path, consumer.ids[0].encode()) == ["inbox.db"]


@case("H10")
@on_virtual_clock
async def test_what_lay_in_the_file_for_long_is_overwritten_too(tmp_path: Path, inbox_of: Any, consumer: Any) -> None:
    """Read by one process, which closed it into the file, and acknowledged by the next: no free page holds it."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY" * length) for length in (1, 20, 5000)]) for _ in range(20)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox, ack=False)
    assert on_the_disk(tmp_path, b"CANARY") == ["inbox.db"]
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert on_the_disk(tmp_path, b"CANARY") == []
    assert on_the_disk(tmp_path, b"CANARY") == []


@case("H10")
@on_virtual_clock
async def test_what_a_dead_process_had_acknowledged_is_purged_by_the_next(
    tmp_path: Path, inbox_of: Any, life_of: Any, consumer: Any
) -> None:
    """The dead one's log still held it: the next drain, though it acknowledges nothing, ends with it overwritten."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY")])])
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    life = life_of(sandbox, tmp_path / "before" / "j.db")
    inbox = await life.begin()
    drain = inbox.drain()
    delivery = await anext(drain)
    await delivery.ack()
    await life.crash(tmp_path / "after" / "j.db")
    assert on_the_disk(tmp_path / "after", b"CANARY")
    async with inbox_of(sandbox, path=tmp_path / "after" / "j.db") as inbox:
        await consumer.empty(inbox)
        assert on_the_disk(tmp_path / "after", b"CANARY") == []


@case("H10")
@on_virtual_clock
async def test_what_a_reader_kept_from_being_purged_is_purged_by_the_next_drain(
    tmp_path: Path, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """Somebody reads the file while a drain ends: the log cannot be emptied then; the next drain's end empties it."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY")])])
    async with inbox_of(sandbox) as inbox:
        async with inbox.drain() as drain:
            delivery = await anext(drain)
            with closing(sqlite3.connect(journal, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM body").fetchone()
                await delivery.ack()
                await drain.aclose()
                assert on_the_disk(tmp_path, b"CANARY")
        await consumer.empty(inbox)
        assert on_the_disk(tmp_path, b"CANARY") == []


@case("H10")
@on_virtual_clock
async def test_a_long_drain_purges_on_its_way(tmp_path: Path, inbox_of: Any) -> None:
    """After 1,000 acknowledged messages their words are gone, though the drain goes on."""
    sandbox = Sandbox([Pack(messages=[Message(f"CANARY{p}-")] * 400) for p in range(4)])
    async with inbox_of(sandbox, concurrency=1) as inbox:
        seen = []
        async for delivery in inbox.drain():
            seen.append((delivery.messages[0].text or "").encode())
            await delivery.ack()
            if len(seen) == 3:
                assert [on_the_disk(tmp_path, text) for text in seen] == [[], [], []]


# -- the thread in front of it -----------------------------------------------------------------------------------------


async def opened(path: Path, store: Wrapped | None = None) -> Journal:
    journal = Journal(path, SELLER) if store is None else Journal(path, SELLER, lambda _, __: store)  # type: ignore[arg-type, return-value]
    await journal.open()
    return journal


@on_virtual_clock
async def test_what_comes_together_is_committed_together(journal: Path) -> None:
    """300 claims at once: two transactions, not 300; each returns its own result."""
    store = Wrapped(SqliteStore(journal, SELLER))
    ledger = await opened(journal, store)
    await ledger.listed([(str(p), 1, None) for p in range(300)], None)
    before = store.transactions
    await asyncio.gather(*(ledger.claim(str(p)) for p in range(300)))
    assert store.transactions - before <= 2
    results = await asyncio.gather(*(ledger.read(str(p), [entry(f"m{p}"), entry("shared")], None) for p in range(300)))
    assert store.transactions - before <= 4
    assert [r[0] for r in results] == [f"m{p}" for p in range(300)]
    assert sum("shared" in r for r in results) == 1
    await ledger.close()


@on_virtual_clock
async def test_an_inbox_commits_many_claims_and_results_together(disk: Any, inbox_of: Any, consumer: Any) -> None:
    """32 conversations at a time: fewer than a quarter of the commits that one for each step would be."""
    sandbox = Sandbox(packs=320)
    async with inbox_of(sandbox, concurrency=32) as inbox:
        drain = inbox.drain()
        async for delivery in drain:
            consumer.deliveries.append(delivery)
    assert len(consumer.ids) == 320
    assert disk.commits < 2 * 320 / 2


@on_virtual_clock
async def test_a_write_that_fails_fails_its_whole_group_and_nothing_else(journal: Path) -> None:
    """Each of those who waited gets the `JournalError`, none of them is on the disk, and the next group goes on."""
    store = Wrapped(SqliteStore(journal, SELLER))
    ledger = await opened(journal, store)
    await ledger.listed([(str(p), 1, None) for p in range(6)], None)
    store.fail_at = store.writes + 3
    results = await asyncio.gather(*(ledger.claim(str(p)) for p in range(6)), return_exceptions=True)
    assert all(isinstance(r, JournalError) for r in results)
    store.fail_at = float("inf")
    assert {row.state for row in await ledger.rows()} == {"open"}
    await ledger.claim("1")
    assert sum(row.state == "issued" for row in await ledger.rows()) == 1
    await ledger.close()


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), OSError(5, "I/O error"), ValueError("odd"), KeyError("odd")]
)
@on_virtual_clock
async def test_whatever_the_engine_raises_nobody_waits_for_ever(error: Exception, journal: Path) -> None:
    """Every caller of that group hears of it; the journal is usable afterwards, and can be closed."""
    store = Wrapped(SqliteStore(journal, SELLER))
    ledger = await opened(journal, store)

    def fail() -> None:
        raise error

    store.before_commit = fail
    results = await asyncio.gather(
        ledger.listed([("1", 1, None)], None), ledger.reopen_claims(0), return_exceptions=True
    )
    assert all(isinstance(r, JournalError | KeyError) for r in results)
    store.before_commit = lambda: None
    await ledger.listed([("1", 1, None)], None)
    assert len(await ledger.rows()) == 1
    await ledger.close()


@pytest.mark.parametrize("rows", [[("\ud800", 1, None)], [("1", 10**30, "\udfff")], [("1", -(10**30), None)]])
@on_virtual_clock
async def test_what_the_engine_cannot_hold_is_an_error_and_no_standstill(rows: Any, journal: Path) -> None:
    """Half a surrogate pair, an integer beyond 64 bits: `JournalError`."""
    ledger = await opened(journal)
    with pytest.raises(JournalError):
        await ledger.listed(rows, None)
    await ledger.listed([("1", 1, None)], None)
    await ledger.close()


@case("D2", "D15")
def test_the_loop_runs_while_a_commit_waits(journal: Path) -> None:
    """A commit that is stuck in its thread holds nobody up; a writer that is cancelled meanwhile leaves no half state."""
    import threading

    gate = threading.Event()
    inside = threading.Event()

    async def main() -> tuple[bool, int, set[str]]:
        store = Wrapped(SqliteStore(journal, SELLER))
        ledger = await opened(journal, store)
        await ledger.listed([(str(p), 1, None) for p in range(3)], None)

        def stuck() -> None:
            inside.set()
            assert gate.wait(30)

        store.before_commit = stuck
        writing = asyncio.ensure_future(ledger.claim("1"))
        while not inside.is_set():
            await asyncio.sleep(0)
        turns = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            turns += 1
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        cancelled = writing.cancelled()
        late = asyncio.ensure_future(ledger.claim("2"))
        await asyncio.sleep(0)
        gate.set()
        await late
        states = {row.pack_id for row in await ledger.rows() if row.state == "issued"}
        await ledger.close()
        return cancelled, turns, states

    assert asyncio.run(main()) == (True, 1000, {"1", "2"})


@on_virtual_clock
async def test_closing_waits_for_the_writes_that_were_begun(journal: Path) -> None:
    """A write that nobody waits for any more is on the disk when `close` returns; afterwards the journal says it is closed."""
    ledger = await opened(journal)
    writing = asyncio.ensure_future(ledger.listed([("1", 1, None)], None))
    await asyncio.sleep(0)
    writing.cancel()
    await ledger.close()
    await ledger.close()
    assert [row.pack_id for row in contents(journal).rows] == ["1"]
    for call in (ledger.claim("1"), ledger.rows()):
        with pytest.raises(JournalError, match="closed"):
            await call


@on_virtual_clock
async def test_opening_that_is_cancelled_gives_everything_back(journal: Path) -> None:
    """Whenever the cancellation comes, the lock is free afterwards."""
    for steps in range(4):
        opening = asyncio.ensure_future(opened(journal))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        [result] = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(result, Journal):
            await result.close()
        again = await opened(journal)
        await again.close()


@case("D8")
@on_virtual_clock
async def test_one_journal_at_a_time(journal: Path) -> None:
    """The second is refused and changes nothing; closing any other descriptor of the file does not free the first's lock."""
    first = await opened(journal)
    with pytest.raises(JournalError, match="another inbox is using this journal"):
        await opened(journal)
    journal.read_bytes()  # opens and closes the file: SQLite's own locks of this process are gone now
    with pytest.raises(JournalError):
        await opened(journal)
    await first.listed([("1", 1, None)], None)
    await first.close()
    second = await opened(journal)
    await second.close()


@case("A13")
@on_virtual_clock
async def test_a_journal_that_another_program_locks_marks_nothing(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """Somebody holds a write transaction: after SQLite's patience `JournalError`; no request has left, and then all goes on."""
    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox):
        pass
    with closing(sqlite3.connect(journal, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            async with inbox_of(sandbox) as inbox:
                await consumer.empty(inbox)
        assert sandbox.log == []
        other.execute("ROLLBACK")
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(consumer.ids) == 2


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

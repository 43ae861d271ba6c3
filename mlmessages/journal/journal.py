"""What an inbox owes, written down durably: the store on SQLite, and group commit off the event loop.

The one place that knows sqlite3. `Store` is what a journal needs of an engine: each method is one unit of a
transaction. `Journal` runs them in a thread, as many as have come together in one transaction, and returns when that is
on the disk.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from attrs import define, frozen

from ..errors import JournalError
from ..failpoints import failpoint

T = TypeVar("T")
SCHEMA: Final = 1
_PATIENCE: Final = 5.0  # seconds to wait for another program that has locked the file
_PURGE_EVERY: Final = 1000  # acknowledged bodies are overwritten in the write-ahead log at least so often

# The states of a pack in the journal.
OPEN, ISSUED, DONE, PARKED = "open", "issued", "done", "parked"


@frozen
class Row:
    """A pack that the journal owes something, or has parked. Times are POSIX seconds."""

    pack_id: str
    state: str
    count: int
    resource: str | None
    listed_at: float | None
    not_before: float
    attempts: int
    doubtful: int
    error: str | None


@frozen
class Entry:
    """A message as the journal keeps it: `unread` is what `Delivery.unread` will say."""

    id: str
    raw: bytes
    unread: bool


@frozen
class PendingCheck:
    """A message that a notification named and that is not known yet. `parked`: it was looked for in vain."""

    message_id: str
    tries: int
    not_before: float
    parked: bool


@frozen
class FailedDelivery:
    """A pack whose new messages the handler failed at, to be handed over again."""

    pack_id: str
    tries: int
    not_before: float
    error: str


class Store(Protocol):
    """What a journal needs of an engine.

    Errors are `JournalError`; whatever happens between `begin` and `commit` happens whole or not at all.
    """

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...

    def listed(self, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        """Owe every pack of a listing; those that are parked stay parked."""

    def claim(self, pack_id: str) -> None:
        """A marking request of this pack may leave from now on."""

    def read(self, pack_id: str, entries: Sequence[Entry], status: bytes | None) -> list[str]:
        """All that a read showed is known from now on, and the pack done; the ids that were not known before."""

    def reopen(self, pack_id: str, not_before: float, doubtful: bool) -> None:
        """Owe the pack again, not before a moment. `doubtful`: it may have been marked meanwhile."""

    def park(self, pack_id: str, count: int, not_before: float, attempts: int, error: str, *, doubtful: bool) -> None:
        """Give the pack up until a moment."""

    def acknowledge(self, pack_id: str, ids: Sequence[str]) -> None:
        """The consumer has these messages: their bodies are forgotten, their ids never."""

    def reopen_claims(self, not_before: float) -> int:
        """Whoever claimed these packs is dead: owe them again, doubtful; how many there are."""

    def rows(self) -> list[Row]:
        """Every pack that is not done."""

    def undelivered(self) -> list[str]:
        """The packs with messages that were not acknowledged, in the order in which they were read."""

    def entries(self, pack_id: str) -> tuple[list[Entry], bytes | None]:
        """The messages of a pack that were not acknowledged, as they were read, and its status."""

    def purge(self) -> bool:
        """Overwrite what was forgotten, in the write-ahead log too; False: a reader of the file is in the way."""

    # -- of a service: what notifications named, and what its handler failed at --

    def notice(self, message_id: str, not_before: float) -> bool:
        """A notification named a message; False: it is known, as a message or from a notification before."""

    def look_later(self, notice: PendingCheck) -> None:
        """It is looked for again, or parked."""

    def settle(self, message_ids: Sequence[str]) -> list[str]:
        """Forget the notices of those messages that are known by now; which they are."""

    def notices(self) -> list[PendingCheck]:
        """Every notice."""

    def forget_notices(self, before: float) -> None:
        """Forget the notices that were parked and due before a moment."""

    def found(self, pack_id: str, entry: Entry, named: str) -> bool:
        """A message was read by its id, which changes nothing about what its pack owes; False: it was known."""

    def postpone(self, letter: FailedDelivery) -> None:
        """The handler failed at what is new of a pack: it is handed over again."""

    def delivered(self, pack_id: str) -> None:
        """The handler has taken what it had failed at."""

    def bury(self, pack_id: str, ids: Sequence[str], error: str) -> None:
        """The handler failed too often at these messages: they are kept, and not handed over by themselves."""

    def letters(self) -> list[FailedDelivery]:
        """What is to be handed over again."""

    def buried(self) -> dict[str, tuple[str, str]]:
        """The pack and the error of each message that was buried and is not acknowledged."""

    def unbury(self) -> int:
        """Hand over all of it again, from now on; how many messages."""


_TABLES: Final = """
CREATE TABLE identity (schema INTEGER NOT NULL, seller TEXT NOT NULL);
CREATE TABLE pack (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, count INTEGER NOT NULL, resource TEXT, listed_at REAL,
    not_before REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, doubtful INTEGER NOT NULL DEFAULT 0,
    error TEXT, status BLOB
) WITHOUT ROWID;
CREATE INDEX owed ON pack (state) WHERE state <> 'done';
CREATE TABLE message (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE body (
    seq INTEGER PRIMARY KEY, pack TEXT NOT NULL, id TEXT NOT NULL UNIQUE, raw BLOB NOT NULL, unread INTEGER NOT NULL
);
CREATE INDEX body_of ON body (pack);
"""

# Added to the files of versions that did not know them; those go on to work with such a file.
_TABLES_OF_A_SERVICE: Final = """
CREATE TABLE IF NOT EXISTS notification (
    id TEXT PRIMARY KEY, tries INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL, parked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS letter (
    pack TEXT PRIMARY KEY, tries INTEGER NOT NULL, not_before REAL NOT NULL, error TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS buried (id TEXT PRIMARY KEY, error TEXT NOT NULL) WITHOUT ROWID;
"""


class SqliteStore:
    """A `Store` in one file: write-ahead log, ``synchronous=FULL``, readable by its owner alone.

    Raises `JournalError` for a file of another seller, of a newer schema, corrupt, or that cannot be written.
    """

    def __init__(self, path: Path, seller_id: str) -> None:
        try:
            # Before SQLite does, which would make it readable by everybody.
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600), "rb") as file:
                # From end to end, once: after a reboot the check below, which reads here and there, takes five times as
                # long without it.
                while file.read(1 << 20):
                    pass
            self._db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path.name} cannot be opened: {_reason(error)}") from None
        try:
            self._prepare(path, seller_id)
        except (sqlite3.Error, JournalError) as error:
            self._db.close()
            if isinstance(error, JournalError):
                raise
            raise JournalError(f"the journal {path.name} cannot be used: {_reason(error)}") from None

    def _prepare(self, path: Path, seller_id: str) -> None:
        run = self._db.execute
        [(verdict,)] = run("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise JournalError(f"the journal {path.name} is corrupt: restore a copy; nothing was marked")
        tables = {name for (name,) in run("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables:  # before anything is changed: it may be another program's
            self._identify(path, seller_id, tables)
        if sys.platform != "win32":
            path.chmod(0o600)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=ON",
            "temp_store=MEMORY",
            "cache_size=-4000",
        ):
            run(f"PRAGMA {pragma}")
        if not tables:
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
            run("INSERT INTO identity VALUES (?, ?)", (SCHEMA, seller_id))
            run("COMMIT")
        if "buried" not in tables:
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES_OF_A_SERVICE} COMMIT")

    def _identify(self, path: Path, seller_id: str, tables: Collection[str]) -> None:
        if "identity" not in tables:
            raise JournalError(f"{path.name} is a database of another program, and no journal")
        schema, seller = self._db.execute("SELECT schema, seller FROM identity").fetchone() or (None, None)
        if not isinstance(schema, int) or schema > SCHEMA:
            raise JournalError(
                f"the journal {path.name} was written by a newer version (schema {schema}): update mlmessages"
            )
        if seller != seller_id:
            raise JournalError(f"the journal {path.name} is of seller {seller}, not of {seller_id}: one file a seller")

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()

    def listed(self, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        self._db.executemany(
            "INSERT INTO pack (id, state, count, resource, listed_at) VALUES (?, 'open', ?, ?, ?)"
            # The count of a parked pack stays, so that a change is one after a crash too. 0: it has left the listing.
            " ON CONFLICT (id) DO UPDATE SET resource = excluded.resource,"
            " count = iif(state = 'parked' AND excluded.count <> 0, count, excluded.count),"
            " listed_at = iif(state = 'done', excluded.listed_at, listed_at),"
            " doubtful = iif(state = 'done', 0, doubtful),"
            " attempts = iif(state = 'done', 0, attempts), state = iif(state = 'done', 'open', state)",
            ((pack_id, min(count, 2**62), resource, listed_at) for pack_id, count, resource in rows),
        )

    def claim(self, pack_id: str) -> None:
        self._db.execute("UPDATE pack SET state = 'issued' WHERE id = ?", (pack_id,))

    def read(self, pack_id: str, entries: Sequence[Entry], status: bytes | None) -> list[str]:
        known = self._known([entry.id for entry in entries])
        fresh = [entry for entry in entries if entry.id not in known]
        self._db.executemany("INSERT INTO message VALUES (?)", ((entry.id,) for entry in fresh))
        self._db.executemany(
            "INSERT INTO body (pack, id, raw, unread) VALUES (?, ?, ?, ?)",
            ((pack_id, entry.id, entry.raw, entry.unread) for entry in fresh),
        )
        self._db.execute(
            "UPDATE pack SET state = 'done', attempts = 0, doubtful = 0, not_before = 0, error = NULL, status = ?"
            " WHERE id = ?",
            (status, pack_id),
        )
        return [entry.id for entry in fresh]

    def _known(self, ids: Sequence[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            known.update(row[0] for row in self._db.execute(f"SELECT id FROM message WHERE id IN ({marks})", some))  # noqa: S608
        return known

    def reopen(self, pack_id: str, not_before: float, doubtful: bool) -> None:
        self._db.execute(
            "UPDATE pack SET state = 'open', not_before = ?, doubtful = ? WHERE id = ?", (not_before, doubtful, pack_id)
        )

    def park(self, pack_id: str, count: int, not_before: float, attempts: int, error: str, *, doubtful: bool) -> None:
        self._db.execute(
            "UPDATE pack SET state = 'parked', count = ?, not_before = ?, attempts = ?, error = ?, doubtful = ?"
            " WHERE id = ?",
            (min(count, 2**62), not_before, attempts, error, doubtful, pack_id),
        )

    def acknowledge(self, pack_id: str, ids: Sequence[str]) -> None:
        self._db.executemany("DELETE FROM body WHERE id = ?", ((id_,) for id_ in ids))

    def reopen_claims(self, not_before: float) -> int:
        return self._db.execute(
            "UPDATE pack SET state = 'open', doubtful = 1, not_before = ? WHERE state = 'issued'", (not_before,)
        ).rowcount

    def rows(self) -> list[Row]:
        return _rows(self._db)

    def undelivered(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT pack FROM body GROUP BY pack ORDER BY min(seq)")]

    def entries(self, pack_id: str) -> tuple[list[Entry], bytes | None]:
        found = self._db.execute("SELECT id, raw, unread FROM body WHERE pack = ? ORDER BY seq", (pack_id,))
        entries = [Entry(id_, raw, bool(unread)) for id_, raw, unread in found]
        status = self._db.execute("SELECT status FROM pack WHERE id = ?", (pack_id,)).fetchone()
        return entries, status[0] if status else None

    def purge(self) -> bool:
        self._db.execute("PRAGMA busy_timeout = 0")  # nobody has to wait: what is not done now, the next one does
        try:
            busy: int = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")
        return not busy

    def notice(self, message_id: str, not_before: float) -> bool:
        if self._known([message_id]):
            return False
        added = self._db.execute(
            "INSERT INTO notification (id, not_before) VALUES (?, ?) ON CONFLICT DO NOTHING", (message_id, not_before)
        )
        return added.rowcount > 0

    def look_later(self, notice: PendingCheck) -> None:
        self._db.execute(
            "UPDATE notification SET tries = ?, not_before = ?, parked = ? WHERE id = ?",
            (notice.tries, notice.not_before, notice.parked, notice.message_id),
        )

    def settle(self, message_ids: Sequence[str]) -> list[str]:
        known = self._known(message_ids)
        self._db.executemany("DELETE FROM notification WHERE id = ?", ((id_,) for id_ in known))
        return list(known)

    def notices(self) -> list[PendingCheck]:
        found = self._db.execute("SELECT id, tries, not_before, parked FROM notification ORDER BY not_before")
        return [PendingCheck(id_, tries, not_before, bool(parked)) for id_, tries, not_before, parked in found]

    def forget_notices(self, before: float) -> None:
        self._db.execute("DELETE FROM notification WHERE parked AND not_before < ?", (before,))

    def found(self, pack_id: str, entry: Entry, named: str) -> bool:
        self._db.execute("DELETE FROM notification WHERE id IN (?, ?)", (entry.id, named))
        if self._known([entry.id]):
            return False
        self._db.execute("INSERT INTO message VALUES (?)", (entry.id,))
        self._db.execute(
            "INSERT INTO body (pack, id, raw, unread) VALUES (?, ?, ?, ?)", (pack_id, entry.id, entry.raw, entry.unread)
        )
        return True

    def postpone(self, letter: FailedDelivery) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO letter VALUES (?, ?, ?, ?)",
            (letter.pack_id, letter.tries, letter.not_before, letter.error),
        )

    def delivered(self, pack_id: str) -> None:
        self._db.execute("DELETE FROM letter WHERE pack = ?", (pack_id,))

    def bury(self, pack_id: str, ids: Sequence[str], error: str) -> None:
        self.delivered(pack_id)
        self._db.executemany("INSERT OR REPLACE INTO buried VALUES (?, ?)", ((id_, error) for id_ in ids))

    def letters(self) -> list[FailedDelivery]:
        found = self._db.execute("SELECT pack, tries, not_before, error FROM letter")
        return [FailedDelivery(*row) for row in found]

    def buried(self) -> dict[str, tuple[str, str]]:
        self._db.execute("DELETE FROM buried WHERE id NOT IN (SELECT id FROM body)")  # acknowledged meanwhile
        found = self._db.execute("SELECT id, pack, error FROM buried JOIN body USING (id) ORDER BY seq")
        return {id_: (pack_id, error) for id_, pack_id, error in found}

    def unbury(self) -> int:
        self._db.execute(
            "INSERT OR REPLACE INTO letter SELECT DISTINCT pack, 0, 0.0, '' FROM buried JOIN body USING (id)"
        )
        return self._db.execute("DELETE FROM buried").rowcount


def _rows(db: sqlite3.Connection) -> list[Row]:
    found = db.execute(
        "SELECT id, state, count, resource, listed_at, not_before, attempts, doubtful, error"
        " FROM pack WHERE state <> 'done'"
    )
    return [Row(*row) for row in found]


def _reason(error: Exception) -> str:
    """Why, in the system's words; they name no content."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


class _Lock:
    """A lock file beside the journal, which the system frees when its holder dies.

    SQLite's own locks would vanish as soon as any descriptor of the file is closed in this process.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalError(f"the lock file {path.name} cannot be opened: {_reason(error)}") from None
        try:
            self._lock()
        except OSError:
            os.close(self._fd)
            raise JournalError(f"{path.name} is held: another inbox is using this journal") from None

    def _lock(self) -> None:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 -- exists there alone

            msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 -- exists there alone

            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        os.close(self._fd)


@define(eq=False)
class _Write:
    """A unit of work that waits for the next transaction."""

    work: Callable[[Store], Any]
    done: asyncio.Future[Any]


class Journal:
    """A `Store` in a thread of its own: what comes together is committed together."""

    def __init__(self, path: Path, seller_id: str, make: Callable[[Path, str], Store] = SqliteStore) -> None:
        self._path = path
        self._seller_id = seller_id
        self._make = make
        self._store: Store | None = None
        self._lock: _Lock | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._queue: list[_Write] = []
        self._flushing: asyncio.Task[None] | None = None
        self._forgotten = 1  # a process before this one may have ended before it overwrote what it forgot

    async def open(self) -> None:
        """Take the lock, open the store. Raises `JournalError`."""
        lock = _Lock(self._path.with_name(self._path.name + ".lock"))
        thread = ThreadPoolExecutor(1, thread_name_prefix="mlmessages-journal")
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._open_store)
        except BaseException:
            thread.shutdown(wait=True)
            if self._store is not None:  # cancelled meanwhile
                self._store.close()
                self._store = None
            lock.release()
            raise
        self._lock, self._thread = lock, thread

    def _open_store(self) -> None:
        self._store = self._make(self._path, self._seller_id)

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._thread is not None

    async def close(self) -> None:
        """Finish what was begun, overwrite what was forgotten, give the lock back."""
        if self._thread is None or self._store is None or self._lock is None:
            return
        try:
            if self._flushing is not None:
                await asyncio.shield(self._flushing)
            await self.purge()
        finally:
            thread, lock, store = self._thread, self._lock, self._store
            self._thread = self._lock = self._store = None
            try:
                await asyncio.get_running_loop().run_in_executor(thread, store.close)
            finally:
                thread.shutdown(wait=True)
                lock.release()

    # -- writes: each returns when it is on the disk; a caller that is cancelled meanwhile changes nothing about that --

    async def listed(self, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        await self._write(lambda store: store.listed(rows, listed_at))

    async def claim(self, pack_id: str) -> None:
        await self._write(lambda store: store.claim(pack_id))

    async def read(self, pack_id: str, entries: Sequence[Entry], status: bytes | None) -> list[str]:
        return await self._write(lambda store: store.read(pack_id, entries, status))

    async def reopen(self, pack_id: str, not_before: float, *, doubtful: bool) -> None:
        await self._write(lambda store: store.reopen(pack_id, not_before, doubtful))

    async def park(
        self, pack_id: str, count: int, not_before: float, attempts: int, error: str, *, doubtful: bool
    ) -> None:
        await self._write(lambda store: store.park(pack_id, count, not_before, attempts, error, doubtful=doubtful))

    async def acknowledge(self, pack_id: str, ids: Sequence[str]) -> None:
        await self._write(lambda store: store.acknowledge(pack_id, ids))
        self._forgotten += len(ids)
        if self._forgotten >= _PURGE_EVERY:
            await self.purge()

    async def reopen_claims(self, not_before: float) -> int:
        return await self._write(lambda store: store.reopen_claims(not_before))

    # -- reads --

    async def rows(self) -> list[Row]:
        return await self._call(lambda store: store.rows())

    async def undelivered(self) -> list[str]:
        return await self._call(lambda store: store.undelivered())

    async def entries(self, pack_id: str) -> tuple[list[Entry], bytes | None]:
        return await self._call(lambda store: store.entries(pack_id))

    # -- of a service --

    async def notice(self, message_id: str, not_before: float) -> bool:
        return await self._write(lambda store: store.notice(message_id, not_before))

    async def look_later(self, notice: PendingCheck) -> None:
        await self._write(lambda store: store.look_later(notice))

    async def settle(self, message_ids: Sequence[str]) -> list[str]:
        return await self._write(lambda store: store.settle(message_ids))

    async def notices(self, forget_before: float) -> list[PendingCheck]:
        await self._write(lambda store: store.forget_notices(forget_before))
        return await self._call(lambda store: store.notices())

    async def found(self, pack_id: str, entry: Entry, named: str) -> bool:
        return await self._write(lambda store: store.found(pack_id, entry, named))

    async def postpone(self, letter: FailedDelivery) -> None:
        await self._write(lambda store: store.postpone(letter))

    async def delivered(self, pack_id: str) -> None:
        await self._write(lambda store: store.delivered(pack_id))

    async def bury(self, pack_id: str, ids: Sequence[str], error: str) -> None:
        await self._write(lambda store: store.bury(pack_id, ids, error))

    async def letters(self) -> list[FailedDelivery]:
        return await self._call(lambda store: store.letters())

    async def buried(self) -> dict[str, tuple[str, str]]:
        return await self._write(lambda store: store.buried())

    async def unbury(self) -> int:
        return await self._write(lambda store: store.unbury())

    async def purge(self) -> None:
        """Overwrite what was forgotten, in the write-ahead log too."""
        forgotten = self._forgotten
        if forgotten and await self._call(lambda store: store.purge()):
            self._forgotten -= forgotten

    # -- the thread --

    async def _call(self, work: Callable[[Store], T]) -> T:
        if self._thread is None or self._store is None:
            raise JournalError("the journal is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, _translated, work, self._store)

    async def _write(self, work: Callable[[Store], T]) -> T:
        if self._thread is None:
            raise JournalError("the journal is closed")
        write = _Write(work, asyncio.get_running_loop().create_future())
        self._queue.append(write)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        result: T = await asyncio.shield(write.done)
        return result

    async def _flush(self) -> None:
        try:
            while self._queue:
                writes, self._queue = self._queue, []
                try:
                    results = await self._call(lambda store, writes=writes: _commit(store, writes))  # type: ignore[misc]
                except Exception as error:
                    results = [error] * len(writes)
                for write, result in zip(writes, results, strict=True):
                    if write.done.cancelled():
                        continue
                    if isinstance(result, Exception):
                        write.done.set_exception(result)
                        write.done.exception()  # its caller may be gone
                    else:
                        write.done.set_result(result)
        finally:
            self._flushing = None


def _commit(store: Store, writes: Iterable[_Write]) -> list[Any]:
    """One transaction of all `writes`; their results."""
    store.begin()
    try:
        results = [write.work(store) for write in writes]
        failpoint("before commit")
        store.commit()
    except BaseException:
        store.rollback()
        raise
    failpoint("after commit")
    return results


def _translated(work: Callable[[Store], T], store: Store) -> T:
    try:
        return work(store)
    except (sqlite3.Error, OSError, OverflowError, ValueError) as error:  # the last two: what SQLite cannot hold
        raise JournalError(f"the journal cannot be written: {_reason(error)}; nothing more was marked") from None


# -- from outside: what a journal says, beside a running inbox too --


@frozen
class Contents:
    """What a journal says at one moment.

    `rows`: every pack that is not done. `undelivered`: how many messages of which pack were not acknowledged. `dead`:
    how many of those the handler of a service failed at too often.
    """

    seller_id: str
    done: int
    rows: list[Row]
    undelivered: dict[str, int]
    dead: dict[str, int]


def contents(path: Path) -> Contents:
    """What the journal says: read only, no lock is taken. Raises `JournalError`; no file is created."""
    with _existing(path, "ro") as db:
        db.execute("BEGIN")  # all of it at one moment
        [(seller_id,)] = db.execute("SELECT seller FROM identity").fetchall()
        [(done,)] = db.execute("SELECT count(*) FROM pack WHERE state = 'done'").fetchall()
        undelivered = db.execute("SELECT pack, count(*) FROM body GROUP BY pack ORDER BY min(seq)").fetchall()
        dead = []
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'buried'").fetchone():  # no service of old versions
            joined = "SELECT pack, count(*) FROM buried JOIN body USING (id) GROUP BY pack ORDER BY min(seq)"
            dead = db.execute(joined).fetchall()
        return Contents(seller_id, done, _rows(db), dict(undelivered), dict(dead))


def retry_parked(path: Path) -> int:
    """Owe every parked pack again, from now on, as if it had never been refused; how many there were.

    Raises `JournalError`, also while an inbox uses the journal.
    """
    contents(path)  # what is no journal gets no lock file
    lock = _Lock(path.with_name(path.name + ".lock"))
    try:
        with _existing(path, "rw") as db:
            return db.execute(
                "UPDATE pack SET state = 'open', not_before = 0, attempts = 0, error = NULL WHERE state = 'parked'"
            ).rowcount
    finally:
        lock.release()


@contextmanager
def _existing(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection to a journal that is there; `mode`: ``ro`` or ``rw``."""
    if not path.is_file():
        raise JournalError(f"the journal {path.name} cannot be opened: there is no such file")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=5.0, isolation_level=None)
        with closing(db):
            [(schema,)] = db.execute("SELECT schema FROM identity").fetchall()
            if schema != SCHEMA:
                raise JournalError(f"the journal {path.name} has schema {schema}, not {SCHEMA}: update mlmessages")
            yield db
    except (sqlite3.Error, ValueError) as error:
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
            raise JournalError(f"the journal {path.name} cannot be read: {_reason(error)}") from None
        raise JournalError(f"{path.name} is no journal of mlmessages, or a broken one: {_reason(error)}") from None

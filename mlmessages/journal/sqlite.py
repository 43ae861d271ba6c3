"""The journal in one SQLite file: the one place that knows sqlite3."""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Final

from attrs import frozen

from ..errors import JournalError
from ..files import FileLock, open_private, sync_folder
from ..files import reason as reason_of
from .store import (
    DONE,
    MOST_CHECKS,
    OPEN,
    FailedDelivery,
    PendingCheck,
    Row,
    Seat,
    Stored,
    StoredMessage,
    TooManyChecks,
    Unstorable,
)

SCHEMA: Final = 1
MOVED: Final = 1_000_001  # the schema of a file that was moved to a database, or is about to be: no program opens it
OLDEST_SQLITE: Final = (3, 26, 0)  # upserts, tables without a rowid, secure_delete=ON
_PATIENCE: Final = 5.0  # seconds to wait for another program that has locked the file
_CHECKS_KEPT: Final = 7 * 24 * 3600.0  # seconds that the name of a message that never appeared is remembered

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
CREATE TABLE IF NOT EXISTS once (id TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (id, name)) WITHOUT ROWID;
"""


class SqliteStore:
    """A `Store` in one file: write-ahead log, ``synchronous=FULL``, readable by its owner alone.

    It has one seat, which is held as long as the store is open: a lock file beside the journal says so. Raises
    `JournalError` for a file that is in use, another seller's, of a newer schema, corrupt, or that cannot be written.
    """

    patience: float | None = None  # a slow disk is waited for

    def __init__(self, path: Path, seller_id: str, *, moving: bool = False) -> None:
        _check_place(path)
        self._path = path
        self._moving = moving
        self._lock = _locked(path)
        try:
            self._db = self._open(path, seller_id)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, path: Path, seller_id: str) -> sqlite3.Connection:
        try:
            # Before SQLite does, which would make it readable by everybody.
            with os.fdopen(open_private(path, os.O_RDWR | os.O_CREAT), "rb") as file:
                self._identity = _identity(os.fstat(file.fileno()), path)
                # From end to end, once: after a reboot the check below, which reads here and there, takes five times as
                # long without it.
                while file.read(1 << 20):
                    pass
            db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path.name} cannot be opened: {_reason(error)}") from None
        try:
            _prepare(db, path, seller_id, moving=self._moving)
        except (OSError, sqlite3.Error, JournalError) as error:
            db.close()
            if isinstance(error, JournalError):
                raise
            raise JournalError(f"the journal {path.name} cannot be used: {_reason(error)}") from None
        return db

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        self._db.execute("BEGIN IMMEDIATE")
        return frozenset(seats)

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()
        self._lock.release()

    def interrupt(self) -> None:
        pass

    def explain(self, error: Exception) -> JournalError | None:
        if isinstance(error, (sqlite3.InterfaceError, sqlite3.DataError, sqlite3.IntegrityError)):
            return Unstorable(f"the journal cannot hold a value: {_reason(error)}")
        if isinstance(error, (OverflowError, ValueError)):  # its text may quote the value
            return Unstorable(f"the journal cannot hold a value: {type(error).__name__}")
        if isinstance(error, (sqlite3.Error, OSError)):
            return JournalError(f"the journal cannot be written: {_reason(error)}; nothing more was marked")
        return None

    def _check_files(self) -> None:
        """Raise `JournalError` if the path leads to another file than the open one: the next process would not see
        what is written down here.
        """
        try:
            same = _identity(self._path.stat(), self._path) == self._identity and self._lock.is_effective
        except OSError:
            same = False
        if not same:
            raise JournalError(
                f"the journal {self._path.name} was deleted, moved or replaced while it was in use;"
                " nothing more was marked"
            )

    # -- decisions --

    def listed(self, seat: Seat, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        self._check_files()
        self._db.executemany(
            "INSERT INTO pack (id, state, count, resource, listed_at) VALUES (?, 'open', ?, ?, ?)"
            # The count of a parked pack stays, so that a change is one after a crash too. 0: it has left the listing.
            " ON CONFLICT (id) DO UPDATE SET resource = excluded.resource,"
            " count = CASE WHEN state = 'parked' AND excluded.count <> 0 THEN count ELSE excluded.count END,"
            " listed_at = CASE WHEN state = 'done' THEN excluded.listed_at ELSE listed_at END,"
            " doubtful = CASE WHEN state = 'done' THEN 0 ELSE doubtful END,"
            " attempts = CASE WHEN state = 'done' THEN 0 ELSE attempts END,"
            " state = CASE WHEN state = 'done' THEN 'open' ELSE state END",
            ((pack_id, min(count, 2**62), resource, listed_at) for pack_id, count, resource in rows),
        )

    def claim(self, seat: Seat, pack_id: str) -> None:
        self._check_files()
        self._db.execute("UPDATE pack SET state = 'issued' WHERE id = ?", (pack_id,))

    def reopen(self, seat: Seat, pack_id: str, wait: float, *, outcome_unknown: bool) -> None:
        self._db.execute(
            "UPDATE pack SET state = 'open', not_before = ?, doubtful = ? WHERE id = ?",
            (_moment(wait), outcome_unknown, pack_id),
        )

    def park(
        self, seat: Seat, pack_id: str, wait: float, *, count: int, attempts: int, error: str, outcome_unknown: bool
    ) -> None:
        self._db.execute(
            "UPDATE pack SET state = 'parked', count = ?, not_before = ?, attempts = ?, error = ?, doubtful = ?"
            " WHERE id = ?",
            (min(count, 2**62), _moment(wait), attempts, error, outcome_unknown, pack_id),
        )

    def reopen_claims(self, seat: Seat, settle_time: float) -> int:
        # The wall clock may have been set while no process ran: what was sent before may still arrive. `not_before` is
        # 0 where the wait was over and the pack was looked at since.
        self._db.execute(
            "UPDATE pack SET not_before = max(not_before, ?)"
            " WHERE state IN ('open', 'parked') AND doubtful AND not_before > 0",
            (_moment(settle_time),),
        )
        return self._db.execute(
            "UPDATE pack SET state = 'open', doubtful = 1, not_before = ? WHERE state = 'issued'",
            (_moment(settle_time),),
        ).rowcount

    def postpone(self, seat: Seat, failed: FailedDelivery) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO letter VALUES (?, ?, ?, ?)",
            (failed.pack_id, failed.tries, _moment(failed.wait), failed.error),
        )

    def delivered(self, seat: Seat, pack_id: str) -> None:
        self._db.execute("DELETE FROM letter WHERE pack = ?", (pack_id,))

    def dead_letter(self, seat: Seat, pack_id: str, ids: Sequence[str], error: str) -> None:
        self.delivered(seat, pack_id)
        self._db.executemany("INSERT OR REPLACE INTO buried VALUES (?, ?)", ((id_, error) for id_ in ids))

    def retry_dead_letters(self, seat: Seat) -> int:
        self._db.execute("DELETE FROM buried WHERE id NOT IN (SELECT id FROM body)")  # acknowledged meanwhile
        self._db.execute(
            "INSERT OR REPLACE INTO letter SELECT DISTINCT pack, 0, 0.0, '' FROM buried JOIN body USING (id)"
        )
        return self._db.execute("DELETE FROM buried").rowcount

    def update_check(self, seat: Seat, check: PendingCheck) -> None:
        self._db.execute(
            "UPDATE notification SET tries = ?, not_before = ?, parked = ? WHERE id = ?",
            (check.tries, _moment(check.wait), check.parked, check.message_id),
        )

    def forget_checks(self, seat: Seat, parked_for: float) -> None:
        self._db.execute("DELETE FROM notification WHERE parked AND not_before < ?", (time.time() - parked_for,))

    # -- facts --

    def read(
        self,
        seat: Seat,
        pack_id: str,
        entries: Sequence[StoredMessage],
        status: bytes | None,
        *,
        held: bool,
        again: float | None = None,
    ) -> Stored:
        known = self._known([entry.id for entry in entries])
        fresh = [entry for entry in entries if entry.id not in known]
        self._db.executemany("INSERT INTO message VALUES (?)", ((entry.id,) for entry in fresh))
        self._db.executemany(
            "INSERT INTO body (pack, id, raw, unread) VALUES (?, ?, ?, ?)",
            ((pack_id, entry.id, entry.raw, entry.unread) for entry in fresh),
        )
        self._db.execute(
            "UPDATE pack SET state = ?, attempts = 0, doubtful = ?, not_before = ?, error = NULL, status = ?"
            " WHERE id = ?",
            (DONE if again is None else OPEN, again is not None, _moment(again or 0.0), status, pack_id),
        )
        return Stored([entry.id for entry in fresh], again)

    def _known(self, ids: Sequence[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            known.update(row[0] for row in self._db.execute(f"SELECT id FROM message WHERE id IN ({marks})", some))  # noqa: S608
        return known

    def acknowledge(self, seat: Seat, pack_id: str, ids: Sequence[str], *, held: bool) -> None:
        self._db.executemany("DELETE FROM body WHERE id = ?", ((id_,) for id_ in ids))

    def found(self, seat: Seat, pack_id: str, entry: StoredMessage, named: str, *, held: bool) -> bool:
        self._db.execute("DELETE FROM notification WHERE id IN (?, ?)", (entry.id, named))
        if self._known([entry.id]):
            return False
        self._db.execute("INSERT INTO message VALUES (?)", (entry.id,))
        self._db.execute(
            "INSERT INTO body (pack, id, raw, unread) VALUES (?, ?, ?, ?)", (pack_id, entry.id, entry.raw, entry.unread)
        )
        return True

    def add_check(self, seat: Seat, message_id: str, wait: float, *, held: bool) -> bool:
        if self._known([message_id]):
            return False
        if self._db.execute("SELECT 1 FROM notification WHERE id = ?", (message_id,)).fetchone():
            return False
        self._make_room(seat)
        self._db.execute("INSERT INTO notification (id, not_before) VALUES (?, ?)", (message_id, _moment(wait)))
        return True

    def _make_room(self, seat: Seat) -> None:
        """See that there is room for one more check: what was looked for in vain gives way to what was not yet."""
        [(count,)] = self._db.execute("SELECT count(*) FROM notification").fetchall()
        if count < MOST_CHECKS:
            return
        self.forget_checks(seat, _CHECKS_KEPT)
        self._db.execute("DELETE FROM notification WHERE id IN (SELECT id FROM message)")
        oldest = "SELECT id FROM notification WHERE parked ORDER BY not_before LIMIT ?"
        self._db.execute(f"DELETE FROM notification WHERE id IN ({oldest})", (MOST_CHECKS // 100,))  # noqa: S608
        [(count,)] = self._db.execute("SELECT count(*) FROM notification").fetchall()
        if count >= MOST_CHECKS:
            raise TooManyChecks(
                f"notifications have named {count} messages that are not known: are they forged? No more are taken"
            )

    def settle_checks(self, seat: Seat, message_ids: Sequence[str]) -> list[str]:
        known = self._known(message_ids)
        self._db.executemany("DELETE FROM notification WHERE id = ?", ((id_,) for id_ in known))
        return list(known)

    def once(self, seat: Seat, message_ids: Sequence[str], name: str) -> bool:
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO once VALUES (?, ?)", ((id_, name) for id_ in message_ids))
        return self._db.total_changes - before == len(set(message_ids))

    def undo_once(self, seat: Seat, message_ids: Sequence[str], name: str) -> None:
        self._db.executemany("DELETE FROM once WHERE id = ? AND name = ?", ((id_, name) for id_ in message_ids))

    # -- what there is --

    def rows(self, seat: Seat) -> list[Row]:
        return _rows(self._db)

    def undelivered(self, seat: Seat) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT pack FROM body GROUP BY pack ORDER BY min(seq)")]

    def entries(self, seat: Seat, pack_id: str) -> tuple[list[StoredMessage], bytes | None]:
        found = self._db.execute("SELECT id, raw, unread FROM body WHERE pack = ? ORDER BY seq", (pack_id,))
        entries = [StoredMessage(id_, raw, bool(unread)) for id_, raw, unread in found]
        status = self._db.execute("SELECT status FROM pack WHERE id = ?", (pack_id,)).fetchone()
        return entries, status[0] if status else None

    def pending_checks(self, seat: Seat) -> list[PendingCheck]:
        found = self._db.execute("SELECT id, tries, not_before, parked FROM notification ORDER BY not_before")
        return [PendingCheck(id_, tries, _wait(moment), bool(parked)) for id_, tries, moment, parked in found]

    def failed_deliveries(self, seat: Seat) -> list[FailedDelivery]:
        found = self._db.execute("SELECT pack, tries, not_before, error FROM letter")
        return [FailedDelivery(pack_id, tries, _wait(moment), error) for pack_id, tries, moment, error in found]

    def dead_letters(self, seat: Seat) -> dict[str, tuple[str, str]]:
        found = self._db.execute("SELECT id, pack, error FROM buried JOIN body USING (id) ORDER BY seq")
        return {id_: (pack_id, error) for id_, pack_id, error in found}

    # -- moving to another engine --

    def mark_moving(self) -> str:
        """Let no program open this file any more; return a name of this move, the same when it is asked again."""
        self._db.execute("CREATE TABLE IF NOT EXISTS moved (id TEXT NOT NULL)")
        [(count,)] = self._db.execute("SELECT count(*) FROM moved").fetchall()
        if not count:
            self._db.execute("INSERT INTO moved VALUES (?)", (secrets.token_hex(16),))
        self._db.execute("UPDATE identity SET schema = ?", (MOVED,))
        [(id_,)] = self._db.execute("SELECT id FROM moved").fetchall()
        return str(id_)

    def unmark_moving(self) -> None:
        """Let the file be opened again."""
        self._db.execute("UPDATE identity SET schema = ?", (SCHEMA,))

    def put_away(self) -> None:
        """Rename the file to ``….moved``, with its write-ahead log in it; the store is to be closed then."""
        self._db.close()
        self._path.rename(self._path.with_name(self._path.name + ".moved"))
        sync_folder(self._path.parent)

    def message_ids(self) -> Iterator[str]:
        """Return the id of every known message."""
        return (id_ for (id_,) in self._db.execute("SELECT id FROM message"))

    def onces(self) -> Iterator[tuple[str, str]]:
        """Return the message and the name of everything that happened once."""
        return iter(self._db.execute("SELECT id, name FROM once"))

    def purge(self) -> bool:
        self._db.execute("PRAGMA busy_timeout = 0")  # no one waits: what is not done now, the next purge does
        try:
            busy: int = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")
        return not busy


def _moment(wait: float) -> float:
    """The POSIX second that is `wait` seconds from now; 0 for no wait, which no clock that is set brings back."""
    return time.time() + wait if wait else 0.0


def _wait(moment: float) -> float:
    return max(moment - time.time(), 0.0) if moment else 0.0


# -- the file --


def _check_place(path: Path) -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise JournalError(f"this Python's SQLite is {sqlite3.sqlite_version}; a journal needs {wanted} or newer")
    if is_network_share(path):
        raise JournalError(
            f"the journal {path.name} is on a network share (UNC path), where SQLite's write-ahead log does not work:"
            " keep it on a disk of this machine"
        )


def is_network_share(path: PurePath) -> bool:
    r"""True for a path such as ``\\server\share\file`` on Windows."""
    drive = path.drive.upper()
    return drive.startswith(r"\\") and (not drive.startswith((r"\\?", r"\\.")) or drive.startswith(r"\\?\UNC"))


def _locked(path: Path) -> FileLock:
    """Take the lock file beside the journal, which the system frees when its holder dies.

    SQLite's own locks would vanish as soon as any descriptor of the file is closed in this process.
    """
    name = path.name + ".lock"
    lock = FileLock(path.with_name(name))
    try:
        free = lock.acquire()
    except FileNotFoundError:
        raise JournalError(f"the journal {path} cannot be opened: there is no folder {path.parent}") from None
    except OSError as error:
        raise JournalError(f"the lock file {name} cannot be opened or locked: {reason_of(error)}") from None
    if not free:
        raise JournalError(f"{name} is held: another inbox is using this journal")
    return lock


def _identity(status: os.stat_result, path: Path) -> tuple[int, int]:
    """What tells a file from every other one. Raises `JournalError` if it has a second name."""
    if status.st_nlink > 1:
        raise JournalError(
            f"the journal {path.name} has a second name (a hard link), by which another inbox could open it:"
            " remove that one"
        )
    return status.st_dev, status.st_ino


def _prepare(db: sqlite3.Connection, path: Path, seller_id: str, *, moving: bool) -> None:
    [(verdict,)] = db.execute("PRAGMA quick_check(1)").fetchall()
    if verdict != "ok":
        raise JournalError(f"the journal {path.name} is corrupt: restore a copy; nothing was marked")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables:  # before anything is changed: it may be another program's
        _identify(db, path, seller_id, tables, moving=moving)
    _make_private(path)
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "fullfsync=ON",  # on macOS an fsync alone leaves the bytes in the disk's own memory
        "checkpoint_fullfsync=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",
        "cache_size=-4000",
    ):
        db.execute(f"PRAGMA {pragma}")
    if not tables:
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
        db.execute("INSERT INTO identity VALUES (?, ?)", (SCHEMA, seller_id))
        db.execute("COMMIT")
    if not {"buried", "once"} <= tables:
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES_OF_A_SERVICE} COMMIT")


def _identify(db: sqlite3.Connection, path: Path, seller_id: str, tables: Collection[str], *, moving: bool) -> None:
    if "identity" not in tables:
        raise JournalError(f"{path.name} is a database of another program, and no journal")
    schema, seller = db.execute("SELECT schema, seller FROM identity").fetchone() or (None, None)
    if schema == MOVED and not moving:
        raise JournalError(
            f"the journal {path.name} was moved to a database, or is being moved: use that, or run"
            " `mlmessages journal move` again to finish it"
        )
    if not isinstance(schema, int) or (schema > SCHEMA and schema != MOVED):
        raise JournalError(
            f"the journal {path.name} was written by a newer version (schema {schema}): update mlmessages"
        )
    if seller != seller_id:
        raise JournalError(f"the journal {path.name} is of seller {seller}, not of {seller_id}: one file a seller")


def _make_private(path: Path) -> None:
    """Make the journal, its log and its index readable by their owner alone; they may be there from before."""
    if sys.platform == "win32":  # where a mode says nothing about other users
        return
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if file.is_symlink():
            raise JournalError(f"{file.name} is a symbolic link: remove it")
        with suppress(FileNotFoundError):
            file.chmod(0o600)


def _rows(db: sqlite3.Connection) -> list[Row]:
    found = db.execute(
        "SELECT id, state, count, resource, listed_at, not_before, attempts, doubtful, error"
        " FROM pack WHERE state <> 'done'"
    )
    return [
        Row(pack_id, state, count, resource, listed_at, _wait(moment), attempts, bool(unknown), error)
        for pack_id, state, count, resource, listed_at, moment, attempts, unknown, error in found
    ]


def _reason(error: Exception) -> str:
    """Why, in the system's words; they name no content."""
    return reason_of(error) if isinstance(error, OSError) else str(error) or type(error).__name__


# -- from outside: what a journal says, beside a running inbox too --


@frozen
class Contents:
    """What a journal says at one moment.

    - `rows`: every pack that is not done; `due`: the POSIX second from which each of them may be read.
    - `undelivered`: how many messages of which pack were not acknowledged.
    - `dead`: how many of those the handler of a service failed at too often.
    """

    seller_id: str
    done: int
    rows: list[Row]
    due: dict[str, float]
    undelivered: dict[str, int]
    dead: dict[str, int]


def seller_of(path: Path) -> str:
    """Return whose journal the file is, also of one that is being moved. Raises `JournalError`."""
    with _existing(path, "ro", SCHEMA, MOVED) as db:
        [(seller_id,)] = db.execute("SELECT seller FROM identity").fetchall()
        return str(seller_id)


def contents(path: Path) -> Contents:
    """Return what the journal says: read only, no lock is taken. Raises `JournalError`; no file is created."""
    with _existing(path, "ro") as db:
        db.execute("BEGIN")  # all of it at one moment
        [(seller_id,)] = db.execute("SELECT seller FROM identity").fetchall()
        [(done,)] = db.execute("SELECT count(*) FROM pack WHERE state = 'done'").fetchall()
        undelivered = db.execute("SELECT pack, count(*) FROM body GROUP BY pack ORDER BY min(seq)").fetchall()
        dead = []
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'buried'").fetchone():  # no service of old versions
            joined = "SELECT pack, count(*) FROM buried JOIN body USING (id) GROUP BY pack ORDER BY min(seq)"
            dead = db.execute(joined).fetchall()
        due = db.execute("SELECT id, not_before FROM pack WHERE state <> 'done'").fetchall()
        return Contents(seller_id, done, _rows(db), dict(due), dict(undelivered), dict(dead))


def retry_parked(path: Path) -> int:
    """Owe every parked pack again, from now on, as if it had never been refused; return how many there were.

    Raises `JournalError`, also while an inbox uses the journal.
    """
    contents(path)  # what is no journal gets no lock file
    lock = _locked(path)
    try:
        with _existing(path, "rw") as db:
            return db.execute(
                "UPDATE pack SET state = 'open', not_before = 0, attempts = 0, error = NULL WHERE state = 'parked'"
            ).rowcount
    finally:
        lock.release()


@contextmanager
def _existing(path: Path, mode: str, *schemas: int) -> Iterator[sqlite3.Connection]:
    """A connection to a journal that is there; `mode`: ``ro`` or ``rw``."""
    if not path.is_file():
        raise JournalError(f"the journal {path.name} cannot be opened: there is no such file")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=5.0, isolation_level=None)
        with closing(db):
            [(schema,)] = db.execute("SELECT schema FROM identity").fetchall()
            if schema not in (schemas or (SCHEMA,)):
                raise JournalError(f"the journal {path.name} has schema {schema}, not {SCHEMA}: update mlmessages")
            yield db
    except (sqlite3.Error, TypeError, ValueError) as error:
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
            raise JournalError(f"the journal {path.name} cannot be read: {_reason(error)}") from None
        raise JournalError(f"{path.name} is no journal of mlmessages, or a broken one: {_reason(error)}") from None

"""A `Store` in one SQLite file."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import JournalError
from ...files import open_private, sync_folder
from ..store import (
    CHECKS_KEPT,
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
from .file import MOVED, PATIENCE, SCHEMA, check_place, identity, locked, prepare, reason


class SqliteStore:
    """A `Store` in one file: write-ahead log, ``synchronous=FULL``, readable by its owner alone.

    It has one seat, which is held as long as the store is open: a lock file beside the journal says so. Raises
    `JournalError` for a file that is in use, another seller's, of a newer schema, corrupt, or that cannot be written.
    """

    patience: float | None = None  # a slow disk is waited for

    def __init__(self, path: Path, seller_id: str, *, moving: bool = False) -> None:
        check_place(path)
        self._path = path
        self._moving = moving
        self._in_place = False
        self._lock = locked(path)
        try:
            self._db = self._open(path, seller_id)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, path: Path, seller_id: str) -> sqlite3.Connection:
        try:
            # Before SQLite does, which would make it readable by all users.
            with os.fdopen(open_private(path, os.O_RDWR | os.O_CREAT), "rb") as file:
                self._identity = identity(os.fstat(file.fileno()), path)
                # From end to end, once: after a reboot the check below, which reads here and there, takes five times as
                # long without it.
                while file.read(1 << 20):
                    pass
            db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path.name} cannot be opened: {reason(error)}") from None
        try:
            prepare(db, path, seller_id, moving=self._moving)
        except (OSError, sqlite3.Error, JournalError) as error:
            db.close()
            if isinstance(error, JournalError):
                raise
            raise JournalError(f"the journal {path.name} cannot be used: {reason(error)}") from None
        return db

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        self._db.execute("BEGIN IMMEDIATE")
        self._in_place = False  # it is looked at once a transaction
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
            return Unstorable(f"the journal cannot hold a value: {reason(error)}")
        if isinstance(error, (OverflowError, ValueError)):  # its text may quote the value
            return Unstorable(f"the journal cannot hold a value: {type(error).__name__}")
        if isinstance(error, (sqlite3.Error, OSError)):
            return JournalError(f"the journal cannot be written: {reason(error)}; nothing more was marked")
        return None

    def _check_files(self) -> None:
        """Raise `JournalError` if the path leads to another file than the open one: the next process would not see
        what is written down here.
        """
        if self._in_place:
            return
        with suppress(OSError, JournalError):
            self._in_place = identity(self._path.stat(), self._path) == self._identity and self._lock.is_effective
        if not self._in_place:
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
        # The wall clock may have been set while no process ran: what was sent before may still arrive, and nothing
        # else that is open is worth a longer wait. `not_before` is 0 where the wait was over, and the pack was looked
        # at since.
        self._db.execute(
            "UPDATE pack SET not_before = CASE WHEN state = 'parked' THEN max(not_before, :settled)"
            " WHEN doubtful THEN :settled ELSE min(not_before, :settled) END"
            " WHERE not_before > 0 AND (state = 'open' OR (state = 'parked' AND doubtful))",
            {"settled": _moment(settle_time)},
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
        self.forget_checks(seat, CHECKS_KEPT)
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
        return rows(self._db)

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

    # -- what the budget has spent --

    def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        now = time.time()
        self._db.execute("DELETE FROM spent")
        self._db.executemany(
            "INSERT INTO spent VALUES (?, ?, ?)", ((kind, now + seconds, count) for kind, seconds, count in spent)
        )

    def spent(self) -> list[tuple[str, float, int]]:
        found = self._db.execute("SELECT kind, until, count FROM spent")
        return [(kind, wait, count) for kind, until, count in found if (wait := _wait(until)) > 0]

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
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
        return not busy


def rows(db: sqlite3.Connection) -> list[Row]:
    """Return every pack of a journal that is not done."""
    found = db.execute(
        "SELECT id, state, count, resource, listed_at, not_before, attempts, doubtful, error"
        " FROM pack WHERE state <> 'done'"
    )
    return [
        Row(pack_id, state, count, resource, listed_at, _wait(moment), attempts, bool(unknown), error)
        for pack_id, state, count, resource, listed_at, moment, attempts, unknown, error in found
    ]


def _moment(wait: float) -> float:
    """The POSIX second that is `wait` seconds from now; 0 for no wait, which no clock that is set brings back."""
    return time.time() + wait if wait else 0.0


def _wait(moment: float) -> float:
    return max(moment - time.time(), 0.0) if moment else 0.0

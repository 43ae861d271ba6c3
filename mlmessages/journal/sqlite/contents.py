"""What a journal in a file says, from outside: beside a running inbox too."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import frozen

from ...errors import JournalError
from ..store import Row
from .file import MOVED, SCHEMA, locked, reason
from .store import rows


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
        return Contents(seller_id, done, rows(db), dict(due), dict(undelivered), dict(dead))


def retry_parked(path: Path) -> int:
    """Owe every parked pack again, from now on, as if it had never been refused; return how many there were.

    What may have been marked by a request that was not answered waits, from the next opening on, as it did before.

    Raises `JournalError`, also while an inbox uses the journal.
    """
    contents(path)  # what is no journal gets no lock file
    lock = locked(path)
    try:
        with _existing(path, "rw") as db:
            return db.execute(
                "UPDATE pack SET state = 'open', not_before = CASE WHEN doubtful THEN ? ELSE 0 END, attempts = 0,"
                " error = NULL WHERE state = 'parked'",
                (time.time(),),
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
            raise JournalError(f"the journal {path.name} cannot be read: {reason(error)}") from None
        raise JournalError(f"{path.name} is no journal of mlmessages, or a broken one: {reason(error)}") from None

"""The file of a journal: where it may be, whose it is, what is in it, and the lock beside it."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Final

from ...errors import JournalError
from ...files import FileLock
from ...files import reason as reason_of

SCHEMA: Final = 1
MOVED: Final = 1_000_001  # the schema of a file that was moved to a database, or is about to be: no program opens it
OLDEST_SQLITE: Final = (3, 26, 0)  # upserts, tables without a rowid, secure_delete=ON
PATIENCE: Final = 5.0  # seconds to wait for another program that has locked the file

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
CREATE TABLE IF NOT EXISTS spent (kind TEXT NOT NULL, until REAL NOT NULL, count INTEGER NOT NULL);
"""
_ADDED: Final = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", _TABLES_OF_A_SERVICE)


def check_place(path: Path) -> None:
    """Raise `JournalError` where no journal can be: an SQLite that is too old, a network share."""
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


def locked(path: Path) -> FileLock:
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


def identity(status: os.stat_result, path: Path) -> tuple[int, int]:
    """What tells a file from every other one. Raises `JournalError` if it has a second name."""
    if status.st_nlink > 1:
        raise JournalError(
            f"the journal {path.name} has a second name (a hard link), by which another inbox could open it:"
            " remove that one"
        )
    return status.st_dev, status.st_ino


def prepare(db: sqlite3.Connection, path: Path, seller_id: str, *, moving: bool) -> None:
    """Check whose file it is, make what is missing, and set how it is written. Raises `JournalError`."""
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
    if not set(_ADDED) <= tables:
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


def reason(error: Exception) -> str:
    """Return why, in the system's words; they name no content."""
    return reason_of(error) if isinstance(error, OSError) else str(error) or type(error).__name__

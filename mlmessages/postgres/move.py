"""A journal in a file becomes a seller of a database: `mlmessages journal move`.

The file is marked, so that no program opens it any more; everything is copied in one transaction, which also notes the
name of this move; the file is renamed. Ended anywhere and run again, it goes on where it was. There is no way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from attrs import frozen

from ..errors import JournalError
from ..failpoints import failpoint
from ..journal.sqlite import SqliteStore, seller_of
from ..journal.store import DONE, ISSUED, OPEN, Row, Seat
from . import statements as sql
from .connection import with_schema
from .database import Database

_EMPTY: Final = """
SELECT NOT EXISTS (SELECT FROM mlmessages.pack WHERE seller = %(s)s)
 AND NOT EXISTS (SELECT FROM mlmessages.message WHERE seller = %(s)s)
 AND NOT EXISTS (SELECT FROM mlmessages.letter WHERE seller = %(s)s)"""
_HELD: Final = """
SELECT s.no, w.name FROM mlmessages.seller s
 LEFT JOIN mlmessages.worker w ON w.id = s.worker AND w.until > mlmessages.clock()
 WHERE s.id = %(seller)s FOR UPDATE OF s"""
_MOVED: Final = "SELECT 1 FROM mlmessages.duty WHERE name = %(name)s"
_NOTE: Final = "INSERT INTO mlmessages.duty (name, due) VALUES (%(name)s, 'infinity')"
_PACK: Final = """
INSERT INTO mlmessages.pack
 (seller, id, state, count, resource, listed_at, not_before, attempts, doubtful, error, status)
 VALUES (%s, %s, %s, %s, %s, %s, mlmessages.clock() + %s * interval '1 s', %s, %s, %s, %s)"""
_NOTIFICATION: Final = """
INSERT INTO mlmessages.notification (seller, id, tries, not_before, parked)
 VALUES (%s, %s, %s, mlmessages.clock() + %s * interval '1 s', %s)"""
_LETTER: Final = """
INSERT INTO mlmessages.letter (seller, pack, tries, not_before, error)
 VALUES (%s, %s, %s, mlmessages.clock() + %s * interval '1 s', %s)"""
_DEAD: Final = "INSERT INTO mlmessages.buried (seller, id, error) VALUES (%s, %s, %s)"


@frozen
class Moved:
    """What was moved: of which seller, how many messages are known, and how many of them are not acknowledged."""

    seller_id: str
    messages: int
    undelivered: int


async def move(path: Path, database: Database, *, settle_time: float = 120.0) -> Moved:
    """Move the journal in `path` into `database`; the file is called ``….moved`` then.

    What was claimed when its last inbox died is read again, `settle_time` seconds from now. Raises `JournalError` if
    the file is in use, if a worker holds the seller, or if something of the seller is in the database already: the file
    can be used as before then.
    """
    if not database.journals.engine.is_open:
        raise RuntimeError("the database is not open: use `async with`")
    return await asyncio.to_thread(_move, path, database, settle_time)


def _move(path: Path, database: Database, settle_time: float) -> Moved:
    seller_id = seller_of(path)
    store = SqliteStore(path, seller_id, moving=True)
    try:
        with _whole(store):
            name = f"moved {store.mark_moving()}"
        failpoint("marked as moving")
        try:
            moved = _copy(store, Seat(seller_id), name, database, settle_time)
        except _Refused as refused:
            with _whole(store):
                store.unmark_moving()
            raise JournalError(str(refused)) from None
        except psycopg.Error as error:  # its text may quote a value
            raise JournalError(
                f"{path.name} could not be copied to {database.address.name}: {type(error).__name__};"
                " run `mlmessages journal move` again"
            ) from None
        failpoint("copied")
        store.put_away()
        failpoint("renamed")
        return moved
    finally:
        store.close()


class _Refused(Exception):
    """Nothing was copied, and the file can be used as before."""


@contextmanager
def _whole(store: SqliteStore) -> Iterator[None]:
    store.begin()
    try:
        yield
    except BaseException:
        store.rollback()
        raise
    store.commit()


def _copy(store: SqliteStore, seat: Seat, name: str, database: Database, settle_time: float) -> Moved:
    """Copy everything in one transaction."""
    with (
        psycopg.connect(database.address.reveal(), prepare_threshold=None) as connection,  # commits at its end
        connection.cursor() as cursor,
    ):
        copy = _Copy(cursor, store, seat, database)
        copy.run("SELECT set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '10s', true)")
        if copy.run(_MOVED, name=name):
            return copy.moved
        copy.run(sql.ADD_SELLER, seller=seat.seller_id)
        [(copy.no, holder)] = copy.run(_HELD, seller=seat.seller_id)
        if holder is not None:
            raise _Refused(f"seller {seat.seller_id} is held by worker {holder}: stop it, or take the seller out first")
        if copy.run(_EMPTY, s=copy.no) != [(True,)]:
            raise _Refused(
                f"the database holds messages of seller {seat.seller_id} already: two journals are not joined"
            )
        copy.packs(settle_time)
        copy.others()
        copy.run(_NOTE, name=name)
        failpoint("about to copy")
    return copy.moved


class _Copy:
    """One transaction that fills a seller's rows from a file."""

    def __init__(self, cursor: psycopg.Cursor, store: SqliteStore, seat: Seat, database: Database) -> None:
        self._cursor = cursor
        self._store = store
        self._seat = seat
        self._database = database
        self.no = 0

    def run(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        self._cursor.execute(self._text(statement), parameters or None)
        return self._cursor.fetchall() if self._cursor.description is not None else []

    @property
    def moved(self) -> Moved:
        """What the file holds, to be told."""
        store, seat = self._store, self._seat
        undelivered = sum(len(store.entries(seat, pack_id)[0]) for pack_id in store.undelivered(seat))
        return Moved(seat.seller_id, sum(1 for _ in store.message_ids()), undelivered)

    def packs(self, settle_time: float) -> None:
        """Copy the packs that are owed or parked, and those whose messages are not acknowledged; and these messages."""
        seat, rows = self._seat, self._store.rows(self._seat)
        owed, statuses = {row.pack_id for row in rows}, dict[str, bytes | None]()
        for pack_id in self._store.undelivered(seat):
            entries, statuses[pack_id] = self._store.entries(seat, pack_id)
            seal = self._database.keys.seal
            self._copy(
                "body (seller, pack, id, raw, unread)",
                ((pack_id, row.id, seal(seat.seller_id, row.raw), row.unread) for row in entries),
            )
            if pack_id not in owed:
                self._insert(_PACK, [(pack_id, DONE, 0, None, None, 0.0, 0, False, None, statuses[pack_id])])
        self._insert(
            _PACK,
            (
                (
                    row.pack_id,
                    OPEN if row.state == ISSUED else row.state,
                    row.count,
                    row.resource,
                    row.listed_at,
                    _wait(row, settle_time),
                    row.attempts,
                    row.outcome_unknown or row.state == ISSUED,
                    row.error,
                    statuses.get(row.pack_id),
                )
                for row in rows
            ),
        )

    def others(self) -> None:
        """Copy the ids of all messages, what notifications named, what the handler failed at, what happened once."""
        store, seat = self._store, self._seat
        self._copy("message (seller, id)", ((id_,) for id_ in store.message_ids()))
        self._copy("once (seller, id, name)", store.onces())
        checks = store.pending_checks(seat)
        self._insert(_NOTIFICATION, ((each.message_id, each.tries, each.wait, each.parked) for each in checks))
        failed = store.failed_deliveries(seat)
        self._insert(_LETTER, ((each.pack_id, each.tries, each.wait, each.error) for each in failed))
        self._insert(_DEAD, ((id_, error) for id_, (_, error) in store.dead_letters(seat).items()))

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        text = self._text(statement)
        for row in rows:
            self._cursor.execute(text, (self.no, *row))

    def _copy(self, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._cursor.copy(self._text(f"COPY mlmessages.{columns} FROM STDIN")) as copy:
            for row in rows:
                copy.write_row((self.no, *row))

    def _text(self, statement: str) -> bytes:
        return with_schema(statement, self._database.schema)


def _wait(row: Row, settle_time: float) -> float:
    """A request of unknown outcome may still arrive: as after every restart, it is waited for."""
    return max(row.wait, settle_time) if row.state == ISSUED or (row.outcome_unknown and row.wait) else row.wait

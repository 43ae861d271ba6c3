"""One connection: transactions in one round trip, and what its errors mean. It blocks; each has a thread of its own."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

import psycopg
from psycopg import errors as sql_errors
from psycopg import pq

from ..errors import JournalError
from ..journal.store import Disconnected, SerializationFailure, Unstorable
from ..journal.thread import EngineThread
from . import statements
from .address import Address, is_this_machine

Row = tuple[Any, ...]
Statement = tuple[str, Mapping[str, Any]]
# The last one: another process was stopped in a transaction, which the server ends after some seconds.
_CONFLICTS: Final = (sql_errors.DeadlockDetected, sql_errors.SerializationFailure, sql_errors.LockNotAvailable)
_log: Final = logging.getLogger("mlmessages")
# It warns of pipelines that end with their connection; the error itself is told by ours.
logging.getLogger("psycopg").addHandler(logging.NullHandler())
# Which server it is, and the timeline that it writes, which a promotion changes at once.
_IDENTITY: Final = """
SELECT system_identifier::text,
 CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END FROM pg_control_system()"""
OLDEST_SERVER: Final = 150000
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,50}")


def check_schema(name: str) -> str:
    """Return `name` if it can be a schema's. Raises `ValueError`."""
    if not isinstance(name, str) or not _SCHEMA.fullmatch(name) or name.startswith("pg_"):
        raise ValueError("schema must be lower-case ASCII letters, digits and _, such as 'mlmessages'")
    return name


def with_schema(sql: str, schema: str) -> bytes:
    """Return a statement of ours for a schema of that name."""
    return sql.replace("mlmessages.", f'"{schema}".').encode()


class Connection:
    """A connection that is made when it is needed, and made again after it broke.

    With `tells_failover` it warns where that is another server than before, or a standby that was promoted.

    In a statement ``mlmessages.`` stands for the schema. Between `begin` and `commit` what `run` is given is sent with
    the next `fetch`, or at the end.
    """

    patience: float | None = 10.0  # nothing else notices a peer that is silent

    def __init__(self, address: Address, schema: str, *, tells_failover: bool = False) -> None:
        self._address = address
        self._tells_failover = tells_failover
        self._identity: tuple[str | None, ...] | None = None
        self._schema = check_schema(schema)
        self._texts: dict[str, bytes] = {}
        self._connection: psycopg.Connection | None = None
        self._pipeline: psycopg.Pipeline | None = None
        self._leave = ExitStack()  # the pipeline
        self._waiting: list[Statement] = []

    # -- a transaction --

    def begin(self) -> None:
        """Connect if need be, and begin a transaction that is durable when it is committed."""
        connection, self._waiting = self._connected(), []
        with ExitStack() as stack:
            self._pipeline = stack.enter_context(connection.pipeline())
            self._leave = stack.pop_all()
        self.run("BEGIN", {})
        self.run(statements.SETTINGS, {})

    def run(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """Execute a statement, with the next that waits for its rows."""
        if self._pipeline is None:
            raise RuntimeError("a statement stands outside of a transaction")
        self._waiting.append((sql, parameters))

    def fetch(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        """Execute a statement, and return its rows."""
        self.run(sql, parameters)
        return self._send()[-1].fetchall()

    def commit(self) -> None:
        """End the transaction; it is durable when this returns."""
        self._end()

    def _end(self) -> list[psycopg.Cursor]:
        self.run("COMMIT", {})
        cursors = self._send()
        self._pipeline = None
        self._leave.close()
        if cursors[-1].statusmessage != "COMMIT":
            raise sql_errors.InFailedSqlTransaction("the transaction had failed")
        return cursors

    def _send(self) -> list[psycopg.Cursor]:
        """Send what waits, and wait until it is executed.

        It is sent together, and its end is marked: a server that waits for more of a transaction, without that mark,
        does not count the time, and would keep the locks of a process that was stopped for as long as that lasts.
        """
        connection, waiting, self._waiting = self._connected(), self._waiting, []
        cursors = [connection.execute(self._text(sql), parameters or None) for sql, parameters in waiting]
        if self._pipeline is not None:
            self._pipeline.sync()
        return cursors

    def rollback(self) -> None:
        """Undo what was begun; a connection that is in doubt is thrown away."""
        connection, self._pipeline = self._connection, None
        if connection is None:
            return
        if connection.closed:
            self.close()
            return
        try:
            with suppress(sql_errors.Error):
                self._leave.close()
            if connection.info.transaction_status != pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except sql_errors.Error:
            self.close()

    def transaction(self, some: Sequence[Statement]) -> list[list[Row]]:
        """Execute statements in a transaction of their own, in one round trip; return the rows of each."""
        try:
            self.begin()
            for sql, parameters in some:
                self.run(sql, parameters)
            return [cursor.fetchall() if cursor.description is not None else [] for cursor in self._end()[2:-1]]
        except BaseException:
            self.rollback()
            raise

    def _text(self, sql: str) -> bytes:
        if sql not in self._texts:
            self._texts[sql] = with_schema(sql, self._schema)
        return self._texts[sql]

    # -- the connection --

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            try:
                connection = psycopg.connect(self._address.reveal(), autocommit=True, prepare_threshold=None)
            except psycopg.Error as error:
                raise Disconnected(f"no connection to {self._address.name}: {_connecting(error)}") from None
            try:
                _check(connection, self._address)
            except BaseException:
                connection.close()
                raise
            if self._tells_failover:
                self._compare(connection)
            self._connection = connection
        return self._connection

    def _compare(self, connection: psycopg.Connection) -> None:
        """Warn of a failover: what an asynchronous standby had not received yet is lost with the old server."""
        try:
            found = connection.execute(_IDENTITY).fetchone()
        except sql_errors.Error:  # some providers do not tell; a line that broke is found by the next statement
            return
        before, self._identity = self._identity, found
        if before is not None and found != before:
            what = (
                "has failed over to a standby" if found is not None and found[0] == before[0] else "is another server"
            )
            _log.warning(
                "%s %s since the connection broke. Unless a commit waits for that server (synchronous_standby_names),"
                " what was written down just before is lost: messages that were marked as read then may never be handed"
                " over. Look at the conversations of those minutes on the site",
                self._address.name,
                what,
            )

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection, self._pipeline = self._connection, None, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
            with suppress(psycopg.Error):
                self._leave.close()

    def interrupt(self) -> None:
        """Cut the line, from another thread: the call that waits for an answer fails at once."""
        connection = self._connection
        if connection is None:
            return
        with suppress(psycopg.Error, OSError):
            line = socket.socket(fileno=os.dup(connection.fileno()))
            try:
                line.shutdown(socket.SHUT_RDWR)
            finally:
                line.close()

    def explain(self, error: Exception) -> JournalError | None:
        """Translate what psycopg raised; None: it is none of its errors. No text quotes a value."""
        if isinstance(error, (UnicodeEncodeError, OverflowError)):
            return Unstorable(f"the journal cannot hold a value: {type(error).__name__}")
        if not isinstance(error, psycopg.Error):
            return None
        connection = self._connection
        if connection is None or connection.closed or _is_of_the_line(error):
            self.close()
            return Disconnected(
                f"the connection to {self._address.name} broke: whether the last commit was executed is unknown"
            )
        name, said = type(error).__name__, error.diag.message_primary or ""
        if isinstance(error, _CONFLICTS):
            return SerializationFailure(f"the database could not order two transactions: {name}")
        if isinstance(error, (psycopg.DataError, psycopg.IntegrityError)):
            return Unstorable(f"the journal cannot hold a value: {name}")
        return JournalError(f"the journal on {self._address.name} cannot be used: {name}: {said}".rstrip(": "))


def _is_of_the_line(error: psycopg.Error) -> bool:
    """True if the server ends or is no primary any more, or if the line is not what was thought of it.

    What was committed last is to be read again then.
    """
    state = error.sqlstate
    if state is None:  # the client's own
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return (state[:2] in ("08", "57") and state != "57014") or state in ("25006", "25P03")


def _connecting(error: psycopg.Error) -> str:
    """Why no connection was made; libpq quotes no password there."""
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__


def _check(connection: psycopg.Connection, address: Address) -> None:
    """Raise `JournalError` for a server that is too old, or that acknowledges what is not on a disk."""
    here = is_this_machine(connection.info.host) and is_this_machine(connection.info.hostaddr)
    if not here and not connection.pgconn.ssl_in_use:
        raise JournalError(f"the connection to {address.name} is not encrypted: add sslmode=verify-full to the URL")
    if connection.info.server_version < OLDEST_SERVER:
        raise JournalError(f"{address.name} is PostgreSQL {connection.info.server_version // 10000}; 15 is the oldest")
    with connection.pipeline():
        connection.execute("BEGIN")
        connection.execute(statements.SETTINGS)
        found = connection.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        connection.execute("COMMIT")
    settings = found.fetchone()
    if settings is None or settings[0] != "on":
        raise JournalError(f"{address.name} runs with fsync=off: a power cut would lose what it has acknowledged")
    if settings[1] != "on":
        raise JournalError(f"synchronous_commit cannot be set on {address.name}: it is {settings[1]}")


class Statements:
    """Single transactions on a connection and in a thread of their own, for tokens and permits."""

    def __init__(self, address: Address, schema: str) -> None:
        self._thread = EngineThread(lambda: Connection(address, schema), "mlmessages-statements")

    async def open(self) -> None:
        """Start the thread; the first call connects."""
        await self._thread.open()

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self._thread.close()

    async def run(self, *some: Statement) -> list[list[Row]]:
        """Execute statements in one transaction and one round trip; return the rows of each.

        It is durable on return. Raises `JournalError`; `Disconnected` where the connection broke, and it is not known
        whether they were executed: the next call connects again.
        """
        return await self._thread.call(lambda connection: _repeated(connection, some))


def _repeated(connection: Connection, some: Sequence[Statement]) -> list[list[Row]]:
    for _ in range(2):
        try:
            return connection.transaction(some)
        except _CONFLICTS:
            continue
    return connection.transaction(some)

"""Programs that are killed on one seller of a database, and what is left there."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import psycopg

from inbox.kill.trial import Outcome, Place, Trial
from mlmessages.postgres import schema
from mlmessages.postgres.address import Address
from mlmessages.postgres.connection import Connection


class Databases:
    """New databases with the schema, copies of one; each ends when the next one is made."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._template = f"mlmessages_template_{os.getpid()}"
        self._names = (f"mlmessages_kill_{os.getpid()}_{n}" for n in itertools.count())
        self._name: str | None = None
        self._create(self._template)
        connection = Connection(Address(server.url(self._template)), "mlmessages")
        schema.migrate(connection, "mlmessages")
        connection.close()

    def new(self) -> str:
        """The URL of another one."""
        if self._name is not None:
            self._drop(self._name)
        self._name = next(self._names)
        self._create(f"{self._name} TEMPLATE {self._template}")
        return str(self._server.url(self._name))

    def close(self) -> None:
        """Drop them all."""
        for name in (self._name, self._template):
            if name is not None:
                self._drop(name)

    def _create(self, what: str) -> None:
        self._run(f"CREATE DATABASE {what}")

    def _drop(self, name: str) -> None:
        self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as admin:
            admin.execute(statement)  # type: ignore[call-overload]


class DatabaseTrial(Trial):
    """A trial whose journal is in a database. The lease of a program that was killed is over at once."""

    def live(self, *kill: Place, **options: Any) -> Outcome:
        """One life; if it is killed, the next one need not wait for its lease."""
        outcome = super().live(*kill, **options)
        if outcome.end is None:
            self.end_leases()
        return outcome

    def check(self) -> None:
        """Nothing lost, nothing left, also not in the database."""
        super().check()
        assert self.left == []

    def end_leases(self, pid: int | None = None) -> None:
        """Let the lease of a process, or of all, end now."""
        self.query(
            "UPDATE mlmessages.worker SET until = clock_timestamp() WHERE %s::text IS NULL OR name = %s",
            *[None if pid is None else f"pid {pid}"] * 2,
        )

    @property
    def left(self) -> list[tuple[Any, ...]]:
        """Packs that are owed, and bodies that were not acknowledged."""
        owed = self.query("SELECT id, state FROM mlmessages.pack WHERE state <> 'done'")
        return owed + self.query("SELECT id FROM mlmessages.body")

    def wait_for(self, statement: str, *values: Any) -> None:
        """Until the database says so, for a minute at the most."""
        ends = time.monotonic() + 60
        while not self.query(statement, *values):
            assert time.monotonic() < ends, statement

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self._options["database"], autocommit=True) as admin:
            found = admin.execute(statement, values or None)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []

"""Every engine there is, with a clock that is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from journal.stores import ONE, SELLER, Clock, taken
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.sqlite import SqliteStore
from mlmessages.journal.store import Seat, SharedStore, Store
from mlmessages.postgres import schema
from mlmessages.postgres.address import Address
from mlmessages.postgres.keys import Keys
from mlmessages.postgres.store import PostgresStore
from postgres.conftest import database_url, server

__all__ = ["database_url", "server"]

Stores = Callable[[], SharedStore]


@pytest.fixture
def clock() -> Clock:
    """The engine's."""
    return Clock()


@pytest.fixture(params=["memory", "postgres"])
def shared(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Stores]:
    """Each call is another process's store on the same engine."""
    memory, made = Memory(clock), list[SharedStore]()
    if request.param == "postgres":
        url = request.getfixturevalue("database_url")
        tick(url, clock)

    def make() -> SharedStore:
        made.append(MemoryStore(memory) if request.param == "memory" else postgres_store(url))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def held(
    request: pytest.FixtureRequest, journal: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, Seat]]:
    """An engine, and the seat that is held."""
    if request.param == "sqlite":
        monkeypatch.setattr(time, "time", clock)
        store: Store = SqliteStore(journal, SELLER)
        seat = Seat(SELLER)
    else:
        shared: SharedStore = MemoryStore(Memory(clock))
        if request.param == "postgres":
            url = request.getfixturevalue("database_url")
            tick(url, clock)
            shared = postgres_store(url)
        store, seat = shared, taken(shared, ONE).seat
    yield store, seat
    store.close()


def postgres_store(url: str) -> PostgresStore:
    """A store on a connection of its own."""
    return PostgresStore(Address(url), "mlmessages", Keys(None), "0.1")


def tick(url: str, clock: Clock) -> None:
    """Make the schema, and let the database's clock be `clock`."""
    store = postgres_store(url)
    schema.migrate(store.connection, "mlmessages")
    store.close()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE TABLE mlmessages.test_clock (at timestamptz NOT NULL)")
        admin.execute("INSERT INTO mlmessages.test_clock VALUES (to_timestamp(%s))", [clock.now])
        admin.execute(
            "CREATE OR REPLACE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " 'SELECT at FROM mlmessages.test_clock'"
        )

    def told(now: float) -> None:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("UPDATE mlmessages.test_clock SET at = to_timestamp(%s)", [now])

    clock.told = told


@pytest.fixture
def store(held: tuple[Store, Seat]) -> Store:
    """An engine."""
    return held[0]


@pytest.fixture
def seat(held: tuple[Store, Seat]) -> Seat:
    """The seat that it holds."""
    return held[1]

"""Every engine there is, with a clock that is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journal.stores import SELLER, Clock, taken
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.sqlite import SqliteStore
from mlmessages.journal.store import Seat, SharedStore, Store

Stores = Callable[[], SharedStore]


@pytest.fixture
def clock() -> Clock:
    """The engine's."""
    return Clock()


@pytest.fixture(params=["memory"])
def shared(clock: Clock) -> Iterator[Stores]:
    """Each call is another process's store on the same engine."""
    memory, made = Memory(clock), list[SharedStore]()

    def make() -> SharedStore:
        made.append(MemoryStore(memory))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture(params=["sqlite", "memory"])
def held(
    request: pytest.FixtureRequest, journal: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, Seat]]:
    """An engine, and the seat that is held."""
    if request.param == "sqlite":
        monkeypatch.setattr(time, "time", clock)
        store: Store = SqliteStore(journal, SELLER)
        seat = Seat(SELLER)
    else:
        shared = MemoryStore(Memory(clock))
        store, seat = shared, taken(shared, "one").seat
    yield store, seat
    store.close()


@pytest.fixture
def store(held: tuple[Store, Seat]) -> Store:
    """An engine."""
    return held[0]


@pytest.fixture
def seat(held: tuple[Store, Seat]) -> Seat:
    """The seat that it holds."""
    return held[1]

"""Every engine there is, with a clock that is set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.stores import SELLER, Clock
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.sqlite import SqliteStore
from mlmessages.journal.store import Seat, Store


@pytest.fixture
def clock() -> Clock:
    """The engine's."""
    return Clock()


@pytest.fixture(params=["sqlite", "memory"])
def store(
    request: pytest.FixtureRequest, journal: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """An engine of one process."""
    made: Store
    if request.param == "sqlite":
        monkeypatch.setattr(time, "time", clock)
        made = SqliteStore(journal, SELLER)
    else:
        made = MemoryStore(Memory(clock))
    yield made
    made.close()


@pytest.fixture
def seat() -> Seat:
    """The seat that the store holds."""
    return Seat(SELLER)

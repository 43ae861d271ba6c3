"""Real programs on one seller of one database: killed, stopped past their lease, woken. Nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cases import case
from inbox.kill.conftest import _others, _programs, _started, _trials
from inbox.kill.trial import Programs, Trial, weather

__all__ = ["_others", "_programs", "_started"]

TrialOf = Callable[..., Trial]
LEASE = 3.0


@pytest.fixture
def trial(programs: Programs, tmp_path: Path, database_url: str) -> Iterator[Trial]:
    """A world, a database, and programs that wait for the seller's seat."""
    options: dict[str, Any] = {"database": database_url, "lease": LEASE, "second_look": 3.0, "waits": True}
    with _trials(programs, tmp_path) as make:
        yield make(weather(), timeout=20.0, **options)


def left(url: str) -> list[tuple[Any, ...]]:
    """Packs that are owed, and bodies that were not acknowledged."""
    with psycopg.connect(url) as admin:
        owed = admin.execute("SELECT id, state FROM mlmessages.pack WHERE state <> 'done'").fetchall()
        return owed + admin.execute("SELECT id FROM mlmessages.body").fetchall()


@case("Q3")
@pytest.mark.parametrize("place", [("claimed", 2), ("GET sent", 3), ("read", 2), ("before commit", 9), ("handled", 3)])
def test_killed_and_followed_it_loses_nothing(place: tuple[str, int], trial: Trial, database_url: str) -> None:
    """kill -9 at a named place; the next program waits for the lease, takes over, and comes to the end."""
    assert trial.live(place).end is None
    trial.live_to_the_end()
    trial.check()
    assert left(database_url) == []


@case("Q3")
def test_two_programs_that_are_killed_in_turn_lose_nothing(trial: Trial, others: Programs, database_url: str) -> None:
    """The second waits beside the first, which is killed; the second takes over and is killed too; the third ends it."""
    first = trial.begin(ask=[("read", 2)])
    assert first.until("read") is None
    second = trial.begin(programs=others, kill=[("stored", 2)])
    os.kill(first.pid, signal.SIGKILL)
    assert first.outcome().end is None
    assert second.outcome().end is None
    trial.crashes += 2
    trial.live_to_the_end()
    trial.check()
    assert left(database_url) == []


@case("Q3")
@pytest.mark.parametrize("place", ["claimed", "GET sent", "read", "before commit", "stored"])
def test_a_program_that_is_stopped_past_its_lease_decides_and_sends_nothing_more(
    place: str, trial: Trial, others: Programs, database_url: str
) -> None:
    """SIGSTOP; another takes over and drains; new messages come; SIGCONT: it ends with `LeaseLost`, and whatever its
    late answer held is delivered by the next program.
    """
    first = trial.begin(ask=[(place, 4 if place == "before commit" else 2)])
    assert first.until(place) is None
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = trial.begin(programs=others, ask=[("handled", 1)])
        assert second.until("handled") is None
        for pack in trial.sandbox.pack_ids()[:2]:
            trial.sandbox.send(pack)
        second.go_on()
        assert second.outcome().end == "drained"
        sent = len([entry for entry in trial.sandbox.log if entry.kind == "mark"])
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.go_on()
    end = first.outcome().end or ""
    assert end.startswith("JournalError"), end
    assert len([entry for entry in trial.sandbox.log if entry.kind == "mark"]) == sent
    trial.live_to_the_end()
    assert not trial.lost
    assert not trial.sandbox.unread_ids()
    assert left(database_url) == []

"""Real programs on one seller of one database: killed, stopped past their lease, woken. Nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.kill.conftest import _others, _programs, _started, _trials
from inbox.kill.trial import Life, Programs, weather
from postgres.trials import DatabaseTrial

__all__ = ["_others", "_programs", "_started"]

LEASE, LONG_LEASE = 2.0, 20.0  # of what dies or is stopped; of what is to live also on a busy machine


@pytest.fixture
def trial(programs: Programs, tmp_path: Path, database_url: str) -> Iterator[DatabaseTrial]:
    """A world, a database, and programs that wait for the seller's seat."""
    options: dict[str, Any] = {"database": database_url, "lease": LONG_LEASE, "second_look": 2.0, "waits": True}
    with _trials(programs, tmp_path, DatabaseTrial) as make:
        yield make({**weather(), "rules": []}, timeout=20.0, **options)


@contextmanager
def stopped(life: Life) -> Iterator[None]:
    """The process stands still; in the end it is awake again."""
    os.kill(life.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(life.pid, signal.SIGCONT)


@case("Q3")
def test_two_programs_that_are_killed_in_turn_lose_nothing(trial: DatabaseTrial, others: Programs) -> None:
    """The second waits beside the first, which is killed; when its lease is over the second takes over, and is killed
    too; the third ends it.
    """
    first = trial.begin(lease=LEASE, ask=[("read", 2)])
    assert first.until("read") is None
    second = trial.begin(programs=others, lease=LEASE, kill=[("stored", 2)])
    os.kill(first.pid, signal.SIGKILL)
    assert first.outcome().end is None
    assert second.outcome().end is None
    trial.crashes += 2
    assert trial.begin().outcome().end == "drained"
    trial.check()


@case("Q3")
@pytest.mark.parametrize("place", ["claimed", "checked", "GET sent", "read", "before commit", "stored"])
def test_a_program_that_is_stopped_past_its_lease_decides_and_sends_nothing_more(
    place: str, trial: DatabaseTrial, others: Programs
) -> None:
    """SIGSTOP; another takes over and drains; new messages come; SIGCONT: it ends with `LeaseLost`, and whatever its
    late answer held is delivered by the next program. Only what it has checked before it was stopped, it sends.
    """
    first = trial.begin(lease=LEASE, ask=[(place, 4 if place == "before commit" else 2)])
    assert first.until(place) is None
    with stopped(first):
        claimed = [pack for (pack,) in trial.query("SELECT id FROM mlmessages.pack WHERE state = 'issued'")]
        second = trial.begin(programs=others, ask=[("handled", 1)])
        assert second.until("handled") is None
        for pack in trial.sandbox.pack_ids()[:2]:
            trial.sandbox.send(pack)
        second.go_on()
        assert second.outcome().end == "drained"
        marks = trial.sandbox.count("mark")
        if place == "checked":
            trial.sandbox.send(*claimed)
    first.go_on()
    end = first.outcome().end or ""
    assert end.startswith("JournalError"), end
    assert trial.sandbox.count("mark") == marks + (place == "checked")
    trial.live_to_the_end()
    assert not trial.lost
    assert not trial.sandbox.unread_ids()
    assert trial.left == []


@case("Q3")
@pytest.mark.parametrize(
    ("place", "killed"), [("checked", "GET sent"), ("checked", "read"), ("GET sent", "read"), ("read", "after commit")]
)
def test_a_program_that_is_stopped_past_its_lease_wakes_and_dies(
    place: str, killed: str, trial: DatabaseTrial, others: Programs
) -> None:
    """Another has taken over and read its conversation; a message comes there, which the program that wakes may mark,
    and it dies before that is stored: the second look finds what it has marked.
    """
    first = trial.begin(lease=LEASE, ask=[(place, 2)])
    assert first.until(place) is None
    with stopped(first):
        [(pack,)] = trial.query("SELECT id FROM mlmessages.pack WHERE state = 'issued'")
        second = trial.begin(programs=others, ask=[(f"done with {pack}", 1)])
        assert second.until(f"done with {pack}") is None
        new = trial.sandbox.send(pack)
    first.go_on(kill=killed)
    assert first.outcome().end is None
    trial.crashes += 1
    assert (new in trial.sandbox.marked_ids()) or (place, killed) != ("checked", "read")
    second.go_on()
    assert second.outcome().end == "drained"
    trial.check()

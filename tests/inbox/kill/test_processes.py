"""Two processes on one journal, and a process that is stopped for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from inbox.kill.trial import Programs, Trial

TrialOf = Callable[..., Trial]


def test_a_second_process_on_the_same_journal_is_refused_and_sends_nothing(trial_of: TrialOf, others: Programs) -> None:
    """D9: `JournalError` before the first byte leaves; the first process does not notice."""
    trial = trial_of()
    first = trial.begin(ask=[("stored", 2)])
    assert first.until("stored") is None
    before = len(trial.sandbox.log)
    second = trial.begin(programs=others).outcome()
    assert (second.end or "").startswith("JournalError")
    assert "another inbox" in (second.end or "")
    assert len(trial.sandbox.log) == before
    first.go_on()
    assert first.outcome().end == "drained"
    trial.check()


def test_when_the_first_process_is_killed_the_second_goes_on(trial_of: TrialOf, others: Programs) -> None:
    """D9: the system frees the lock with its holder; what it claimed is read again, and nothing is lost."""
    trial = trial_of()
    first = trial.begin(ask=[("read", 2)])
    assert first.until("read") is None
    assert (trial.begin(programs=others).outcome().end or "").startswith("JournalError")
    os.kill(first.pid, signal.SIGKILL)
    assert first.outcome().end is None
    trial.crashes += 1
    assert trial.begin(programs=others).outcome().end == "drained"
    trial.check()


@pytest.mark.parametrize("place", ["claimed", "GET sent", "read", "stored"])
def test_a_process_that_is_stopped_keeps_its_claim_and_goes_on_when_it_may(
    place: str, trial_of: TrialOf, others: Programs
) -> None:
    """D10: stopped beyond the settle time, it still holds the journal; woken, its late answer is stored as it is."""
    trial = trial_of(settle_time=0.0)
    first = trial.begin(ask=[(place, 2)])
    assert first.until(place) is None
    os.kill(first.pid, signal.SIGSTOP)
    try:
        first.go_on()
        for pack in trial.sandbox.pack_ids():
            trial.sandbox.send(pack)
        assert (trial.begin(programs=others).outcome().end or "").startswith("JournalError")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.outcome().end == "drained"
    trial.check()
    assert not trial.repeated


def test_a_stopped_process_that_is_killed_loses_nothing(trial_of: TrialOf) -> None:
    """Its claim is a dead one, whatever it had read."""
    trial = trial_of()
    first = trial.begin(ask=[("read", 1)])
    assert first.until("read") is None
    os.kill(first.pid, signal.SIGSTOP)
    os.kill(first.pid, signal.SIGKILL)
    assert first.outcome().end is None
    trial.crashes += 1
    trial.live_to_the_end()
    trial.check()

"""What `test_machines` looks for, it sees: each rule of many machines left out breaks an invariant in a short story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import frozen

from cases import case
from journal.processes import ANSWERED, CHECKED, CLAIMED
from journal.stores import LEASE
from journal.test_machines import Machines
from mlmessages.journal import seats
from mlmessages.journal.memory import MemoryStore
from mlmessages.journal.store import Seat, Stored

Patch = pytest.MonkeyPatch


def _changed(name: str, value: Callable[[MemoryStore, Any], Any]) -> Callable[[Patch], None]:
    """What a takeover writes of a pack, changed."""
    change = MemoryStore._change

    def mutant(self: MemoryStore, seat: Seat, pack_id: str, **changes: Any) -> None:
        if changes.get("again") is not None and name in changes:
            changes[name] = value(self, changes[name])
        change(self, seat, pack_id, **changes)

    return lambda patch: patch.setattr(MemoryStore, "_change", mutant)


def _no_epochs(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_holds", lambda self, seat: seat.seller_id in self._memory.sellers)


def _late_answers_dropped(patch: Patch) -> None:
    read = MemoryStore.read
    patch.setattr(MemoryStore, "read", lambda *a, held, **o: read(*a, held=held, **o) if held else Stored([]))


def _trusted_for_too_long(patch: Patch) -> None:
    patch.setattr(seats, "_TRUSTED", 1.5)


@frozen
class Story:
    """A rule that is left out, what happens, and what is seen of it."""

    weaken: Callable[[Patch], None]
    until: str
    seconds: float  # that the first one is stopped there
    steps: int  # when it wakes
    seen: str
    then: str | None = None


STORIES = {
    "no second look": Story(_changed("again", lambda *_: None), CHECKED, 155.0, 2, "lost", "killed"),
    "no wait": Story(_changed("not_before", lambda *_: float("-inf")), CLAIMED, 31.0, 0, "the wait runs from"),
    "a wait from the takeover": Story(
        _changed("not_before", lambda store, moment: moment + store._memory.clock() - LEASE),
        CLAIMED,
        31.0,
        0,
        "the wait",
    ),
    "no epochs": Story(_no_epochs, ANSWERED, 31.0, 1, "an older epoch decides"),
    "late answers dropped": Story(_late_answers_dropped, ANSWERED, 31.0, 1, "a late answer is dropped"),
    "a lease that is trusted for too long": Story(
        _trusted_for_too_long, CLAIMED, 31.0, 1, "what another holds is sent"
    ),
}


@pytest.fixture
def machines() -> Iterator[Machines]:
    """The world of `test_machines`, before anything has happened."""
    made = Machines()
    made.a_seller()
    yield made
    made.runner.close()


def tell(machines: Machines, story: Story) -> None:
    """One is stopped at work, another takes over and reads, a message comes, the first one wakes."""
    machines.it_works(0, "1", story.until, "stopped", story.seconds)
    machines.it_works(1, "1", None, None, 0.0)
    machines.it_wakes("1", news=True, beats=False, steps=story.steps, then=story.then)
    machines.nothing_is_lost()
    machines.what_is_forgotten_was_handled()
    machines.a_claim_is_of_the_epoch_that_holds()


def end(machines: Machines) -> None:
    for process in machines.alive():
        machines.run(process.kill())


@case("Q3")
@pytest.mark.parametrize("name", STORIES)
def test_a_rule_that_is_left_out_is_seen(name: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's oracle raises."""
    STORIES[name].weaken(monkeypatch)
    with pytest.raises(AssertionError, match=STORIES[name].seen):
        tell(machines, STORIES[name])
    end(machines)


@case("Q3")
@pytest.mark.parametrize("name", STORIES)
def test_with_all_rules_the_same_story_ends_well(name: str, machines: Machines) -> None:
    """It is the rule that makes the difference, and not the story."""
    tell(machines, STORIES[name])
    machines.run(machines.heal())
    end(machines)

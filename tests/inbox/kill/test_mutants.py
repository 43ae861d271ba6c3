"""Each rule of the protocol left out loses a message of a real program; the protocol as it is does not, at the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import frozen

from inbox.kill import mutants
from inbox.kill.trial import Programs, Trial
from mlmessages.testing import DROP, EXECUTE, Behaviour, Garbage, Hold, Pack, Send, Stale, on

TrialOf = Callable[..., Trial]


@frozen
class Story:
    """A world, and what happens in it, one after the other."""

    world: dict[str, Any]
    tell: Callable[[Trial, Programs], None]


def _undisturbed(trial: Trial, _: Programs) -> None:
    trial.live_to_the_end()


def _killed_at(name: str, times: int) -> Callable[[Trial, Programs], None]:
    def tell(trial: Trial, _: Programs) -> None:
        trial.live((name, times))
        trial.live_to_the_end()

    return tell


def _late(trial: Trial) -> None:
    """A message arrives, and then the GET that was held is executed."""
    pack, sandbox = trial.sandbox.pack_ids()[0], trial.sandbox
    sandbox.send(pack)
    sandbox.release("late")
    trial.until(lambda: not sandbox.held("late") and sandbox.log[_held(trial)].executed)


def _held(trial: Trial) -> int:
    return next(number for number, entry in enumerate(trial.sandbox.log) if entry.kind == "mark")


def _times_out(trial: Trial, _: Programs) -> None:
    """The first pack's GET is late; when the last pack is done, a message arrives and the GET is executed."""
    done = f"done with {trial.sandbox.pack_ids()[2]}"
    life = trial.begin(ask=[(done, 1)], settle_time=1.0, timeout=0.3)
    assert life.until(done) is None
    _late(trial)
    life.go_on()
    assert life.outcome().end == "drained"


def _dies_with_a_late_request(trial: Trial, _: Programs) -> None:
    """As before, but the process ends when the GET is on its way, and the next one does the last pack."""
    trial.live(("GET sent", 1))
    trial.until(lambda: trial.sandbox.held("late") == 1)
    done = f"done with {trial.sandbox.pack_ids()[2]}"
    life = trial.begin(ask=[(done, 1)], settle_time=1.0)
    assert life.until(done) is None
    _late(trial)
    life.go_on()
    assert life.outcome().end == "drained"


def _two_at_once(trial: Trial, others: Programs) -> None:
    """Both read a pack, a message arrives between, who read it last dies before it is stored, who read first goes on."""
    first = trial.begin(ask=[("read", 1)])
    assert first.until("read") is None
    second = trial.begin(programs=others, ask=[("claimed", 1)], kill=[("read", 1)])
    if (refused := second.until("claimed")) is not None:
        assert (refused.end or "").startswith("JournalError")
    trial.sandbox.send(trial.sandbox.pack_ids()[0])
    if refused is None:
        second.go_on()
        assert second.outcome().end is None
    first.go_on()
    assert first.outcome().end == "drained"


# The first pack is claimed first; the third is listed, and done, only when there is nothing else to do but to wait.
_LATE = {
    "packs": 3,
    "behaviour": Behaviour(listing_order="oldest", cap=2),
    "rules": [on("mark", nth=1).do(Hold("late"), EXECUTE, DROP)],
}

STORIES = {
    "no journal": Story({"packs": 2}, _killed_at("read", 1)),
    "peek then mark, answer dropped": Story(
        {"packs": 2, "rules": [on("mark", nth=1).do(Send(), EXECUTE)]}, _undisturbed
    ),
    "newness by `read`": Story({"packs": 2}, _killed_at("read", 1)),
    "immediate retry after a timeout": Story(_LATE, _times_out),
    "marking every page": Story(
        {"packs": [Pack(messages=3)], "rules": [on("mark", nth=1).do(EXECUTE, Send())]}, _undisturbed
    ),
    "DONE before the ids": Story({"packs": 2}, _killed_at("after commit", 4)),
    "two workers without a claim": Story({"packs": 1}, _two_at_once),
    "a dead claim is free": Story(_LATE, _dies_with_a_late_request),
    "done with a re-read that may be behind": Story(
        {
            "packs": 2,
            "rules": [on("mark", nth=1).do(Send(), EXECUTE, Garbage()), on("peek", nth=1).do(Stale(5))],
        },
        _undisturbed,
    ),
    "acknowledged before it is handled": Story({"packs": 2}, _killed_at("acknowledged", 1)),
}


def test_every_mutant_has_a_story() -> None:
    """No rule is left unproven."""
    assert set(STORIES) == set(mutants.NAMES)


@pytest.mark.parametrize("name", STORIES)
def test_without_one_of_its_rules_the_program_loses_a_message(name: str, trial_of: TrialOf, others: Programs) -> None:
    """Each weakened variant leaves a message that is marked and that the consumer never had."""
    story = STORIES[name]
    trial = trial_of(story.world, mutant=name)
    story.tell(trial, others)
    assert trial.lost


@pytest.mark.parametrize("name", STORIES)
def test_the_program_as_it_is_loses_nothing_in_the_same_story(name: str, trial_of: TrialOf, others: Programs) -> None:
    """It is the rule that makes the difference, and not the story."""
    story = STORIES[name]
    trial = trial_of(story.world)
    story.tell(trial, others)
    trial.check()

"""A real process is killed at every named place, and started again: nothing lost, nothing left, little repeated."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from cases import case
from inbox.kill.places import PLACES, named, whole_sweep
from inbox.kill.trial import Outcome, Trial, other_weather
from mlmessages.journal.sqlite import contents
from sweep import Sweep

TrialOf = Callable[..., Trial]


def test_a_life_that_is_not_killed_passes_every_named_place_and_loses_nothing(whole_life: Outcome) -> None:
    """The places that are killed at below are all there are."""
    assert set(named(whole_life)) == set(PLACES)


def test_a_life_that_is_not_killed_repeats_nothing(trial_of: TrialOf) -> None:
    """Without a crash each message is delivered once, lost answer or not."""
    trial = trial_of()
    trial.live_to_the_end()
    assert not trial.repeated


@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize("name", PLACES)
def test_killed_at_a_named_place_it_loses_nothing(
    name: str, which: str, trial_of: TrialOf, whole_life: Outcome
) -> None:
    """Killed and started again: lost = 0, left = 0, at most one delivery repeated, which says so."""
    times = Counter(whole_life.places)[name]
    occurrence = {"first": 1, "middle": (times + 1) // 2, "last": times}[which]
    trial = trial_of()
    while trial.live((name, occurrence)).end is not None:  # on a busy machine it may come there less often
        occurrence -= 1
        trial = trial_of()
    trial.live_to_the_end()
    trial.check()


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_pair_of_places_it_loses_nothing(seed: int, trial_of: TrialOf) -> None:
    """The second life is killed too, and three conversations are read ahead."""
    chance = random.Random(seed)
    trial = trial_of(concurrency=3)
    trial.live(("*", chance.randrange(1, 110)))
    trial.live(("*", chance.randrange(1, 60)))
    trial.live_to_the_end()
    trial.check()


def test_killed_again_and_again_it_loses_nothing_and_goes_on(trial_of: TrialOf) -> None:
    """A crash loop: every life ends a few places later than it began, and together they come to the end."""
    trial = trial_of()
    lives = 0
    while trial.live(("*", 30)).end is None:
        lives += 1
        assert lives < 100
    assert lives >= 2
    trial.check()


def test_what_was_acknowledged_costs_no_request_again(trial_of: TrialOf) -> None:
    """Killed when all is stored but for the last acknowledgement, the next life asks for a listing and reads nothing."""
    trial = trial_of({"packs": 4})
    trial.live(("delivered", 4))
    asked = trial.sandbox.count("mark"), trial.sandbox.count("peek")
    trial.live_to_the_end()
    assert (trial.sandbox.count("mark"), trial.sandbox.count("peek")) == asked == (4, 0)
    trial.check()


@case("Q1")
def test_what_waits_for_the_budget_when_it_is_killed_is_not_in_doubt(trial_of: TrialOf) -> None:
    """Four conversations at a time, a budget for a listing and two of them: no pack is claimed, and none waits later."""
    trial = trial_of({"packs": 6}, concurrency=4)
    trial.live(("acknowledged", 2), reads=3)
    assert trial.sandbox.count("mark") == 2
    assert {row.state for row in contents(trial.journal).rows} == {"open"}
    trial.live_to_the_end(settle_time=3600.0)
    assert trial.sandbox.count("mark") == 6
    trial.check()


@pytest.mark.parametrize("weather", other_weather())
def test_the_whole_sweep(weather: str, trial_of: TrialOf, sweep: Sweep) -> None:
    """At every place in order, and at random pairs of them: all with ``--sweep``, a few without."""
    whole_sweep(weather, trial_of, sweep, weather)

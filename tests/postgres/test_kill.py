"""A real process on a real server is killed at every named place, and followed by another: nothing lost, nothing left.

More of it, at every place in order and at random pairs: ``pytest tests/postgres/test_kill.py --sweep``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.kill.conftest import _others, _programs, _started, _trials
from inbox.kill.places import PLACES, named, whole_sweep
from inbox.kill.trial import Outcome, Programs, other_weather
from needs import needs
from postgres.server import GivenServer, Server
from postgres.trials import Databases, DatabaseTrial
from sweep import Sweep

__all__ = ["_others", "_programs", "_started"]

pytestmark = [case("Q3"), needs("signals")]

TrialOf = Callable[..., DatabaseTrial]
# A lease that no busy machine lets end before it is made to; short waits, for there is no late request in these worlds.
OPTIONS: dict[str, Any] = {"lease": 15.0, "settle_time": 0.1, "second_look": 0.3, "waits": True}

# Where a program that waits for the seat does not come.
OF_THE_HOLDER = [name for name in PLACES if "commit" not in name]


@pytest.fixture(scope="module")
def databases(server: Server | GivenServer) -> Iterator[Databases]:
    """A database for each trial."""
    made = Databases(server)
    yield made
    made.close()


@pytest.fixture
def trial_of(programs: Programs, tmp_path: Path, databases: Databases) -> Iterator[TrialOf]:
    """A trial in a new world and a new database each."""
    with _trials(programs, tmp_path, DatabaseTrial) as make:
        yield lambda world=None, **options: make(world, database=databases.new(), **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def whole_life(
    started: tuple[Programs, Programs], databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """A life that is not killed, for the places that there are."""
    with _trials(started[0], tmp_path_factory.mktemp("whole_life"), DatabaseTrial) as make:
        trial = make(database=databases.new(), **OPTIONS)
        outcome = trial.live_to_the_end()
        trial.check()
        assert not trial.repeated
        return outcome


def test_a_life_that_is_not_killed_passes_every_named_place(whole_life: Outcome) -> None:
    """The places that are killed at below are all there are on PostgreSQL too."""
    assert set(named(whole_life)) == set(PLACES)


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("name", PLACES)
def test_killed_at_a_named_place_and_followed_it_loses_nothing(
    name: str, which: str, trial_of: TrialOf, whole_life: Outcome
) -> None:
    """kill -9; the next program takes the seat over: lost = 0, left = 0, at most one delivery repeated, which says so."""
    occurrence = 1 if which == "first" else Counter(whole_life.places)[name]
    trial = trial_of()
    while trial.live((name, occurrence)).end is not None:  # a renewal more or less
        occurrence -= 1
        trial = trial_of()
    trial.live_to_the_end()
    trial.check()


@pytest.mark.parametrize("which", range(3))
def test_killed_at_a_random_pair_of_places_it_loses_nothing(which: int, trial_of: TrialOf) -> None:
    """The second life is killed too, and three conversations are read ahead."""
    chance = Sweep(whole=False, seed=which).chance()
    trial = trial_of(concurrency=3)
    trial.live(("*", chance.randrange(1, 110)))
    trial.live(("*", chance.randrange(1, 60)))
    trial.live_to_the_end()
    trial.check()


@pytest.mark.parametrize("which", range(3))
def test_two_programs_on_one_seller_that_are_killed_in_turn_lose_nothing(
    which: int, trial_of: TrialOf, programs: Programs, others: Programs
) -> None:
    """One holds the seat, one waits for it: the holder is killed, the other takes over and is killed, and so on."""
    kills = [[(name, 1)] for name in Sweep(whole=False, seed=which).chance().sample(OF_THE_HOLDER, 4)]
    turns = zip(itertools.chain(kills, itertools.repeat([])), itertools.cycle([programs, others]), strict=False)
    trial = trial_of()
    lives = (trial.begin(programs=each, kill=kill) for kill, each in turns)
    holder = next(lives)
    while True:
        trial.wait_for("SELECT 1 FROM mlmessages.seller WHERE epoch > %s", trial.crashes)  # it has taken the seat
        waiting = next(lives)
        if (outcome := holder.outcome()).end is not None:
            break
        trial.crashes += 1
        trial.end_leases(holder.pid)
        holder = waiting
    assert (outcome.end, trial.crashes) == ("drained", 4)
    assert waiting.outcome().end == "drained"
    trial.check()


@pytest.mark.parametrize("weather", other_weather())
def test_the_whole_sweep(weather: str, trial_of: TrialOf, sweep: Sweep) -> None:
    """At every place in order, and at random pairs of them: all with ``--sweep``, a few without."""
    whole_sweep(weather, trial_of, sweep, f"PostgreSQL, {weather}")

"""The named places that a program passes, and which of them it is killed at."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from inbox.kill.trial import Outcome, Place, Trial, other_weather
from sweep import Sweep

# Every named place of the library, and two of the program: the request has left, and the consumer has done its work.
PLACES = (
    "listing sent",
    "listed",
    "claimed",
    "checked",
    "GET sent",
    "page read",
    "read",
    "before commit",
    "after commit",
    "stored",
    "delivered",
    "handled",
    "acknowledged",
)


def named(outcome: Outcome) -> list[str]:
    """The places of a life, but for the program's own ends of deliveries."""
    return [name for name in outcome.places if not name.startswith("done with")]


def kills(there_are: int, chance: random.Random, *, pairs: int) -> Iterator[tuple[int, list[Place]]]:
    """How many conversations at a time, and where each life is killed: at every place, then at random pairs."""
    for concurrency in (1, 3):
        for number in range(1, there_are + 1):
            yield concurrency, [("*", number)]
    for _ in range(pairs):
        yield chance.choice((1, 2, 4)), [("*", chance.randrange(1, there_are)) for _ in range(2)]


def whole_sweep(weather: str, trial_of: Callable[..., Trial], sweep: Sweep, name: str) -> None:
    """Kill one program after the other in this weather, at every place in order and at random pairs; lose nothing.

    Without ``--sweep`` at a few of them. `name`: under which they are counted.
    """
    whole_life = trial_of(other_weather()[weather]).live_to_the_end()
    lives = list(kills(len(whole_life.places), sweep.chance(), pairs=100 if sweep.whole else 1))
    for concurrency, places in lives if sweep.whole else lives[:: len(lives) // 2]:
        trial = trial_of(other_weather()[weather], concurrency=concurrency)
        for place in places:
            trial.live(place)
        trial.live_to_the_end()
        sweep.done(name, trial.crashes)
        try:
            trial.check()
        except AssertionError as error:
            raise AssertionError(f"killed at {places}, {concurrency} at a time: {error}") from error

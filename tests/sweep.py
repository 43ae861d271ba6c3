"""``--sweep``: programs are killed at every place and at random pairs of them, not at a selection."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from attrs import define, field


@define
class Sweep:
    """How much of it is asked for, and what was done: trials and kills by the weather."""

    whole: bool
    seed: int
    trials: Counter[str] = field(factory=Counter)
    kills: Counter[str] = field(factory=Counter)

    def chance(self) -> random.Random:
        """What a test draws its places from."""
        return random.Random(self.seed)

    def done(self, weather: str, crashes: int) -> None:
        """Count a trial."""
        self.trials[weather] += 1
        self.kills[weather] += crashes


_SWEEP = pytest.StashKey[Sweep]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register `--sweep` and the seed of its random part."""
    parser.addoption("--sweep", action="store_true", help="kill programs at every place, not at a selection")
    parser.addoption("--sweep-seed", type=int, help="of the random part of a sweep; without it, another one each time")


@pytest.fixture(name="sweep")
def sweep_of(pytestconfig: pytest.Config) -> Sweep:
    """How much of the sweep is asked for; shown at the end of the run."""
    whole, seed = pytestconfig.getoption("--sweep", default=False), pytestconfig.getoption("--sweep-seed", default=None)
    if seed is None:
        seed = random.randrange(10**6) if whole else 0
    return pytestconfig.stash.setdefault(_SWEEP, Sweep(whole, seed))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was done."""
    if (sweep := config.stash.get(_SWEEP, None)) is not None:
        terminalreporter.section(f"killed and started again, --sweep-seed={sweep.seed}")
        for name, trials in sweep.trials.items():
            terminalreporter.write_line(f"{name:<48} {trials:>5} trials {sweep.kills[name]:>5} kills")

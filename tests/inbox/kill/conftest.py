"""Programs to kill, and a world to do it in."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from inbox.kill.trial import Outcome, Programs, Trial, sandbox_of, weather
from mlmessages.testing import serve_in_thread

T = TypeVar("T", bound=Trial)

# There is no SIGSTOP there, nor flock.
collect_ignore = ["test_processes.py", "test_mutants.py"] if sys.platform == "win32" else []


@pytest.fixture(name="started", scope="package")
def _started() -> Iterator[tuple[Programs, Programs]]:
    with Programs() as programs, Programs() as others:
        yield programs, others


@pytest.fixture(name="programs")
def _programs(started: tuple[Programs, Programs]) -> Iterator[Programs]:
    """Where programs are started, one at a time."""
    yield started[0]
    started[0].abandon()


@pytest.fixture(name="others")
def _others(started: tuple[Programs, Programs]) -> Iterator[Programs]:
    """The same, for a program beside another one."""
    yield started[1]
    started[1].abandon()


@contextmanager
def _trials(programs: Programs, directory: Path, kind: Callable[..., T]) -> Iterator[Callable[..., T]]:
    numbers = itertools.count()
    with ExitStack() as stack:

        def make(world: dict[str, Any] | None = None, **options: Any) -> T:
            stack.close()  # one world at a time
            own = directory / str(next(numbers))
            own.mkdir()
            server = stack.enter_context(serve_in_thread(sandbox_of(**(world or weather()))))
            return kind(server, programs, own, **options)

        yield make


@pytest.fixture(name="trial_of")
def _trial_of(programs: Programs, tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    """A trial in a new world each; `world`: what the sandbox is made of."""
    with _trials(programs, tmp_path, Trial) as make:
        yield make


@pytest.fixture(name="whole_life", scope="package")
def _whole_life(started: tuple[Programs, Programs], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A life that is not killed, for the places that there are."""
    with _trials(started[0], tmp_path_factory.mktemp("whole_life"), Trial) as trial_of:
        trial = trial_of()
        outcome = trial.live_to_the_end()
        trial.check()
        return outcome

"""A sandbox behind real HTTP, a program that is killed and started again, and what became of the messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from attrs import frozen

from inbox.kill import program
from mlmessages.testing import EXECUTE, RESET, Behaviour, Garbage, Pack, Reply, Sandbox, Send, Server, Truncate, on

Place = tuple[str, int]


@frozen
class Outcome:
    """How a life ended: `end` is None where it was killed, else what the program said; `places` it was at by then."""

    end: str | None
    places: tuple[str, ...]


class Programs:
    """Where programs are started: one process that all of them are copies of."""

    def __init__(self) -> None:
        path = os.pathsep.join([*(entry for entry in sys.path if entry), str(Path.cwd())])
        self._process = subprocess.Popen(
            [sys.executable, program.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        self.running: int | None = None  # the process of the life that has not ended

    def say(self, line: str) -> None:
        self._input.write(line.encode() + b"\n")
        self._input.flush()

    def event(self) -> dict[str, Any]:
        """The next event of the program that runs."""
        line = self._output.readline()
        assert line, "the programs have ended"
        event: dict[str, Any] = json.loads(line)
        return event

    def abandon(self) -> None:
        """End a life that a failed test has left."""
        if self.running is not None:
            os.kill(self.running, getattr(signal, "SIGKILL", signal.SIGTERM))
            while "exit" not in self.event():
                pass
            self.running = None

    def __enter__(self) -> Programs:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self._process.kill()
        with suppress(BrokenPipeError):  # it has ended before
            self._input.close()
        self._output.close()
        self._process.wait()


class Life:
    """A program that runs, until it ends, is killed, or waits somewhere."""

    def __init__(self, programs: Programs, plan: dict[str, Any]) -> None:
        self._programs = programs
        programs.say(json.dumps(plan))
        self.pid: int = programs.event()["pid"]
        programs.running = self.pid

    def until(self, place: str) -> Outcome | None:
        """None: it waits at `place` now. Else how it ended before."""
        event = self._programs.event()
        if "at" not in event:
            return self._ended(event)
        assert event["at"] == place, event
        return None

    def go_on(self, kill: str = "") -> None:
        """Leave the place where it waits, to be killed at the next that is called `kill`."""
        self._programs.say(kill)

    def outcome(self) -> Outcome:
        """How it ended."""
        return self._ended(self._programs.event())

    def _ended(self, event: dict[str, Any]) -> Outcome:
        status = self._programs.event()["exit"] if "end" in event else event["exit"]
        self._programs.running = None
        if "end" in event:
            assert status == 0, status
            return Outcome(event["end"], tuple(event["places"]))
        assert status < 0 or os.name == "nt", status  # a signal, and no unexpected error
        return Outcome(None, ())


class Trial:
    """One world, one journal, one file of what was handed over, and any number of lives."""

    def __init__(self, server: Server, programs: Programs, directory: Path, **options: Any) -> None:
        self.server = server
        self.sandbox = server.sandbox
        self.journal = directory / "inbox.db"
        self.out = directory / "deliveries.jsonl"
        self.crashes = 0
        self._programs = programs
        self._options: dict[str, Any] = {
            "settle_time": 0.1,
            "concurrency": 1,
            "limit": 2,
            "timeout": 5.0,
            "mutant": None,
            "reads": 10**6,
        }
        self._options.update(options)

    def begin(
        self, *, kill: Iterable[Place] = (), ask: Iterable[Place] = (), programs: Programs | None = None, **options: Any
    ) -> Life:
        """Start the program."""
        plan = {
            "base_url": self.server.base_url,
            "token": self.server.token,
            "seller_id": self.server.seller_id,
            "journal": str(self.journal),
            "out": str(self.out),
            "kill": list(kill),
            "ask": list(ask),
            **self._options,
            **options,
        }
        return Life(programs or self._programs, plan)

    def live(self, *kill: Place, **options: Any) -> Outcome:
        """One life, killed at the first of these places that it reaches."""
        outcome = self.begin(kill=kill, **options).outcome()
        self.crashes += outcome.end is None
        return outcome

    def live_to_the_end(self, **options: Any) -> Outcome:
        """A life that is not killed."""
        outcome = self.live(**options)
        assert outcome.end == "drained", outcome.end
        return outcome

    # -- what became of the messages --

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        """What the consumer has on its disk, in order."""
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def lost(self) -> set[str]:
        """What the server shows as read because of us, and the consumer does not have."""
        return self.sandbox.marked_ids() - {id_ for delivery in self.deliveries for id_ in delivery["ids"]}

    @property
    def lost_to_who_reads_unread(self) -> set[str]:
        """The same for a consumer that looks at `Delivery.unread` alone."""
        return self.sandbox.marked_ids() - {id_ for delivery in self.deliveries for id_ in delivery["unread"]}

    @property
    def repeated(self) -> list[dict[str, Any]]:
        """Deliveries with a message that an earlier one had."""
        seen: set[str] = set()
        found = []
        for delivery in self.deliveries:
            if seen & set(delivery["ids"]):
                found.append(delivery)
            seen.update(delivery["ids"])
        return found

    def check(self) -> None:
        """Nothing lost, nothing left, at most one delivery repeated a crash, and each of those says so."""
        assert not self.lost
        assert not self.lost_to_who_reads_unread
        assert not self.sandbox.unread_ids()
        assert len(self.repeated) <= self.crashes
        assert all(delivery["redelivered"] for delivery in self.repeated)

    def until(self, happened: Callable[[], bool]) -> None:
        """Ask the server for its listing until it has done something else too: its one loop takes turns."""
        asked = urllib.request.Request(
            f"{self.server.base_url}/messages/unread?role=seller&tag=post_sale",
            headers={"Authorization": f"Bearer {self.server.token}"},
        )
        for _ in range(1000):
            if happened():
                return
            with urllib.request.urlopen(asked) as answer:
                answer.read()
        raise AssertionError("it has not happened")


def weather() -> dict[str, Any]:
    """A world with more than a quiet day: a cap, long and short conversations, arrivals, an answer that is lost."""
    return {
        "packs": [Pack(messages=count) for count in (1, 5, 1, 2, 1)],
        "behaviour": Behaviour(cap=3),
        "rules": [
            on("mark", nth=2).do(EXECUTE, Send()),
            on("peek", nth=1).do(EXECUTE, Send()),
            on("mark", nth=4).do(EXECUTE, RESET),
        ],
    }


def other_weather() -> dict[str, dict[str, Any]]:
    """The same on servers that do it otherwise."""
    return {
        "as documented": weather(),
        "marks what it returns": {**weather(), "behaviour": Behaviour(marks="page")},
        "oldest first, shows its own marks": {**weather(), "behaviour": Behaviour(order="oldest", shows_read=True)},
        "refuses, throttles, garbles": {
            **weather(),
            "rules": [
                on("mark", nth=1).do(Reply(429, {"Retry-After": "0"})),
                on("mark", nth=2).do(EXECUTE, Garbage(b"<html>")),
                on("mark", nth=3).do(EXECUTE, Reply(502)),
                on("mark", nth=4).do(EXECUTE, Truncate(40)),
                on("listing", nth=2).do(Reply(503)),
                on("peek", every=5, times=3).do(EXECUTE, Send()),
            ],
        },
    }


def sandbox_of(**world: Any) -> Sandbox:
    """A sandbox whose clock goes on outside of its loop."""
    return Sandbox(clock=time.monotonic, **world)

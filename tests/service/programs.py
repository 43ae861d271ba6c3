"""`mlmessages serve` as a process of its own, and what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mlmessages.testing import Server

SECRET = "a-secret-of-24-characters"
TOKEN = "APP_USR-canary-serve"
APPEND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


def environment(server: Server, **more: str) -> dict[str, str]:
    """This process's environment with the settings of a user of `server`, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLMESSAGES_")}
    settings = {
        "MLMESSAGES_BASE_URL": server.base_url,
        "MLMESSAGES_SELLER_ID": server.seller_id,
        "MLMESSAGES_TOKEN": TOKEN,
        "MLMESSAGES_NOTIFICATION_SECRET": SECRET,
        "MLMESSAGES_APP_ID": "55",
    }
    return {**kept, **settings, **more}


class Service:
    """A running `mlmessages serve`, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """The n-th line with it."""

        def found() -> list[re.Match[str]]:
            return [match for line in self.lines if (match := re.search(pattern, line))]

        with self._said:
            assert self._said.wait_for(lambda: len(found()) >= times, 20), self.lines
            return found()[times - 1]

    def end(self, number: int = signal.SIGTERM) -> int:
        """A signal; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._thread.join()
        return code


@contextmanager
def serving(
    server: Server, journal: Path, *args: str, env: dict[str, str] | None = None, **options: Any
) -> Iterator[Service]:
    """`mlmessages serve` until the block ends; neither its token nor its secret path is in what it says."""
    command = [sys.executable, "-W", "error", "-m", "mlmessages.cli", "serve", "--journal", str(journal), "--port", "0"]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [*command, *args],
                env=environment(server, **(env or {})),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                **options,
            )
        )
        stack.callback(process.kill)
        service = Service(process)
        yield service
        assert TOKEN not in "".join(service.lines)
        assert SECRET not in "".join(service.lines)


def until(condition: Callable[[], object]) -> None:
    """Wait for something in another process; it is not measured."""
    event, deadline = threading.Event(), time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        event.wait(0.02)

"""A sandbox to talk to, and three ways to run the command line: in process, in a pipe, in a terminal."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlmessages.cli.app import cli
from mlmessages.testing import Sandbox, Server, serve_in_thread

TOKEN = "APP_USR-canary-5a1f"


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without anybody's settings, and with `changes`."""
    forced = {"NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "PYTHONIOENCODING"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MLMESSAGES_") and k not in forced}
    return {**kept, "PYTHONUTF8": "1", "TERM": "xterm-256color", **changes}


def unmeasured(environment: dict[str, str]) -> dict[str, str]:
    """`environment` for a process whose files may not grow: the measurement of coverage would write one of its own."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLMESSAGES_")]:
        monkeypatch.delenv(name)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(packs, ...)`: a sandbox behind HTTP, until the test ends."""
    with ExitStack() as stack:

        def start(packs: Any, **options: Any) -> Server:
            sandbox = Sandbox(packs, token=TOKEN, clock=time.monotonic, **options)
            return stack.enter_context(serve_in_thread(sandbox))

        yield start


def settings_for(server: Server) -> dict[str, str]:
    """The environment of a user of `server`."""
    return {
        "MLMESSAGES_BASE_URL": server.base_url,
        "MLMESSAGES_SELLER_ID": server.seller_id,
        "MLMESSAGES_TOKEN": server.token,
    }


def run(*args: str, server: Any = None, **env: str) -> Result:  # a `Server`, which a dict of texts is not
    """`mlmessages ARGS` in this process; whatever it writes must not hold the token."""
    result = CliRunner().invoke(
        cli, list(args), prog_name="mlmessages", env={**(settings_for(server) if server else {}), **env}
    )
    assert TOKEN not in result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


PROGRAM = [sys.executable, "-W", "error", "-m", "mlmessages.cli"]


def piped(*args: str, server: Any = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    """`mlmessages ARGS` as a process of its own whose stdin is empty and whose output goes into pipes."""
    return subprocess.run(
        [*PROGRAM, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(**(settings_for(server) if server else {}), **env),
    )


@contextmanager
def started(*args: str, server: Server, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`mlmessages ARGS` as a process of its own, which is killed at the end of the block if it still runs."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([*PROGRAM, *args], env=environment(**settings_for(server)), **options) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[Any], text: str) -> str:
    """What a process writes on stderr, up to the line with `text`."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line if isinstance(line, str) else line.decode()
        if text in seen:
            return seen
    raise AssertionError(f"it ended without {text!r}: {seen}")


class KilledAt:
    """A latency for a sandbox, which kills a process when the server has got so many requests, or a moment later."""

    def __init__(self) -> None:
        self._left = 0
        self._after = 0.0
        self._pid = 0

    def plan(self, process: subprocess.Popen[Any], requests: int, after: float) -> None:
        self._pid, self._left, self._after = process.pid, requests, after

    def __call__(self) -> float:
        self._left -= 1
        if self._left == 0:
            threading.Timer(self._after, os.kill, (self._pid, signal.SIGKILL)).start()
        return 0.0


class Slow:
    """A latency for a sandbox: `seconds` for each request."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, each of which must be whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


def mode(path: Path) -> int:
    """Who may do what with a file: 0o600 on the systems that know such a thing."""
    return stat.S_IMODE(path.stat().st_mode) if os.name == "posix" else 0o600


# A Ctrl-C for processes in every system: it comes when a line arrives on stdin.
_INTERRUPTED_BY_A_LINE = """
import os, signal, sys, threading
from mlmessages.cli import main
def wait():
    sys.stdin.readline()
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
threading.Thread(target=wait, daemon=True).start()
main()
"""


@contextmanager
def interrupted_by_a_line(*args: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """`mlmessages ARGS` as a process of its own in which Ctrl-C is pressed when it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _INTERRUPTED_BY_A_LINE, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(**env),
    ) as process:
        try:
            yield process
        finally:
            process.kill()

"""A sandbox to talk to, and three ways to run the command line: in process, in a pipe, in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

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


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLMESSAGES_")]:
        monkeypatch.delenv(name)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(packs, ...)`: a sandbox behind HTTP, until the test ends."""
    with ExitStack() as stack:

        def start(packs: object, **options: object) -> Server:
            sandbox = Sandbox(packs, token=TOKEN, clock=time.monotonic, **options)  # type: ignore[arg-type]
            return stack.enter_context(serve_in_thread(sandbox))

        yield start


def settings_for(server: Server) -> dict[str, str]:
    """The environment of somebody who uses `server`."""
    return {
        "MLMESSAGES_BASE_URL": server.base_url,
        "MLMESSAGES_SELLER_ID": server.seller_id,
        "MLMESSAGES_TOKEN": server.token,
    }


def run(*args: str, server: Server | None = None, **env: str) -> Result:
    """`mlmessages ARGS` in this process; whatever it writes must not hold the token."""
    result = CliRunner().invoke(
        cli, list(args), prog_name="mlmessages", env={**(settings_for(server) if server else {}), **env}
    )
    assert TOKEN not in result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


PROGRAM = [sys.executable, "-W", "error", "-m", "mlmessages.cli"]


def piped(*args: str, server: Server | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    """`mlmessages ARGS` as a process of its own whose stdin is empty and whose output goes into pipes."""
    return subprocess.run(
        [*PROGRAM, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(**(settings_for(server) if server else {}), **env),
    )


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
def interrupted_by_a_line(*args: str) -> Iterator[subprocess.Popen[str]]:
    """`mlmessages ARGS` as a process of its own in which Ctrl-C is pressed when it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _INTERRUPTED_BY_A_LINE, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()

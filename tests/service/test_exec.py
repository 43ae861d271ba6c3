"""`mlmessages serve --exec`: what its child inherits, how it is started, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import list2cmdline

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cases import case
from mlmessages.cli.app import cli
from mlmessages.cli.command_line import split_on_windows, why_not_on_windows
from mlmessages.testing import Sandbox, Server, serve_in_thread
from needs import needs
from service.programs import SECRET, TOKEN, environment, serving, until

SECRETS = {
    "MLMESSAGES_CLIENT_SECRET": "canary-client-secret",
    "MLMESSAGES_KEY": "canary-key",
    "MLMESSAGES_DATABASE": "postgresql://u:canary@db/x",
    "MLMESSAGES_FORWARD": "https://example.com/?key=canary",
}


@pytest.fixture
def server() -> Iterator[Server]:
    """A sandbox with one unread conversation."""
    with serve_in_thread(Sandbox(packs=1, token=TOKEN, clock=time.monotonic)) as server:
        yield server


def script(path: Path, text: str) -> str:
    """A command that runs `text`."""
    path.write_text(text)
    return f'"{sys.executable}" "{path}"'


@case("K30", "P1")
@needs("signals")
@pytest.mark.parametrize("passed_on", [(), ("MLMESSAGES_TOKEN", "MLMESSAGES_KEY")], ids=["none", "two"])
def test_the_child_inherits_no_secret(passed_on: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    """Its environment has no token, secret or key of ours; those that --pass-env names are there, as is all else."""
    out = tmp_path / "environment"
    code = f"import json, os, sys; sys.stdin.read(); open({str(out)!r}, 'w').write(json.dumps(dict(os.environ)))"
    command = script(tmp_path / "child.py", code)
    args = [word for name in passed_on for word in ("--pass-env", name)]
    with serving(server, tmp_path / "j.db", "--exec", command, *args, env={**SECRETS, "OF_THE_USER": "x"}) as service:
        until(lambda: out.exists() and out.read_text())
        assert service.end() == 0
    found = json.loads(out.read_text())
    ours = {"MLMESSAGES_TOKEN": TOKEN, "MLMESSAGES_NOTIFICATION_SECRET": SECRET, **SECRETS}
    assert {name: value for name, value in found.items() if name in ours} == {name: ours[name] for name in passed_on}
    assert found["OF_THE_USER"] == "x"
    assert found["MLMESSAGES_SELLER_ID"] == server.seller_id


@case("K30", "P1")
@needs("signals")
def test_what_the_child_has_started_ends_with_it(server: Server, tmp_path: Path) -> None:
    """After --timeout the child and its own children are killed: a lock that the grandchild holds is free again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        grandchild = f"import socket, time; s = socket.create_connection(('127.0.0.1', {port})); s.sendall(b'x'); time.sleep(600)"
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
        with serving(
            server,
            tmp_path / "j.db",
            "--exec",
            script(tmp_path / "c.py", child),
            "--timeout",
            "2",
            "--no-notifications",
        ) as service:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(1) == b"x"
                service.wait_for("was not taken: it took too long")
                connection.settimeout(20)
                assert connection.recv(1) == b""  # its process is gone
            service.end()


@case("K40")
@needs("terminal", "signals")
def test_a_typed_ctrl_c_lets_the_child_end_its_work(server: Server, tmp_path: Path) -> None:
    """Ctrl-C goes to the whole foreground group of a terminal: the child is in another one, ends, and is acknowledged."""
    import pty
    import termios
    import tty

    started, go, out = tmp_path / "started", tmp_path / "go", tmp_path / "out"
    code = (
        f"import sys, os, time\ntext = sys.stdin.read()\nopen({str(started)!r}, 'w').close()\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nopen({str(out)!r}, 'w').write(text)"
    )
    ours, theirs = pty.openpty()

    def lead_the_terminal() -> None:
        os.setsid()
        import fcntl

        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    args = ["--exec", script(tmp_path / "c.py", code), "--no-notifications"]
    tty.setcbreak(theirs)
    with serving(server, tmp_path / "j.db", *args, stdin=theirs, preexec_fn=lead_the_terminal) as service:
        until(started.exists)
        os.write(ours, b"\x03")
        go.touch()
        assert service.process.wait(20) == 130
    os.close(ours)
    os.close(theirs)
    assert len(json.loads(out.read_text())["messages"]) == 1
    found = CliRunner().invoke(cli, ["journal", str(tmp_path / "j.db"), "--json"])
    assert json.loads(found.stdout)["unacknowledged"] == []


@case("K38")
@needs("modes")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo x", "it is a script without a first line such as #!/bin/sh"),
        ("#!/no/such/interpreter -x\n", "its first line names /no/such/interpreter, which is no program here"),
        ("#!\n", "its first line names nothing"),
    ],
    ids=["none", "missing", "empty"],
)
def test_what_cannot_be_started_is_refused(text: str, said: str, server: Server, tmp_path: Path) -> None:
    """Misuse, before anything is sent: else the conversation is marked, and handed to nothing."""
    program = tmp_path / "handler"
    program.write_text(text)
    program.chmod(0o755)
    args = ["serve", "--journal", str(tmp_path / "j.db"), "--exec", f"'{program}' x", "--no-notifications"]
    found = CliRunner().invoke(cli, args, env=environment(server))
    assert found.exit_code == 2
    assert said in found.output
    assert server.sandbox.log == []


@case("K38")
@needs("signals")
def test_what_was_found_is_started(server: Server, tmp_path: Path) -> None:
    """A program that `PATH` names, with a first line, by its name alone."""
    out = tmp_path / "out"
    program = tmp_path / "handler"
    program.write_text(f"#!/bin/sh\ncat > '{out}'\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    with serving(server, tmp_path / "j.db", "--exec", "handler", "--no-notifications", env={"PATH": path}) as service:
        until(lambda: out.exists() and out.read_text())
        assert service.end() == 0


@case("K38")
@pytest.mark.parametrize(
    ("program", "starts"), [("C:\\x\\a.EXE", True), ("a.com", True), ("a.cmd", False), ("a.PY", False), ("a", False)]
)
def test_windows_starts_programs_alone(program: str, starts: bool) -> None:
    """`which` finds what PATHEXT names, and CreateProcess starts .exe and .com: the others are refused."""
    assert (why_not_on_windows(program) is None) is starts


@case("K38")
@given(st.lists(st.text(st.sampled_from("a \\\"\t'"), max_size=8), min_size=1, max_size=4))
def test_windows_arguments_are_split_as_windows_does(arguments: list[str]) -> None:
    """What Python quotes for Windows' programs comes out as it went in: backslashes, quotes and blanks."""
    assert list(split_on_windows(list2cmdline(arguments))) == arguments


@case("K38")
def test_a_quotation_that_does_not_end_is_refused() -> None:
    """As the other systems' rules have it."""
    with pytest.raises(ValueError, match="No closing quotation"):
        list(split_on_windows('a "b'))


@case("M6")
@needs("signals")
def test_the_url_of_forward_comes_from_the_environment(server: Server, tmp_path: Path) -> None:
    """A key in it is in no process list; what is typed goes before it."""
    args = ["serve", "--journal", str(tmp_path / "j.db"), "--no-notifications"]
    env = environment(server, MLMESSAGES_FORWARD="http://example.com/?key=canary")
    found = CliRunner().invoke(cli, args, env=env)
    assert found.exit_code == 2
    assert "--forward: the URL must be an https" in found.output
    assert "canary" not in found.output
    out = tmp_path / "out"
    command = script(tmp_path / "c.py", f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())")
    with serving(
        server,
        tmp_path / "j.db",
        "--exec",
        command,
        "--no-notifications",
        env={"MLMESSAGES_FORWARD": "https://127.0.0.1:1/x"},
    ) as service:
        until(lambda: out.exists() and out.read_text())
        assert service.end(signal.SIGTERM) == 0

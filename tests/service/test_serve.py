"""`mlmessages serve` as a process of its own, against the sandbox behind HTTP. D7."""

from __future__ import annotations

import asyncio
import http.server
import json
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cases import case
from mlmessages import Delivery, Inbox
from mlmessages.cli.app import cli
from mlmessages.cli.handlers import NotTaken, print_traceback
from mlmessages.testing import Message, Pack, Sandbox, Server, serve_in_thread
from needs import needs
from service.programs import APPEND, SECRET, TOKEN, environment, serving, until
from worlds import client_of


@pytest.fixture
def server() -> Iterator[Server]:
    """A sandbox with three unread conversations."""
    with serve_in_thread(Sandbox(packs=3, token=TOKEN, clock=time.monotonic)) as server:
        yield server


@needs("signals")
def test_each_delivery_is_the_input_of_a_command(server: Server, tmp_path: Path) -> None:
    """What is unread and what is notified, as one JSON object each; SIGTERM ends it in good order with 0; nothing comes twice."""
    out = tmp_path / "out with a blank.jsonl"
    command = f'"{sys.executable}" -c "{APPEND}" "{out}"'
    with serving(server, tmp_path / "j.db", "--exec", command, "--concurrency", "1", "--interval", "3600") as service:
        root = service.wait_for(r"at (http://127\.0\.0\.1:\d+)/")[1]
        until(lambda: out.exists() and len(out.read_text().splitlines()) == 3)
        sent = server.send(server.sandbox.pack_ids()[0])
        body = {"topic": "messages", "resource": sent, "user_id": server.seller_id, "application_id": 55}
        post = urllib.request.Request(f"{root}/notifications/{SECRET}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(post) as answer:
            assert answer.status == 200
        until(lambda: len(out.read_text().splitlines()) == 4)
        assert service.end() == 0
        assert "Stopped" in service.lines[-1]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["raw"]["id"] for line in lines for row in line["messages"]) == sorted(
        server.sandbox.message_ids()
    )
    assert not any(line["redelivered"] for line in lines)
    assert all(row["unread"] for line in lines for row in line["messages"])


@case("D7")
@needs("signals")
def test_sigterm_lets_a_command_finish(server: Server, tmp_path: Path) -> None:
    """What the command has in its hands is acknowledged; nothing is claimed after the signal; the rest comes in the next run."""
    out, started, go = tmp_path / "out", tmp_path / "started", tmp_path / "go"
    slow = f"import os, sys, time; text = sys.stdin.read(); open(r'{started}', 'a').write('x')\nwhile not os.path.exists(r'{go}'): time.sleep(0.01)\nopen(r'{out}', 'a').write(text)"
    script = tmp_path / "slow.py"
    script.write_text(slow)
    with serving(
        server,
        tmp_path / "j.db",
        "--exec",
        f'"{sys.executable}" "{script}"',
        "--concurrency",
        "1",
        "--no-notifications",
    ) as service:
        until(started.exists)
        service.process.send_signal(signal.SIGTERM)
        marks = server.sandbox.count("mark")
        go.write_text("")
        assert service.process.wait(20) == 0
        assert server.sandbox.count("mark") == marks
    assert len(out.read_text().splitlines()) == 1
    with serving(
        server, tmp_path / "j.db", "--exec", f'"{sys.executable}" "{script}"', "--no-notifications"
    ) as service:
        until(lambda: len(out.read_text().splitlines()) == 3)
        service.end()
    ids = [row["raw"]["id"] for line in out.read_text().splitlines() for row in json.loads(line)["messages"]]
    assert sorted(ids) == sorted(server.sandbox.message_ids())


@needs("signals")
def test_another_exit_code_is_no_acknowledgement(server: Server, tmp_path: Path) -> None:
    """It is said with its code, and the delivery comes again in the next run; no shell reads the command."""
    failing = f'"{sys.executable}" -c "import sys; sys.exit(7)" "$(touch pwned)" ";" "&&"'
    with serving(server, tmp_path / "j.db", "--exec", failing, "--no-notifications") as service:
        until(lambda: sum("was not taken: exit code 7" in line for line in service.lines) >= 3)
        service.end()
    assert not (Path.cwd() / "pwned").exists()
    out = tmp_path / "out"
    with serving(
        server, tmp_path / "j.db", "--exec", f'"{sys.executable}" -c "{APPEND}" "{out}"', "--no-notifications"
    ) as service:
        until(lambda: out.exists() and len(out.read_text().splitlines()) == 3)
        service.end()
    assert all(json.loads(line)["redelivered"] for line in out.read_text().splitlines())


@needs("signals")
def test_forward_posts_each_delivery(server: Server, tmp_path: Path) -> None:
    """A 2xx is the acknowledgement; a 500 and a redirect are none, and no token goes there."""
    got: list[tuple[dict[str, str], Any]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response([500, 302][len(got) - 1] if len(got) < 3 else 204)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_port}/hook?x=1"
        with serving(
            server, tmp_path / "j.db", "--forward", url, "--no-notifications", "--concurrency", "1"
        ) as service:
            service.wait_for("was not taken: status 500")
            service.wait_for("was not taken: status 302")
            until(lambda: len(got) >= 5)  # the two come again after 5 s
            service.end()
        receiver.shutdown()
    assert {body["pack_id"] for _, body in got} == set(server.sandbox.pack_ids())
    assert not any("Authorization" in headers for headers, _ in got)


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        ([], {}, "one of --exec and --forward"),
        (["--exec", "true", "--forward", "https://example.com"], {}, "one of --exec and --forward"),
        (["--exec", ""], {}, "there is no command"),
        (["--exec", "'"], {}, "--exec"),
        (["--exec", "./no-such-program --quiet"], {}, "there is no program ./no-such-program"),
        (["--forward", "http://example.com/x"], {}, "https"),
        (["--forward", "ftp://127.0.0.1/x"], {}, "https"),
        (["--exec", "true"], {"MLMESSAGES_NOTIFICATION_SECRET": ""}, "token_urlsafe"),
        (["--exec", "true"], {"MLMESSAGES_APP_ID": ""}, "MLMESSAGES_APP_ID"),
        (["--exec", "true"], {"MLMESSAGES_NOTIFICATION_SECRET": "short"}, "16 to 200"),
    ],
    ids=str,
)
def test_misuse_is_told_in_a_line(
    args: list[str], env: dict[str, str], said: str, server: Server, tmp_path: Path
) -> None:
    """Exit code 2, before anything is sent."""
    found = CliRunner().invoke(
        cli, ["serve", "--journal", str(tmp_path / "j.db"), *args], env={**environment(server), **env}
    )
    assert found.exit_code == 2, found.output
    assert said in found.output
    assert server.sandbox.log == []


@case("R10")
def test_plain_http_to_another_machine_has_to_be_asked_for(server: Server, tmp_path: Path) -> None:
    """A private network may be safe, which only its owner knows."""
    args = ["serve", "--journal", str(tmp_path / "j.db"), "--forward", "http://192.0.2.1:8000/x"]
    env = {**environment(server), "MLMESSAGES_APP_ID": ""}
    refused = CliRunner().invoke(cli, args, env=env)
    assert (refused.exit_code, "--forward: the URL must be an https" in refused.output) == (2, True)
    taken = CliRunner().invoke(cli, [*args, "--plain-http"], env=env)
    assert (taken.exit_code, "MLMESSAGES_APP_ID is missing" in taken.output) == (2, True)
    odd = CliRunner().invoke(cli, [*args[:-1], "http://u:p@192.0.2.1/x", "--plain-http"], env=env)
    assert (odd.exit_code, "--forward" in odd.output) == (2, True)


@case("R11")
async def test_debug_shows_where_and_not_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback of a handler without the error's text, which may quote a buyer; a refusal has none."""

    def on_error(error: BaseException, delivery: Delivery) -> None:
        print_traceback(NotTaken("status 500"), delivery)
        print_traceback(error, delivery)
        failed.set()

    async def handler(delivery: Delivery) -> None:
        raise LookupError(f"CANARY: {delivery.messages[0].text}")

    failed = asyncio.Event()
    sandbox = Sandbox(packs=[Pack("11", messages=[Message("CANARY of a buyer")])])
    async with client_of(sandbox) as client, Inbox(client, tmp_path / "j.db") as inbox:
        running = asyncio.create_task(inbox.run(handler, on_error=on_error))
        await failed.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    said = capsys.readouterr().err
    assert "Pack 11: LookupError, raised at" in said
    assert "in handler" in said
    assert "NotTaken" not in said
    assert "CANARY of" not in said


def test_a_port_that_is_taken_is_told_in_a_line(server: Server, tmp_path: Path) -> None:
    """Exit code 1, with what to do, before anything is read."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        args = ["serve", "--journal", str(tmp_path / "j.db"), "--exec", "true", "--port", port]
        found = CliRunner().invoke(cli, args, env=environment(server))
    assert found.exit_code == 1
    assert f"port {port} of 127.0.0.1 cannot be opened: it is taken; choose another with --port" in found.output
    assert server.sandbox.log == []


def test_a_folder_that_does_not_exist_is_misuse(server: Server, tmp_path: Path) -> None:
    """The journal's folder is named, before anything is sent."""
    args = ["serve", "--journal", str(tmp_path / "nowhere" / "j.db"), "--exec", "true"]
    found = CliRunner().invoke(cli, args, env=environment(server))
    assert (found.exit_code, server.sandbox.log) == (2, [])
    assert "j.db: its folder does not exist" in found.output


@case("K27")
@needs("signals", "limits")
def test_idle_connections_do_not_make_it_deaf(server: Server, tmp_path: Path) -> None:
    """400 of them at 256 descriptors: a notification is taken, its message delivered, and stderr is quiet."""
    import resource

    out = tmp_path / "out"
    command = f'"{sys.executable}" -c "{APPEND}" "{out}"'

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    args = ["--exec", command, "--interval", "3600"]
    with serving(server, tmp_path / "j.db", *args, preexec_fn=few_descriptors) as service, ExitStack() as strangers:
        root = service.wait_for(r"at (http://127\.0\.0\.1:\d+)/")[1]
        until(lambda: out.exists() and len(out.read_text().splitlines()) == 3)
        before = len(service.lines)
        for _ in range(400):
            strangers.enter_context(socket.create_connection(("127.0.0.1", int(root.rpartition(":")[2])), timeout=10))
        sent = server.send(server.sandbox.pack_ids()[0])
        body = {"topic": "messages", "resource": sent, "user_id": server.seller_id, "application_id": 55}
        post = urllib.request.Request(f"{root}/notifications/{SECRET}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(post) as answer:
            assert answer.status == 200
        until(lambda: len(out.read_text().splitlines()) == 4)
        assert service.lines[before:] == []
        assert service.end() == 0

"""`mlmessages sandbox`: a server to try things against."""

from __future__ import annotations

import json
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from subprocess import Popen

import pytest
from click.testing import CliRunner

from cases import case
from cli.conftest import interrupted_by_a_line, run
from mlmessages.cli.app import cli

PREFIX = "$env:" if os.name == "nt" else "export "


def settings_printed(process: Popen[str], lines: int) -> dict[str, str]:
    """What the sandbox says to set, as it stands on stdout."""
    assert process.stdout is not None
    printed = [process.stdout.readline().strip() for _ in range(lines)]
    assert all(line.startswith(PREFIX) for line in printed)
    pairs = (line.removeprefix(PREFIX).split("=", 1) for line in printed)
    return {name.strip(): value.strip(' "') for name, value in pairs}


def test_it_serves_until_ctrl_c_and_prints_what_to_set():
    """stdout holds the settings as commands of the shell; with them `mlmessages unread` works; Ctrl-C ends with 130."""
    with interrupted_by_a_line("sandbox", "--packs", "4") as process:
        settings = settings_printed(process, 8)
        assert list(settings) == [
            "MLMESSAGES_BASE_URL",
            "MLMESSAGES_SELLER_ID",
            "MLMESSAGES_TOKEN",
            "MLMESSAGES_CLIENT_ID",
            "MLMESSAGES_CLIENT_SECRET",
            "MLMESSAGES_APP_ID",
            "MLMESSAGES_REDIRECT_URI",
            "MLMESSAGES_AUTH_HOST",
        ]
        result = run("unread", "--json", server=None, **settings)
        assert len(json.loads(result.stdout)["packs"]) == 4
        stdout, stderr = process.communicate("now\n", timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert "4 unread conversations" in stderr
    assert settings["MLMESSAGES_BASE_URL"] in stderr
    assert "Traceback" not in stderr


@case("R42")
def test_a_consent_is_given_and_exchanged(tmp_path: Path):
    """`auth url`, the page where the seller agrees, `auth exchange`, and a command with the tokens that came of it."""
    options = ("--packs", "2", "--client-id", "77", "--client-secret", "hush")
    with interrupted_by_a_line("sandbox", *options) as process:
        settings = settings_printed(process, 8)
        assert settings["MLMESSAGES_CLIENT_ID"] == settings["MLMESSAGES_APP_ID"] == "77"
        base_url = settings["MLMESSAGES_BASE_URL"]
        env = {**settings, "MLMESSAGES_TOKEN_FILE": str(tmp_path / "tokens.json")}
        del env["MLMESSAGES_TOKEN"]
        page = run("auth", "url", server=None, **env).stdout.strip()
        assert page.startswith(f"{base_url}/authorization?")
        with urllib.request.urlopen(page, data=b"answer=yes&seller=700100200", timeout=10) as agreed:
            assert agreed.url.startswith(f"{base_url}/callback?code=")
        exchanged = CliRunner().invoke(cli, ["auth", "exchange"], input=agreed.url, env=env)
        assert exchanged.exit_code == 0, exchanged.output
        assert "700100200" in exchanged.stdout
        assert len(json.loads(run("unread", "--json", server=None, **env).stdout)["packs"]) == 2
        process.communicate("now\n", timeout=30)


@contextmanager
def receiver() -> Iterator[tuple[str, Queue[dict[str, object]]]]:
    """A server that takes notifications."""
    taken: Queue[dict[str, object]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/secret", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@case("R43")
@pytest.mark.parametrize(("domestic", "topic"), [((), "marketplace_messages"), (("--domestic",), "messages")])
def test_buyers_write_and_notifications_tell_of_it(domestic: tuple[str, ...], topic: str):
    with receiver() as (url, taken):
        options = ("--packs", "0", "--arrivals", "6000", "--notify", url, *domestic)
        with interrupted_by_a_line("sandbox", *options) as process:
            settings = settings_printed(process, 8)
            first, second = taken.get(timeout=20), taken.get(timeout=20)
            assert first["topic"] == second["topic"] == topic
            assert str(first["application_id"]) == settings["MLMESSAGES_APP_ID"]
            assert first["resource"] != second["resource"]
            assert len(json.loads(run("unread", "--json", server=None, **settings).stdout)["packs"]) >= 1
            process.communicate("now\n", timeout=30)


@case("R43")
def test_requests_are_logged_and_counted_against_the_rate():
    with interrupted_by_a_line("sandbox", "--packs", "3", "--messages", "2", "--rate", "2", "--log") as process:
        settings = settings_printed(process, 8)
        base_url = settings["MLMESSAGES_BASE_URL"]
        request = urllib.request.Request(
            f"{base_url}/messages/packs/2000000000000001/sellers/700100200?tag=post_sale&mark_as_read=false",
            headers={"Authorization": f"Bearer {settings['MLMESSAGES_TOKEN']}"},
        )
        for _ in range(2):
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert len(json.load(answer)["messages"]) == 2
        with pytest.raises(urllib.error.HTTPError, match="429") as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()
        _, stderr = process.communicate("now\n", timeout=30)
    path = "GET /messages/packs/2000000000000001/sellers/700100200?tag=post_sale&mark_as_read=false"
    assert stderr.count(f" 200 {path} · 2 messages\n") == 2
    assert stderr.count(f" 429 {path}\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--notify", "ftp://x"), "--notify"),
        (("--notify", "nonsense"), "--notify"),
        (("--client-id", "x1"), "--client-id"),
        (("--rate", "0"), "--rate"),
        (("--messages", "0"), "--messages"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: tuple[str, ...], named: str):
    result = run("sandbox", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr


def test_a_port_in_use_is_one_line():
    """A port that is taken ends with exit code 1 and a line that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("sandbox", "--port", str(port))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert str(port) in result.stderr
    assert result.stderr.count("\n") == 1

"""Each program of tests/recipes is run as a user would run it, against a sandbox behind real HTTP."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cases import case
from mlmessages import FileTokenStore
from mlmessages.models import Token
from mlmessages.testing import Message, Pack, Server
from needs import needs

RECIPES = Path(__file__).parents[1] / "recipes"
SECRET = "a-secret-of-24-characters"


@pytest.fixture
def environment(mlmessages_sandbox: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a user has set, and an empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    oauth = mlmessages_sandbox.sandbox.oauth
    return {
        **os.environ,
        "MLMESSAGES_TOKEN": mlmessages_sandbox.token,
        "MLMESSAGES_SELLER_ID": mlmessages_sandbox.seller_id,
        "MLMESSAGES_BASE_URL": mlmessages_sandbox.base_url,
        "MLMESSAGES_CLIENT_ID": oauth.client_id,
        "MLMESSAGES_CLIENT_SECRET": oauth.client_secret,
        "MLMESSAGES_APP_ID": oauth.client_id,
        "MLMESSAGES_NOTIFICATION_SECRET": SECRET,
    }


def run(name: str, *arguments: str, environment: dict[str, str]) -> str:
    """What a program prints, when it has ended well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(RECIPES / name), *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


@contextlib.contextmanager
def running(*command: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A service, stopped in order at the end."""
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        _, complaints = process.communicate(timeout=30)
    assert "Traceback" not in complaints, complaints


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@case("R2")
@pytest.mark.mlmessages_sandbox(packs=[Pack(messages=[Message("=1+1"), Message("¿Cuándo llega?")]), Pack()])
def test_unread_messages_into_csv(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """Every message is a row, once over two runs; a text that looks like a formula is none."""
    report = run("unread_to_csv.py", "messages.csv", environment=environment)
    mlmessages_sandbox.sandbox.send(mlmessages_sandbox.sandbox.pack_ids()[0], "¿Y bien?")
    run("unread_to_csv.py", "messages.csv", environment=environment)
    with Path("messages.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["message_id"] for row in rows} == mlmessages_sandbox.sandbox.message_ids()
    assert len(rows) == 4
    assert {"'=1+1", "¿Cuándo llega?", "¿Y bien?"} <= {row["text"] for row in rows}
    assert "conversations=2" in report
    assert mlmessages_sandbox.sandbox.unread == 0


@case("R2")
@needs("signals")
@pytest.mark.mlmessages_sandbox(packs=3)
def test_a_bot_answers_once(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """Killed after its first answer and started again: each buyer has one answer, or none, and never two."""
    sandbox = mlmessages_sandbox.sandbox
    with running(str(RECIPES / "answer_once.py"), environment=environment) as bot:
        assert bot.stdout is not None
        assert "answered" in bot.stdout.readline()
        bot.kill()
    with running(str(RECIPES / "answer_once.py"), environment=environment) as bot:
        assert bot.stdout is not None
        sandbox.send(sandbox.pack_ids()[0], "¿Sigue ahí?")  # so that there is something to wait for
        assert "answered" in bot.stdout.readline()
    answers = [entry.pack_id for entry in sandbox.log if entry.kind == "send" and entry.status and entry.status < 300]
    assert len(answers) >= 2
    assert max(answers.count(pack) for pack in sandbox.pack_ids()) <= 2  # two messages in the first, one in the others
    assert all(answers.count(pack) <= 1 for pack in sandbox.pack_ids()[1:])


@case("R2")
@needs("signals")
@pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
@pytest.mark.mlmessages_sandbox(packs=1)
def test_a_service_takes_notifications(framework: str, mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """It drains, then a notification rings, and the new message is handled."""
    sandbox, port = mlmessages_sandbox.sandbox, free_port()
    command = [str(RECIPES / "aiohttp_service.py")]
    if framework == "fastapi":
        command = ["-m", "uvicorn", "fastapi_service:app", "--port", str(port), "--app-dir", str(RECIPES)]
    with running(*command, environment={**environment, "PORT": str(port), "PYTHONUNBUFFERED": "1"}) as service:
        assert service.stdout is not None
        assert sandbox.pack_ids()[0] in _line_with(service, sandbox.pack_ids()[0])
        message = sandbox.send(sandbox.pack_ids()[0], "¿Y bien?")
        body = json.dumps(
            {
                "topic": "marketplace_messages",
                "resource": f"/marketplace/messages/{message}",
                "user_id": int(mlmessages_sandbox.seller_id),
                "application_id": int(sandbox.oauth.client_id),
            }
        ).encode()
        post = urllib.request.Request(f"http://127.0.0.1:{port}/notifications/{SECRET}", body, method="POST")
        with urllib.request.urlopen(post, timeout=10) as answer:
            assert answer.status == 200
        assert "¿Y bien?" in _line_with(service, "bien")


def _line_with(service: subprocess.Popen[str], word: str) -> str:
    assert service.stdout is not None
    for line in service.stdout:
        if word in line:
            return line
    raise AssertionError("the service has ended")


@case("R2")
@pytest.mark.mlmessages_sandbox(packs=3, messages=2)
def test_a_program_without_asyncio(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """It prints every message once, also over two runs."""
    assert run("without_asyncio.py", environment=environment).splitlines()[-1] == "6 messages"
    assert run("without_asyncio.py", environment=environment) == "0 messages\n"
    assert mlmessages_sandbox.sandbox.unread == 0


@case("R2")
@pytest.mark.mlmessages_sandbox(packs=3)
def test_two_sellers_on_one_budget(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """Both are drained, and the budget says what it cost."""
    server = mlmessages_sandbox
    sellers = f"{server.seller_id}:{server.token},{server.seller_id}:{server.token}"
    printed = run("two_sellers.py", environment={**environment, "MLMESSAGES_SELLERS": sellers})
    assert {line.split()[1] for line in printed.splitlines()[:-1]} == set(server.sandbox.pack_ids())
    assert printed.splitlines()[-1].endswith("of 500 reads of this minute are used")


@case("R2")
@pytest.mark.mlmessages_sandbox(packs=1)
def test_attachments_of_a_conversation(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """They are saved under names of the program's own; a second run loads nothing again."""
    sandbox = mlmessages_sandbox.sandbox
    file_id = sandbox.add_file(b"%PDF-1.7 test", filename="../../x.pdf", content_type="application/pdf")
    file = {"filename": file_id, "original_filename": "../../x.pdf", "type": "application/pdf", "size": 13}
    sandbox.send(sandbox.pack_ids()[0], "See the file", message_attachments=[file])
    printed = run("save_attachments.py", sandbox.pack_ids()[0], "files", environment=environment)
    [saved] = Path("files").iterdir()
    assert saved.read_bytes() == b"%PDF-1.7 test"
    assert printed == f"{saved} 13 bytes\n"
    assert run("save_attachments.py", sandbox.pack_ids()[0], "files", environment=environment) == ""
    assert sandbox.unread == 1


@case("R2")
@pytest.mark.mlmessages_sandbox(packs=5, messages=2)
def test_bulk_fetch_goes_on(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """The second run reads only what the first did not; nothing is marked."""
    packs = mlmessages_sandbox.sandbox.pack_ids()
    Path("packs.txt").write_text("\n".join(packs[:3]))
    assert "3 read, 0 failed, 0 were there" in run("bulk_fetch.py", "packs.txt", "out.jsonl", environment=environment)
    Path("packs.txt").write_text("\n".join(packs))
    assert "2 read, 0 failed, 3 were there" in run("bulk_fetch.py", "packs.txt", "out.jsonl", environment=environment)
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert sorted(line["pack_id"] for line in lines) == sorted(packs)
    assert mlmessages_sandbox.sandbox.unread == 5


@case("R2")
@pytest.mark.mlmessages_sandbox(packs=3)
async def test_tokens_in_a_database(mlmessages_sandbox: Server, environment: dict[str, str]) -> None:
    """The first run takes them from the file, refreshes and saves; the second goes on with what was saved."""
    oauth, now = mlmessages_sandbox.sandbox.oauth, datetime.now(UTC)
    tokens = Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, mlmessages_sandbox.seller_id)
    await FileTokenStore("seller.json").save(tokens)
    environment = {**environment, "MLMESSAGES_TOKEN_FILE": "seller.json"}
    for _ in range(2):
        assert run("tokens_in_a_database.py", environment=environment) == "3 unread conversations\n"
    assert mlmessages_sandbox.sandbox.count("token") == 2


@case("R2")
def test_the_tests_of_a_user_pass(tmp_path: Path) -> None:
    """The fixture and the marker are all that they need."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path),
         str(RECIPES / "test_my_bot.py")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_every_recipe_is_run() -> None:
    """A program without a test of it here is a program that nobody has seen working."""
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in RECIPES.glob("*.py") if path.stem not in here] == []

"""K22: Ctrl-C in a command while the token endpoint answers. Real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cases import case
from mlmessages import FileTokenStore
from mlmessages.auth import in_flight
from mlmessages.models import Token
from mlmessages.testing import EXECUTE, Hold, Sandbox, Server, on, serve_in_thread
from needs import needs
from tokens.conftest import HOUR, first_token, posts

pytestmark = needs("signals")

# What the shell of a background job has ignored is set back: a program decides what Ctrl-C means only if nothing else has.
MAIN = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'mlmessages';"
MAIN += "from mlmessages.cli import main; main()"
REDIRECT_URI = "https://seller.example/callback"
WAITS = "waiting for its answer"


@pytest.fixture
def server() -> Iterator[Server]:
    """A sandbox whose token endpoint answers when `release("answer")` is called."""
    sandbox = Sandbox(packs=1, clock=time.monotonic, rules=[on("token").do(Hold("answer"), EXECUTE)])
    with serve_in_thread(sandbox) as served:
        yield served
        sandbox.release("answer")


def environment(server: Server, file: Path) -> dict[str, str]:
    oauth = server.sandbox.oauth
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLMESSAGES_")},
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MLMESSAGES_BASE_URL": server.base_url,
        "MLMESSAGES_SELLER_ID": server.seller_id,
        "MLMESSAGES_TOKEN_FILE": str(file),
        "MLMESSAGES_CLIENT_ID": oauth.client_id,
        "MLMESSAGES_CLIENT_SECRET": oauth.client_secret,
        "MLMESSAGES_REDIRECT_URI": REDIRECT_URI,
    }


@contextmanager
def command(server: Server, file: Path, *args: str, stdin: str = "") -> Iterator[subprocess.Popen[str]]:
    """`mlmessages ARGS`, whose token request is with the server."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", MAIN, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(server, file),
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
            until(lambda: server.sandbox.held("answer") == 1 or process.poll() is not None)
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        os.sched_yield()


def load(file: Path) -> Token | None:
    return asyncio.run(FileTokenStore(file).load())


def keep(server: Server, file: Path, age: int) -> None:
    asyncio.run(FileTokenStore(file).save(first_token(server.sandbox, age=age * HOUR)))


def interrupted(process: subprocess.Popen[str], server: Server) -> str:
    """Ctrl-C; the answer comes when the command has said that it waits for it. What it said on stderr."""
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    said = ""
    while WAITS not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    server.sandbox.release("answer")
    return said + process.communicate(timeout=60)[1]


@case("K22")
@pytest.mark.parametrize(
    ("args", "age"),
    [
        (("unread",), 7),
        (("auth", "refresh"), 1),
        (("messages", "2000000000000001"), 7),
        (("send", "2000000000000001", "Hola"), 7),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_ctrl_c_in_a_command_waits_for_the_new_tokens(
    server: Server, tmp_path: Path, args: tuple[str, ...], age: int
) -> None:
    """The terminal says what is waited for, the tokens are kept, and the command ends as interrupted."""
    file = tmp_path / "seller.json"
    keep(server, file, age)
    with command(server, file, *args) as process:
        interrupted(process, server)
        assert process.returncode == 130
    kept = load(file)
    assert kept is not None
    assert kept.access_token == server.token
    assert kept.refresh_token == server.sandbox.oauth.refresh_token
    assert kept.refresh_sent_at is None
    assert [entry.kind for entry in server.sandbox.log] == ["token"]


@case("K22")
def test_ctrl_c_in_auth_exchange_waits_for_the_tokens(server: Server, tmp_path: Path) -> None:
    """The code is for one use too."""
    file = tmp_path / "seller.json"
    asked = subprocess.run(
        [sys.executable, "-c", MAIN, "auth", "url"],
        env=environment(server, file),
        capture_output=True,
        text=True,
        check=True,
    )
    pasted = server.sandbox.oauth.consent(asked.stdout.strip())
    with command(server, file, "auth", "exchange", stdin=f"{pasted}\n") as process:
        interrupted(process, server)
        assert process.returncode == 130
    kept = load(file)
    assert kept is not None
    assert kept.access_token == server.token


@case("K22")
def test_a_second_ctrl_c_cuts(server: Server, tmp_path: Path) -> None:
    """Whoever wants that can end it: the note in the file remembers that a refresh was sent."""
    file = tmp_path / "seller.json"
    keep(server, file, 7)
    with command(server, file, "unread") as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert WAITS in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    kept = load(file)
    assert kept is not None
    assert kept.refresh_sent_at is not None
    assert len(posts(server.sandbox)) == 1


@case("K22")
async def test_work_that_must_not_be_cut_off_is_finished_before_its_callers_cancellation() -> None:
    """The first cancellation waits for it, the second does not; its own error after a cancellation is no noise."""
    gate = asyncio.Event()
    done: list[str] = []

    async def work() -> str:
        with in_flight.answer_awaited():
            await gate.wait()
        done.append("saved")
        return "token"

    caller = asyncio.ensure_future(in_flight.uninterrupted(work()))
    await turns()
    assert len(in_flight.answers_awaited) == 1
    caller.cancel()
    await turns()
    assert not caller.done()
    gate.set()
    await asyncio.wait({caller})
    assert caller.cancelled()
    assert done == ["saved"]
    assert not in_flight.answers_awaited
    assert await in_flight.uninterrupted(work()) == "token"

    async def failing() -> None:
        await asyncio.sleep(0)
        raise OSError(28, "No space left on device")

    caller = asyncio.ensure_future(in_flight.uninterrupted(failing()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)

"""F3, F4, F5, F8 and F11 with real processes: races, SIGKILL at every step, and a disk that is full."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cases import case
from mlmessages import FileTokenStore
from mlmessages.errors import ReauthorizationRequired
from mlmessages.models import Token
from mlmessages.testing import EXECUTE, Delay, Sandbox, Server, on, serve_in_thread, virtual_run
from needs import needs
from tokens.conftest import HOUR, client_with, first_token, posts, source_of

pytestmark = needs("signals", "limits")

PROGRAM = Path(__file__).with_name("process.py")
STEPS = 13  # crash points of one refresh: five of each of two saves, and three of the refresh itself


@pytest.fixture
def server() -> Iterator[Server]:
    """A sandbox behind HTTP whose token endpoint takes its time."""
    sandbox = Sandbox(packs=0, clock=time.monotonic, rules=[on("token").do(Delay(0.1), EXECUTE)])
    with serve_in_thread(sandbox) as served:
        yield served


def save(file: Path, token: Token) -> None:
    asyncio.run(FileTokenStore(file).save(token))


def load(file: Path) -> Token | None:
    return asyncio.run(FileTokenStore(file).load())


@contextmanager
def process(file: Path, server: Server, step: int = 0, **environment: str) -> Iterator[subprocess.Popen[str]]:
    oauth = server.sandbox.oauth
    arguments = [str(file), server.base_url, oauth.client_id, oauth.client_secret, str(step)]
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def begun(running: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    return running


def outcome(running: subprocess.Popen[str]) -> str:
    return running.communicate("go\n", timeout=60)[0].strip()


@case("F3")
def test_four_processes_that_need_a_refresh_send_one(file: Path, server: Server) -> None:
    """They begin at once, on one file: one POST, and all of them have the same new token."""
    save(file, first_token(server.sandbox, age=7 * HOUR))
    with ExitStack() as stack:
        running = [begun(one) for one in [stack.enter_context(process(file, server)) for _ in range(4)]]
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        found = {one.communicate(timeout=60)[0].strip() for one in running}
    assert found == {server.token}
    assert len(posts(server.sandbox)) == 1
    kept = load(file)
    assert kept is not None
    assert kept.refresh_token == server.sandbox.oauth.refresh_token


@case("F4", "F11")
def test_killed_at_every_step_of_a_refresh(file: Path, server: Server) -> None:
    """The file is never empty. The next process has the new token, or waits and gets one, or is told to authorise again.

    The last only where the server had executed the refresh and its answer was not yet in the file: two POSTs at most, and
    the access token, which has hours left, still works.
    """
    sandbox = server.sandbox
    names, lost = [], []
    with ExitStack() as stack:
        waiting: Iterator[subprocess.Popen[str]] = iter([])
        for step in range(1, STEPS + 1):
            if step % 4 == 1:  # some at once: what takes time is that they start
                waiting = iter(
                    [stack.enter_context(process(file, server, n)) for n in range(step, min(step + 4, STEPS + 1))]
                )
            sandbox.oauth.replace(f"APP_USR-generation-{step}")
            sandbox.oauth.refresh_token = f"TG-generation-{step}"
            before = first_token(sandbox, age=3.1 * HOUR)
            save(file, before)
            sent = len(posts(sandbox))
            running = begun(next(waiting))
            names.append(outcome(running))
            assert running.wait() == -9, names

            kept = load(file)
            assert kept is not None
            assert kept.access_token in (before.access_token, sandbox.token)
            assert kept.refresh_token in (before.refresh_token, sandbox.oauth.refresh_token)
            executed = sandbox.oauth.refresh_token != before.refresh_token
            assert executed == (len(posts(sandbox)) > sent)
            if virtual_run(_recovered(sandbox, file)):
                assert load(file).refresh_token == sandbox.oauth.refresh_token  # type: ignore[union-attr]
            else:
                lost.append(names[-1])
                assert executed
            assert len(posts(sandbox)) - sent <= 2
    assert len(set(names)) == 8
    assert set(lost) == {"refresh answered", "file created", "file written", "file synced"}


async def _recovered(sandbox: Sandbox, file: Path) -> bool:
    """What becomes of it when a process goes on with the file; False: the seller must authorise again."""
    async with client_with(sandbox, source_of(sandbox, FileTokenStore(file))) as client:
        await client.unread()
        await asyncio.sleep(180)
        await client.unread()
        assert {entry.status for entry in sandbox.log if entry.kind == "listing"} == {200}
        kept = await FileTokenStore(file).load()
        assert kept is not None
        if kept.refresh_token == sandbox.oauth.refresh_token:
            return True
        assert kept.expires_at - datetime.now(UTC) > 2.5 * HOUR
        await asyncio.sleep(3 * 3600)
        with pytest.raises(ReauthorizationRequired):
            await client.unread()
        return False


@case("F4")
def test_one_step_more_and_it_is_not_killed(file: Path, server: Server) -> None:
    """The test above kills at every step there is."""
    save(file, first_token(server.sandbox, age=7 * HOUR))
    with process(file, server, STEPS + 1) as running:
        assert outcome(begun(running)) == server.token


@case("F5")
def test_a_disk_that_is_full_sends_no_refresh(file: Path, server: Server) -> None:
    """The system refuses to write: no POST, an error that says so, and the old file."""
    before = first_token(server.sandbox, age=7 * HOUR)
    save(file, before)
    with process(file, server, FULL_DISK="1") as running:
        said = outcome(begun(running))
    assert said.startswith("AuthError the token file seller.json cannot be written")
    assert load(file) == before
    assert server.sandbox.log == []
    assert {path.name for path in file.parent.iterdir()} == {"seller.json", "seller.json.lock"}


@case("F8")
def test_ctrl_c_during_a_refresh_saves_its_answer(file: Path, server: Server) -> None:
    """SIGINT while the POST is under way: the program ends after the new tokens are in the file."""
    save(file, first_token(server.sandbox, age=7 * HOUR))
    with process(file, server, TELL="refresh noted") as running:
        begun(running)
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write("go\n")
        running.stdin.flush()
        assert running.stdout.readline() == "refresh noted\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=10) != 0
    assert len(posts(server.sandbox)) == 1
    kept = load(file)
    assert kept is not None
    assert kept.access_token == server.token

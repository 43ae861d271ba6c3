"""README's code is run as it stands, against a sandbox."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import signal
import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from mlmessages import Database, FileTokenStore, MessagesClient
from mlmessages.models import Token
from mlmessages.testing import Marketplace, Server
from needs import needs
from postgres.conftest import database_url, server

__all__ = ["database_url", "server"]

README = Path(__file__).parents[2] / "README.md"
FOUND = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
[FLEET] = [block for block in FOUND if "Fleet(" in block]
BLOCKS = [block for block in FOUND if block is not FLEET]


@pytest.fixture
def sandbox_as_default(mlmessages_sandbox: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The sandbox takes the place of the real API, also where README names no base URL."""
    defaults: dict[str, Any] = MessagesClient.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "base_url", mlmessages_sandbox.base_url)
    monkeypatch.setenv("MLMESSAGES_BASE_URL", mlmessages_sandbox.base_url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLMESSAGES_TOKEN", mlmessages_sandbox.token)
    monkeypatch.setenv("MLMESSAGES_SELLER_ID", mlmessages_sandbox.seller_id)
    oauth, now = mlmessages_sandbox.sandbox.oauth, datetime.now(UTC)
    monkeypatch.setenv("MLMESSAGES_CLIENT_ID", oauth.client_id)
    monkeypatch.setenv("MLMESSAGES_CLIENT_SECRET", oauth.client_secret)
    tokens = Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, mlmessages_sandbox.seller_id)
    asyncio.run(FileTokenStore("seller.json").save(tokens))
    return mlmessages_sandbox


@pytest.mark.mlmessages_sandbox(packs=3, messages=2)
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(block: str, sandbox_as_default: Server) -> None:
    """A program is run; what stands inside one is run with the names that the text around it uses."""
    server = sandbox_as_default
    names: dict[str, object] = {
        "asyncio": asyncio,
        "token": server.token,
        "seller_id": server.seller_id,
        "pack_id": server.sandbox.pack_ids()[0],
        "pack_ids": server.sandbox.pack_ids(),
        "client_id": server.sandbox.oauth.client_id,
        "client_secret": server.sandbox.oauth.client_secret,
    }
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)
        return

    async def run() -> None:
        async with MessagesClient(server.token, seller_id=server.seller_id) as client:
            names["client"] = client
            await types.FunctionType(code, names)()

    asyncio.run(run())


@pytest.mark.mlmessages_sandbox(packs=2500)
def test_the_ten_lines_do_the_main_job(sandbox_as_default: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """They print every unread message of 2,500 conversations, and leave none unread."""
    sandbox = sandbox_as_default.sandbox
    exec(
        compile(
            BLOCKS[0].replace("MessagesClient(token,", "MessagesClient(token, limits=plenty(),"), "README.md", "exec"
        ),
        {"plenty": _plenty},
    )
    *lines, report = capsys.readouterr().out.splitlines()
    assert len(lines) == 2500
    assert report.startswith("DrainReport(conversations=2500,")
    assert sandbox.unread == 0


def _plenty() -> object:
    from mlmessages import Limits

    return Limits(reads=10**6, per_second=None)


@needs("signals")
async def test_the_lines_of_the_fleet_serve_every_seller(database_url: str, tmp_path: Path) -> None:
    """They print the messages of all sellers of a database, and end well at SIGTERM."""
    marketplace, key, now = Marketplace(sellers=3, packs=2), Fernet.generate_key().decode(), datetime.now(UTC)
    program = tmp_path / "program.py"
    program.write_text(FLEET)
    async with marketplace.serve() as served:
        async with Database(database_url, key=key) as database:
            for seller in marketplace.sellers:
                oauth = seller.oauth
                await database.add(
                    Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller.seller_id)
                )
        environment = {
            **os.environ,
            "MLMESSAGES_BASE_URL": served.base_url,
            "MLMESSAGES_DATABASE": database_url,
            "MLMESSAGES_KEY": key,
            "MLMESSAGES_CLIENT_ID": marketplace.application.client_id,
            "MLMESSAGES_CLIENT_SECRET": marketplace.application.client_secret,
            "PYTHONUNBUFFERED": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", str(program),
            env=environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                lines = [(await process.stdout.readline()).decode() for _ in range(6)]
            assert {line.split()[0] for line in lines} == {seller.seller_id for seller in marketplace.sellers}
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert marketplace.unread == 0


def test_the_readme_is_read_in_minutes() -> None:
    """Under 300 lines; every file that it names is there."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    named = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [path for path in named if not (README.parent / path).exists()] == []

"""README's code is run as it stands, against a sandbox."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlmessages import FileTokenStore, MessagesClient
from mlmessages.models import Token
from mlmessages.testing import Server

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def sandbox_as_default(mlmessages_sandbox: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """The sandbox takes the place of the real API: README names no base URL."""
    monkeypatch.setitem(MessagesClient.__init__.__kwdefaults__, "base_url", mlmessages_sandbox.base_url)
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
        "handle": lambda conversation: None,
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
    assert len(capsys.readouterr().out.splitlines()) == 2500
    assert sandbox.unread == 0


def _plenty() -> object:
    from mlmessages import Limits

    return Limits(reads=10**6, per_second=None)

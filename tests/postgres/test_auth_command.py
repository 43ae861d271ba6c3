"""``mlmessages auth exchange --database``: a seller's consent becomes a row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from cases import case
from mlmessages.cli.app import cli
from mlmessages.models import Token
from mlmessages.postgres.database import Database
from mlmessages.testing import Sandbox, Server, serve_in_thread

KEY = Fernet.generate_key().decode()


@pytest.fixture
def sandboxed() -> Iterator[Server]:
    """A sandbox behind HTTP."""
    with serve_in_thread(Sandbox(packs=1, clock=time.monotonic)) as served:
        yield served


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(sandboxed: Server, *args: str, stdin: str = "", **env: str | None) -> Result:
    oauth = sandboxed.sandbox.oauth
    settings: dict[str, str | None] = {
        "MLMESSAGES_BASE_URL": sandboxed.base_url,
        "MLMESSAGES_TOKEN_FILE": None,
        "MLMESSAGES_DATABASE": None,
        "MLMESSAGES_CLIENT_ID": oauth.client_id,
        "MLMESSAGES_CLIENT_SECRET": oauth.client_secret,
        "MLMESSAGES_REDIRECT_URI": "https://seller.example/callback",
        "MLMESSAGES_KEY": KEY,
    }
    return CliRunner().invoke(cli, ["auth", *args], input=stdin, env={**settings, **env})


async def kept(url: str, seller: str) -> Token | None:
    async with Database(url, key=KEY) as database:
        return await database.tokens(seller).load()


@case("Q23")
def test_a_consent_becomes_a_row(sandboxed: Server, here: Path, database_url: str) -> None:
    """The seller is taken in with its tokens; what was pending is gone; the next command says how long they last."""
    asked = run(sandboxed, "url", MLMESSAGES_DATABASE=database_url)
    assert asked.exit_code == 0, asked.output
    assert (here / "mlmessages.pending").exists()
    pasted = sandboxed.sandbox.oauth.consent(asked.stdout.strip())
    done = run(sandboxed, "exchange", "--database", database_url, stdin=pasted)
    assert done.exit_code == 0, done.output
    assert f"seller         {sandboxed.seller_id}" in done.stdout
    assert list(here.iterdir()) == []
    token = asyncio.run(kept(database_url, sandboxed.seller_id))
    assert token is not None
    assert token.access_token == sandboxed.token


@case("Q23")
def test_the_code_is_not_spent_where_nothing_can_be_kept(sandboxed: Server, here: Path) -> None:
    """No database answers there: nothing is sent, and the consent stays pending."""
    url = "postgresql://127.0.0.1:9/nothing"
    asked = run(sandboxed, "url", "--database", url)
    pasted = sandboxed.sandbox.oauth.consent(asked.stdout.strip())
    result = run(sandboxed, "exchange", "--database", url, stdin=pasted)
    assert result.exit_code == 1
    assert "no connection" in result.stderr
    assert sandboxed.sandbox.log == []
    assert (here / "mlmessages.pending").exists()


@case("Q23")
def test_an_answer_without_its_seller_is_not_kept(sandboxed: Server, here: Path, database_url: str) -> None:
    """A row needs one."""
    sandboxed.sandbox.oauth.overrides = {"user_id": None}
    pasted = sandboxed.sandbox.oauth.consent(run(sandboxed, "url", "--database", database_url).stdout.strip())
    result = run(sandboxed, "exchange", "--database", database_url, stdin=pasted)
    assert result.exit_code == 1
    assert "whose tokens" in result.stderr


@case("Q23")
@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        ((), {}, "--token-file"),
        (("--database", "postgresql://u:hunter2@h/d"), {}, "MLMESSAGES_DATABASE"),
        (("--database", "host=h password=hunter2"), {}, "MLMESSAGES_DATABASE"),
        (("--database", "postgresql://h/d", "--token-file", "t"), {}, "name one of them"),
        ((), {"MLMESSAGES_DATABASE": "postgresql://u:hunter2@h/d", "MLMESSAGES_TOKEN_FILE": "t"}, "name one of them"),
    ],
    ids=["neither", "a password", "a password as a word", "both", "both from the environment"],
)
def test_misuse(sandboxed: Server, here: Path, args: tuple[str, ...], env: dict[str, Any], said: str) -> None:
    """One line, exit code 2, and no password in it."""
    result = run(sandboxed, "url", *args, **env)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "hunter2" not in result.output


@case("Q23")
@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"MLMESSAGES_KEY": None}, "MLMESSAGES_KEY is not set"),
        ({"MLMESSAGES_KEY": "short"}, "Fernet key"),
        ({"MLMESSAGES_DATABASE": "postgresql://u:hunter2@far.example/d"}, "sslmode"),
    ],
    ids=["no key", "no Fernet key", "plain text to another machine"],
)
def test_a_database_that_must_not_be_used(
    sandboxed: Server, here: Path, database_url: str, env: dict[str, str | None], said: str
) -> None:
    """Misuse before the code is spent."""
    settings: dict[str, Any] = {"MLMESSAGES_DATABASE": database_url, **env}
    pasted = sandboxed.sandbox.oauth.consent(run(sandboxed, "url", **settings).stdout.strip())
    result = run(sandboxed, "exchange", stdin=pasted, **settings)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "hunter2" not in result.output
    assert sandboxed.sandbox.log == []


@case("Q23")
def test_what_is_typed_goes_before_the_environment(sandboxed: Server, here: Path, database_url: str) -> None:
    """A token file by option beside a database in the environment, and the other way round."""
    asked = run(sandboxed, "url", "--token-file", "seller.json", MLMESSAGES_DATABASE=database_url)
    assert asked.exit_code == 0, asked.output
    assert [path.name for path in here.iterdir()] == ["seller.json.pending"]
    asked = run(sandboxed, "url", "--database", database_url, MLMESSAGES_TOKEN_FILE="seller.json")
    assert asked.exit_code == 0
    assert (here / "mlmessages.pending").exists()

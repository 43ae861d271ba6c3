"""`mlmessages sellers` and `mlmessages database …`, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from cases import case
from mlmessages import Database, Inbox
from mlmessages.cli.app import cli
from mlmessages.models import Token
from mlmessages.testing import Reply, Sandbox, on
from worlds import client_of

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
Command = Callable[..., Result]


@pytest.fixture
def command(database_url: str) -> Command:
    """`mlmessages ARGS` on the test's database."""

    def run(*args: str, **env: str) -> Result:
        settings = {"MLMESSAGES_DATABASE": database_url, "MLMESSAGES_KEY": OLD, **env}
        result = CliRunner().invoke(cli, list(args), prog_name="mlmessages", env=settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def add(url: str, *sellers: int, key: str = OLD) -> None:
    async def main() -> None:
        now = datetime.now(UTC)
        async with Database(url, key=key, name="test") as database:
            for seller in sellers:
                await database.add(Token(f"APP_USR-{seller}", f"TG-{seller}", now + timedelta(hours=6), now, seller))

    asyncio.run(main())


@case("S40")
def test_no_sellers_yet_says_how_to_add_one(command: Command) -> None:
    """Exit code 0, and the next step."""
    result = command("sellers")
    assert result.exit_code == 0
    assert "auth exchange`" in result.stderr


@case("S40")
def test_sellers_are_listed_and_a_stopped_one_is_exit_code_3(command: Command, database_url: str) -> None:
    """With holder, figures and reason; as JSON too."""
    add(database_url, 7001, 7002)
    result = command("sellers")
    assert result.exit_code == 0
    assert "7001" in result.stdout
    assert "2 sellers, 0 held." in result.stderr
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "UPDATE mlmessages.seller SET stopped = 'its tokens\x1b[2J are refused', stopped_until = 'infinity' WHERE id = '7002'"
        )
    result = command("sellers")
    assert result.exit_code == 3
    assert "are refused" in result.stdout
    assert "\x1b[2J" not in result.stdout
    rows = [json.loads(line) for line in command("sellers", "--json").stdout.splitlines()]
    assert {row["seller_id"]: row["stopped"] is None for row in rows} == {"7001": True, "7002": False}


@case("S40")
def test_without_a_database_it_is_misuse(command: Command) -> None:
    """The line names the variable."""
    result = command("sellers", MLMESSAGES_DATABASE="")
    assert result.exit_code == 2
    assert "MLMESSAGES_DATABASE" in result.stderr
    result = command("sellers", "--database", "postgresql://user:hunter2hunter2@localhost/x")
    assert result.exit_code == 2
    assert "hunter2" not in result.output


@case("S41")
def test_check_says_what_the_database_keeps(command: Command) -> None:
    """Durable, its clock, its version: exit code 0; a worker that lives is named."""
    result = command("database", "check")
    assert result.exit_code == 0, result.output
    for word in ("durable", "clock", "schema", "standbys", "workers"):
        assert word in result.stdout
    found = json.loads(command("database", "check", "--json").stdout)
    assert found["failed"] == []
    assert found["schema"] == 1
    assert abs(found["clock"]) < 5


@case("S41")
def test_check_fails_where_the_clocks_differ(command: Command, database_url: str) -> None:
    """A clock of the database that is an hour ahead is told, with exit code 1."""
    command("database", "upgrade")
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "CREATE OR REPLACE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " $$SELECT clock_timestamp() + interval '1 hour'$$"
        )
    result = command("database", "check")
    assert result.exit_code == 1
    assert "3600.0 s ahead" in result.stdout
    assert json.loads(command("database", "check", "--json").stdout)["failed"] == ["clock"]


@case("S42")
def test_the_schema_can_be_made_by_another_user(command: Command, database_url: str) -> None:
    """What `database schema` prints makes it, and `upgrade` finds nothing left to do."""
    script = command("database", "schema").stdout
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(script)  # type: ignore[arg-type]
    result = command("database", "upgrade")
    assert result.exit_code == 0
    assert "version 1" in result.stderr
    assert command("database", "schema", "--schema", "Robert'); --").exit_code == 2


@case("S43")
def test_rekey_encrypts_by_the_first_key(command: Command, database_url: str) -> None:
    """Afterwards the old key is not needed any more, and is not enough."""
    add(database_url, 7001, 7002)
    both: dict[str, Any] = {"MLMESSAGES_KEY": f"{NEW},{OLD}"}
    result = command("database", "rekey", **both)
    assert result.exit_code == 0, result.output
    assert "2 rows" in result.stderr

    async def token(key: str) -> Token | None:
        async with Database(database_url, key=key, name="test") as database:
            return await database.tokens(7001).load()

    loaded = asyncio.run(token(NEW))
    assert loaded is not None
    assert loaded.access_token == "APP_USR-7001"
    with pytest.raises(Exception, match="key"):
        asyncio.run(token(OLD))


@case("S45")
@pytest.mark.parametrize("moved", [True, False])
def test_a_journal_is_moved_and_shown_by_its_seller(
    moved: bool, command: Command, database_url: str, tmp_path: Path
) -> None:
    """What a file owed is owed in the database; the same figures as of the file; the file is not there any more."""
    journal = tmp_path / "inbox.db"

    async def left_over() -> str:
        sandbox = Sandbox(packs=3, rules=[on("mark", nth=1).do(Reply(403))])
        async with client_of(sandbox) as client, Inbox(client, journal, park_after=1) as inbox:
            async for _ in inbox.drain():
                pass  # nothing is acknowledged
        return sandbox.seller_id

    seller = asyncio.run(left_over())
    before = json.loads(command("journal", str(journal), "--json").stdout)
    assert len(before["unacknowledged"]) == 2
    assert len(before["parked"]) == 1
    if not moved:
        assert "not in this database" in command("journal", seller).stderr
        return
    result = command("journal", "move", str(journal))
    assert result.exit_code == 0, result.output
    assert f"Seller {seller}: 2 message ids moved, 2 messages to be delivered." in result.stderr
    assert [path.name for path in tmp_path.glob("inbox.db*") if not path.name.endswith(".lock")] == ["inbox.db.moved"]
    after = json.loads(command("journal", seller, "--json").stdout)
    assert after["unacknowledged"] == before["unacknowledged"]
    assert [row["pack_id"] for row in after["parked"]] == [row["pack_id"] for row in before["parked"]]
    assert seller in command("journal", seller).stdout
    assert command("journal", "x y").exit_code == 2

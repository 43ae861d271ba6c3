"""`mlmessages journal`: what is owed, beside a running drain and after it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cases import case
from cli.conftest import Serve, json_lines, read_until, run, started
from mlmessages import Inbox, MessagesClient
from mlmessages.testing import DROP, EXECUTE, Pack, Server, on


def shown(file: Path, *more: str) -> dict[str, Any]:
    result = run("journal", str(file), "--json", *more)
    assert result.exit_code == 0
    return dict(json.loads(result.stdout))


def words(text: str) -> str:
    return " ".join(text.split())


def drain(folder: Path) -> list[str]:
    return ["drain", "--journal", str(folder / "j.db"), "--out", str(folder / "d.jsonl")]


def test_what_is_owed_is_shown_beside_a_running_drain_and_after_it(serve: Serve, tmp_path: Path):
    """Done, waiting and parked, with reason and moments; `--retry-parked` only when no drain runs, and it works."""
    server = serve([Pack("11"), Pack("12"), Pack("13")], rules=[on("mark", pack="12", nth=1).do(EXECUTE, DROP)])
    refusal, journal = server.sandbox.refuse(["13"]), tmp_path / "j.db"
    with started(*drain(tmp_path), server=server) as process:
        read_until(process, "Waiting")
        beside = shown(journal)
        text = run("journal", str(journal))
        refused = run("journal", str(journal), "--retry-parked")
        assert process.poll() is None
    assert beside["seller_id"] == server.seller_id
    assert (beside["done"], beside["open"], beside["issued"], beside["unacknowledged"]) == (1, 0, [], [])
    [waiting], [parked] = beside["waiting"], beside["parked"]
    assert waiting["pack_id"] == "12"
    assert (parked["pack_id"], parked["reason"][:4], parked["times"]) == ("13", "403 ", 1)
    assert datetime.fromisoformat(waiting["until"]) < datetime.fromisoformat(parked["tried_again_after"])
    assert "done 1 " in words(text.stdout)
    assert "waiting 1 until " in words(text.stdout)
    assert "parked tried again after why 13 " in words(text.stdout)
    assert parked["reason"] in words(text.stdout)
    assert (text.exit_code, refused.exit_code, refused.stdout) == (0, 1, "")
    assert (refused.stderr.count("\n"), "another inbox is using" in refused.stderr) == (1, True)

    after_the_kill = {path.name: path.read_bytes() for path in tmp_path.glob("j.db*") if path.suffix != ".db-shm"}
    assert shown(journal) == beside
    assert {name: (tmp_path / name).read_bytes() for name in after_the_kill} == after_the_kill
    server.sandbox.remove(refusal)
    retried = run("journal", str(journal), "--retry-parked", "--json")
    assert "1 parked pack will be read again" in retried.stderr
    after = json.loads(retried.stdout)
    assert (after["open"], after["parked"], after["waiting"]) == (1, [], beside["waiting"])
    with started(*drain(tmp_path), server=server) as process:
        read_until(process, "Waiting")
    assert {line["pack_id"] for line in json_lines(tmp_path / "d.jsonl")} == {"11", "13"}


def make_journal(server: Server, file: Path) -> None:
    """A journal with one conversation that was delivered and not acknowledged."""

    async def main() -> None:
        async with (
            MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url) as client,
            Inbox(client, file) as inbox,
            inbox.drain() as deliveries,
        ):
            await anext(deliveries)

    asyncio.run(main())


def test_what_was_not_acknowledged_is_shown(serve: Serve, tmp_path: Path):
    """A conversation that was read and not acknowledged is named, with the number of its messages."""
    make_journal(serve([Pack("11", messages=4)]), tmp_path / "j.db")
    assert shown(tmp_path / "j.db")["unacknowledged"] == [{"pack_id": "11", "messages": 4}]
    assert "unacknowledged 1 4 messages" in words(run("journal", str(tmp_path / "j.db")).stdout)


def test_looking_changes_nothing(serve: Serve, tmp_path: Path):
    """The journal has the same bytes and the same rights before and after, and the next drain can have it."""
    journal, server = tmp_path / "j.db", serve([Pack("11")])
    make_journal(server, journal)
    before = journal.read_bytes(), journal.stat().st_mode
    shown(journal)
    assert (journal.read_bytes(), journal.stat().st_mode) == before
    result = run(*drain(tmp_path), server=server)
    assert result.exit_code == 0
    assert [line["redelivered"] for line in json_lines(tmp_path / "d.jsonl")] == [True]


@pytest.mark.parametrize("more", [[], ["--json"], ["--retry-parked"]])
def test_a_missing_file_is_misuse_and_not_created(tmp_path: Path, more: list[str]):
    """A journal that is not there is an error of one line; there is still no file."""
    result = run("journal", str(tmp_path / "j.db"), *more)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "does not exist" in result.stderr
    assert not list(tmp_path.iterdir())


def of_another_program(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE pack (id)")
    db.close()


def of_another_program_with_such_a_table(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE identity (schema, seller)")
        db.execute("INSERT INTO identity VALUES (1, 'x')")
    db.close()


def of_a_newer_version(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE identity (schema INTEGER, seller TEXT)")
        db.execute("INSERT INTO identity VALUES (99, '1')")
    db.close()


@pytest.mark.parametrize("more", [[], ["--retry-parked"]])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (of_another_program, "no journal of mlmessages"),
        (of_another_program_with_such_a_table, "no journal of mlmessages"),
        (of_a_newer_version, "update mlmessages"),
        (lambda file: file.write_bytes(b"a diary\x1b[2J" * 100), "no journal of mlmessages"),
        (lambda file: file.write_bytes(b""), "no journal of mlmessages"),
    ],
)
def test_another_kind_of_file_is_one_line(tmp_path: Path, make: Callable[[Path], object], said: str, more: list[str]):
    """A file of another program, of a newer version, or no database: one clear line; nothing in the folder changes."""
    file = tmp_path / "other.db"
    make(file)
    before = file.read_bytes()
    result = run("journal", str(file), *more)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert said in result.stderr
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_is_misuse(tmp_path: Path):
    """A folder is no journal: one line, exit code 2."""
    result = run("journal", str(tmp_path))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_name_with_characters_of_urls_works(serve: Serve, tmp_path: Path):
    """A question mark, a percent sign, a hash and a blank in the name of the file are nothing special."""
    journal = tmp_path / "j? %20#1.db"
    make_journal(serve([Pack("11")]), journal)
    assert shown(journal)["done"] == 1
    assert shown(journal, "--retry-parked")["parked"] == []


def spoil(journal: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(journal) as db:
        db.execute(statement, values)
    db.close()


@case("N4")
@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE identity SET seller = ?", ["1\x1b[2J\nError: x\u202e"]),
        ("UPDATE pack SET id = ?, state = 'parked', error = ?", ["1\x1b[2J", "\x1b[2J"]),
        ("UPDATE pack SET state = 'parked', error = ?", ['["NotFound", "\x1b[2J", {"status": 404}]']),
        ("UPDATE pack SET state = 'open', not_before = ?", [1e300]),
        ("UPDATE pack SET state = 'parked', not_before = ?", [-1e300]),
        ("UPDATE pack SET state = 'open', not_before = ?", ["x"]),
        ("UPDATE pack SET state = 'parked', not_before = ?", [b"\x1b"]),
        ("UPDATE pack SET state = 'open', id = ?", [b"\x1b"]),
        ("UPDATE pack SET state = 'parked', attempts = ?", ["\x1b[2J"]),
        ("UPDATE pack SET state = 'parked', error = ?", ["[" * 100_000]),
        ("UPDATE body SET pack = ?", ["\x1b[2J"]),
    ],
    ids=range(11),
)
def test_a_hostile_journal_does_nothing_to_the_terminal(
    serve: Serve, tmp_path: Path, statement: str, values: list[object], more: list[str]
):
    """Escapes and values of another type: they are shown as escapes, or the file is refused in one line."""
    journal = tmp_path / "j.db"
    make_journal(serve([Pack("11", messages=2)]), journal)
    spoil(journal, statement, *values)
    result = run("journal", str(journal), *more)
    assert result.exit_code in (0, 1)
    assert not set("\x1b\u202e") & set(result.output)
    assert result.exit_code == 0 or result.stderr.count("\n") == 1
    if more and result.exit_code == 0:
        json.loads(result.stdout)

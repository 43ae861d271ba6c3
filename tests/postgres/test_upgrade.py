"""A database as each released version left it, filled: this one takes it up while workers of that version still run."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from cases import case
from journal.stores import entry
from mlmessages.journal.journal import Journal
from mlmessages.journal.store import FailedDelivery
from mlmessages.postgres import schema
from mlmessages.postgres.database import Database

# A version that brings a migration is released with a file of its own.
RELEASED = sorted(Path(__file__).with_name("released").glob("*.sql"), key=lambda path: int(path.stem))
SETTLE = 120.0
SELLER, ANOTHER = "700100200", "700100999"


def test_there_is_a_file_for_each_version_of_the_schema() -> None:
    """What a release brings is filled here before the next one changes it."""
    assert [int(path.stem) for path in RELEASED] == list(range(1, schema.VERSION + 1))


@case("Q2")
@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_a_database_of_a_released_version_is_taken_up_beside_its_workers(
    released: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was owed, stored, failed, given up or done once is missing; an old worker goes on with what it holds."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(released.read_text())  # type: ignore[call-overload]
    with monkeypatch.context() as old_program:
        old_program.setattr(schema, "VERSION", int(released.stem))
        old = await Database(database_url, key=None, name="old").__aenter__()
    try:
        theirs = Journal(old.place(ANOTHER, SETTLE))
        await theirs.open()
        await theirs.listed([("9", 1, None)], None)
        await theirs.claim("9")
        async with Database(database_url, key=None, name="new") as database:
            await taken_up(database)
            assert (await theirs.read("9", [entry("late")], None)).fresh == ["late"]
            await old.worker.beat()
            await theirs.claim("9")
            await theirs.reopen("9", outcome_unknown=False)
            await theirs.close()
            await database.worker.take(ANOTHER, settle_time=SETTLE)
    finally:
        await old.__aexit__(None, None, None)
    with psycopg.connect(database_url) as admin:
        assert admin.execute("SELECT version FROM mlmessages.meta").fetchall() == [(schema.VERSION,)]


async def taken_up(database: Database) -> None:
    """All that the file holds of its first seller; the second one is stopped."""
    assert [(row.seller_id, row.holder, row.stopped) for row in await database.overview()] == [
        (SELLER, "machine-1", None),
        ("700100201", None, "invalid_grant"),
        (ANOTHER, "old", None),
    ]
    token = await database.tokens(SELLER).load()
    assert token is not None
    assert (token.access_token, token.refresh_token) == ("APP_USR-1", "TG-1")
    journal = Journal(database.place(SELLER, SETTLE))
    await journal.open()
    rows = {row.pack_id[-1]: row for row in await journal.rows()}
    assert {pack: (row.state, row.outcome_unknown, row.wait > 0) for pack, row in rows.items()} == {
        "1": ("open", False, False),
        "2": ("open", True, False),  # its holder has been dead for long
        "4": ("parked", False, True),
        "5": ("open", True, True),
    }
    assert (rows["1"].count, rows["1"].resource) == (2, "/packs/2000000000000001/sellers/700100200")
    third, fourth = "2000000000000003", "2000000000000004"
    assert await journal.undelivered() == [third, fourth]
    assert await journal.entries(third) == ([entry("a"), entry("b", unread=False)], b'{"status":"active"}')
    assert await journal.failed_deliveries() == [FailedDelivery(third, 2, 0.0, "KeyError")]
    assert await journal.dead_letters() == {"c": (fourth, "ValueError")}
    assert [(check.message_id, check.tries, check.parked) for check in await journal.pending_checks()] == [
        ("notified", 1, False),
        ("never found", 7, True),
    ]
    assert not await journal.once(["acknowledged"], "reply")
    await journal.claim("2000000000000002")
    assert (await journal.read("2000000000000002", [entry("a"), entry("new")], None)).fresh == ["new"]
    await journal.acknowledge(third, ["a", "b"])
    await journal.close()

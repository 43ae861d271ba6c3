"""A conversation that was read and cannot be stored is parked, and the others go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages.errors import DecodeError
from mlmessages.journal.sqlite import SqliteStore
from mlmessages.testing import EXECUTE, Pack, Reply, Sandbox, on
from worlds import on_virtual_clock

FIRST = "2000000000000001"


@case("K16")
@pytest.mark.parametrize("depth", [250, 300, 900, 1010])
@on_virtual_clock
async def test_json_that_is_nested_deeply_stops_nothing(depth: int, inbox_of: Any, consumer: Any) -> None:
    """It is delivered, also by the next process, or its pack is parked; the others flow."""
    sandbox = Sandbox(packs=3)
    template = '{"paging":{"limit":50,"offset":0,"total":1},"messages":[{"id":"deep","text":"x","odd":%s}]}'
    body = template % ("[" * depth + "1" + "]" * depth)
    sandbox.add(on("mark", pack=FIRST).do(EXECUTE, Reply(200, body)))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox, ack=False)
        parked = [failure.pack_id for failure in inbox.report.parked]
    assert ("deep" in consumer.ids) != (FIRST in parked)
    assert len(set(consumer.ids) - {"deep"}) >= 2
    async with inbox_of(sandbox) as inbox:
        again = [delivery.pack_id async for delivery in inbox.drain()]
    assert len(again) == len(consumer.deliveries)


@case("K16")
@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates"), TypeError("CANARY")], ids=["data", "bug"]
)
@on_virtual_clock
async def test_what_the_journal_refuses_parks_its_pack_alone(
    error: Exception, inbox_of: Any, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the store raises for one conversation: it is parked as `DecodeError`, owed, and read again later."""
    read = SqliteStore.read

    def refuse(self: SqliteStore, seat: Any, pack_id: str, *args: Any, **options: Any) -> Any:
        if pack_id == FIRST:
            raise error
        return read(self, seat, pack_id, *args, **options)

    sandbox = Sandbox(packs=3)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "read", refuse)
        async with inbox_of(sandbox, concurrency=1) as inbox:  # what is committed together shares the error of a bug
            await consumer.empty(inbox)
            [failure] = inbox.report.parked
    assert failure.pack_id == FIRST
    assert isinstance(failure.error, DecodeError)
    assert "CANARY" not in str(failure.error)
    assert len(consumer.ids) == 2
    async with inbox_of(sandbox) as inbox:
        [failure] = inbox.report.parked
        assert isinstance(failure.error, DecodeError)


@case("K16")
@pytest.mark.parametrize("damaged", [1, 2], ids=["one of two", "both"])
@on_virtual_clock
async def test_a_stored_message_that_cannot_be_read_back_holds_up_no_other(
    damaged: int, journal: Path, inbox_of: Any, consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its bytes are damaged on the disk: a warning names it, it stays in the journal, everything else is delivered."""
    sandbox = Sandbox([Pack(messages=2), Pack()])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox, ack=False)
    first = [message.id for message in consumer.deliveries[0].messages]
    if len(first) == 1:
        first = [message.id for message in consumer.deliveries[1].messages]
    with closing(sqlite3.connect(journal)) as db, db:
        for id_ in first[:damaged]:
            db.execute("UPDATE body SET raw = x'00' WHERE id = ?", (id_,))
    consumer.deliveries.clear()
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        await consumer.empty(inbox)
    assert set(consumer.ids) == set(sandbox.message_ids()) - set(first[:damaged])
    assert caplog.text.count("cannot be read, and stays in the journal") == damaged
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT count(*) FROM body").fetchone() == (damaged,)

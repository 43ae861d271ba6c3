"""The database's disk is full, at each place where something is written: an error in time, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from cases import case
from mlmessages import Delivery, Inbox
from mlmessages.errors import JournalError
from mlmessages.postgres.database import Database
from mlmessages.testing import Sandbox
from worlds import client_of, ids, lost

# What cannot be written: of which table, when, and for which rows.
PLACES = {
    "the seat": ("seller", "UPDATE", "NEW.worker IS NOT NULL"),
    "the listing": ("pack", "INSERT OR UPDATE", "NEW.state = 'open'"),
    "a claim": ("pack", "INSERT OR UPDATE", "NEW.state = 'issued'"),
    "the ids of a read": ("message", "INSERT", "true"),
    "its bodies": ("body", "INSERT", "true"),
    "that it is done": ("pack", "UPDATE", "NEW.state = 'done'"),
    "an acknowledgement": ("body", "DELETE", "true"),
}
BEFORE_THE_REQUEST = ("the seat", "the listing", "a claim")


@contextmanager
def full(url: str, place: str) -> Iterator[None]:
    """The server answers as one does whose disk has no room left for this."""
    table, event, rows = PLACES[place]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION mlmessages.no_room() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
            " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END$$"
        )
        admin.execute(
            f"CREATE TRIGGER no_room BEFORE {event} ON mlmessages.{table} FOR EACH ROW WHEN ({rows})"  # type: ignore[call-overload]
            " EXECUTE FUNCTION mlmessages.no_room()"
        )
        yield
        admin.execute("DROP FUNCTION mlmessages.no_room CASCADE")


@case("Q2")
@pytest.mark.parametrize("place", PLACES)
async def test_a_disk_that_is_full_is_told_and_loses_nothing(
    place: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`JournalError`; no request leaves whose claim is not written; when there is room again, each message comes once,
    and twice only where its acknowledgement was not written.
    """
    monkeypatch.setattr("mlmessages.journal.seats.SECOND_LOOK", 0.3)
    sandbox, deliveries = Sandbox(3), list[Delivery]()
    async with Database(database_url, key=None) as database, client_of(sandbox) as client:

        async def drain() -> None:
            async with Inbox(client, database, settle_time=0.1) as inbox:
                async for delivery in inbox.drain():
                    deliveries.append(delivery)
                    await delivery.ack()

        with full(database_url, place), pytest.raises(JournalError, match="DiskFull: could not extend file"):
            await drain()
        assert (sandbox.count("mark") == 0) == (place in BEFORE_THE_REQUEST)
        assert len(deliveries) == (place == "an acknowledgement")
        await drain()
    assert not lost(sandbox, deliveries)
    assert not sandbox.unread_ids()
    twice = [
        delivery for n, delivery in enumerate(deliveries) if delivery.pack_id in {d.pack_id for d in deliveries[:n]}
    ]
    assert len(ids(deliveries)) == 3 + len(twice)
    assert [delivery.redelivered for delivery in twice] == [True] * (place == "an acknowledgement")
    with psycopg.connect(database_url) as admin:
        assert admin.execute("SELECT 1 FROM mlmessages.body").fetchall() == []
        assert admin.execute("SELECT 1 FROM mlmessages.pack WHERE state <> 'done'").fetchall() == []

"""Notifications as a doorbell and a checksum: what rings, what is looked up, and what strangers can cause at most."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages import Limits, Notification
from mlmessages.errors import JournalError
from mlmessages.testing import Entry, Reply, Sandbox, on
from worlds import on_virtual_clock

FIRST = "2000000000000001"
APP = 5503910054140000


async def later(seconds: float) -> None:
    await asyncio.sleep(seconds)


def of(sandbox: Sandbox, kind: str) -> list[Entry]:
    return [entry for entry in sandbox.log if entry.kind == kind]


# -- what rings --------------------------------------------------------------------------------------------------------


@case("K18")
@pytest.mark.parametrize(
    "fields",
    [
        {"resource": f"/packs/{FIRST}/sellers/700100200"},
        {"resource": f"/messages/packs/{FIRST}"},
        {"resource": "//evil.example/x"},
        {"resource": None},
        {"actions": [], "resource": None},
        {"actions": ["updated"], "resource": None},
        {"topic": "marketplace_messages", "resource": "/orders/1"},
    ],
    ids=str,
)
@on_virtual_clock
async def test_a_notification_that_names_no_message_rings(
    fields: dict[str, Any], inbox_of: Any, handler: Any, running: Any
) -> None:
    """Whatever its resource is: a listing shows at once what is new; nothing is looked up."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=86_400):
        await later(100)
        sandbox.send(FIRST)
        await inbox.notify(Notification.parse({"topic": "messages", "user_id": 700100200, **fields}))
        await later(1)
        assert handler.at(FIRST)[1:] == [100.0]
        await later(300)
    assert of(sandbox, "message") == []


@pytest.mark.parametrize("fields", [{"actions": ["read"]}, {"topic": "orders_v2", "resource": "/orders/1"}], ids=str)
@on_virtual_clock
async def test_a_receipt_and_another_topic_do_not_ring(
    fields: dict[str, Any], inbox_of: Any, handler: Any, running: Any
) -> None:
    """They say nothing about a message that came."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=86_400):
        await later(100)
        before = len(sandbox.log)
        await inbox.notify(Notification.parse({"topic": "messages", "resource": None, "user_id": 700100200, **fields}))
        await later(100)
    assert len(sandbox.log) == before


@case("P1")
@pytest.mark.parametrize("steps", range(1, 8))
@on_virtual_clock
async def test_a_notify_that_is_cancelled_in_the_middle_rings_all_the_same(
    steps: int, inbox_of: Any, handler: Any, running: Any, named: Any
) -> None:
    """A web server gives up the request while the row is written: what is on the disk has rung."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=86_400):
        await later(100)
        sent = sandbox.send(FIRST)
        notifying = asyncio.ensure_future(inbox.notify(named(sent)))
        for _ in range(steps):
            await asyncio.sleep(0)
        notifying.cancel()
        await later(1)
        assert handler.at(FIRST)[1:] == [100.0]


# -- what is looked up -------------------------------------------------------------------------------------------------


@case("K17")
@pytest.mark.parametrize(
    "resources", [None, [], [{"id": "CANARY", "name": "claims"}], "CANARY"], ids=["none", "empty", "others", "a text"]
)
@on_virtual_clock
async def test_a_message_in_hand_is_never_given_up(
    resources: Any, inbox_of: Any, handler: Any, running: Any, named: Any
) -> None:
    """Looked up by its id, it names no conversation: one GET, and it is delivered, with an empty `pack_id`."""
    sandbox = Sandbox(packs=0)
    body = {"id": "abc123", "text": "hello", "from": {"user_id": 5}, "message_resources": resources}
    sandbox.add(on("message").do(Reply(200, body)))
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler):
            await inbox.notify(named("abc123"))
            await later(1000)
        assert handler.taken == ["abc123"]
        [(_, delivery)] = handler.deliveries
        assert delivery.pack_id == ""
        assert [message.id for message in delivery.unread] == ["abc123"]
        assert inbox.report.requests == len(sandbox.log)
        async with running(inbox, handler):
            await later(1000)
    assert len(of(sandbox, "message")) == len(handler.deliveries) == 1


@case("P1")
@on_virtual_clock
async def test_missed_notifications_of_other_users_are_left_alone(inbox_of: Any, handler: Any, running: Any) -> None:
    """An application has many sellers: only this one's are taken, and those that name no user."""
    sandbox = Sandbox(packs=0)
    for user_id in (700100200, 700100201, None):
        entry = {"topic": "marketplace_messages", "resource": f"of{user_id}", "user_id": user_id, "application_id": APP}
        sandbox.missed(entry)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, app_id=APP):
        await later(100)
    assert {entry.path.split("/")[-1] for entry in of(sandbox, "message")} == {"of700100200", "ofNone"}


@case("P1")
@on_virtual_clock
async def test_pages_of_missed_notifications_may_be_shorter_than_asked(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """The next page begins behind what was given, not behind what was asked for."""
    sandbox = Sandbox(packs=0)
    rows = [
        {"topic": "marketplace_messages", "resource": f"m{n}", "user_id": 700100200, "_id": str(n)} for n in range(25)
    ]

    def page(offset: int) -> Reply:
        return Reply(200, {"messages": rows[offset : offset + 10]})

    for n, offset in enumerate((0, 10, 20, 25)):
        sandbox.add(on("missed", nth=n + 1).do(page(offset)))
    async with inbox_of(sandbox) as inbox, running(inbox, handler, app_id=APP):
        await later(200)
    assert [entry.query["offset"] for entry in of(sandbox, "missed")] == ["0", "10", "20", "25"]


# -- what strangers can cause ------------------------------------------------------------------------------------------


@case("N6")
@on_virtual_clock
async def test_missed_notifications_without_end_keep_to_their_share_of_the_budget(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """A feed that always has another page costs at most one fiftieth of the budget, and buyers' messages flow."""
    sandbox = Sandbox(packs=1)
    for n in range(5000):
        entry = {"topic": "marketplace_messages", "resource": f"m{n}", "user_id": 700100200, "application_id": APP}
        sandbox.missed({**entry, "_id": str(n)})
    limits = Limits(reads=500, per_second=None)
    async with inbox_of(sandbox, client={"limits": limits}) as inbox, running(inbox, handler, app_id=APP):
        await later(300)
        sent = sandbox.send(FIRST)
        await later(61)
        assert sent in handler.taken
    asked = [entry.at for entry in of(sandbox, "missed")]
    assert len(asked) > 20
    assert all(sum(at <= other < at + 60 for other in asked) <= 10 for at in asked)


@case("P1")
@on_virtual_clock
async def test_look_ups_use_their_share_of_the_budget_and_no_more(
    inbox_of: Any, handler: Any, running: Any, named: Any
) -> None:
    """Of 100 requests a minute, two: a small budget, where the share is no round number of requests at once."""
    sandbox = Sandbox(packs=0)
    limits = Limits(reads=100, per_second=None)
    async with inbox_of(sandbox, client={"limits": limits}) as inbox, running(inbox, handler):
        await asyncio.gather(*(inbox.notify(named(f"forged{n}")) for n in range(50)))
        await later(600)
    asked = [entry.at for entry in of(sandbox, "message")]
    assert 16 <= len(asked) <= 20
    assert all(sum(at <= other < at + 59.9 for other in asked) <= 2 for at in asked)


@case("P1")
@on_virtual_clock
async def test_repetitions_are_never_more_than_an_hour_apart(inbox_of: Any, handler: Any, running: Any) -> None:
    """Doubled from 5 s on, up to an hour."""
    sandbox = Sandbox(packs=1)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, attempts=16, interval=86_400):
        await later(60_000)
    gaps = [round(b - a) for a, b in pairwise(handler.at(FIRST))]
    assert gaps == [5 * 2**n for n in range(10)] + [3600] * 5


@case("P1")
@on_virtual_clock
async def test_a_repetition_that_another_run_owes_comes_within_an_hour(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """Whatever was written down about it: the next process hands it over when it is due."""
    sandbox = Sandbox(packs=1)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, attempts=16, interval=86_400):
        await later(8000)
    before = len(handler.deliveries)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, attempts=16, interval=86_400):
        await later(3601)
    assert len(handler.deliveries) > before


@case("K28")
@on_virtual_clock
async def test_a_notification_that_is_not_written_down_is_refused(
    inbox_of: Any, handler: Any, running: Any, named: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After 20,000 forged ones: `JournalError`, one warning, no row more; what a listing shows is delivered at once."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        await asyncio.gather(*(inbox.notify(named(f"forged{n}")) for n in range(20_000)))
        async with running(inbox, handler, interval=86_400):
            await later(10)
            for _ in range(3):
                sent = sandbox.send(FIRST)
                with pytest.raises(JournalError):
                    await inbox.notify(named(sent))
            await later(5)
            assert sent in handler.taken
    assert len([record for record in caplog.records if "are they forged" in record.getMessage()]) == 1
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as db:
        assert db.execute("SELECT count(*) FROM notification").fetchone() <= (20_000,)


@case("K28")
@on_virtual_clock
async def test_missed_notifications_beyond_the_bound_do_not_end_the_service(
    inbox_of: Any, handler: Any, running: Any, named: Any
) -> None:
    """They are left out; what is new is delivered."""
    sandbox = Sandbox(packs=1)
    sandbox.missed({"topic": "marketplace_messages", "resource": "m1", "user_id": 700100200, "application_id": APP})
    async with inbox_of(sandbox) as inbox:
        await asyncio.gather(*(inbox.notify(named(f"forged{n}")) for n in range(20_000)))
        async with running(inbox, handler, app_id=APP) as service:
            await later(10)
            assert len(handler.taken) == 1
            assert not service.task.done()


@case("K28")
@on_virtual_clock
async def test_parked_notifications_are_forgotten_while_the_service_runs(
    inbox_of: Any, handler: Any, running: Any, named: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A week after the last try, and not only at the next start."""
    start, loop = time.time(), asyncio.get_running_loop()
    monkeypatch.setattr(time, "time", lambda: start + loop.time())

    def rows() -> int:
        with closing(sqlite3.connect(tmp_path / "inbox.db")) as db:
            return db.execute("SELECT count(*) FROM notification").fetchone()[0]

    async with inbox_of(Sandbox(packs=0)) as inbox, running(inbox, handler, interval=86_400):
        await inbox.notify(named("forged"))
        await later(6 * 86_400)
        assert rows() == 1
        await later(2 * 86_400)
        assert rows() == 0

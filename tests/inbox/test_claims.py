"""Rule 1, intent first: when the claim of a pack is written down, and what is in doubt after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages import Inbox, Limits
from mlmessages.errors import LeaseLost
from mlmessages.journal.journal import SqlitePlace
from mlmessages.journal.sqlite import contents
from mlmessages.testing import EXECUTE, HANG, Garbage, Sandbox, Stale, on
from worlds import client_of, on_virtual_clock

FIRST = "2000000000000001"


def states(path: Path) -> list[str]:
    return [row.state for row in contents(path).rows]


@case("Q1")
@on_virtual_clock
async def test_what_waits_for_the_budget_is_not_claimed(journal: Path, inbox_of: Any) -> None:
    """Ten conversations at a time and a budget for two: a crash leaves at most what is in flight in doubt."""
    sandbox = Sandbox(packs=12, rules=[on("mark", nth=2).do(HANG)])
    async with inbox_of(sandbox, client={"limits": Limits(reads=3, period=1000)}, concurrency=10) as inbox:
        drain = inbox.drain()
        waiting = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(5)
        assert sandbox.count("mark") == 2
        assert states(journal).count("issued") == 1
        assert states(journal).count("open") == 10
        waiting.cancel()
        await asyncio.wait([waiting])
    async with inbox_of(sandbox) as inbox:
        assert inbox.report.waiting == 1


@case("Q1")
@on_virtual_clock
async def test_nothing_is_sent_when_the_seat_is_lost_after_the_claim(tmp_path: Path) -> None:
    """The place is asked last, directly before the bytes leave: the pack stays unread."""

    class Place(SqlitePlace):
        def check(self) -> None:
            raise LeaseLost("the lease is over")

    sandbox = Sandbox(packs=2)
    async with client_of(sandbox) as client:
        async with Inbox(client, Place(tmp_path / "inbox.db", str(sandbox.seller_id))) as inbox:
            with pytest.raises(LeaseLost):
                await anext(inbox.drain())
    assert sandbox.count("mark") == 0
    assert sandbox.unread == 2


@case("K5")
@on_virtual_clock
async def test_an_unreadable_marking_answer_is_read_once_more_later(inbox_of: Any, consumer: Any) -> None:
    """Its re-read came from a replica that is behind: what it lacked comes after `settle_time`, by one GET more."""
    sandbox = Sandbox(packs=1)
    sandbox.add(on("mark", nth=1).do(EXECUTE, Garbage()))
    sandbox.add(on("peek", nth=1).do(Stale(2)))
    async with inbox_of(sandbox) as inbox:
        await asyncio.sleep(10)
        sent = sandbox.send(FIRST)
        await asyncio.sleep(1)
        async with inbox.drain() as drain:
            first = await anext(drain)
            assert sent not in [message.id for message in first.messages]
            assert inbox.report.waiting == 1
            await first.ack()
            second = await anext(drain)
            await second.ack()
            assert [message.id for message in second.unread] == [sent]
            with pytest.raises(StopAsyncIteration):
                await anext(drain)
    assert [entry.kind for entry in sandbox.log if entry.pack_id == FIRST] == ["mark", "peek", "mark"]
    marks = [entry.at for entry in sandbox.log if entry.kind == "mark"]
    assert marks[1] - marks[0] >= 120


@case("K5")
@on_virtual_clock
async def test_the_second_read_survives_a_crash(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """The pack is not done in the journal: the next process reads it, after `settle_time`."""
    sandbox = Sandbox(packs=1)
    sandbox.add(on("mark", nth=1).do(EXECUTE, Garbage()))
    sandbox.add(on("peek", nth=1).do(Stale(2)))
    async with inbox_of(sandbox) as inbox:
        await asyncio.sleep(10)
        sandbox.send(FIRST)
        await asyncio.sleep(1)
        async with inbox.drain() as drain:
            consumer.deliveries.append(await anext(drain))
            await consumer.deliveries[0].ack()
    assert states(journal) == ["open"]
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("K5")
@on_virtual_clock
async def test_marking_answers_that_are_never_readable_park_the_pack_some_day(inbox_of: Any, consumer: Any) -> None:
    """What the re-reads show is delivered; the drain ends."""
    sandbox = Sandbox(packs=2)
    sandbox.add(on("mark", pack=FIRST).do(EXECUTE, Garbage()))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
        assert failure.pack_id == FIRST
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.count("mark") == 7

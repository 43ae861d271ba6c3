"""`Inbox.drain`: each sentence of its promise, its end, and its report."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.observed import until
from mlmessages import Inbox, Limits
from mlmessages.journal.sqlite import contents
from mlmessages.models import InboxReport
from mlmessages.testing import (
    DROP,
    EXECUTE,
    Behaviour,
    Message,
    Pack,
    RateWindow,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import client_of, on_virtual_clock

FIRST = "2000000000000001"


# -- the main job ------------------------------------------------------------------------------------------------------


@case("B1", "B2")
@pytest.mark.parametrize("packs", [0, 1, 999, 1000, 1001, 2500])
@on_virtual_clock
async def test_one_get_a_conversation_past_the_cap(packs: int, inbox_of: Any, consumer: Any) -> None:
    """N one-page packs cost exactly N GETs and at most ceil(N / cap) + 2 listings on the wire; nothing is left or lost."""
    sandbox = Sandbox(packs=packs)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        report = inbox.report
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert (sandbox.count("mark"), sandbox.count("peek")) == (packs, 0)
    assert sandbox.count("listing") <= -(-packs // 1000) + 2
    assert report == InboxReport(packs, packs, sandbox.count("listing"), len(sandbox.log))


@on_virtual_clock
async def test_a_delivery_is_what_was_not_delivered_before_oldest_first(inbox_of: Any, consumer: Any) -> None:
    """`messages`: of both sides, each once, also when the pack is unread again; `unread`: the buyer's; status, pack id."""
    sandbox = Sandbox([Pack(messages=7, unread=2)])
    async with inbox_of(sandbox, limit=3) as inbox:
        [first] = await consumer.empty(inbox)
        theirs = sandbox.send(FIRST)
        ours = sandbox.send(FIRST, "an answer", "seller")
        [second] = await consumer.empty(inbox)
    assert first.pack_id == FIRST
    assert [m.created for m in first.messages] == sorted(m.created for m in first.messages)
    assert len(first.messages) == 7
    assert not any(m.is_from(sandbox.seller_id) for m in first.unread)
    assert first.status is not None
    assert first.status.can_reply
    assert not first.redelivered
    assert [m.id for m in second.messages] == [theirs, ours]
    assert [m.id for m in second.unread] == [theirs]


@on_virtual_clock
async def test_the_whole_drain_keeps_within_the_documented_budget(inbox_of: Any, consumer: Any) -> None:
    """600 packs on the default limits: never a 429, on a server that counts 500 GETs a minute."""
    sandbox = Sandbox(packs=600, behaviour=Behaviour(rate=RateWindow(), latency=0.12))
    async with inbox_of(sandbox, client={"limits": Limits()}) as inbox:
        await consumer.empty(inbox)
    assert len(consumer.deliveries) == 600
    assert sandbox.throttled == 0


@case("B9")
@on_virtual_clock
async def test_every_listing_asks_for_the_sellers_side(inbox_of: Any, consumer: Any) -> None:
    """The wire log always has role=seller and tag=post_sale."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    for entry in sandbox.log:
        assert entry.query["tag"] == "post_sale"
        assert entry.kind != "listing" or entry.query["role"] == "seller"


def test_misuse_is_refused_before_anything_opens(journal: Path) -> None:
    """Wrong arguments: ValueError, and no file; a drain of an inbox that is not open: RuntimeError."""
    sandbox = Sandbox(packs=1)

    async def main() -> None:
        async with client_of(sandbox) as client:
            for wrong in (
                {"verify": "sometimes"},
                {"concurrency": 0},
                {"limit": True},
                {"settle_time": -1},
                {"settle_time": float("nan")},
                {"park_after": 0},
            ):
                with pytest.raises(ValueError):
                    Inbox(client, journal, **wrong)  # type: ignore[arg-type]
            with pytest.raises(ValueError):
                Inbox("token", journal)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="path must name a file"):
                Inbox(client, "")
            assert not journal.exists()
            with pytest.raises(RuntimeError):
                Inbox(client, journal).drain()
            async with Inbox(client, journal) as inbox:
                pass
            with pytest.raises(RuntimeError):
                inbox.drain()
        with pytest.raises(RuntimeError):
            async with Inbox(client, journal):
                pass

    asyncio.run(main())
    assert sandbox.log == []


@on_virtual_clock
async def test_no_repr_shows_a_buyers_words(inbox_of: Any, consumer: Any) -> None:
    """Neither a delivery nor a journal's report of itself quotes a message."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY")])])
    async with inbox_of(sandbox) as inbox:
        [delivery] = await consumer.empty(inbox, ack=False)
        assert delivery.messages[0].text == "CANARY"
        assert "CANARY" not in repr((delivery, inbox, inbox.report))


# -- rule 9: the end ---------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_9_b12_a_drain_ends_on_a_listing_after_its_last_read(inbox_of: Any, consumer: Any) -> None:
    """A message that comes right after the last mark, in a pack that was done, is delivered in the same drain."""
    sandbox = Sandbox(packs=3, rules=[on("mark", nth=3).do(EXECUTE, Send(pack=int(FIRST)))])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert sandbox.log[-1].kind == "listing"


@on_virtual_clock
async def test_an_empty_listing_right_after_a_429_is_asked_again(inbox_of: Any, consumer: Any) -> None:
    """A throttled server was seen to answer that there is nothing: one more listing confirms it."""
    sandbox = Sandbox(
        packs=2, rules=[on("listing", nth=1).do(Reply(429)), on("listing", nth=2).do(Reply(200, {"results": []}))]
    )
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(consumer.ids) == 2
    assert sandbox.unread == 0


# -- the report --------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_the_report_is_true_at_every_moment(inbox_of: Any, consumer: Any) -> None:
    """Requests as on the wire, deliveries as handed over, owed as the server still has unread, at each delivery."""
    sandbox = Sandbox(
        packs=30, behaviour=Behaviour(cap=10, total=True, latency=0.02), rules=[on("mark", every=9).do(Reply(404))]
    )
    async with inbox_of(sandbox, concurrency=4) as inbox:
        assert inbox.report == InboxReport()
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            report = inbox.report
            assert len(sandbox.log) <= report.requests <= len(sandbox.log) + 4
            assert report.listings == sandbox.count("listing")
            assert report.conversations == len(consumer.deliveries)
            assert report.messages == len(consumer.ids)
            assert report.owed <= 10
            await delivery.ack()
        report = inbox.report
    assert report == InboxReport(30, 30, sandbox.count("listing"), len(sandbox.log))


@on_virtual_clock
async def test_the_report_counts_what_was_sent(inbox_of: Any, consumer: Any) -> None:
    """A listing that was repeated after a 503 and a 429 counts three times, as on the wire."""
    rules = [on("listing", nth=1).do(Reply(503)), on("listing", nth=2).do(Reply(429))]
    sandbox = Sandbox(packs=1, rules=rules)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert inbox.report.listings == sandbox.count("listing") == 4
        assert inbox.report.requests == len(sandbox.log)


def test_the_report_may_be_asked_when_the_loop_is_over(journal: Path) -> None:
    """A script prints it after `asyncio.run`, also while something waits."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(DROP)])

    async def main() -> Inbox:
        async with client_of(sandbox) as client, Inbox(client, journal) as inbox:
            drain = inbox.drain()
            waiting = asyncio.ensure_future(anext(drain))
            await until(lambda: inbox.report.waiting)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await drain.aclose()
        return inbox

    report = asyncio.run(main()).report
    assert report.waiting == 1
    assert report.waits_until is not None


def test_the_files_of_a_journal_are_its_own(journal: Path, tmp_path: Path) -> None:
    """After a drain there is the journal and its lock file, nothing else; a copy of the one file is the whole journal."""
    sandbox = Sandbox(packs=3)

    async def main() -> None:
        async with client_of(sandbox) as client, Inbox(client, journal) as inbox:
            async for delivery in inbox.drain():
                await delivery.ack()

    asyncio.run(main())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inbox.db", "inbox.db.lock"]
    copied = tmp_path / "copy.db"
    shutil.copy(journal, copied)
    assert contents(copied).done == 3


# -- the budget of the process before ----------------------------------------------------------------------------------


@case("N8")
@on_virtual_clock
async def test_a_new_process_knows_what_the_last_one_has_spent(journal: Path, inbox_of: Any) -> None:
    """Opened again within the minute, by a program that knows nothing else of the last one: no 429; and in good time.

    The wall clock, by which the journal counts, is half a second ahead by then.
    """
    sandbox = Sandbox(packs=30, behaviour=Behaviour(rate=RateWindow(reads=20, period=60.0, kind="sliding")))
    began = asyncio.get_running_loop().time()
    taken = 0
    for _ in range(3):
        async with inbox_of(sandbox, client={"limits": Limits(reads=20)}) as inbox, inbox.drain() as drain:
            async for delivery in drain:
                await delivery.ack()
                taken += 1
                if taken % 12 == 0:
                    break
        with contextlib.closing(sqlite3.connect(journal)) as db, db:
            db.execute("UPDATE spent SET until = until - 0.5")
    assert taken == 30
    assert sandbox.unread == 0
    assert [request for request in sandbox.log if request.status == 429] == []
    assert asyncio.get_running_loop().time() - began < 150  # 34 requests and what was read ahead, 20 a minute


@case("N8")
@on_virtual_clock
async def test_what_was_spent_counts_once(inbox_of: Any, consumer: Any) -> None:
    """Inboxes that share a budget, opened one after the other, or again, do not pay twice for what it has spent."""
    sandbox = Sandbox(packs=15)
    limits = Limits(reads=20)
    for _ in range(3):
        async with inbox_of(sandbox, client={"limits": limits}) as inbox:
            await consumer.empty(inbox)
        assert limits.used == len(sandbox.log)


@case("N8")
@on_virtual_clock
async def test_what_was_spent_comes_back(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """A period later, an hour later, and where the wall clock was set back by a year, the budget is whole again."""
    sandbox = Sandbox(packs=15)
    limits = Limits(reads=20)
    async with inbox_of(sandbox, client={"limits": limits}) as inbox:
        await consumer.empty(inbox)
    for moment, used in (("until + 365 * 86400", len(sandbox.log)), ("until - 63", 0)):
        with contextlib.closing(sqlite3.connect(journal)) as db, db:
            db.execute(f"UPDATE spent SET until = {moment}")
        limits = Limits(reads=20)
        async with inbox_of(sandbox, client={"limits": limits}):
            assert limits.used == used
            await asyncio.sleep(121)
            assert limits.used == 0


@case("N8")
@on_virtual_clock
async def test_what_was_written_is_of_the_budget_of_writes(journal: Path) -> None:
    """Replies of the last process count as replies: the next one waits with its own, and reads at once."""
    sandbox = Sandbox(packs=5, behaviour=Behaviour(rate=RateWindow(reads=20, writes=3, kind="sliding")))
    began = asyncio.get_running_loop().time()
    for most in (3, 1):
        async with client_of(sandbox, limits=Limits(reads=20, writes=3)) as client, Inbox(client, journal):
            await client.page(FIRST)
            assert asyncio.get_running_loop().time() - began < 10
            for _ in range(most):
                await client.send(FIRST, "a reply")
    assert 60 < asyncio.get_running_loop().time() - began < 70
    assert [request for request in sandbox.log if request.status == 429] == []


@case("N8")
@on_virtual_clock
async def test_an_inbox_closes_well_where_the_budget_cannot_be_kept(
    journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """What was acknowledged is safe by then: leaving raises nothing, and the journal opens again."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        with contextlib.closing(sqlite3.connect(journal)) as db, db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON spent BEGIN SELECT RAISE(ABORT, 'no room'); END")
    async with inbox_of(sandbox) as inbox:
        assert await consumer.empty(inbox) == []
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())

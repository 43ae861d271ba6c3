"""`Inbox`: each sentence of its promise and each rule of the design, against the sandbox on a virtual clock.

A1 … D13 are the cases of the list of failure modes.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from collections.abc import Callable
from contextlib import aclosing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages import Delivery, Inbox, Limits, MessagesClient, Retry, failpoints
from mlmessages.errors import (
    AnswerLost,
    DecodeError,
    DrainStalled,
    Forbidden,
    JournalError,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    StillListed,
    Unauthorized,
)
from mlmessages.journal.sqlite import contents
from mlmessages.models import InboxReport
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    MARK_ALL,
    RESET,
    SNAPSHOT,
    Behaviour,
    Delay,
    Entry,
    Garbage,
    HideIt,
    Hold,
    Message,
    Pack,
    RateWindow,
    Redirect,
    Reply,
    Sandbox,
    Send,
    Truncate,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock

FIRST = "2000000000000001"


def now() -> float:
    return asyncio.get_running_loop().time()


def gets(sandbox: Sandbox, pack_id: str | None = None) -> list[Entry]:
    return [e for e in sandbox.log if e.kind in ("mark", "peek") and pack_id in (None, e.pack_id)]


def states(path: Path) -> dict[str, str]:
    return {row.pack_id: row.state for row in contents(path).rows}


async def until(condition: Callable[[], object]) -> None:
    """Let the loop's time pass until something is so."""
    async with asyncio.timeout(10_000):
        while not condition():
            await asyncio.sleep(0.01)


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
    """`messages`: whoever wrote them, each once, also when the pack is unread again; `unread`: the buyer's; status, pack id."""
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


# -- rule 1: intent first ----------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_1_the_claim_is_on_the_disk_before_the_request_leaves(
    journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """At the moment a marking GET arrives at the server, the journal's file says that this pack is claimed."""
    seen: list[dict[str, str]] = []

    def arriving() -> float:
        seen.append(states(journal))
        return 0.0

    sandbox = Sandbox(packs=12, behaviour=Behaviour(latency=arriving))
    async with inbox_of(sandbox, concurrency=3) as inbox:
        await consumer.empty(inbox)
    asked = [e.pack_id for e in sandbox.log]
    for entry, state in zip(sandbox.log, seen, strict=True):
        if entry.kind == "mark":
            assert state[entry.pack_id or ""] == "issued"
        assert sum(s == "issued" for s in state.values()) <= 3
    assert len(seen) == len(asked) == 14
    assert states(journal) == {}


@case("A13")
@pytest.mark.parametrize("full_at", range(1, 11))
@on_virtual_clock
async def test_a_full_disk_marks_nothing_that_is_not_written_down(
    full_at: int, disk: Any, inbox_of: Any, consumer: Any
) -> None:
    """The n-th commit fails: `JournalError`; every mark on the wire had its claim; with space again nothing is lost or left."""
    sandbox = Sandbox(packs=4)
    disk.full_at = full_at
    with pytest.raises(JournalError, match="No space left"):
        async with inbox_of(sandbox, concurrency=2) as inbox:
            await consumer.empty(inbox)
            raise AssertionError("it never met the full disk")
    marks = sandbox.count("mark")
    assert marks <= max(full_at - 3, 0) * 2  # recovery and the listing come before; then each commit claims two at most
    if full_at <= 3:
        assert marks == 0
    disk.full_at = float("inf")
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert not lost(sandbox, consumer.deliveries)
    assert sandbox.unread == 0
    assert set(consumer.ids) == sandbox.message_ids()


@pytest.mark.parametrize("full_at", range(2, 11))
@on_virtual_clock
async def test_a_disk_with_space_again_goes_on_in_the_same_process(
    full_at: int, disk: Any, inbox_of: Any, consumer: Any
) -> None:
    """A drain that ended in a `JournalError` loses nothing to the next drain of the same inbox, and each comes once."""
    sandbox = Sandbox(packs=4)
    async with inbox_of(sandbox, concurrency=2) as inbox:
        disk.full_at = disk.commits + full_at
        with pytest.raises(JournalError):
            async with inbox.drain() as drain:
                async for delivery in drain:
                    consumer.deliveries.append(delivery)
                    await delivery.ack()
        disk.full_at = float("inf")
        await consumer.empty(inbox)
        assert inbox.report.owed == 0
    assert set(consumer.ids) == sandbox.message_ids()
    assert len(consumer.ids) == 4
    assert sandbox.unread == 0


@on_virtual_clock
async def test_an_ack_that_fails_says_so_and_may_be_repeated(disk: Any, inbox_of: Any, journal: Path) -> None:
    """`ack` on a full disk is a `JournalError`; again with space it is durable; twice is once."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        async with inbox.drain() as drain:
            delivery = await anext(drain)
        disk.full_at = 0
        with pytest.raises(JournalError):
            await delivery.ack()
        assert sum(contents(journal).undelivered.values()) == 1
        disk.full_at = float("inf")
        await delivery.ack()
        await delivery.ack()
        assert contents(journal).undelivered == {}


# -- rule 2: only the first page marks; the table ----------------------------------------------------------------------


@on_virtual_clock
async def test_rule_2_only_the_first_page_marks(inbox_of: Any, consumer: Any) -> None:
    """120 messages in pages of 50: one marking GET, the others carry mark_as_read=false and overlap by one."""
    sandbox = Sandbox([Pack(messages=120)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert [(e.kind, e.query.get("offset", "0")) for e in gets(sandbox)] == [
        ("mark", "0"),
        ("peek", "49"),
        ("peek", "98"),
    ]
    assert len(set(consumer.ids)) == len(consumer.ids) == 120


@case("C1")
@on_virtual_clock
async def test_a_message_between_two_pages_stays_unread_and_comes(inbox_of: Any, consumer: Any) -> None:
    """It comes in the second look, which another listing asks for."""
    sandbox = Sandbox([Pack(messages=80)], rules=[on("peek", nth=1).do(Send(), EXECUTE)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@case("C2")
@pytest.mark.parametrize("order", ["newest", "oldest"])
@on_virtual_clock
async def test_either_order_of_the_server(order: Any, inbox_of: Any, consumer: Any) -> None:
    """Deliveries are oldest first whatever the server's order, each message once, with arrivals meanwhile."""
    sandbox = Sandbox(
        [Pack(messages=130)],
        behaviour=Behaviour(order=order),
        rules=[on("mark", nth=1).do(Send(), EXECUTE), on("peek", nth=2).do(Send(), EXECUTE)],
    )
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    for delivery in consumer.deliveries:
        created = [m.created for m in delivery.messages]
        assert created == sorted(created)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@case("C3", "C4")
@pytest.mark.parametrize("arrival", [False, True], ids=["hidden", "hidden and arrived"])
@on_virtual_clock
async def test_rows_that_slip_to_the_left(arrival: bool, inbox_of: Any, consumer: Any) -> None:
    """Three messages hidden between two pages, and arrivals that hide it in `total`: no visible message is missed."""
    sandbox = Sandbox([Pack(messages=30)])
    order = sorted(sandbox.message_ids())[::-1]
    steps = [HideIt(order[i]) for i in (1, 2, 3)] + ([Send()] * 3 if arrival else [])
    sandbox.add(on("peek", nth=1).do(*steps, EXECUTE))
    async with inbox_of(sandbox, limit=10) as inbox:
        await consumer.empty(inbox)
    assert set(consumer.ids) == sandbox.message_ids()


@case("C5")
@on_virtual_clock
async def test_a_late_visible_message_behind_known_ones_is_found(inbox_of: Any, consumer: Any) -> None:
    """Hidden at first, revealed deep in a long pack, which is unread because of it: it is delivered."""
    sandbox = Sandbox([Pack(messages=120)])
    old = sorted(sandbox.message_ids())[3]
    sandbox.hide(old)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert old not in consumer.ids
        sandbox.reveal(old)
        sandbox.send(FIRST)
        await consumer.empty(inbox)
    assert old in consumer.ids
    assert sandbox.unread == 0


@case("C7")
@pytest.mark.parametrize("echo", ["given", "asked"])
@on_virtual_clock
async def test_a_server_that_returns_shorter_pages_than_asked(echo: Any, inbox_of: Any, consumer: Any) -> None:
    """50 asked, 10 given, whatever `paging.limit` says: all 95 are delivered."""
    sandbox = Sandbox([Pack(messages=95)], behaviour=Behaviour(max_limit=10, echo_limit=echo))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(set(consumer.ids)) == 95


@case("C8")
@pytest.mark.parametrize("lie", [-50, 50, 10**6], ids=str)
@on_virtual_clock
async def test_a_total_that_lies_is_survived(lie: int, inbox_of: Any, consumer: Any) -> None:
    """All is delivered and marked, with a bounded number of GETs."""
    sandbox = Sandbox([Pack(messages=95)], behaviour=Behaviour(total_lies=lie))
    async with inbox_of(sandbox, limit=10) as inbox:
        await consumer.empty(inbox)
    assert len(set(consumer.ids)) == 95
    assert len(gets(sandbox)) <= 95 / 9 + 4


@case("C9")
@pytest.mark.parametrize("shows_read", [False, True])
@on_virtual_clock
async def test_a_server_that_marks_only_what_it_returns(shows_read: bool, inbox_of: Any, consumer: Any) -> None:
    """Learnt from `read` null beyond the first page, then page by page, closed by one unmarked read: nothing left or lost."""
    sandbox = Sandbox([Pack(messages=130), Pack(messages=1)], behaviour=Behaviour(marks="page", shows_read=shows_read))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert sandbox.unread == 0
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    kinds = [(e.kind, e.query.get("offset", "0")) for e in gets(sandbox, FIRST)]
    assert kinds[-3:] == [("mark", "49"), ("mark", "98"), ("peek", "0")]


@case("C9")
@on_virtual_clock
async def test_what_comes_while_a_pack_is_marked_page_by_page(inbox_of: Any, consumer: Any) -> None:
    """An arrival before each marking page: the closing read, or another look, delivers it."""
    sandbox = Sandbox(
        [Pack(messages=130)], behaviour=Behaviour(marks="page"), rules=[on("mark", nth=range(3, 6)).do(Send(), EXECUTE)]
    )
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert sandbox.unread == 0
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("C9")
@pytest.mark.parametrize("order", ["newest", "oldest"])
@on_virtual_clock
async def test_what_comes_later_to_a_pack_that_was_marked_page_by_page(
    order: Any, inbox_of: Any, consumer: Any
) -> None:
    """It is found on whatever page it stands, again and again, in the same process; nothing is parked or left."""
    sandbox = Sandbox([Pack(messages=130)], behaviour=Behaviour(marks="page", order=order))
    async with inbox_of(sandbox) as inbox:
        for _ in range(4):
            await consumer.empty(inbox)
            assert inbox.report.parked == ()
            assert sandbox.unread == 0
            for _ in range(60):
                sandbox.send(FIRST)
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@case("C9")
@on_virtual_clock
async def test_a_server_that_never_says_read_ends_too(inbox_of: Any, consumer: Any) -> None:
    """Unread for ever beyond the first page, whatever was marked: a bounded number of GETs, then `StillListed`."""
    page = {
        offset: {
            "messages": [{"id": f"m{i}", "from": {"user_id": 1}} for i in range(offset, min(offset + 50, 120))],
            "paging": {"limit": 50, "offset": offset, "total": 120},
        }
        for offset in (0, 49, 98)
    }
    sandbox = Sandbox([Pack()])
    for offset, body in page.items():
        sandbox.add(on("pack", path=f"offset={offset}").do(Reply(200, body)))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
    assert isinstance(failure.error, StillListed)
    assert len(consumer.ids) == 120
    assert len(gets(sandbox)) <= 18


@case("C9")
@on_virtual_clock
async def test_a_lost_answer_among_the_pages(inbox_of: Any, consumer: Any) -> None:
    """The second page's mark is executed and its answer lost: it waits, looks again, and nothing is lost."""
    sandbox = Sandbox(
        [Pack(messages=130)], behaviour=Behaviour(marks="page"), rules=[on("mark", nth=4).do(Send(), EXECUTE, DROP)]
    )
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert not lost(sandbox, consumer.deliveries)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@case("C10")
@on_virtual_clock
async def test_a_conversation_of_5_000_messages(inbox_of: Any, consumer: Any) -> None:
    """One delivery, one commit of all its ids, one marking GET."""
    sandbox = Sandbox([Pack(messages=5000)])
    async with inbox_of(sandbox) as inbox:
        [delivery] = await consumer.empty(inbox)
    assert len(delivery.messages) == 5000
    assert sandbox.count("mark") == 1


# -- rule 3: done with its ids -----------------------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_3_c6_a_crash_between_two_pages_reads_the_whole_pack_again(
    tmp_path: Path, journal: Path, life_of: Any, consumer: Any
) -> None:
    """Ids are stored together with "done": after a crash at page two nothing counts as known, all 80 are delivered once."""
    sandbox = Sandbox([Pack(messages=80)], rules=[on("peek", nth=1).do(Hold("page two"), EXECUTE)])
    life = life_of(sandbox, journal)
    inbox = await life.begin()
    reading = asyncio.ensure_future(consumer.empty(inbox))
    await until(lambda: sandbox.held("page two"))
    await life.crash(tmp_path / "b.db")
    await asyncio.gather(reading, return_exceptions=True)
    sandbox.release("page two")
    assert states(tmp_path / "b.db") == {FIRST: "issued"}
    again = life_of(sandbox, tmp_path / "b.db")
    await consumer.empty(await again.begin())
    await again.end()
    assert len(consumer.ids) == len(set(consumer.ids)) == 80


# -- rule 4: new is what is not in the ledger --------------------------------------------------------------------------


@pytest.mark.parametrize("shows_read", [False, True])
@on_virtual_clock
async def test_rule_4_a10_what_a_lost_answer_marked_is_delivered_although_it_shows_read(
    shows_read: bool, inbox_of: Any, consumer: Any
) -> None:
    """After a lost answer all look read, and another message comes later: every id is delivered, every one is in `unread`."""
    sandbox = Sandbox(
        [Pack(messages=5)], behaviour=Behaviour(shows_read=shows_read), rules=[on("mark", nth=1).do(EXECUTE, DROP)]
    )
    async with inbox_of(sandbox) as inbox:
        reading = asyncio.ensure_future(consumer.empty(inbox))
        await asyncio.sleep(30)
        theirs = sandbox.marked_ids()
        sandbox.send(FIRST)
        await reading
    assert len(theirs) == 3
    assert set(consumer.ids) == sandbox.message_ids()
    assert len(consumer.ids) == 6
    assert set(consumer.unread_ids) == sandbox.marked_ids()


@case("A20")
@on_virtual_clock
async def test_the_same_id_with_another_text_is_no_news(inbox_of: Any, consumer: Any) -> None:
    """A message that was edited or moderated since comes once."""
    sandbox = Sandbox([Pack(messages=1)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [known] = consumer.ids
        body = {
            "messages": [
                {"id": known, "from": {"user_id": 1}, "text": "edited", "message_moderation": {"status": "rejected"}},
                {"id": "new", "from": {"user_id": 1}, "text": "new"},
            ],
            "paging": {"limit": 50, "offset": 0, "total": 2},
        }
        sandbox.send(FIRST)
        sandbox.add(on("mark", times=1).do(EXECUTE, Reply(200, body)))
        await consumer.empty(inbox)
    assert consumer.ids[:2] == [known, "new"]
    assert consumer.ids.count(known) == 1


@case("A19")
@pytest.mark.parametrize(
    "odd",
    [
        {"text": None},
        {"text": 5},
        {"from": None},
        {"from": {"user_id": "700100200x"}},
        {"message_date": {"created": "yesterday", "read": 7}},
        {"message_date": None},
        {"unheard_of": [1, {"a": 10**30}]},
        {"status": ["new"]},
        {"message_moderation": "no"},
        {"id": 12345},
    ],
    ids=str,
)
@on_virtual_clock
async def test_no_message_is_dropped_for_its_shape(
    odd: dict[str, Any], journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """It is delivered, stored as it came, and redelivered after a restart with the same raw JSON."""
    sandbox = Sandbox([Pack(messages=[Message(overrides=odd)])])
    async with inbox_of(sandbox) as inbox:
        [first] = await consumer.empty(inbox, ack=False)
    async with inbox_of(sandbox) as inbox:
        [again] = await consumer.empty(inbox)
    assert len(first.messages) == len(again.messages) == 1
    assert again.messages[0].raw == first.messages[0].raw
    assert again.messages[0].problems == first.messages[0].problems
    assert again.redelivered


# -- rule 5: unknown outcomes wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        (EXECUTE, DROP),
        (EXECUTE, RESET),
        (DROP,),
        (EXECUTE, Reply(500)),
        (EXECUTE, Reply(502)),
        (Reply(503),),
        (EXECUTE, Reply(504)),
        (EXECUTE, HANG),
    ],
    ids=["dropped", "reset", "never executed", "500", "502", "503", "504", "timed out"],
)
@on_virtual_clock
async def test_rule_5_a5_a9_an_unknown_outcome_waits_and_is_read_again(
    steps: tuple[Any, ...], inbox_of: Any, consumer: Any
) -> None:
    """Exactly one more GET of that pack, `settle_time` or more later; the others do not wait; the report says who does."""
    sandbox = Sandbox(packs=5, rules=[on("mark", nth=1).do(*steps)])
    late: list[float] = []
    async with inbox_of(sandbox, settle_time=100, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            async for delivery in drain:
                consumer.deliveries.append(delivery)
                late.append(now())
                await delivery.ack()
                if len(late) == 4:
                    assert inbox.report.owed == 1
                    assert inbox.report.waiting == (steps[-1] is not HANG)  # that one is not known to be lost yet
                    assert (inbox.report.waits_until is not None) == (steps[-1] is not HANG)
        assert (inbox.report.waiting, inbox.report.owed, inbox.report.waits_until) == (0, 0, None)
        assert inbox.report.parked == ()
    first, again = [e.at for e in sandbox.log if e.pack_id == sandbox.log[1].pack_id]
    assert 100 <= again - first <= 135
    assert late[3] < 40
    assert len(gets(sandbox)) == 6
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@case("A6")
@on_virtual_clock
async def test_a_zombie_cannot_mark_what_nobody_read(inbox_of: Any, consumer: Any) -> None:
    """A mark that timed out executes 100 s later, over a message that came meanwhile: it is delivered all the same."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Hold("z"), EXECUTE, DROP)])

    async def zombie() -> None:
        await asyncio.sleep(60)
        sandbox.send(FIRST)
        await asyncio.sleep(70)
        sandbox.release("z")

    async with inbox_of(sandbox, client={"timeout": 30}) as inbox:
        walking = asyncio.ensure_future(zombie())
        await consumer.empty(inbox)
        await walking
    assert set(consumer.ids) == sandbox.message_ids()
    assert set(consumer.unread_ids) == sandbox.message_ids()
    assert not lost(sandbox, consumer.deliveries)


@case("A7")
@on_virtual_clock
async def test_one_request_one_execution_over_a_real_socket(tmp_path: Path) -> None:
    """aiohttp would send a dropped GET again by itself: the server sees one mark before the wait."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with client_of(sandbox) as client, Inbox(client, tmp_path / "j.db", concurrency=1) as inbox:
        async with inbox.drain() as drain:
            await anext(drain)
            assert inbox.report.waiting == 1
            assert sandbox.count("mark") == 2


@case("A8")
@pytest.mark.parametrize(
    "ending", [Garbage(), Truncate(40), Reply(200, {"nothing": 1})], ids=["garbage", "cut", "other"]
)
@on_virtual_clock
async def test_an_answer_that_cannot_be_read_is_read_again_at_once(ending: Any, inbox_of: Any, consumer: Any) -> None:
    """2xx means executed: the page is read again with mark_as_read=false, without a wait; and once more, later."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Send(), EXECUTE, ending)])
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            consumer.deliveries.append(delivery)
            assert [e.kind for e in gets(sandbox)] == ["mark", "peek"]
            assert now() < 1
    assert [e.kind for e in gets(sandbox)] == ["mark", "peek", "mark"]
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.message_ids()


@on_virtual_clock
async def test_an_answer_that_stays_unreadable_is_parked_and_owed(
    tmp_path: Path, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """Garbage for ever parks the pack with a `DecodeError`; the others come; a restart still knows it, and later it comes."""
    rule = on("pack", pack=FIRST).do(EXECUTE, Garbage())
    sandbox = Sandbox(packs=3, rules=[rule])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
    assert (failure.pack_id, type(failure.error)) == (FIRST, DecodeError)
    assert len(consumer.ids) == 2
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
        assert isinstance(failure.error, DecodeError)
        sandbox.remove(rule)
        await asyncio.sleep(3700)
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.message_ids()


@on_virtual_clock
async def test_a_mark_that_never_gets_an_answer_is_parked_some_day(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """After six marks of unknown outcome the pack is parked, in the journal too; the drain ends."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST).do(DROP)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
        assert isinstance(failure.error, AnswerLost)
        assert (inbox.report.owed, inbox.report.waiting) == (0, 0)
    assert len(gets(sandbox, FIRST)) == 6
    assert states(journal) == {FIRST: "parked"}


# -- rule 6: a dead claim is unknown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("executed", [False, True])
@on_virtual_clock
async def test_rule_6_a1_a_claim_of_a_dead_process_waits_from_the_restart(
    executed: bool, tmp_path: Path, journal: Path, life_of: Any, consumer: Any
) -> None:
    """Killed with a request under way: the next process reads that pack `settle_time` after its own start, once."""
    steps = [EXECUTE, Hold("z")] if executed else [Hold("z"), EXECUTE]
    sandbox = Sandbox(packs=3, rules=[on("mark", pack=FIRST, nth=1).do(*steps, DROP)])
    life = life_of(sandbox, journal, concurrency=4, settle_time=100)
    reading = asyncio.ensure_future(consumer.empty(await life.begin()))
    await until(lambda: sandbox.held("z") and len(consumer.ids) == 2)
    await life.crash(tmp_path / "b.db")
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.sleep(500)
    late = sandbox.send(FIRST)
    restarted = now()
    again = life_of(sandbox, tmp_path / "b.db", settle_time=100)
    inbox = await again.begin()
    assert (inbox.report.owed, inbox.report.waiting) == (1, 1)
    release = asyncio.ensure_future(asyncio.sleep(50))
    release.add_done_callback(lambda _: sandbox.release("z"))
    await consumer.empty(inbox)
    await again.end()
    entries = gets(sandbox, FIRST)
    assert len(entries) == 2
    assert 99 < entries[1].at - restarted < 101  # the journal's clock is the calendar's
    assert late in consumer.ids
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.message_ids()
    assert sandbox.unread == 0


@case("A2")
@on_virtual_clock
async def test_a_crash_after_the_answer_and_before_the_commit(
    tmp_path: Path, journal: Path, life_of: Any, consumer: Any, copy_files: Any, monkeypatch: Any
) -> None:
    """What the answer showed is not on the disk: the claim is, the pack is read once more, nothing is lost."""
    sandbox = Sandbox(packs=1)
    copied = tmp_path / "b.db"

    def crash(name: str) -> None:
        if name == "read":
            copy_files(journal, copied)

    monkeypatch.setattr(failpoints, "hook", crash)
    life = life_of(sandbox, journal)
    inbox = await life.begin()
    async with inbox.drain() as drain:
        await anext(drain)  # whoever holds this is dead
    await life.end()
    monkeypatch.setattr(failpoints, "hook", None)
    again = life_of(sandbox, copied)
    await consumer.empty(await again.begin())
    await again.end()
    assert len(gets(sandbox)) == 2
    assert consumer.ids == consumer.unread_ids == list(sandbox.message_ids())


@case("A3")
@on_virtual_clock
async def test_a_crash_after_the_commit_and_before_the_handler_costs_no_get(
    tmp_path: Path, journal: Path, life_of: Any, consumer: Any, copy_files: Any, monkeypatch: Any
) -> None:
    """The handler gets it from the store, first of all, without a GET of the pack."""
    sandbox = Sandbox(packs=1)
    copied = tmp_path / "b.db"
    monkeypatch.setattr(failpoints, "hook", lambda name: name == "stored" and copy_files(journal, copied))
    life = life_of(sandbox, journal)
    inbox = await life.begin()
    async with inbox.drain() as drain:
        await anext(drain)
    await life.end()
    monkeypatch.setattr(failpoints, "hook", None)
    again = life_of(sandbox, copied)
    inbox = await again.begin()
    async with inbox.drain() as drain:
        listings = sandbox.count("listing")
        delivery = await anext(drain)
        assert sandbox.count("listing") == listings  # at once: it comes before anything is asked
        assert [m.id for m in delivery.messages] == [m.id for m in delivery.unread] == list(sandbox.message_ids())
        assert delivery.redelivered
        assert delivery.status is not None
        await delivery.ack()
        assert [d async for d in drain] == []
    await again.end()
    assert len(gets(sandbox)) == 1


# -- rule 7: delivered is what was acknowledged ------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_7_a4_what_was_not_acknowledged_comes_first_after_a_restart(inbox_of: Any, consumer: Any) -> None:
    """The same ids, `redelivered`, from the store; what was acknowledged does not come again; new packs come after."""
    sandbox = Sandbox(packs=6)
    async with inbox_of(sandbox) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            if len(consumer.deliveries) % 2:
                await delivery.ack()
    owed = ids(d for i, d in enumerate(consumer.deliveries) if i % 2)
    arrival = sandbox.send(FIRST)
    marks = sandbox.count("mark")
    async with inbox_of(sandbox) as inbox:
        again = await consumer.empty(inbox)
    assert sorted(ids(again[:3])) == sorted(owed)
    assert ids(again[3:]) == [arrival]
    assert [d.redelivered for d in again] == [True, True, True, False]
    assert sandbox.count("mark") == marks + 1
    async with inbox_of(sandbox) as inbox:
        assert await consumer.empty(inbox) == []


@on_virtual_clock
async def test_what_several_looks_stored_is_redelivered_in_one_piece_oldest_first(inbox_of: Any, consumer: Any) -> None:
    """An old message that became visible later stands before the newer one that was stored first."""
    sandbox = Sandbox([Pack(messages=[Message("old", hidden=True), Message("new")])])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox, ack=False)
        for id_ in sandbox.unread_ids():
            sandbox.reveal(id_)
        sandbox.send(FIRST, "newest")
        await consumer.empty(inbox, ack=False)
    async with inbox_of(sandbox) as inbox:
        [delivery] = await consumer.empty(inbox)
    assert [m.text for m in delivery.messages] == ["old", "new", "newest"]


@on_virtual_clock
async def test_a_delivery_that_is_not_acknowledged_holds_nobody_up_and_is_not_repeated(
    inbox_of: Any, consumer: Any
) -> None:
    """A consumer that never acknowledges gets every other delivery, and in the same process none of them twice."""
    sandbox = Sandbox(packs=20)
    async with inbox_of(sandbox, concurrency=2) as inbox:
        await consumer.empty(inbox, ack=False)
        arrival = sandbox.send(FIRST)
        await consumer.empty(inbox, ack=False)
    assert len(consumer.ids) == len(set(consumer.ids)) == 21
    assert consumer.ids[-1] == arrival


@on_virtual_clock
async def test_an_acknowledgement_may_come_after_the_drain_and_not_after_the_inbox(
    inbox_of: Any, consumer: Any
) -> None:
    """`ack` after the drain's end is durable; after the inbox was left it is a `JournalError`, and the message comes again."""
    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox) as inbox:
        first, second = await consumer.empty(inbox, ack=False)
        await first.ack()
    with pytest.raises(JournalError):
        await second.ack()
    async with inbox_of(sandbox) as inbox:
        [again] = await consumer.empty(inbox)
    assert ids([again]) == ids([second])


# -- rule 8: the end ---------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_8_b12_a_drain_ends_on_a_listing_after_its_last_read(inbox_of: Any, consumer: Any) -> None:
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


# -- refusals and parking ----------------------------------------------------------------------------------------------


@case("B3")
@pytest.mark.parametrize("status", [400, 403, 409, 410])
@on_virtual_clock
async def test_refused_packs_are_parked_at_once_and_the_rest_goes_on(
    status: int, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """300 refused packs cost one GET each, are reported with their error, and are not tried again by the next drains."""
    sandbox = Sandbox(packs=320)
    refused = sandbox.pack_ids()[:300]
    sandbox.refuse(refused, status)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert len(consumer.ids) == 20
        assert sorted(f.pack_id for f in inbox.report.parked) == refused
        assert status != 403 or all(isinstance(f.error, Forbidden) for f in inbox.report.parked)
        assert len(gets(sandbox)) == 320
        await consumer.empty(inbox)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert len(inbox.report.parked) == 300
    assert len(gets(sandbox)) == 320
    assert set(states(journal).values()) == {"parked"}


@on_virtual_clock
async def test_a_parked_pack_is_tried_again_when_its_time_is_over(inbox_of: Any, consumer: Any) -> None:
    """After an hour, then after two, by the next drain of the same process; cured, it is delivered and no longer reported."""
    sandbox = Sandbox(packs=1)
    rule = sandbox.refuse([FIRST])
    async with inbox_of(sandbox) as inbox:
        for hours, tries in [(0, 1), (0.9, 1), (0.2, 2), (1.8, 2), (0.3, 3)]:
            await asyncio.sleep(3600 * hours)
            await consumer.empty(inbox)
            assert len(gets(sandbox)) == tries
            assert len(inbox.report.parked) == 1
        sandbox.remove(rule)
        await asyncio.sleep(24 * 3600)
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert set(consumer.ids) == sandbox.message_ids()


@case("B5")
@pytest.mark.parametrize(("refusals", "park_after", "expected"), [(2, 3, 3), (3, 3, 3), (9, 1, 1), (9, 5, 5)])
@on_virtual_clock
async def test_a_404_is_tried_some_seconds_apart_before_it_is_parked(
    refusals: int, park_after: int, expected: int, inbox_of: Any, consumer: Any
) -> None:
    """At most `park_after` GETs in one drain; a pack that becomes readable meanwhile is delivered, and not parked."""
    sandbox = Sandbox(packs=3, rules=[on("mark", pack=FIRST, nth=range(1, refusals + 1)).do(Reply(404))])
    async with inbox_of(sandbox, park_after=park_after) as inbox:
        await consumer.empty(inbox)
        entries = gets(sandbox, FIRST)
        assert len(entries) == expected
        assert all(5 <= b.at - a.at < 6 for a, b in zip(entries, entries[1:], strict=False))
        cured = refusals < park_after
        assert len(consumer.ids) == (3 if cured else 2)
        assert [f.pack_id for f in inbox.report.parked] == ([] if cured else [FIRST])
        assert cured or isinstance(inbox.report.parked[0].error, NotFound)


@case("B4")
@on_virtual_clock
async def test_parked_packs_that_fill_the_listing_are_no_quiet_end(inbox_of: Any, consumer: Any) -> None:
    """`DrainStalled` names them and says what to do; freed, the next drain gets what was behind."""
    sandbox = Sandbox(packs=30, behaviour=Behaviour(cap=10, total=True))
    newest = sandbox.pack_ids()[-10:]
    sandbox.refuse(newest)
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(DrainStalled) as stalled:
            await consumer.empty(inbox)
        assert sorted(f.pack_id for f in stalled.value.set_aside) == newest
        assert "read them on the site" in (stalled.value.hint or "")
        for pack_id in newest:
            sandbox.read_elsewhere(pack_id)
        await consumer.empty(inbox)
    assert len(consumer.ids) == 20


@case("B6")
@on_virtual_clock
async def test_every_pack_refused_costs_one_get_a_pack_and_asks_about_the_seller(inbox_of: Any, consumer: Any) -> None:
    """A whole capped listing refused: `DrainStalled`, whose hint asks for the seller id and the permission."""
    sandbox = Sandbox(packs=1000)
    sandbox.refuse(sandbox.pack_ids())
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(DrainStalled, match="another seller's id, or is a permission missing"):
            await consumer.empty(inbox)
    assert len(gets(sandbox)) == 1000


@case("B6")
@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (500, ServerError), (401, Unauthorized)])
@on_virtual_clock
async def test_a_listing_that_is_refused_ends_the_drain_with_that_error(
    status: int, error: type[Exception], inbox_of: Any, consumer: Any
) -> None:
    """Nothing is marked; the next drain goes on."""
    rule = on("listing").do(Reply(status))
    sandbox = Sandbox(packs=2, rules=[rule])
    async with inbox_of(sandbox, client={"retry": Retry(attempts=2)}) as inbox:
        with pytest.raises(error):
            await consumer.empty(inbox)
        assert gets(sandbox) == []
        sandbox.remove(rule)
        await consumer.empty(inbox)
    assert len(consumer.ids) == 2


@case("B7")
@pytest.mark.parametrize("lag", [0.0, 4.0])
@on_virtual_clock
async def test_a_listing_that_lags_costs_one_get_a_pack_more_and_ends(lag: float, inbox_of: Any, consumer: Any) -> None:
    """A read pack that stays listed is looked at once more at most, and is not parked."""
    sandbox = Sandbox(packs=10, behaviour=Behaviour(lag=lag))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert len(gets(sandbox)) <= (20 if lag else 10)
    assert len(consumer.ids) == len(set(consumer.ids)) == 10


@case("B8")
@on_virtual_clock
async def test_a_listing_in_every_shape_owes_each_pack_once(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """Duplicates, another spelling, count 0, a huge and a negative one: one row and one GET a pack."""
    rows: list[dict[str, object]] = [
        {"resource": f"/packs/{FIRST}", "count": 1},
        {"resource": f"/packs/{FIRST}/sellers/9", "count": 10**18},
        {"resource": "/packs/2000000000000002", "count": 0},
        {"resource": "/packs/2000000000000003", "count": 2**63},
        {"resource": "/packs/2000000000000003", "count": -5},
        {"resource": "/packs/2000000000000004"},
    ]
    sandbox = Sandbox(packs=4, rules=[on("listing", nth=1).do(Reply(200, {"results": rows}))])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert sorted(e.pack_id or "" for e in gets(sandbox)) == sandbox.pack_ids()
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("B13")
@on_virtual_clock
async def test_what_a_human_read_meanwhile_is_delivered(inbox_of: Any, consumer: Any) -> None:
    """Listed, then read on the site before our GET: the row stays owed, and the message is delivered as unread."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox, concurrency=1) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            for pack_id in sandbox.pack_ids():
                sandbox.read_elsewhere(pack_id)
            await delivery.ack()
    assert sorted(consumer.ids) == sorted(consumer.unread_ids) == sorted(sandbox.message_ids())


@case("B14")
@on_virtual_clock
async def test_hidden_messages_are_parked_after_three_gets_and_reopen_when_the_count_changes(
    inbox_of: Any, consumer: Any
) -> None:
    """50 packs that stay listed: at most 3 GETs each, then `StillListed`; a new message in one opens that one again."""
    sandbox = Sandbox(Pack(messages=[Message(), Message(hidden=True)]) for _ in range(50))
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert len(inbox.report.parked) == 50
        assert all(isinstance(f.error, StillListed) for f in inbox.report.parked)
        assert len(gets(sandbox)) <= 150
        before = len(gets(sandbox))
        await consumer.empty(inbox)
        assert len(gets(sandbox)) == before
        arrival = sandbox.send(FIRST)
        [delivery] = await consumer.empty(inbox)
        assert ids([delivery]) == [arrival]
        assert {e.pack_id for e in gets(sandbox)[before:]} == {FIRST}
    assert len(consumer.ids) == 51


@case("B14")
@on_virtual_clock
async def test_a_restart_costs_no_get_where_no_count_has_changed(inbox_of: Any, consumer: Any) -> None:
    """Parked, opened by a new message, parked again with the higher count: the next processes leave it alone."""
    sandbox = Sandbox([Pack(messages=[Message(), Message(hidden=True)])])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        sandbox.hide(sandbox.send(FIRST))
        await consumer.empty(inbox)
        assert len(inbox.report.parked) == 1
    before = len(gets(sandbox))
    for _ in range(2):
        async with inbox_of(sandbox) as inbox:
            await consumer.empty(inbox)
            assert len(inbox.report.parked) == 1
    assert len(gets(sandbox)) == before


@case("B14")
@pytest.mark.parametrize("left_meanwhile", [False, True], ids=["count changed", "left the listing and came back"])
@on_virtual_clock
async def test_a_crash_does_not_forget_that_the_count_changed(
    left_meanwhile: bool, tmp_path: Path, journal: Path, life_of: Any, inbox_of: Any, consumer: Any
) -> None:
    """The new count is listed, the process dies before it looks: the next process looks, and delivers the message."""
    sandbox = Sandbox([Pack(messages=[Message(), Message(hidden=True)])])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert len(inbox.report.parked) == 1
        if left_meanwhile:
            sandbox.read_elsewhere(FIRST)
            [hidden] = sandbox.unread_ids()
            sandbox.reveal(hidden)
            sandbox.read_elsewhere(FIRST)
            await consumer.empty(inbox)
            assert sandbox.unread == 0
    arrival = sandbox.send(FIRST)
    rule = sandbox.add(on("mark").do(Hold("z"), EXECUTE, DROP)) if not left_meanwhile else None
    if rule is not None:
        # The listing is stored, the claim is not: the commit after the listing's fails.
        commits: list[str] = []

        def full(name: str) -> None:
            if name == "listed":
                commits.append(name)
            if name == "before commit" and commits:
                raise OSError("no space")

        failpoints.hook = full
        try:
            with pytest.raises(JournalError):
                async with inbox_of(sandbox) as inbox:
                    await consumer.empty(inbox)
        finally:
            failpoints.hook = None
        sandbox.remove(rule)
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert arrival in consumer.ids
    assert not lost(sandbox, consumer.deliveries)


@case("B15")
@pytest.mark.parametrize(
    "ending", [Reply(503), DROP, HANG, Reply(200, b"<html>")], ids=["503", "dropped", "hangs", "garbage"]
)
@on_virtual_clock
async def test_a_listing_that_fails_once_is_asked_again(ending: Any, inbox_of: Any, consumer: Any) -> None:
    """A listing only reads: it is retried at once, also where its answer cannot be read."""
    sandbox = Sandbox(packs=2, rules=[on("listing", nth=1).do(ending)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(consumer.ids) == 2


@on_virtual_clock
async def test_a_429_on_a_marking_get_waits_for_the_pause_alone(inbox_of: Any, consumer: Any) -> None:
    """It was not executed: the pack is read when the server's pause is over, not after `settle_time`."""
    sandbox = Sandbox(packs=3, rules=[on("mark", nth=range(1, 4)).do(Reply(429, headers={"Retry-After": "7"}))])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert 7 <= now() < 60
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_a_429_beyond_the_deadline_ends_the_drain_and_nothing_waits(inbox_of: Any, consumer: Any) -> None:
    """`RateLimited` with its seconds; the pack is still owed, and the next drain reads it."""
    rule = on("mark", pack=FIRST).do(Reply(429, headers={"Retry-After": "4000"}))
    sandbox = Sandbox(packs=1, rules=[rule])
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(RateLimited) as limited:
            await consumer.empty(inbox)
        assert limited.value.retry_after == 4000
        assert (inbox.report.owed, inbox.report.waiting) == (1, 0)
        sandbox.remove(rule)
        await consumer.empty(inbox)
    assert len(consumer.ids) == 1


@pytest.mark.parametrize("ending", [Redirect("http://127.0.0.1/evil"), Reply(404)], ids=["redirect", "404"])
@on_virtual_clock
async def test_a_refusal_beyond_the_first_page_waits_and_keeps_the_ids_together(
    ending: Any, inbox_of: Any, consumer: Any
) -> None:
    """The mark was executed, page two fails: nothing of it counts as known; the pack is read again, all of it delivered once."""
    sandbox = Sandbox([Pack(messages=80)], rules=[on("peek", nth=1).do(ending)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(consumer.ids) == len(set(consumer.ids)) == 80
    assert set(consumer.unread_ids) == sandbox.marked_ids()


# -- tokens and connections --------------------------------------------------------------------------------------------


class Rotating:
    """A source whose token is rejected until somebody brings a new one."""

    def __init__(self, token: str) -> None:
        self.current = token

    async def token(self) -> str:
        return self.current

    async def rejected(self, token: str) -> None:
        pass


@on_virtual_clock
async def test_a_rejected_token_ends_the_drain_and_a_new_one_goes_on(inbox_of: Any, consumer: Any) -> None:
    """401 is not executed: `Unauthorized`, nobody waits, everything is still owed."""
    sandbox = Sandbox(packs=6, behaviour=Behaviour(latency=0.01))
    source = Rotating(sandbox.token)
    async with inbox_of(sandbox, client={"auth": source}, concurrency=2) as inbox:
        with pytest.raises(Unauthorized):
            async with inbox.drain() as drain:
                async for delivery in drain:
                    consumer.deliveries.append(delivery)
                    await delivery.ack()
                    sandbox.rotate_token("APP_USR-new")
        assert inbox.report.waiting == 0
        source.current = "APP_USR-new"
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert now() < 60


@case("D3")
@pytest.mark.parametrize("nth", range(1, 12))
@on_virtual_clock
async def test_an_exception_of_the_token_source_ends_the_drain_and_loses_nothing(
    nth: int, inbox_of: Any, consumer: Any
) -> None:
    """An OSError at its n-th call is raised, once; the next drain of the same inbox gets all the rest."""
    sandbox = Sandbox(packs=5, behaviour=Behaviour(latency=0.01))

    class Failing(Rotating):
        calls = 0

        async def token(self) -> str:
            self.calls += 1
            if self.calls in (nth, nth + 1):
                raise OSError("the vault is locked")
            return self.current

    async with inbox_of(sandbox, client={"auth": Failing(sandbox.token)}, concurrency=2) as inbox:
        for _ in range(3):
            try:
                async with inbox.drain() as drain:
                    async for delivery in drain:
                        consumer.deliveries.append(delivery)
                        await delivery.ack()
            except OSError:
                continue
        assert inbox.report.owed == 0
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@on_virtual_clock
async def test_nothing_left_this_machine_ends_the_drain_without_a_wait(tmp_path: Path, consumer: Any) -> None:
    """`NotSent` when there is no connection: the claims are given back, not doubted."""
    async with MessagesClient(
        "APP_USR-1", seller_id=700100200, base_url="http://127.0.0.1:1", retry=Retry(attempts=1), timeout=0.5
    ) as client:
        async with Inbox(client, tmp_path / "j.db") as inbox:
            with pytest.raises(NotSent):
                await consumer.empty(inbox)
            assert (inbox.report.owed, inbox.report.waiting) == (0, 0)


# -- `.unread` alone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shows_read", [False, True])
@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(
    "steps",
    [
        (EXECUTE,),
        (EXECUTE, DROP),
        (Send(), EXECUTE),
        (EXECUTE, Send()),
        (Send(), EXECUTE, Reply(502)),
        (EXECUTE, Garbage()),
    ],
    ids=["plain", "lost", "arrival before", "arrival after", "arrival, 502", "garbage"],
)
@on_virtual_clock
async def test_a_consumer_that_looks_only_at_unread_loses_nothing(
    shows_read: bool, order: Any, steps: tuple[Any, ...], inbox_of: Any, consumer: Any
) -> None:
    """Whatever the server shows as `read`: all that we marked was in some `.unread`, once."""
    sandbox = Sandbox(
        [Pack(messages=3, unread=2), Pack(messages=70)],
        behaviour=Behaviour(shows_read=shows_read, order=order),
        rules=[on("mark", nth=range(1, 3)).do(*steps)],
    )
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert sandbox.marked_ids() <= set(consumer.unread_ids)
    assert len(consumer.unread_ids) == len(set(consumer.unread_ids))
    assert sandbox.unread == 0


@on_virtual_clock
async def test_what_was_provably_read_before_the_listing_is_no_news(inbox_of: Any, consumer: Any) -> None:
    """Five old messages that were read, and a new one: all are in `messages`, the new one alone in `unread`."""
    sandbox = Sandbox([Pack(messages=[*[Message(read=True)] * 5, Message()])])
    async with inbox_of(sandbox) as inbox:
        [delivery] = await consumer.empty(inbox)
    assert len(delivery.messages) == 6
    assert [m.id for m in delivery.unread] == [delivery.messages[-1].id]


@on_virtual_clock
async def test_what_a_human_read_after_the_listing_is_in_unread_too(inbox_of: Any, consumer: Any) -> None:
    """Listed, read on the site, written to again, then read by us: both messages are in `unread`."""
    sandbox = Sandbox(packs=1)
    start = 1772452800.0  # the sandbox's calendar begins there; the server's clock is the one of its Date header
    listing = {"results": [{"resource": f"/packs/{FIRST}", "count": 1}]}
    sandbox.add(on("listing", nth=1).do(Reply(200, listing, {"Date": formatdate(start + 10, usegmt=True)})))
    sandbox.add(on("mark", nth=1).do(Delay(0.001), Reply(429, headers={"Retry-After": "100"})))
    await asyncio.sleep(10)
    async with inbox_of(sandbox) as inbox:
        reading = asyncio.ensure_future(consumer.empty(inbox))
        await asyncio.sleep(30)
        sandbox.read_elsewhere(FIRST)
        await asyncio.sleep(10)
        sandbox.send(FIRST)
        await reading
    assert len(consumer.ids) == 2
    assert sorted(consumer.unread_ids) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_unread_says_the_same_when_it_is_redelivered(inbox_of: Any, consumer: Any) -> None:
    """What `unread` named is stored with the message: after a restart it names the same."""
    sandbox = Sandbox([Pack(messages=[*[Message(read=True)] * 3, Message(), Message(sender="seller")])])
    async with inbox_of(sandbox) as inbox:
        [first] = await consumer.empty(inbox, ack=False)
    async with inbox_of(sandbox) as inbox:
        [again] = await consumer.empty(inbox)
    assert [m.id for m in again.unread] == [m.id for m in first.unread]
    assert [m.id for m in again.messages] == [m.id for m in first.messages]
    assert (again.pack_id, again.status) == (first.pack_id, first.status)


@on_virtual_clock
async def test_a_drain_that_leaving_the_inbox_cut_off_has_not_come_to_its_end(tmp_path: Path, inbox_of: Any) -> None:
    """Whoever goes on with it, or waits for the next delivery meanwhile, is told; one that had ended stays ended."""
    sandbox = Sandbox(packs=3, behaviour=Behaviour(latency=1.0))
    async with inbox_of(sandbox) as inbox:
        drain = inbox.drain()
        await anext(drain)
    with pytest.raises(RuntimeError, match="the inbox is closed"):
        await anext(drain)
    other = Sandbox(packs=3, behaviour=Behaviour(latency=1.0))
    async with inbox_of(other, path=tmp_path / "other.db") as inbox:
        waiting = asyncio.ensure_future(anext(inbox.drain()))
        await asyncio.sleep(0.5)
    with pytest.raises(RuntimeError, match="is closed"):
        await waiting
    async with inbox_of(sandbox) as inbox:
        drain = inbox.drain()
        assert len([delivery async for delivery in drain]) == 3
    with pytest.raises(StopAsyncIteration):
        await anext(drain)


# -- verify ------------------------------------------------------------------------------------------------------------


@case("A12")
@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(
    ("messages", "arrivals", "limit"), [(1, 1, 50), (1, 60, 50), (70, 1, 50), (70, 60, 50), (1, 1, 1), (3, 2, 1)]
)
@on_virtual_clock
async def test_verify_always_sees_what_a_non_atomic_server_marked_unseen(
    messages: int, arrivals: int, limit: int, order: Any, inbox_of: Any, consumer: Any
) -> None:
    """Arrivals between the server's read and its mark are marked unseen: the second GET delivers them, all of them."""
    sandbox = Sandbox(
        [Pack(messages=messages)],
        behaviour=Behaviour(order=order),
        rules=[on("mark", nth=1).do(SNAPSHOT, *[Send()] * arrivals, MARK_ALL)],
    )
    async with inbox_of(sandbox, verify="always", limit=limit) as inbox:
        await consumer.empty(inbox)
    assert not lost(sandbox, consumer.deliveries)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.marked_ids()


@case("A12")
@on_virtual_clock
async def test_verify_never_misses_it_there_as_the_readme_says(tmp_path: Path, inbox_of: Any, consumer: Any) -> None:
    """No client can see it with one GET; what it costs to see it is one GET a conversation."""
    rule = on("mark", nth=1).do(SNAPSHOT, Send(), MARK_ALL)
    sandbox = Sandbox(packs=1, rules=[rule])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(lost(sandbox, consumer.deliveries)) == 1
    assert len(gets(sandbox)) == 1
    atomic = Sandbox(packs=4)
    async with inbox_of(atomic, path=tmp_path / "other.db", verify="always") as inbox:
        await consumer.empty(inbox)
    assert (atomic.count("mark"), atomic.count("peek")) == (4, 4)


# -- concurrency, cancellation, closing --------------------------------------------------------------------------------


@case("D11")
@pytest.mark.parametrize("concurrency", [1, 3])
@on_virtual_clock
async def test_a_slow_consumer_holds_back_the_claims(
    concurrency: int, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """10 s a delivery: never more than `concurrency` packs are claimed or read ahead, at any moment."""
    sandbox = Sandbox(packs=20, behaviour=Behaviour(latency=0.1))
    async with inbox_of(sandbox, concurrency=concurrency) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            for _ in range(10):
                await asyncio.sleep(1)
                assert sum(state == "issued" for state in states(journal).values()) <= concurrency
                assert sandbox.count("mark") <= len(consumer.deliveries) + concurrency
            await delivery.ack()
    assert len(consumer.ids) == 20


@case("D4")
@on_virtual_clock
async def test_break_and_the_next_drain_goes_on(inbox_of: Any, consumer: Any) -> None:
    """`break` without closing: a new drain takes over, hands over the rest, each once; the one before says so if used."""
    sandbox = Sandbox(packs=10, behaviour=Behaviour(latency=0.01))
    async with inbox_of(sandbox, concurrency=3) as inbox:
        old = inbox.drain()
        async for delivery in old:
            consumer.deliveries.append(delivery)
            if len(consumer.deliveries) == 2:
                break
        await consumer.empty(inbox)
        with pytest.raises(RuntimeError, match="taken over"):
            await anext(old)
        assert inbox.report.owed == 0
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert asyncio.all_tasks() == {asyncio.current_task()}


@case("D4", "D6")
@pytest.mark.parametrize("closing", [False, True])
@on_virtual_clock
async def test_break_leaks_nothing_and_the_message_comes_again(closing: bool, inbox_of: Any, consumer: Any) -> None:
    """With and without `aclosing`: no task is left; what was not acknowledged, or read ahead, comes after the restart."""
    sandbox = Sandbox(packs=10, behaviour=Behaviour(latency=0.01))
    async with inbox_of(sandbox, concurrency=3) as inbox:
        if closing:
            async with aclosing(inbox.drain()) as drain:
                async for _ in drain:
                    break
        else:
            async for _ in inbox.drain():
                break
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with inbox_of(sandbox) as inbox:
        again = await consumer.empty(inbox)
    assert again[0].redelivered
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_a_drain_has_one_consumer_and_an_inbox_one_drain(inbox_of: Any, consumer: Any) -> None:
    """A second `anext`, or a second drain, beside a waiting one is a RuntimeError, and does no harm."""
    sandbox = Sandbox(packs=2, behaviour=Behaviour(latency=1))
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        first = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one consumer"):
            await anext(drain)
        with pytest.raises(RuntimeError, match="one drain"):
            inbox.drain()
        consumer.deliveries += [await first, *[d async for d in drain]]
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
        await drain.aclose()
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("D1")
@on_virtual_clock
async def test_cancelling_at_every_await_loses_nothing(tmp_path: Path, inbox_of: Any) -> None:
    """The consumer is cancelled at its k-th step, for every k; the next drain of the same inbox gets the rest, each once."""
    for k in range(1, 90):
        sandbox = Sandbox(
            [Pack(messages=3), Pack(), Pack(messages=[Message(), Message(hidden=True)]), Pack()],
            behaviour=Behaviour(latency=0.004),
            rules=[
                on("mark", nth=2).do(EXECUTE, DROP),
                on("mark", nth=3).do(Reply(404)),
                on("mark", nth=4).do(Reply(403)),
            ],
        )
        seen: list[Delivery] = []
        async with inbox_of(sandbox, path=tmp_path / f"{k}.db", concurrency=2, limit=2) as inbox:

            async def consume(drain: Any) -> None:
                async for delivery in drain:
                    seen.append(delivery)
                    await delivery.ack()

            drain = inbox.drain()
            task = asyncio.ensure_future(consume(drain))
            for _ in range(k):
                await asyncio.sleep(0 if k % 2 else 0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if k % 3:  # else it goes on with the very same drain
                await drain.aclose()
                drain = inbox.drain()
            await consume(drain)
            report = inbox.report
            assert (report.owed, report.waiting) == (0, 0), k
            assert report.messages >= len(ids(seen))
            await asyncio.sleep(3700)  # the refused one
            await consume(inbox.drain())
        async with inbox_of(sandbox, path=tmp_path / f"{k}.db") as inbox:
            seen += [d async for d in inbox.drain()]
        hidden = sandbox.unread_ids()
        assert len(hidden) == 1
        assert set(ids(seen)) == sandbox.message_ids() - hidden, k
        assert not lost(sandbox, seen), k
        assert asyncio.all_tasks() == {asyncio.current_task()}


@case("D2")
@on_virtual_clock
async def test_a_consumer_that_is_cancelled_during_any_commit_loses_nothing(
    tmp_path: Path, inbox_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while the k-th commit is under way in its thread, for every k; the same inbox drains the rest, each once."""
    loop = asyncio.get_running_loop()
    for k in itertools.count(1):
        sandbox = Sandbox(
            packs=5,
            rules=[
                on("mark", nth=1).do(EXECUTE, DROP),
                on("mark", nth=2).do(Reply(404)),
                on("mark", nth=3).do(Reply(403)),
            ],
        )
        seen: list[Delivery] = []
        commits = itertools.count(1)

        async with inbox_of(sandbox, path=tmp_path / f"{k}.db", concurrency=2) as inbox:

            async def consume() -> None:
                async for delivery in inbox.drain():
                    seen.append(delivery)
                    await delivery.ack()

            task = asyncio.ensure_future(consume())

            def cancelling(name: str) -> None:
                if name == "before commit" and next(commits) == k:
                    cancelled = threading.Event()
                    loop.call_soon_threadsafe(lambda: (task.cancel(), loop.call_soon(loop.call_soon, cancelled.set)))
                    assert cancelled.wait(30)

            monkeypatch.setattr(failpoints, "hook", cancelling)
            await asyncio.gather(task, return_exceptions=True)
            monkeypatch.setattr(failpoints, "hook", None)
            await consume()
            assert (inbox.report.owed, inbox.report.waiting) == (0, 0), k
            assert len(inbox.report.parked) == 1, k
            await asyncio.sleep(3700)
            await consume()
        async with inbox_of(sandbox, path=tmp_path / f"{k}.db") as inbox:
            left_over = [d async for d in inbox.drain()]
        assert all(d.redelivered for d in left_over)
        assert len(ids(seen)) == len(set(ids(seen))), k
        assert set(ids(seen + left_over)) == sandbox.message_ids(), k
        if not task.cancelled():
            assert k > 10
            break


@case("D17")
@on_virtual_clock
async def test_timeouts_around_each_step_lose_nothing(inbox_of: Any, consumer: Any) -> None:
    """`asyncio.timeout` around `anext`, longer than a listing takes, again and again: all comes, each once."""
    sandbox = Sandbox(packs=8, behaviour=Behaviour(latency=0.05), rules=[on("mark", nth=3).do(EXECUTE, DROP)])
    async with inbox_of(sandbox, concurrency=2) as inbox:
        drain = inbox.drain()
        while True:
            try:
                async with asyncio.timeout(0.06):
                    delivery = await anext(drain)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
            consumer.deliveries.append(delivery)
            await delivery.ack()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    assert len(consumer.ids) == len(set(consumer.ids)) == 8
    assert sandbox.unread == 0


@on_virtual_clock
async def test_closing_gives_what_has_left_a_few_seconds_and_delivers_it_next(inbox_of: Any, consumer: Any) -> None:
    """An answer that comes 2 s after `aclose` is stored, and is the next drain's without another GET."""
    sandbox = Sandbox(packs=3, rules=[on("mark", nth=2).do(EXECUTE, Delay(2), Send(pack=int(FIRST)))])
    async with inbox_of(sandbox, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            consumer.deliveries.append(await anext(drain))
            await until(lambda: sandbox.count("mark") >= 2)
        marks = {e.pack_id for e in gets(sandbox)}
        assert now() < 3
        assert inbox.report.waiting == 0
        await consumer.empty(inbox)
    assert len(consumer.ids) == len(set(consumer.ids))
    assert marks <= {d.pack_id for d in consumer.deliveries}
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_closing_does_not_wait_for_ever_for_an_answer(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """After 5 s the request is given up: the pack waits, and is read again; the inbox can be left at once."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=2).do(Hold("z"), EXECUTE)])
    async with inbox_of(sandbox, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            consumer.deliveries.append(await anext(drain))
            await until(lambda: sandbox.held("z"))
            before = now()
        assert now() - before < 6
        assert inbox.report.waiting == 1
    sandbox.release("z")
    async with inbox_of(sandbox) as inbox:
        assert inbox.report.waiting == 1
        await consumer.empty(inbox)
    assert sorted(set(consumer.ids)) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_closing_does_not_wait_for_requests_that_have_not_left(journal: Path, inbox_of: Any) -> None:
    """Looks that still wait for the budget are cancelled; their claims are given back, and nobody waits for them."""
    sandbox = Sandbox(packs=6)
    async with inbox_of(sandbox, client={"limits": Limits(reads=3, period=1000)}, concurrency=4) as inbox:
        async with inbox.drain() as drain:
            await anext(drain)
            await anext(drain)
            before = now()
        assert now() - before < 1
        assert inbox.report.waiting == 0
        assert "issued" not in states(journal).values()
    assert sandbox.count("mark") == 2


@case("D7")
@on_virtual_clock
async def test_closing_from_another_task_gives_back_what_was_claimed(
    journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """A signal handler closes the drain while the consumer waits: it ends, no row stays claimed, nothing is lost."""
    sandbox = Sandbox(packs=6)
    async with inbox_of(sandbox, client={"limits": Limits(reads=3, period=1000)}, concurrency=4) as inbox:
        drain = inbox.drain()

        async def consume() -> None:
            async for delivery in drain:
                consumer.deliveries.append(delivery)
                await delivery.ack()

        task = asyncio.ensure_future(consume())
        await asyncio.sleep(1)
        await drain.aclose()
        await task
        assert "issued" not in states(journal).values()
        assert inbox.report.owed == 4
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("D8")
@on_virtual_clock
async def test_a_second_inbox_on_the_same_journal_is_refused(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """In the same process: `JournalError`, nothing is sent; the first goes on unharmed; afterwards the file is free."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(JournalError, match="another inbox"):
            async with inbox_of(sandbox):
                pass
        assert sandbox.log == []
        await consumer.empty(inbox)
    async with inbox_of(sandbox):
        pass
    assert len(gets(sandbox)) == 3


@case("D12")
def test_a_client_of_another_loop_is_refused(journal: Path) -> None:
    """An inbox on a client that belongs to another loop: RuntimeError, no file."""
    sandbox = Sandbox(packs=1)
    with asyncio.Runner() as runner:
        session = runner.run(_made(sandbox))
        client = MessagesClient(sandbox.token, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session)
        runner.run(client.__aenter__())

        async def elsewhere() -> None:
            async with Inbox(client, journal):
                pass

        with pytest.raises(RuntimeError, match="event loop"):
            asyncio.run(elsewhere())
        runner.run(client.__aexit__(None, None, None))
        runner.run(session.close())
    assert not journal.exists()


async def _made(sandbox: Sandbox) -> Any:
    return sandbox.session()


@case("D13")
@on_virtual_clock
async def test_a_handler_may_use_the_client_while_it_holds_a_delivery(tmp_path: Path) -> None:
    """With one request at a time and one conversation ahead, a handler that asks for more does not dead-lock."""
    sandbox = Sandbox(packs=4)
    seen: list[Delivery] = []
    async with client_of(sandbox, limits=Limits(reads=10**6, per_second=None, concurrency=1)) as client:
        async with Inbox(client, tmp_path / "j.db", concurrency=1) as inbox:
            async for delivery in inbox.drain():
                await client.page(delivery.pack_id)
                await delivery.ack()
                seen.append(delivery)
    assert len(ids(seen)) == 4


@case("D19")
@on_virtual_clock
async def test_many_interleavings_of_faults_and_closings(tmp_path: Path, inbox_of: Any) -> None:
    """Drains that are closed at odd moments, over every kind of fault, one inbox: nothing is lost, left or doubled."""
    sandbox = Sandbox(
        packs=40,
        messages=2,
        behaviour=Behaviour(latency=0.03, cap=7),
        rules=[
            on("mark", every=5).do(EXECUTE, DROP),
            on("mark", every=7).do(Reply(404)),
            on("mark", every=11).do(Send(), EXECUTE, Reply(502)),
            on("peek", every=3).do(Reply(503)),
        ],
    )
    seen: list[Delivery] = []
    async with inbox_of(sandbox, concurrency=3, limit=1, park_after=30) as inbox:
        for steps in range(1, 12):
            async with inbox.drain() as drain:
                for _ in range(steps % 5):
                    async for delivery in drain:
                        seen.append(delivery)
                        await delivery.ack()
                        break
        async for delivery in inbox.drain():
            seen.append(delivery)
            await delivery.ack()
        assert inbox.report.parked == ()
    assert len(ids(seen)) == len(set(ids(seen)))
    assert set(ids(seen)) == sandbox.message_ids()
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

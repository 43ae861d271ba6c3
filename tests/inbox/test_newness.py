"""Rule 4: new is what is not in the journal; `.unread`; servers that do not mark atomically."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.observed import gets
from mlmessages.testing import (
    DROP,
    EXECUTE,
    MARK_ALL,
    SNAPSHOT,
    Behaviour,
    Delay,
    Garbage,
    Message,
    Pack,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import lost, on_virtual_clock

FIRST = "2000000000000001"


# -- rule 4: new is what is not in the journal-------------------------------------------------------------------------


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
    """A consumer that goes on, or waits for the next delivery, gets a `RuntimeError`; a drain that had ended stays ended."""
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

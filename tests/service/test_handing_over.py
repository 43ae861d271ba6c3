"""`Inbox.run` hands each message over once, in order, whichever way it comes: read just now, left over, or failed before."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from cases import case
from mlmessages import Delivery
from mlmessages.errors import Forbidden
from mlmessages.testing import Behaviour, Pack, Sandbox
from worlds import on_virtual_clock

FIRST, SECOND = (f"200000000000000{n}" for n in (1, 2))


async def later(seconds: float) -> None:
    await asyncio.sleep(seconds)


@case("K11")
@on_virtual_clock
async def test_what_a_left_over_delivery_took_along_is_not_handed_over_again(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """Two packs are left over; news of the second is read while the first is in the handler's hands."""
    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox, concurrency=1) as inbox, inbox.drain() as drain:
        _, second = [delivery.pack_id async for delivery in drain]
    sandbox.send(second)
    handler.seconds = 10.0
    async with inbox_of(sandbox, concurrency=1) as inbox, running(inbox, handler):
        await later(100)
    assert sorted(handler.taken) == sorted(sandbox.message_ids())
    assert handler.at(second) == [10.0]


@case("K11")
@on_virtual_clock
async def test_what_a_repetition_took_along_is_not_handed_over_again(inbox_of: Any, handler: Any, running: Any) -> None:
    """News of a failed pack are read while its repetition is due and every place is taken by another pack."""
    sandbox = Sandbox(packs=2)
    handler.failing = {FIRST}
    async with inbox_of(sandbox, concurrency=1) as inbox, running(inbox, handler, interval=6):
        await later(7)
        assert handler.at(FIRST) == [0.0, 5.0]
        handler.seconds = 20.0
        sandbox.send(SECOND)
        await later(6)
        assert handler.busy == [SECOND]
        sandbox.send(FIRST)
        handler.failing = set()
        await later(300)
    assert sorted(handler.taken) == sorted(sandbox.message_ids())


@case("K12")
@on_virtual_clock
async def test_a_repeated_delivery_is_in_the_order_of_the_messages(inbox_of: Any, handler: Any, running: Any) -> None:
    """The oldest message is hidden when the handler fails, and shown before the repetition: it comes first."""
    sandbox = Sandbox([Pack(messages=3)])
    oldest = min(sandbox.message_ids())
    sandbox.hide(oldest)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=6, attempts=12):
        await later(1)
        sandbox.reveal(oldest)
        sandbox.send(FIRST)
        await later(20)
        handler.failing = set()
        await later(60)
    last = handler.deliveries[-1][1]
    assert [message.id for message in last.messages] == sorted(sandbox.message_ids())
    assert last.redelivered


@case("K13")
@on_virtual_clock
async def test_news_that_wait_behind_a_delivery_come_in_the_next_run_of_this_inbox(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """`run` is stopped while the second news of a pack waits for the first: the journal need not be opened again."""
    sandbox = Sandbox(packs=1)
    handler.seconds = 30.0
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler, interval=6, grace=60):
            await later(1)
            sent = sandbox.send(FIRST)
            await later(10)
            assert sandbox.unread == 0
        assert sent not in handler.taken
        async with running(inbox, handler):
            await later(100)
        assert sorted(handler.taken) == sorted(sandbox.message_ids())
    assert not handler.deliveries[-1][1].redelivered


@case("K13")
@on_virtual_clock
async def test_news_that_wait_behind_a_delivery_come_in_the_next_drain_of_this_inbox(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """The same, where a drain follows: it delivers what the handler was not given, and not what it has failed at."""
    sandbox = Sandbox(packs=2)
    failed = next(iter(sandbox.pack_ids()))
    handler.failing = {failed}
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler, interval=6, grace=60):
            await later(16)
            assert handler.at(failed) == [0.0, 5.0, 15.0]
            handler.seconds = 30.0
            sent = [sandbox.send(SECOND)]
            await later(7)
            assert handler.busy == [SECOND]
            sent += [sandbox.send(SECOND), sandbox.send(failed)]
            await later(7)
            assert sandbox.unread == 0
        async with inbox.drain() as drain:
            drained = [message.id async for delivery in drain for message in delivery.messages]
    assert sorted(drained) == sorted(sent[1:])


@case("K14")
@on_virtual_clock
async def test_a_due_repetition_costs_no_cpu_while_every_place_is_taken(
    inbox_of: Any, handler: Any, running: Any, named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service waits for the handlers, and not again and again for no time at all."""
    sandbox = Sandbox(packs=3)
    handler.failing = {FIRST}
    waits, wait = 0, asyncio.wait

    async def counting(*args: Any, **options: Any) -> Any:
        nonlocal waits
        waits += 1
        assert waits < 1000, "the service spins"
        return await wait(*args, **options)

    async with inbox_of(sandbox, concurrency=2) as inbox, running(inbox, handler, interval=3600) as service:
        await later(7)
        assert handler.at(FIRST) == [0.0, 5.0]
        handler.seconds = 1000.0
        for pack_id in sandbox.pack_ids()[1:]:
            await inbox.notify(named(sandbox.send(pack_id)))
        await later(6)
        assert len(handler.busy) == 2
        monkeypatch.setattr(asyncio, "wait", counting)
        await later(900)
        assert not service.task.done()
        monkeypatch.undo()


@case("K11")
@on_virtual_clock
async def test_a_repetition_leaves_out_what_a_drain_has_handed_over(inbox_of: Any, handler: Any, running: Any) -> None:
    """A consumer of this process still holds it, and may acknowledge it: the handler gets its own failures alone."""
    sandbox = Sandbox(packs=1)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox:
        async with inbox.drain() as drain:
            [held] = [delivery async for delivery in drain]
        sent = sandbox.send(FIRST)
        async with running(inbox, handler):
            await later(12)
            handler.failing = set()
            await later(60)
        assert handler.taken == [sent]
        await held.ack()


@case("K33")
@on_virtual_clock
async def test_a_wrong_seller_id_ends_the_service(inbox_of: Any, handler: Any) -> None:
    """The listing is another user's and its first packs are refused: `Forbidden` with both ids, nothing parked for good."""
    sandbox = Sandbox(packs=900, behaviour=Behaviour(listing_user_id="700100999"))
    sandbox.refuse(sandbox.pack_ids())
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(Forbidden) as caught:
            await inbox.run(handler)
    assert {"700100999", str(sandbox.seller_id)} <= set(re.findall("[0-9]+", caught.value.hint or ""))
    assert sandbox.count("mark") <= 5


@case("T3")
@on_virtual_clock
async def test_a_shorter_listing_of_another_user_is_still_read(inbox_of: Any, running: Any, handler: Any) -> None:
    """A Global Selling seller, whose listing names another of the seller's ids: four packs are refused, two of them in
    this run, and have left the listing; the one that comes then is read and delivered.
    """
    sandbox = Sandbox(packs=[Pack(id_) for id_ in "129"], behaviour=Behaviour(listing_user_id="700100999"))
    sandbox.refuse("1234")
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            await delivery.ack()
    for id_ in "34":
        sandbox.add_pack(Pack(id_))
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(100)
        for id_ in "1234":
            sandbox.read_elsewhere(id_)
        await later(100)
        sandbox.add_pack(Pack("5"))
        await later(100)
    assert [delivery.pack_id for _, delivery in handler.deliveries] == ["5"]


@case("K11")
@on_virtual_clock
async def test_it_is_remembered_what_was_taken_along_while_news_wait_for_a_place(inbox_of: Any, running: Any) -> None:
    """Every place is taken while the drain comes to an end: what is ready by then was handed over with a left-over."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox, concurrency=1) as inbox, inbox.drain() as drain:
        first, second, third = [delivery.pack_id async for delivery in drain]
    sandbox.send(third)
    seconds = {first: 20.0, second: 60.0, third: 5.0}
    taken: list[str] = []

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(seconds[delivery.pack_id])
        taken.extend(message.id for message in delivery.messages)

    async with inbox_of(sandbox, concurrency=2) as inbox, running(inbox, handler, interval=7):
        await later(200)
    assert sorted(taken) == sorted(sandbox.message_ids())

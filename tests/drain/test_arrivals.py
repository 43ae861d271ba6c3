"""`client.drain()`: what comes between the read of a conversation and its mark."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from drain.draining import drained
from mlmessages.testing import (
    EXECUTE,
    Behaviour,
    Garbage,
    Pack,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock


@pytest.mark.parametrize("shows_read", [False, True])
@on_virtual_clock
async def test_an_arrival_between_the_read_and_the_mark_is_handed_over(shows_read: bool) -> None:
    """It comes as a second conversation of that pack, `marked`, with that message alone; each message comes once."""
    sandbox = Sandbox(
        packs=1, behaviour=Behaviour(shows_read=shows_read), rules=[on("peek", nth=1).do(EXECUTE, Send())]
    )
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert [c.marked for c in found] == [False, True]
    assert len(found[1].messages) == len(found[1].unread) == 1
    assert len(ids(found)) == len(set(ids(found))) == 2
    assert not lost(sandbox, found)
    assert drain.report.conversations == 2
    assert drain.report.messages == 2


@on_virtual_clock
async def test_a_burst_that_hides_every_known_message_is_read_on_from() -> None:
    """60 arrivals before the mark fill its answer: the pages behind it are read, without marking, until a known
    message.
    """
    sandbox = Sandbox(packs=1, rules=[on("peek", nth=1).do(EXECUTE, *[Send()] * 60)])
    async with client_of(sandbox) as client, client.drain(limit=25) as drain:
        found = [c async for c in drain]
    assert set(ids(found)) == sandbox.message_ids()
    assert len(ids(found)) == 61
    assert sandbox.count("mark") == 1
    assert not lost(sandbox, found)


@on_virtual_clock
async def test_the_sellers_own_answer_is_no_arrival() -> None:
    """A handler that answers the buyer is not handed its own answer."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client, client.drain() as drain:
        found = []
        async for conversation in drain:
            found.append(conversation)
            sandbox.send(conversation.pack_id, "an answer", "seller")
    assert len(found) == 1
    assert sandbox.unread == 0


@pytest.mark.parametrize("marks", ["pack", "page"])
@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("size", [{}, {"max_limit": 4}, {"max_limit": 4, "echo_limit": "asked"}], ids=str)
@pytest.mark.parametrize("before", [True, False])
@on_virtual_clock
async def test_an_arrival_at_any_moment_is_handed_over_once_and_marked(
    marks: Any, order: Any, size: dict[str, Any], before: bool
) -> None:
    """A message that comes just before or after the k-th GET, for every k, on every kind of server: it is handed over
    once, as `marked` only if it is, and nothing stays unread or is set aside.
    """
    for messages, k in itertools.product((1, 4, 12), range(1, 13)):
        steps = (Send(), EXECUTE) if before else (EXECUTE, Send())
        sandbox = Sandbox(
            [Pack(messages=messages, unread=messages)],
            behaviour=Behaviour(marks=marks, order=order, **size),
            rules=[on("pack", nth=k).do(*steps)],
        )
        async with client_of(sandbox) as client, client.drain(limit=5) as drain:
            found = await drained(drain, sandbox)
        assert sorted(ids(found)) == sorted(sandbox.message_ids()), (messages, k)
        assert sandbox.unread == 0, (messages, k)
        assert drain.report.set_aside == (), (messages, k)


@on_virtual_clock
async def test_an_arrival_that_only_the_closing_read_showed_is_not_called_marked() -> None:
    """It comes while pages are marked, and no marking answer shows it: it is yielded as any other, and `break` there
    leaves it unread.
    """
    sandbox = Sandbox(
        [Pack(messages=12, unread=12)],
        behaviour=Behaviour(marks="page"),
        rules=[on("mark", nth=2).do(EXECUTE, Send())],
    )
    async with client_of(sandbox) as client:
        async with client.drain(limit=5) as drain:
            await anext(drain)
            second = await anext(drain)
            assert sandbox.unread_ids() == {m.id for m in second.messages}
            assert [len(second.unread), second.marked] == [1, False]
        assert sandbox.unread_ids() == {m.id for m in second.messages}
        async with client.drain(limit=5) as again:
            await drained(again, sandbox)
    assert sandbox.unread == 0


@pytest.mark.parametrize(
    "ending", [(), (Garbage(),)], ids=["on an unmarked page", "in the second reading of an unreadable answer"]
)
@on_virtual_clock
async def test_what_came_before_the_mark_and_what_came_after_it_are_two(ending: tuple[Garbage, ...]) -> None:
    """An unmarked answer shows both, one as read: that one is `marked`; the other is an ordinary conversation."""
    sandbox = Sandbox(
        [Pack(messages=30)],
        behaviour=Behaviour(order="oldest"),
        rules=[on("mark", nth=1).do(Send(), EXECUTE, Send(), *ending)],
    )
    async with client_of(sandbox) as client, client.drain(limit=40 if ending else 25) as drain:
        found = await drained(drain, sandbox)
    assert [(len(c.messages), c.marked) for c in found] == [(30, False), (1, True), (1, False)]
    assert set(ids(found)) == sandbox.message_ids()
    assert sandbox.unread == 0
    assert drain.report.set_aside == ()


@on_virtual_clock
async def test_one_message_a_page_shows_no_order_and_is_read_on_from() -> None:
    """With `limit=1` a marking answer cannot show that the newest come first; what it marked behind itself is read."""
    sandbox = Sandbox(packs=1, behaviour=Behaviour(order="oldest"), rules=[on("mark", nth=1).do(Send(), EXECUTE)])
    async with client_of(sandbox) as client, client.drain(limit=1) as drain:
        found = await drained(drain, sandbox)
    assert set(ids(found)) == sandbox.message_ids()
    assert not lost(sandbox, found)


@pytest.mark.parametrize("marks", ["pack", "page"])
@on_virtual_clock
async def test_a_burst_whose_reading_on_fails_is_read_when_the_wait_is_over(marks: Any) -> None:
    """60 arrivals before the mark; the page that shows the last of them is refused: the next look reads all pages, and
    nothing is marked before it.
    """
    sandbox = Sandbox(
        packs=1,
        behaviour=Behaviour(marks=marks),
        rules=[on("mark", nth=1).do(*[Send()] * 60, EXECUTE), on("peek", nth=3).do(Reply(403))],
    )
    async with client_of(sandbox) as client, client.drain(limit=25) as drain:
        found = await drained(drain, sandbox)
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert not lost(sandbox, found)
    assert sandbox.unread == 0
    first, again, *_ = [e.at for e in sandbox.log if e.kind == "mark"]
    assert again - first >= 120


@on_virtual_clock
async def test_a_burst_after_an_arrival_among_marked_pages_is_marked_by_pages_again() -> None:
    """What was left unread before messages arrived says nothing about how much is left after them."""
    sandbox = Sandbox(
        [Pack(messages=12, unread=12)],
        behaviour=Behaviour(marks="page"),
        rules=[on("mark", nth=2).do(EXECUTE, Send()), on("mark", nth=4).do(*[Send()] * 30, EXECUTE)],
    )
    async with client_of(sandbox) as client, client.drain(limit=5) as drain:
        found = await drained(drain, sandbox)
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert drain.report.set_aside == ()


@on_virtual_clock
async def test_the_sellers_own_messages_come_with_what_comes() -> None:
    """The marking answer shows the seller's alone, and the page behind it the buyer's: one conversation, not marked."""
    sandbox = Sandbox(
        packs=1,
        behaviour=Behaviour(marks="page"),
        rules=[on("mark", nth=1).do(*[Send()] * 10, *[Send(sender="seller")] * 25, EXECUTE)],
    )
    async with client_of(sandbox) as client, client.drain(limit=25) as drain:
        found = await drained(drain, sandbox)
    assert [(len(c.messages), len(c.unread), c.marked) for c in found] == [(1, 1, False), (35, 10, False)]
    assert sandbox.unread == 0


@on_virtual_clock
async def test_an_arrival_on_the_last_page_of_an_oldest_first_server_is_handed_over() -> None:
    """Where the oldest come first, the marking answer's first page is all known; what is new stands behind it."""
    sandbox = Sandbox(
        [Pack(messages=60)], behaviour=Behaviour(order="oldest"), rules=[on("mark", nth=1).do(Send(), EXECUTE)]
    )
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert not lost(sandbox, found)
    assert len(ids(found)) == 61


@on_virtual_clock
async def test_a_burst_on_an_oldest_first_server_is_handed_over_whole() -> None:
    """The first look showed one message and so no order; the marking answer's first page shows it, and is read on from."""
    sandbox = Sandbox(
        [Pack(messages=1)], behaviour=Behaviour(order="oldest"), rules=[on("mark", nth=1).do(*[Send()] * 60, EXECUTE)]
    )
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert not lost(sandbox, found)
    assert len(ids(found)) == 61

"""Rule 2 and the decision table: only the first page marks; what a pack that is listed again needs."""

from __future__ import annotations

from typing import Any

import pytest

from cases import case
from inbox.observed import gets
from mlmessages.errors import (
    StillListed,
)
from mlmessages.testing import (
    DROP,
    EXECUTE,
    Behaviour,
    HideIt,
    Pack,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import lost, on_virtual_clock

FIRST = "2000000000000001"


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

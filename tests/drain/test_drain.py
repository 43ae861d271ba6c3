"""`client.drain()`: each sentence of its promise, against the sandbox on a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from mlmessages import Drain, Limits, Retry
from mlmessages.errors import AnswerLost, DecodeError, DrainStalled, Forbidden, ServerError, StillListed
from mlmessages.models import Conversation
from mlmessages.testing import (
    DROP,
    EXECUTE,
    SNAPSHOT,
    Behaviour,
    Garbage,
    HideIt,
    Hold,
    Message,
    Pack,
    RateWindow,
    Reply,
    Sandbox,
    Send,
    Truncate,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock

FIRST = 2000000000000001


def gets(sandbox: Sandbox) -> int:
    return sandbox.count("peek") + sandbox.count("mark")


async def drained(drain: Drain, sandbox: Sandbox) -> list[Conversation]:
    """All that a drain yields; of each it is checked that `marked` is true, if it says so."""
    found = []
    async for conversation in drain:
        assert not conversation.marked or set(ids([conversation])) <= sandbox.marked_ids()
        found.append(conversation)
    return found


# -- the main job ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [0, 1, 999, 1000, 1001, 2500])
@on_virtual_clock
async def test_every_conversation_comes_once_past_the_cap(packs: int) -> None:
    """N one-page packs: each is handed over once, with 2 requests a pack and at most ceil(N / cap) + 2 listings."""
    sandbox = Sandbox(packs=packs)
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [conversation async for conversation in drain]
    assert sorted(c.pack_id for c in found) == sandbox.pack_ids()
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert gets(sandbox) == 2 * packs
    assert sandbox.count("listing") <= -(-packs // 1000) + 2
    assert drain.report.conversations == drain.report.messages == packs
    assert drain.report.requests == len(sandbox.log)
    assert drain.report.listings == sandbox.count("listing")


@on_virtual_clock
async def test_a_conversation_holds_all_that_was_read() -> None:
    """`messages` is the whole pack, newest first; `unread` the counterparty's that were unread, oldest first."""
    sandbox = Sandbox([Pack(messages=7, unread=2)])
    async with client_of(sandbox) as client, client.drain(limit=3) as drain:
        [conversation] = [c async for c in drain]
    assert len(conversation.messages) == 7
    created = [message.created for message in conversation.messages]
    assert created == sorted(created, reverse=True)
    assert [m.id for m in conversation.unread] == [conversation.messages[2].id, conversation.messages[0].id]
    assert conversation.status is not None
    assert conversation.status.can_reply
    assert conversation.resource == f"/packs/{conversation.pack_id}"
    assert not conversation.marked


@on_virtual_clock
async def test_the_whole_drain_keeps_within_the_documented_budget() -> None:
    """600 packs on the default limits: never a 429, on a server that counts 500 GETs a minute."""
    sandbox = Sandbox(packs=600, behaviour=Behaviour(rate=RateWindow(), latency=0.12))
    async with client_of(sandbox, limits=Limits()) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 600
    assert sandbox.throttled == 0


# -- resuming is the acknowledgement -----------------------------------------------------------------------------------


@on_virtual_clock
async def test_break_leaves_the_last_conversation_unread() -> None:
    """Coming back marks; `break` does not: of three that were handed over, two are marked, and nothing else."""
    sandbox = Sandbox(packs=20)
    found = []
    async with client_of(sandbox) as client:
        async with client.drain() as drain:
            async for conversation in drain:
                found.append(conversation)
                if len(found) == 3:
                    break
        assert sandbox.marked_ids() == set(ids(found[:2]))
        assert sandbox.unread == 18


@on_virtual_clock
async def test_an_exception_of_the_consumer_leaves_the_conversation_unread() -> None:
    """What a handler failed on is not marked."""
    sandbox = Sandbox(packs=3)
    async with client_of(sandbox) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.drain() as drain:
                async for _ in drain:
                    raise ZeroDivisionError
    assert sandbox.marked_ids() == set()


@on_virtual_clock
async def test_leaving_the_client_closes_a_drain_that_was_left_open() -> None:
    """`break` without a context manager leaks no task; what was not acknowledged stays unread."""
    sandbox = Sandbox(packs=20)
    async with client_of(sandbox) as client:
        async for _ in client.drain():
            break
    assert sandbox.marked_ids() == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_a_closed_drain_is_over() -> None:
    """After `aclose`, which may be called twice, there is nothing more to iterate."""
    sandbox = Sandbox(packs=3)
    async with client_of(sandbox) as client:
        drain = client.drain()
        await anext(drain)
        await drain.aclose()
        await drain.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(drain)


@on_virtual_clock
async def test_cancelling_at_every_await_leaves_the_client_usable_and_the_report_true() -> None:
    """The consumer is cancelled at its k-th step, for every k: nothing marked is unseen, and a second drain gets the
    rest.
    """
    for k in range(1, 120):
        sandbox = Sandbox(packs=4, behaviour=Behaviour(latency=0.01), rules=[on("mark", nth=2).do(EXECUTE, Send())])
        seen = []
        async with client_of(sandbox) as client:
            drain = client.drain(concurrency=2)

            async def consume() -> None:
                async with drain:
                    async for conversation in drain:
                        seen.append(conversation)

            task = asyncio.ensure_future(consume())
            for _ in range(k * 3):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            report = drain.report
            assert report.conversations == len(seen)
            assert report.messages == len(ids(seen))
            assert not lost(sandbox, [*seen, *report.unseen]), k
            async with client.drain() as rest:
                again = [c async for c in rest]
        assert not lost(sandbox, [*seen, *report.unseen, *again]), k
        assert sandbox.unread == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_closing_does_not_wait_for_a_mark_that_has_not_left() -> None:
    """A cancelled consumer is free at once although its acknowledgement still waits for the budget; the pack stays
    unread.
    """
    sandbox = Sandbox(packs=2)
    async with client_of(sandbox, limits=Limits(reads=3, period=1000)) as client:
        drain = client.drain(concurrency=2)
        await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))  # the fourth GET has to wait 1,000 s
        await asyncio.sleep(1)
        resumed.cancel()
        before = asyncio.get_running_loop().time()
        await drain.aclose()
        assert asyncio.get_running_loop().time() - before < 1
    assert sandbox.count("mark") == 0
    assert sandbox.unread == 2


@on_virtual_clock
async def test_closing_waits_for_a_mark_that_is_in_flight_and_reports_what_only_it_showed() -> None:
    """The mark executes while the drain is closed; the message that only its answer shows is in `report.unseen`."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(Send(), Hold("z"), EXECUTE)])
    async with client_of(sandbox) as client:
        drain = client.drain()
        first = await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        resumed.cancel()
        closing = asyncio.ensure_future(drain.aclose())
        await asyncio.sleep(1)
        assert not closing.done()
        sandbox.release("z")
        await closing
        [unseen] = drain.report.unseen
        assert unseen.marked
        assert not lost(sandbox, [first, unseen])


@on_virtual_clock
async def test_a_drain_has_one_consumer() -> None:
    """A second `anext` beside a running one is a RuntimeError, and does no harm."""
    sandbox = Sandbox(packs=2, behaviour=Behaviour(latency=1))
    async with client_of(sandbox) as client, client.drain() as drain:
        first = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one consumer"):
            await anext(drain)
        assert (await first).pack_id in sandbox.pack_ids()


# -- what only the marking answer showed -------------------------------------------------------------------------------


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


# -- marks of unknown outcome ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [(EXECUTE, DROP), (DROP,), (EXECUTE, Reply(502)), (Reply(503),)],
    ids=["executed, lost", "never executed", "executed, 502", "503"],
)
@on_virtual_clock
async def test_a_mark_of_unknown_outcome_waits_and_is_looked_at_again(steps: tuple[object, ...]) -> None:
    """It is not repeated; the drain goes on; after `settle_time` the pack is read again, what is new is handed over,
    and marked.
    """
    sandbox = Sandbox(packs=3, rules=[on("mark", nth=1).do(*steps)])  # type: ignore[arg-type]
    late = None
    async with client_of(sandbox) as client, client.drain(concurrency=1, settle_time=120) as drain:
        found = []
        async for conversation in drain:
            found.append(conversation)
            if len(found) == 2:
                assert drain.report.waiting == 1
                late = sandbox.send(found[0].pack_id)
    [first, again] = [e.at for e in sandbox.log if e.kind == "mark" and e.pack_id == found[0].pack_id]
    assert again - first >= 120
    assert ids(found).count(late) == 1
    assert len(ids(found)) == len(set(ids(found))) == 4
    assert not lost(sandbox, found)
    assert sandbox.unread == 0
    assert drain.report.waiting == 0


@on_virtual_clock
async def test_a_zombie_cannot_mark_what_nobody_read() -> None:
    """A mark that times out executes 100 s later, over a message that came meanwhile: it is handed over all the same."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Hold("z"), EXECUTE, DROP)])
    async with client_of(sandbox, timeout=30) as client, client.drain(settle_time=120) as drain:
        found = [await anext(drain)]

        async def zombie() -> None:
            await asyncio.sleep(60)
            sandbox.send(found[0].pack_id)
            await asyncio.sleep(40)
            sandbox.release("z")

        walking = asyncio.ensure_future(zombie())
        found += [c async for c in drain]
        await walking
    assert set(ids(found)) == sandbox.message_ids()
    assert not lost(sandbox, found)


@pytest.mark.parametrize("ending", [Garbage(), Truncate(40)], ids=["garbage", "truncated"])
@on_virtual_clock
async def test_a_mark_whose_answer_is_unreadable_is_read_again_at_once(ending: object) -> None:
    """2xx means executed: the page is read again without marking, without a wait, and what it shows is handed over. Once
    more after the wait, which finds nothing that is new here.
    """
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Send(), EXECUTE, ending)])  # type: ignore[arg-type]
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [await anext(drain), await anext(drain)]
        assert asyncio.get_running_loop().time() < 1
        found += [c async for c in drain]
    assert set(ids(found)) == sandbox.message_ids()
    assert not lost(sandbox, found)


@on_virtual_clock
async def test_a_mark_that_never_gets_an_answer_is_given_up_some_day() -> None:
    """After six marks of unknown outcome the pack is set aside: a drain ends."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(DROP)])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 1
    [failure] = drain.report.set_aside
    assert isinstance(failure.error, AnswerLost)
    assert sandbox.count("mark") == 6


# -- packs that fail ---------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_packs_that_fail_are_set_aside_and_the_rest_goes_on() -> None:
    """403, 404 and spent retries each set one pack aside; the others are handed over and marked."""
    sandbox = Sandbox(packs=10)
    sandbox.refuse([FIRST], 403)
    sandbox.refuse([FIRST + 1], 404)
    sandbox.add(on("pack", pack=FIRST + 2).do(Reply(503)))
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 7
    assert {f.pack_id: type(f.error).__name__ for f in drain.report.set_aside} == {
        str(FIRST): "Forbidden",
        str(FIRST + 1): "NotFound",
        str(FIRST + 2): "ServerError",
    }


@on_virtual_clock
async def test_a_mark_that_is_refused_sets_the_pack_aside() -> None:
    """What was handed over and could not be marked is in the report, with the server's reason."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST).do(Reply(403))])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 2
    [failure] = drain.report.set_aside
    assert isinstance(failure.error, Forbidden)
    assert sandbox.unread == 1


@on_virtual_clock
async def test_set_aside_packs_that_fill_the_listing_stall_the_drain() -> None:
    """1,200 packs that always answer 403, listed before 50 good ones: `DrainStalled` says so; not silence, and not a
    loop.
    """
    sandbox = Sandbox(packs=1250, behaviour=Behaviour(listing_order="oldest"))
    refused = sandbox.pack_ids()[:1200]
    sandbox.refuse(refused)
    async with client_of(sandbox) as client, client.drain() as drain:
        with pytest.raises(DrainStalled) as stalled:
            await anext(drain)
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
    assert {f.pack_id for f in stalled.value.set_aside} == set(refused[:1000])
    assert "permission" in str(stalled.value)
    assert "seller" in str(stalled.value)
    assert gets(sandbox) == 1000


@on_virtual_clock
async def test_refused_packs_before_good_ones_do_not_hide_them() -> None:
    """900 refused packs leave room for 100 at a time: all 350 good ones come."""
    sandbox = Sandbox(packs=1250, behaviour=Behaviour(listing_order="oldest"))
    sandbox.refuse(sandbox.pack_ids()[:900])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 350
    assert len(drain.report.set_aside) == 900


@pytest.mark.parametrize("refused", [0, 150])
@on_virtual_clock
async def test_a_cap_that_nobody_announced_is_got_past(refused: int) -> None:
    """A server whose cap is 200: all come, whatever is refused in front of them."""
    sandbox = Sandbox(packs=777, behaviour=Behaviour(cap=200, listing_order="oldest"))
    sandbox.refuse(sandbox.pack_ids()[:refused])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 777 - refused


@on_virtual_clock
async def test_a_listing_as_long_as_the_one_before_is_capped() -> None:
    """200 refused among the first 250 of a server whose cap is 200: the listing never gets shorter, and the drain says
    so.
    """
    sandbox = Sandbox(packs=300, behaviour=Behaviour(cap=200, listing_order="oldest"))
    sandbox.refuse(sandbox.pack_ids()[50:250])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = []
        with pytest.raises(DrainStalled):
            async for conversation in drain:
                found.append(conversation)
    assert len(found) == 50


@on_virtual_clock
async def test_a_listing_that_is_refused_ends_the_drain_with_that_error() -> None:
    """The second listing is a 403: what came before was handed over, the error is raised, and the drain is over."""
    sandbox = Sandbox(packs=5, rules=[on("listing", nth=2).do(Reply(403))])
    found = []
    async with client_of(sandbox) as client:
        drain = client.drain()
        with pytest.raises(Forbidden):
            async for conversation in drain:
                found.append(conversation)
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
    assert len(found) == 5


# -- listings that are late, wrong or never empty ----------------------------------------------------------------------


@on_virtual_clock
async def test_a_listing_that_lags_delivers_nothing_twice() -> None:
    """A listing 2 s behind the marks: each message once, at most one redundant look a pack, and the drain ends."""
    sandbox = Sandbox(packs=40, behaviour=Behaviour(lag=2.0, latency=0.01))
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(ids(found)) == len(set(ids(found))) == 40
    assert gets(sandbox) <= 3 * 40
    assert drain.report.set_aside == ()


@on_virtual_clock
async def test_packs_whose_count_never_falls_are_set_aside() -> None:
    """50 packs with a hidden unread message: handed over once, looked at twice after their mark, then `StillListed`."""
    hidden = (Message(), Message(hidden=True), Message())
    sandbox = Sandbox([*(Pack(messages=hidden) for _ in range(50)), *(Pack() for _ in range(10))])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 60
    assert len(ids(found)) == len(set(ids(found))) == 110
    assert len(drain.report.set_aside) == 50
    assert all(isinstance(f.error, StillListed) for f in drain.report.set_aside)
    assert max(sum(e.pack_id == p and e.kind != "listing" for e in sandbox.log) for p in sandbox.pack_ids()) == 4


@on_virtual_clock
async def test_a_pack_that_is_still_listed_opens_again_when_its_count_changes() -> None:
    """A message that comes to a pack that was set aside as `StillListed` is handed over."""
    sandbox = Sandbox([Pack(messages=(Message(), Message(hidden=True))), Pack(pack_id=7)])
    sandbox.add(on("mark", pack=7, nth=1).do(DROP))  # keeps the drain going for another two minutes
    async with client_of(sandbox) as client, client.drain() as drain:
        found = []

        async def later() -> str:
            await asyncio.sleep(60)
            return sandbox.send(FIRST)

        arriving = asyncio.ensure_future(later())
        found += [c async for c in drain]
        arrived = await arriving
    assert ids(found).count(arrived) == 1
    assert not lost(sandbox, found)


@pytest.mark.parametrize("marks", ["pack", "page"])
@on_virtual_clock
async def test_both_kinds_of_marking_servers_are_cleared(marks: str) -> None:
    """120 unread messages on pages of 50, whether a marking GET marks the pack or what it returns: all read, all
    marked.
    """
    texts = tuple(Message() for _ in range(120))
    sandbox = Sandbox([Pack(messages=texts) for _ in range(3)], behaviour=Behaviour(marks=marks))  # type: ignore[arg-type]
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(ids(found)) == len(set(ids(found))) == 360
    assert sandbox.unread == 0
    assert drain.report.set_aside == ()


@on_virtual_clock
async def test_messages_that_slip_past_while_pages_are_marked_are_marked_too() -> None:
    """Five messages are moderated away while pages are marked: others move to where a mark has been. All are marked."""
    sandbox = Sandbox([Pack(messages=12, unread=12)], behaviour=Behaviour(marks="page"))
    async with client_of(sandbox) as client, client.drain(limit=5) as drain:
        first = await anext(drain)
        sandbox.add(on("mark", nth=2).do(EXECUTE, *[HideIt(m.id) for m in first.messages[:5]]))
        assert await drained(drain, sandbox) == []
    assert sandbox.unread_ids() == set()
    assert drain.report.set_aside == ()


@on_virtual_clock
async def test_marks_that_mark_nothing_end_all_the_same() -> None:
    """A server that answers marks and does not execute them: marked by pages once, looked at twice, then set aside."""
    sandbox = Sandbox([Pack(messages=12, unread=12)], rules=[on("mark").do(SNAPSHOT)])
    async with client_of(sandbox) as client, client.drain(limit=50) as drain:
        found = await drained(drain, sandbox)
    assert len(found) == 1
    [failure] = drain.report.set_aside
    assert isinstance(failure.error, StillListed)
    assert sandbox.count("mark") == 2
    assert sandbox.count("peek") == 5  # the look, one after each mark, the closing read, and the last look


@pytest.mark.parametrize("size", [3, 10])
@on_virtual_clock
async def test_an_arrival_behind_a_page_that_is_all_known_is_read(size: int) -> None:
    """The server sends the oldest first, in pages that are shorter than they say: what is new stands on the second."""
    sandbox = Sandbox(
        [Pack(messages=size)],
        behaviour=Behaviour(order="oldest", max_limit=size, echo_limit="asked"),
        rules=[on("mark", nth=1).do(EXECUTE, Send())],
    )
    async with client_of(sandbox) as client, client.drain() as drain:
        found = await drained(drain, sandbox)
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert drain.report.set_aside == ()


@on_virtual_clock
async def test_an_arrival_after_the_mark_is_found_by_the_closing_listing() -> None:
    """The drain ends only on a listing sent after its last read: a message that comes right after the last mark is
    handed over.
    """
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=2).do(EXECUTE, Send())])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert set(ids(found)) == sandbox.message_ids()
    assert len(found) == 3
    assert not found[2].marked
    assert sandbox.unread == 0


@on_virtual_clock
async def test_an_empty_listing_right_after_429s_is_asked_once_more() -> None:
    """A throttled server answers that there is nothing; the drain does not believe it."""
    empty = {"userId": 700100200, "results": []}
    sandbox = Sandbox(packs=3, rules=[on("listing", nth=1).do(Reply(429)), on("listing", nth=2).do(Reply(200, empty))])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 3


@on_virtual_clock
async def test_a_listing_without_results_is_no_end() -> None:
    """200 with something else in it, as often as it is asked, is an error, not an empty inbox."""
    sandbox = Sandbox(packs=3, rules=[on("listing").do(Reply(200, {"total": 0}))])
    async with client_of(sandbox) as client, client.drain() as drain:
        with pytest.raises(DecodeError, match="results"):
            await anext(drain)


@on_virtual_clock
async def test_a_pack_that_is_listed_twice_is_read_once() -> None:
    """`/packs/1` and `/packs/1/sellers/9` in one listing are one conversation."""
    rows = [{"resource": f"/packs/{FIRST}", "count": 1}, {"resource": f"packs/{FIRST}/sellers/9", "count": 0}]
    sandbox = Sandbox(packs=1, rules=[on("listing", nth=1).do(Reply(200, {"userId": 700100200, "results": rows}))])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 1
    assert gets(sandbox) == 2


@on_virtual_clock
async def test_what_somebody_reads_meanwhile_is_handed_over_all_the_same() -> None:
    """The seller reads a listed conversation on the site before the drain does: it is yielded, with nothing unread."""
    sandbox = Sandbox(packs=3)
    async with client_of(sandbox) as client, client.drain(concurrency=1) as drain:
        found = [await anext(drain)]
        for pack_id in sandbox.pack_ids():
            sandbox.read_elsewhere(pack_id)
        found += [c async for c in drain]
    assert len(found) == 3
    assert [len(c.unread) for c in found] == [1, 0, 0]


# -- weather -----------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_a_stormy_server_is_drained_whole() -> None:
    """Every fifth read fails with 503, every seventh is a 429, every eleventh mark is lost: nothing is lost, nothing is
    left.
    """
    sandbox = Sandbox(
        packs=200,
        messages=3,
        rules=[
            on("peek", every=5).do(Reply(503)),
            on("pack", every=7).do(Reply(429, headers={"Retry-After": "1"})),
            on("mark", every=11).do(EXECUTE, DROP),
        ],
    )
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert set(ids(found)) == sandbox.message_ids()
    assert len(ids(found)) == 600
    assert sandbox.unread == 0
    assert not lost(sandbox, found)


@on_virtual_clock
async def test_a_slow_consumer_bounds_what_is_read_ahead() -> None:
    """With `concurrency=4`, never more than four conversations are read that were not handed over."""
    sandbox = Sandbox(packs=50)
    async with client_of(sandbox) as client, client.drain(concurrency=4) as drain:
        handed = 0
        async for _ in drain:
            handed += 1
            await asyncio.sleep(10)
            assert sandbox.count("peek") - handed <= 4


@on_virtual_clock
async def test_retries_that_are_spent_on_the_listing_end_the_drain() -> None:
    """A listing that answers 503 for ever is a `ServerError`, within the deadline."""
    sandbox = Sandbox(packs=1, rules=[on("listing").do(Reply(503))])
    async with client_of(sandbox, retry=Retry(deadline=60)) as client, client.drain() as drain:
        with pytest.raises(ServerError):
            await anext(drain)
    assert asyncio.get_running_loop().time() <= 60


@on_virtual_clock
async def test_the_report_counts_what_was_sent() -> None:
    """A listing that was repeated after a 503 and a 429 counts three times, as on the wire."""
    rules = [on("listing", nth=1).do(Reply(503)), on("listing", nth=2).do(Reply(429)), on("mark").do(Reply(503))]
    sandbox = Sandbox(packs=1, rules=rules)
    async with client_of(sandbox) as client, client.drain() as drain:
        await drained(drain, sandbox)
    assert drain.report.listings == sandbox.count("listing")
    assert drain.report.requests == len(sandbox.log)


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"concurrency": True}, {"limit": 0}, {"limit": 1.5}, {"settle_time": -1}]
)
@on_virtual_clock
async def test_wrong_options_are_refused_at_the_call(wrong: dict[str, object]) -> None:
    """A ValueError before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="must be"):
            client.drain(**wrong)  # type: ignore[arg-type]
    assert sandbox.log == []


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


@pytest.mark.parametrize("k", range(1, 11))
@on_virtual_clock
async def test_an_error_of_a_token_source_ends_the_drain_loudly(k: int) -> None:
    """What the user's own source raises comes out of `anext`, once; then the drain is over and nothing is marked
    unseen.
    """

    class Source:
        calls = 0

        async def token(self) -> str:
            self.calls += 1
            if self.calls == k:
                raise OSError("the vault is closed")
            return sandbox.token

        async def rejected(self, token: str) -> None:
            """Never happens here."""

    sandbox = Sandbox(packs=4)
    found = []
    async with client_of(sandbox, auth=Source()) as client:
        drain = client.drain(concurrency=2)
        with pytest.raises(OSError, match="vault"):
            while True:
                found.append(await anext(drain))
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
    assert not lost(sandbox, [*found, *drain.report.unseen])

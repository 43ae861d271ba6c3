"""What a drain says of marks that may have been executed; and what it reads on for after a mark."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from cases import case
from mlmessages import Drain, MessagesClient, Retry
from mlmessages.errors import Forbidden, ServerError, StillListed
from mlmessages.models import Conversation
from mlmessages.testing import (
    DROP,
    EXECUTE,
    SNAPSHOT,
    Behaviour,
    Delay,
    Garbage,
    HideIt,
    Message,
    Pack,
    Reply,
    RevealIt,
    Sandbox,
    Send,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock

FIRST = 2000000000000001
LOST = (Send(), EXECUTE, DROP)  # a message comes, the mark reaches it, its answer is lost


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "mark" in r.getMessage()]


async def to_its_end(drain: Drain) -> list[Conversation]:
    """All that comes before the end or the error."""
    found: list[Conversation] = []
    try:
        async for conversation in drain:
            found.append(conversation)
    except ServerError:
        pass
    return found


# -- K1: the drain ends before the pack is read again ------------------------------------------------------------------


@case("K1")
@pytest.mark.parametrize("ending", ["the listing fails", "break", "the client is closed", "an exception"])
@on_virtual_clock
async def test_a_mark_that_is_not_looked_at_again_is_in_doubt(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    """Marks of unknown outcome, and the drain ends before `settle_time`: the report names the packs, and one warning."""
    rules = [on("mark", pack=FIRST).do(*LOST), on("mark", pack=FIRST + 1).do(DROP)]
    sandbox = Sandbox(packs=6, rules=rules)
    if ending == "the listing fails":
        sandbox.add(on("listing", nth=range(2, 99)).do(Reply(503)))
    async with client_of(sandbox, retry=Retry(attempts=2)) as client:
        drain = client.drain(concurrency=4)
        found = []
        if ending == "the listing fails":
            found = await to_its_end(drain)
        else:
            async for conversation in drain:
                found.append(conversation)
                if drain.report.waiting == 2:
                    assert set(drain.report.in_doubt) == {str(FIRST), str(FIRST + 1)}
                    break
        if ending in ("break", "an exception"):
            await drain.aclose()
    assert set(drain.report.in_doubt) == {str(FIRST), str(FIRST + 1)}
    assert lost(sandbox, found) <= {m for m in sandbox.message_ids() if m not in ids(found)}
    [warning] = warnings(caplog)
    assert "2 of its marks" in warning
    assert str(FIRST) in warning
    assert str(FIRST + 1) in warning


@case("K1")
@on_virtual_clock
async def test_a_drain_that_ends_well_has_nothing_in_doubt(caplog: pytest.LogCaptureFixture) -> None:
    """Read again after the wait, handed over and marked: nothing is in doubt any more, and nothing is warned of."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=1).do(*LOST)])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert drain.report.in_doubt == ()
    assert not lost(sandbox, found)
    assert warnings(caplog) == []


@case("K1")
@on_virtual_clock
async def test_what_the_look_after_the_wait_found_is_in_doubt_until_it_is_handed_over() -> None:
    """The mark reached a message; the look shows it, and the drain is closed before it is yielded: still in doubt."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST, nth=1).do(*LOST)])
    async with client_of(sandbox) as client:
        drain = client.drain(concurrency=2)
        first, second = await anext(drain), await anext(drain)
        waiting = asyncio.ensure_future(anext(drain))
        while drain.report.waiting == 0:
            await asyncio.sleep(1)
        assert drain.report.in_doubt == (str(FIRST),)
        again = await waiting
        assert again.pack_id == str(FIRST)
        assert drain.report.in_doubt == ()
        await drain.aclose()
        assert drain.report.in_doubt == ()
    assert not lost(sandbox, [first, second, again])


@case("K1")
@on_virtual_clock
async def test_a_mark_in_flight_is_in_doubt_and_a_mark_that_waits_for_its_turn_is_not() -> None:
    """The report is true at every moment, also while the consumer waits."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(EXECUTE, Delay(5))])
    async with client_of(sandbox) as client, client.drain() as drain:
        await anext(drain)
        assert drain.report.in_doubt == ()
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        assert drain.report.in_doubt == (str(FIRST),)
        with pytest.raises(StopAsyncIteration):
            await resumed
        assert drain.report.in_doubt == ()


@case("K1")
@on_virtual_clock
async def test_marks_that_are_given_up_are_in_doubt() -> None:
    """Set aside after six marks of unknown outcome: it failed, and it may have been marked; both are in the report."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(DROP)])
    async with client_of(sandbox) as client, client.drain() as drain:
        assert len([c async for c in drain]) == 1
    assert [failure.pack_id for failure in drain.report.set_aside] == [str(FIRST)]
    assert drain.report.in_doubt == (str(FIRST),)


# -- K2: the look after settle_time fails ------------------------------------------------------------------------------


@case("K2")
@pytest.mark.parametrize(
    "answer",
    [(Garbage(),), (Reply(200, b""),), (Reply(200, {"paging": None}),), (Reply(503),), (Reply(403),), (Reply(404),)],
    ids=["html", "empty", "no list", "503", "403", "404"],
)
@on_virtual_clock
async def test_a_look_that_fails_after_the_wait_is_tried_again(answer: Any) -> None:
    """However often it fails at one try: `settle_time` later it is read, what the lost mark reached is handed over."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(*LOST)])
    async with client_of(sandbox, retry=Retry(attempts=2, deadline=10)) as client, client.drain() as drain:
        found = [await anext(drain)]
        sandbox.add(on("peek", times=2).do(*answer))
        found += [c async for c in drain]
    assert not lost(sandbox, found)
    assert len(ids(found)) == 2
    assert sandbox.unread == 0
    assert drain.report.set_aside == ()
    assert drain.report.in_doubt == ()


@case("K2")
@on_virtual_clock
async def test_a_look_that_fails_for_ever_is_in_doubt(caplog: pytest.LogCaptureFixture) -> None:
    """The drain ends; the pack is set aside, and in doubt: it is never merely one that failed."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST).do(*LOST)])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [await anext(drain)]
        sandbox.add(on("peek", pack=FIRST).do(Reply(403)))
        found += [c async for c in drain]
    assert drain.report.in_doubt == (str(FIRST),)
    assert [type(f.error) for f in drain.report.set_aside] == [Forbidden]
    assert len(warnings(caplog)) == 1


# -- K3, K9: what stands behind the first page after a mark ------------------------------------------------------------


@case("K3")
@pytest.mark.parametrize("paging", [True, False], ids=["total grew", "no total"])
@on_virtual_clock
async def test_an_older_message_that_is_released_before_the_mark_is_handed_over(paging: bool) -> None:
    """60 messages, pages of 50: moderation releases an old one between look and mark. It is marked with the rest."""
    texts = [Message() for _ in range(60)]
    sandbox = Sandbox([Pack(messages=texts)], behaviour=Behaviour(paging=paging))
    hidden = sorted(sandbox.message_ids())[3]
    sandbox.hide(hidden)
    sandbox.add(on("mark", nth=1).do(RevealIt(hidden), EXECUTE))
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert not lost(sandbox, found)


@case("K3")
@on_virtual_clock
async def test_an_older_message_is_handed_over_where_each_page_counts_itself() -> None:
    """Such a count says nothing of what stands behind the mark's first page, whatever it was before."""
    sandbox = Sandbox([Pack(messages=[Message() for _ in range(13)])], behaviour=Behaviour(paging_total="page"))
    hidden = sorted(sandbox.message_ids())[3]
    sandbox.hide(hidden)
    sandbox.add(on("mark", nth=1).do(RevealIt(hidden), Send(), EXECUTE))
    async with client_of(sandbox) as client, client.drain(limit=5) as drain:
        found = [c async for c in drain]
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert not lost(sandbox, found)


@case("K3")
@pytest.mark.parametrize("came", [3, 7, None], ids=["seen", "after it started over", "with the mark"])
@on_virtual_clock
async def test_an_older_message_is_handed_over_although_another_was_hidden_and_some_came(came: int | None) -> None:
    """Some that were shown are hidden, two come, an old one is released: `total` grows by no more than what the mark's
    first page shows as new. Where the look saw that something was hidden, or the counts do not agree, that says nothing.
    """
    sandbox = Sandbox([Pack(messages=[*(Message() for _ in range(58)), *[Message(sender="seller")] * 2])])
    *_, second, newest = sorted(sandbox.message_ids())
    hidden = sorted(sandbox.message_ids())[3]
    sandbox.hide(hidden)
    coming = Send(), Send()
    if came is None:
        sandbox.add(on("mark", nth=1).do(HideIt(newest), HideIt(second), *coming, RevealIt(hidden), EXECUTE))
    else:
        sandbox.add(on("peek", nth=2).do(HideIt(newest), EXECUTE))
        sandbox.add(on("peek", nth=came).do(*coming, EXECUTE))
        sandbox.add(on("mark", nth=1).do(RevealIt(hidden), EXECUTE))
    async with client_of(sandbox) as client, client.drain(limit=15) as drain:
        found = [c async for c in drain]
    assert not lost(sandbox, found)
    assert set(ids(found)) >= sandbox.message_ids()


@case("K3")
@on_virtual_clock
async def test_a_mark_costs_one_request_where_nothing_came() -> None:
    """A long pack is not read a second time: the mark's first page is enough where its `total` is what it was."""
    sandbox = Sandbox([Pack(messages=[Message() for _ in range(120)])])
    async with client_of(sandbox) as client, client.drain() as drain:
        assert len([c async for c in drain]) == 1
    assert (sandbox.count("peek"), sandbox.count("mark")) == (3, 1)


# -- K5: the marking answer is unreadable ------------------------------------------------------------------------------


@case("K5")
@on_virtual_clock
async def test_a_mark_whose_answer_is_unreadable_is_looked_at_again_after_the_wait() -> None:
    """What is read at once may be a replica's that is behind: the pack is in doubt until it is read once more."""
    stale = Reply(200, {"paging": {"limit": 50, "offset": 0, "total": 0}, "messages": []})
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Send(), EXECUTE, Garbage()), on("peek", nth=2).do(stale)])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [await anext(drain)]
        waiting = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        assert drain.report.in_doubt == (str(FIRST),)
        found.append(await waiting)
        found += [c async for c in drain]
    assert asyncio.get_running_loop().time() >= 120
    assert not lost(sandbox, found)
    assert drain.report.in_doubt == ()


# -- K15: listed twice, with two counts --------------------------------------------------------------------------------


@case("K15")
@on_virtual_clock
async def test_a_pack_with_two_spellings_and_two_counts_ends() -> None:
    """They come in changing order: one count a pack, and the drain ends after two looks."""
    sandbox = Sandbox([Pack(messages=(Message(), Message(hidden=True)))])
    rows = [{"resource": f"/packs/{FIRST}", "count": 1}, {"resource": f"/packs/{FIRST}/sellers/9", "count": 2}]
    for n in range(1, 60):
        listing = {"userId": 700100200, "results": rows if n % 2 else rows[::-1]}
        sandbox.add(on("listing", nth=n).do(Reply(200, listing)))
    async with client_of(sandbox) as client, client.drain() as drain:
        assert len([c async for c in drain]) == 1
    assert [type(f.error) for f in drain.report.set_aside] == [StillListed]
    assert sandbox.count("listing") < 8


@case("K15")
@on_virtual_clock
async def test_a_count_that_never_stands_still_ends_too() -> None:
    """A server whose count of hidden messages changes with each listing: opened again some times, not for ever."""
    sandbox = Sandbox([Pack(messages=(Message(), Message(hidden=True)))])
    for n in range(1, 200):
        row = {"resource": f"/packs/{FIRST}", "count": n}
        sandbox.add(on("listing", nth=n).do(Reply(200, {"userId": 700100200, "results": [row]})))
    async with client_of(sandbox) as client, client.drain() as drain:
        assert len([c async for c in drain]) == 1
    assert sandbox.count("listing") < 60


# -- K21: closed by another task ---------------------------------------------------------------------------------------


@case("K21")
@pytest.mark.parametrize("what", ["drain", "client"])
@pytest.mark.parametrize(
    "waits_for", ["a mark", "a mark that has not left", "a look", "the wait after a mark", "a listing"]
)
@on_virtual_clock
async def test_whoever_closes_it_does_not_cancel_the_consumer(what: str, waits_for: str) -> None:
    """The consumer waits; another task closes the drain or the client: the end, or `RuntimeError`, and at once."""
    rules = {
        "a mark": [on("mark").do(Delay(5), EXECUTE)],
        "a mark that has not left": [on("mark").do(Reply(429, headers={"Retry-After": "200"}))],
        "a look": [on("peek", nth=2).do(Delay(5), EXECUTE)],
        "the wait after a mark": [on("mark").do(EXECUTE, DROP)],
        "a listing": [on("listing", nth=2).do(Delay(5), EXECUTE)],
    }[waits_for]
    sandbox = Sandbox(packs=2 if waits_for == "a look" else 1, rules=rules)
    async with client_of(sandbox) as client:
        drain = client.drain(concurrency=1)
        await anext(drain)
        waiting = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        assert not waiting.done()
        before = asyncio.get_running_loop().time()
        if what == "drain":
            await drain.aclose()
    with pytest.raises(StopAsyncIteration if what == "drain" else RuntimeError):
        await waiting
    assert waiting.cancelling() == 0
    assert asyncio.get_running_loop().time() - before < 10


@case("K21")
@on_virtual_clock
async def test_what_somebody_else_cancels_is_neither_an_end_nor_forgotten() -> None:
    """All tasks of the program but the consumer are cancelled during a read: `CancelledError`; then it goes on."""
    sandbox = Sandbox(packs=2, rules=[on("peek", nth=1).do(Delay(5), EXECUTE)])
    async with client_of(sandbox) as client, client.drain(concurrency=1) as drain:
        before = asyncio.all_tasks()
        consumer = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - before - {consumer}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        found = [c async for c in drain]
    assert len(found) == 2
    assert sandbox.unread == 0


# -- K33: another user's seller id -------------------------------------------------------------------------------------


@case("K33")
@pytest.mark.parametrize("packs", [3, 900])
@pytest.mark.parametrize("concurrency", [1, 8, 50])
@on_virtual_clock
async def test_a_wrong_seller_id_is_told_within_five_packs(packs: int, concurrency: int) -> None:
    """The listing is of another user and the first packs are refused: `Forbidden`, both ids in its hint, at most 5 GETs."""
    sandbox = Sandbox(packs=packs, behaviour=Behaviour(latency=0.1))
    async with (
        sandbox.session() as session,
        MessagesClient(sandbox.token, seller_id=42, base_url=sandbox.base_url, session=session) as client,
    ):
        drain = client.drain(concurrency=concurrency)
        with pytest.raises(Forbidden) as wrong:
            await anext(drain)
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
    assert "42" in (wrong.value.hint or "")
    assert sandbox.seller_id in (wrong.value.hint or "")
    assert sandbox.count("peek") == min(packs, 5)


@case("K33")
@on_virtual_clock
async def test_a_listing_of_another_id_is_no_proof() -> None:
    """A Global Selling seller has several ids: where one of the first packs can be read, refused ones are set aside."""
    listing = {"userId": 999, "results": [{"resource": f"/packs/{FIRST + n}", "count": 1} for n in range(20)]}
    sandbox = Sandbox(packs=20, rules=[on("listing", nth=1).do(Reply(200, listing))])
    sandbox.refuse([FIRST + n for n in (0, 1, 2, 3, *range(5, 12))])
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 9
    assert len(drain.report.set_aside) == 11


@case("K9")
@on_virtual_clock
async def test_a_burst_before_the_second_mark_is_read_back_whole() -> None:
    """A server that shows `read` late is taken for one that marks what it returns; what its second mark reaches is read."""
    sandbox = Sandbox(
        [Pack(messages=12, unread=12)],
        behaviour=Behaviour(marks="page"),
        rules=[on("mark", nth=1).do(SNAPSHOT), on("mark", nth=2).do(*[Send()] * 20, EXECUTE)],
    )
    async with client_of(sandbox) as client, client.drain(limit=5) as drain:
        found = [c async for c in drain]
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert drain.report.set_aside == ()

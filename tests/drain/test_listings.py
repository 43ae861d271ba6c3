"""`client.drain()`: listings that are late, wrong or never empty."""

from __future__ import annotations

import asyncio

import pytest

from drain.draining import FIRST, drained, gets
from mlmessages.errors import DecodeError, StillListed
from mlmessages.testing import (
    DROP,
    EXECUTE,
    SNAPSHOT,
    Behaviour,
    HideIt,
    Message,
    Pack,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock


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

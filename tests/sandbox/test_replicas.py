"""Servers that are behind: listings, pages, totals and read dates of some seconds ago, and messages held back."""

from __future__ import annotations

import asyncio

import pytest

from mlmessages.testing import EXECUTE, Behaviour, HideIt, Message, Pack, RevealIt, Sandbox, Send, Stale, on


def dates(seen):
    return [message["message_date"]["read"] is not None for message in seen.json["messages"]]


def test_a_replica_shows_arrivals_marks_and_hidings_when_it_has_caught_up(in_memory):
    sandbox = Sandbox(1, messages=3, behaviour=Behaviour(page_lag=2.0))
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        await asyncio.sleep(10)
        before = (await ask.peek(pack)).ids
        new = sandbox.send(pack)
        sandbox.hide(before[0])
        assert (await ask.peek(pack)).ids == before
        marked = await ask.pack(pack)  # the marking read is not the replica's
        assert marked.ids == [new, *before[1:]]
        await asyncio.sleep(1.9)
        assert (await ask.peek(pack)).ids == before
        assert dates(await ask.peek(pack)) == [False, True, False]  # the seller's own was read long ago
        await asyncio.sleep(0.2)
        seen = await ask.peek(pack)
        assert seen.ids == [new, *before[1:]]
        assert dates(seen) == [True, True, True]
        assert sandbox.unread == 1  # what is hidden stays unread

    in_memory(sandbox, scenario)


def test_a_message_asked_for_by_its_id_is_ahead_of_its_storage(in_memory):
    sandbox = Sandbox(1, behaviour=Behaviour(page_lag=3.0))
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        new = sandbox.send(pack)
        assert (await ask.get(f"/messages/{new}?tag=post_sale")).status == 404
        await asyncio.sleep(3)
        assert (await ask.get(f"/messages/{new}?tag=post_sale")).ids == [new]

    in_memory(sandbox, scenario)


def test_one_answer_can_be_stale(in_memory):
    sandbox = Sandbox(
        1,
        rules=[
            on("peek", nth=1).do(Stale(5)),
            on("listing", nth=1).do(Stale(5)),
            on("mark", nth=1).do(Stale(5)),
            on("message", nth=1).do(Stale(5)),
        ],
    )
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        await asyncio.sleep(60)
        (old,) = sandbox.message_ids()
        new = sandbox.send(pack)
        assert (await ask.peek(pack)).ids == [old]
        assert (await ask.peek(pack)).ids == [new, old]
        assert await ask.listing() == [(pack, 1)]
        assert await ask.listing() == [(pack, 2)]
        assert (await ask.get(f"/messages/{new}?tag=post_sale")).status == 404
        assert (await ask.get(f"/messages/{new}?tag=post_sale")).status == 200
        assert (await ask.pack(pack)).ids == [old]
        assert sandbox.marked_ids() == {old, new}  # a marking read marks all the same
        assert all(entry.executed for entry in sandbox.log if entry.kind != "message")

    in_memory(sandbox, scenario)


def test_a_stale_listing_knows_what_was_read_since(in_memory):
    sandbox = Sandbox(3, rules=[on("listing", every=2).do(Stale(30))])
    first, second, third = sandbox.pack_ids()

    async def scenario(ask):
        await asyncio.sleep(100)
        await ask.pack(second)
        assert [pack for pack, _ in await ask.listing()] == [third, first]
        assert sorted(await ask.listing()) == [(first, 1), (second, 1), (third, 1)]
        await asyncio.sleep(31)
        assert [pack for pack, _ in await ask.listing()] == [third, first]
        assert [pack for pack, _ in await ask.listing()] == [third, first]

    in_memory(sandbox, scenario)


def test_the_total_can_be_of_an_older_moment(in_memory):
    sandbox = Sandbox(1, messages=5, behaviour=Behaviour(total_lag=2.0))
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        await asyncio.sleep(10)
        sandbox.send(pack)
        seen = await ask.peek(pack)
        assert (len(seen.ids), seen.json["paging"]["total"]) == (6, 5)
        await asyncio.sleep(2)
        assert (await ask.peek(pack)).json["paging"]["total"] == 6

    in_memory(sandbox, scenario)


def test_read_dates_can_come_late(in_memory):
    sandbox = Sandbox(1, messages=20, behaviour=Behaviour(read_lag=3.0, marks="page"))
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        marked = await ask.pack(pack)
        assert sandbox.marked_ids() <= set(marked.ids)
        assert dates(await ask.peek(pack, "&limit=20"))[:10:2] == [False] * 5
        assert await ask.listing() == [(pack, 5)]  # the listing knows at once
        await asyncio.sleep(3)
        assert dates(await ask.peek(pack, "&limit=20"))[:20:2] == [True] * 5 + [False] * 5

    in_memory(sandbox, scenario)


@pytest.mark.parametrize(("kind", "told"), [("page", {"limit": 3, "offset": 2, "total": 3}), ("absent", None)])
def test_the_total_can_be_that_of_the_page_or_absent(in_memory, kind, told):
    sandbox = Sandbox(1, messages=9, behaviour=Behaviour(paging_total=kind))

    async def scenario(ask):
        paging = (await ask.peek(sandbox.pack_ids()[0], "&limit=3&offset=2")).json["paging"]
        assert paging == (told or {"limit": 3, "offset": 2})

    in_memory(sandbox, scenario)


def test_a_message_that_was_held_back_comes_with_its_old_date_and_place(in_memory):
    sandbox = Sandbox(1, messages=60)
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        before = (await ask.peek(pack, "&limit=100")).ids
        late = sandbox.send(pack, "held back", age=70 * 60)
        assert (await ask.peek(pack, "&limit=50")).ids == before[:50]
        page = await ask.peek(pack, "&limit=100")
        assert page.ids == [*before, late]
        stamps = [message["message_date"]["created"] for message in page.json["messages"]]
        assert stamps == sorted(stamps, reverse=True)
        assert await ask.listing() == [(pack, 31)]

    in_memory(sandbox, scenario)


def test_a_rule_can_let_one_arrive_behind_the_first_page(in_memory):
    sandbox = Sandbox([Pack(messages=[Message("held", hidden=True), *(Message(f"{n}") for n in range(60))])])
    (pack,) = sandbox.pack_ids()
    held = min(sandbox.message_ids())
    sandbox.add(on("mark", nth=1).do(Send(age=7200.0, text="older still"), RevealIt(held), EXECUTE))
    sandbox.add(on("mark", nth=2).do(HideIt(held), EXECUTE))

    async def scenario(ask):
        first = await ask.peek(pack, "&limit=50")
        assert first.json["paging"]["total"] == 60
        marked = await ask.pack(pack, "&limit=50")
        assert (marked.ids, marked.json["paging"]["total"]) == (first.ids, 62)
        last = await ask.peek(pack, "&limit=2&offset=60")
        assert [message["text"] for message in last.json["messages"]] == ["held", "older still"]
        assert sandbox.unread == 0
        await ask.pack(pack)
        assert held not in (await ask.peek(pack, "&limit=100")).ids

    in_memory(sandbox, scenario)


@pytest.mark.parametrize("seconds", [-1, 3601, float("nan")])
def test_a_lag_that_cannot_be_is_refused(seconds):
    with pytest.raises(ValueError, match="seconds"):
        Stale(seconds)
    with pytest.raises(ValueError, match="page_lag is a number of seconds, 0 or more"):
        Behaviour(page_lag=-seconds if seconds > 0 else seconds)

"""Refusals and parking: what a refused conversation costs, and when it is tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.observed import gets, now, states
from mlmessages import Retry, failpoints
from mlmessages.errors import (
    DrainStalled,
    Forbidden,
    JournalError,
    NotFound,
    RateLimited,
    ServerError,
    StillListed,
    Unauthorized,
)
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    Behaviour,
    Hold,
    Message,
    Pack,
    Redirect,
    Reply,
    Sandbox,
    on,
)
from worlds import ids, lost, on_virtual_clock

FIRST = "2000000000000001"


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


@case("P3")
@on_virtual_clock
async def test_park_after_counts_the_tries_of_one_drain(inbox_of: Any, consumer: Any) -> None:
    """Two refusals in a drain that is left early, one in the next: none of them has had three."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=range(1, 4)).do(Reply(404))])
    async with inbox_of(sandbox, park_after=3) as inbox:
        async with inbox.drain() as drain:
            waiting = asyncio.ensure_future(anext(drain))
            while sandbox.count("mark") < 2:
                await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.wait([waiting])
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert set(consumer.ids) == sandbox.message_ids()
    assert sandbox.count("mark") == 4

"""`client.drain()`: packs that fail are set aside, and the rest goes on."""

from __future__ import annotations

import pytest

from drain.draining import FIRST, gets
from mlmessages.errors import DrainStalled, Forbidden
from mlmessages.testing import (
    Behaviour,
    Reply,
    Sandbox,
    on,
)
from worlds import client_of, on_virtual_clock


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

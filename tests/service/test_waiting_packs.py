"""Packs that wait for a moment are read at that moment, whatever else the service waits for."""

from __future__ import annotations

import asyncio
from typing import Any

from cases import case
from mlmessages.testing import DROP, Delay, Sandbox, on
from worlds import on_virtual_clock

FIRST, SECOND = (f"200000000000000{n}" for n in (1, 2))


def marks(sandbox: Sandbox, pack: str) -> list[float]:
    return [round(entry.at, 1) for entry in sandbox.log if entry.kind == "mark" and entry.pack_id == pack]


@case("Q71")
@on_virtual_clock
async def test_a_wait_that_is_over_does_not_wait_for_the_next_listing(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """Two listings are five seconds apart: a mark of unknown outcome is looked at after its own two seconds."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST, nth=1).do(DROP)])
    async with inbox_of(sandbox, settle_time=2) as inbox, running(inbox, handler):
        await asyncio.sleep(20)
    assert marks(sandbox, SECOND) == [0.0]
    assert marks(sandbox, FIRST) == [0.0, 2.0]


@case("Q71")
@on_virtual_clock
async def test_a_wait_that_is_over_does_not_wait_for_a_slow_answer(inbox_of: Any, handler: Any, running: Any) -> None:
    """Another pack is being read meanwhile, for twenty seconds."""
    rules = [on("mark", pack=FIRST, nth=1).do(DROP), on("mark", pack=SECOND, nth=1).do(Delay(20), DROP)]
    sandbox = Sandbox(packs=2, rules=rules)
    async with inbox_of(sandbox, settle_time=2) as inbox, running(inbox, handler):
        await asyncio.sleep(60)
    assert marks(sandbox, FIRST) == [0.0, 2.0]


@case("Q71")
@on_virtual_clock
async def test_in_a_drain_neither(inbox_of: Any) -> None:
    """The same where a consumer drains."""
    rules = [on("mark", pack=FIRST, nth=1).do(DROP), on("mark", pack=SECOND, nth=1).do(Delay(20), DROP)]
    sandbox = Sandbox(packs=2, rules=rules)
    async with inbox_of(sandbox, settle_time=2) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            await delivery.ack()
    assert marks(sandbox, FIRST) == [0.0, 2.0]

"""Refusals and parking: what a refused conversation costs, and when it is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

from cases import case
from mlmessages.testing import Reply, Sandbox, on
from worlds import on_virtual_clock


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

"""A wall clock that is set between two processes, in either direction."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from cases import case
from mlmessages.testing import DROP, EXECUTE, Hold, Sandbox, on
from worlds import lost, on_virtual_clock

FIRST = "2000000000000001"


def now() -> float:
    return asyncio.get_running_loop().time()


@case("A21")
@pytest.mark.parametrize("jump", [-3600.0, -100 * 86400.0, 3600.0])
@on_virtual_clock
async def test_a_wall_clock_that_jumps_bounds_the_wait(
    jump: float, inbox_of: Any, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two processes the clock is set: the second waits at most `settle_time`, and everything comes."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with inbox_of(sandbox, settle_time=100) as inbox, inbox.drain() as drain:
        consumer.deliveries.append(await anext(drain))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    restarted = now()
    async with inbox_of(sandbox, settle_time=100) as inbox:
        await consumer.empty(inbox)
    assert now() - restarted <= 101
    assert set(consumer.ids) == sandbox.message_ids()


@case("K10")
@on_virtual_clock
async def test_a_clock_that_is_set_forward_ends_no_wait(
    inbox_of: Any, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a process that has ended executes 90 s after the restart, over a message that came meanwhile."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Hold("z"), EXECUTE, DROP)])
    async with inbox_of(sandbox, client={"timeout": 30}) as inbox, inbox.drain() as drain:
        waiting = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(35)
        assert inbox.report.waiting == 1
        waiting.cancel()
        await asyncio.wait([waiting])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)

    async def zombie() -> None:
        await asyncio.sleep(80)
        sandbox.send(FIRST)
        await asyncio.sleep(10)
        sandbox.release("z")

    restarted = now()
    async with inbox_of(sandbox) as inbox:
        walking = asyncio.ensure_future(zombie())
        await consumer.empty(inbox)
        await walking
    assert now() - restarted >= 119
    assert set(consumer.ids) == sandbox.message_ids()
    assert not lost(sandbox, consumer.deliveries)

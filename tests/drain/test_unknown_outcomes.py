"""`client.drain()`: marks that are lost, late, or answered with what cannot be read."""

from __future__ import annotations

import asyncio

import pytest

from drain.draining import drained
from mlmessages.errors import AnswerLost
from mlmessages.testing import (
    DROP,
    EXECUTE,
    Delay,
    Garbage,
    Hold,
    Reply,
    Sandbox,
    Send,
    Truncate,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock


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
    assert late is not None
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


@on_virtual_clock
async def test_a_wait_that_is_over_does_not_wait_for_a_slow_read() -> None:
    """Another pack is being read for 20 s: one whose mark was lost is read again when its own 2 s are over."""
    await asyncio.sleep(100)
    sandbox = Sandbox(packs=2)
    first, second = sandbox.pack_ids()
    sandbox.add(on("mark", pack=first, nth=1).do(DROP))
    sandbox.add(on("peek", pack=second, nth=1).do(Delay(20), EXECUTE))
    async with client_of(sandbox) as client, client.drain(concurrency=2, settle_time=2) as drain:
        await drained(drain, sandbox)
    assert [round(entry.at) for entry in sandbox.log if entry.kind == "peek" and entry.pack_id == first] == [0, 2]

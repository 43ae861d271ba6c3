"""Closing a drain in the middle of a mark that takes several requests: what the mark showed is not lost. And what
a consumer is told when the client is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mlmessages import Drain, Limits, MessagesClient
from mlmessages.conversations.fetch import Fetch
from mlmessages.testing import EXECUTE, Behaviour, Delay, Garbage, Message, Pack, Reply, Rule, Sandbox, Send, on
from worlds import client_of, lost, on_virtual_clock

SLOWLY = (Delay(5), EXECUTE)

MARKS: dict[str, tuple[Sequence[Message], Behaviour, list[Rule]]] = {
    "a burst hides all that is known, and is read on from": (
        [Message()],
        Behaviour(),
        [on("peek", nth=1).do(EXECUTE, *[Send()] * 60), on("peek", nth=2).do(*SLOWLY)],
    ),
    "the marking answer is unreadable, and is read again": (
        [Message()],
        Behaviour(),
        [on("mark").do(Send(), EXECUTE, Garbage()), on("peek", nth=2).do(*SLOWLY)],
    ),
    "the marking answer itself is slow": (
        [Message()],
        Behaviour(),
        [on("mark").do(Send(), *SLOWLY)],
    ),
    "a server that sends the oldest first": (
        [Message()] * 30,
        Behaviour(order="oldest"),
        [on("mark").do(Send(), EXECUTE), on("peek", nth=[3, 4, 5]).do(*SLOWLY)],
    ),
}


@pytest.mark.parametrize(("messages", "behaviour", "rules"), MARKS.values(), ids=MARKS)
@on_virtual_clock
async def test_closing_waits_for_what_a_mark_has_shown(
    messages: Sequence[Message], behaviour: Behaviour, rules: list[Rule]
) -> None:
    """The consumer is cancelled and the drain closed a second after the mark: nothing that it marked stays unseen."""
    sandbox = Sandbox([Pack(messages=messages)], behaviour=behaviour, rules=rules)
    async with client_of(sandbox) as client:
        drain = client.drain(limit=25)
        first = await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        resumed.cancel()
        await drain.aclose()
        assert sandbox.count("mark") == 1
        assert sandbox.marked_ids()
        assert not lost(sandbox, [first, *drain.report.unseen])
        assert not lost(sandbox, [first]) or drain.report.unseen[0].marked


@on_virtual_clock
async def test_leaving_the_client_waits_for_it_too() -> None:
    """The same when the client is left instead: its report is true afterwards."""
    messages, behaviour, rules = MARKS["the marking answer is unreadable, and is read again"]
    sandbox = Sandbox([Pack(messages=messages)], behaviour=behaviour, rules=rules)
    async with client_of(sandbox) as client:
        drain = client.drain()
        first = await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        resumed.cancel()
    assert not lost(sandbox, [first, *drain.report.unseen])
    assert asyncio.all_tasks() - {resumed} == {asyncio.current_task()}


@on_virtual_clock
async def test_a_mark_that_waits_after_a_429_is_not_waited_for() -> None:
    """It was refused, so nothing is in doubt: closing ends it at once, and the pack stays unread."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(Reply(429, headers={"Retry-After": "200"}))])
    async with client_of(sandbox, limits=Limits(per_second=None)) as client:
        drain = client.drain()
        await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        resumed.cancel()
        await drain.aclose()
        assert asyncio.get_running_loop().time() < 2
    assert sandbox.unread == 1


# -- the client is left while a consumer iterates ----------------------------------------------------------------------


def opened(what: str, client: MessagesClient, sandbox: Sandbox) -> Drain | Fetch:
    return client.drain() if what == "drain" else client.fetch(sandbox.pack_ids())


@pytest.mark.parametrize("what", ["drain", "fetch"])
@pytest.mark.parametrize("begun", [False, True])
@on_virtual_clock
async def test_what_the_client_cut_off_has_not_come_to_its_end(what: str, begun: bool) -> None:
    """A consumer that goes on after the client was left is told so each time: an `async for` does not look complete."""
    sandbox = Sandbox(packs=5)
    async with client_of(sandbox) as client:
        found = opened(what, client, sandbox)
        if begun:
            await anext(found)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the client is closed"):
            await anext(found)
    await found.aclose()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await anext(found)


@pytest.mark.parametrize("what", ["drain", "fetch"])
@on_virtual_clock
async def test_whoever_waits_while_the_client_is_left_is_told_too(what: str) -> None:
    """A task that waits for the next one gets the error as well, not an end."""
    sandbox = Sandbox(packs=5, rules=[on("peek").do(*SLOWLY)])
    async with client_of(sandbox) as client:
        waiting = asyncio.ensure_future(anext(opened(what, client, sandbox)))
        await asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="the client is closed"):
        await waiting


@pytest.mark.parametrize("what", ["drain", "fetch"])
@pytest.mark.parametrize("how", ["its end", "aclose"])
@on_virtual_clock
async def test_what_was_over_before_the_client_was_left_is_over(what: str, how: str) -> None:
    """After its natural end, and after the user's own `aclose`, there is nothing more, also when the client is left."""
    sandbox = Sandbox(packs=5)
    async with client_of(sandbox) as client:
        found = opened(what, client, sandbox)
        if how == "aclose":
            await anext(found)
            await found.aclose()
        else:
            assert len([c async for c in found]) == 5
    with pytest.raises(StopAsyncIteration):
        await anext(found)


@on_virtual_clock
async def test_what_the_user_is_closing_while_the_client_is_left_is_over() -> None:
    """The user's own `aclose` still waits for a mark when the client is left: nothing was cut off."""
    sandbox = Sandbox(packs=2, rules=[on("mark").do(*SLOWLY)])
    async with client_of(sandbox) as client:
        drain = client.drain()
        await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        resumed.cancel()
        closing = asyncio.ensure_future(drain.aclose())
        await asyncio.sleep(1)
    await closing
    with pytest.raises(StopAsyncIteration):
        await anext(drain)

"""Another task closes the client, the inbox or its drain while a consumer waits: its own task is not cancelled."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cases import case
from mlmessages import Inbox, MessagesClient, failpoints
from mlmessages.errors import MessagesError
from mlmessages.testing import DROP, EXECUTE, HANG, Behaviour, Sandbox, on
from mlmessages.testing.clock import VirtualClockLoop
from worlds import client_of, on_virtual_clock

RULES = {
    "a listing": [on("listing", nth=1).do(HANG)],
    "a mark": [on("mark").do(HANG)],
    "the next listing": [on("listing", nth=2).do(HANG)],
    "the settle time": [on("mark").do(EXECUTE, DROP)],
}


@case("K21")
@pytest.mark.parametrize("closed", ["client", "inbox", "drain"])
@pytest.mark.parametrize("waits_for", RULES)
@on_virtual_clock
async def test_a_consumer_that_waits_is_not_cancelled(waits_for: str, closed: str, tmp_path: Path) -> None:
    """It is told: `RuntimeError`, the error of the closed connection, or the end; and what it awaits next works."""
    sandbox = Sandbox(packs=2, rules=RULES[waits_for], behaviour=Behaviour(latency=0.1))
    clients, inboxes = AsyncExitStack(), AsyncExitStack()
    async with clients, inboxes:
        client: MessagesClient = await clients.enter_async_context(client_of(sandbox))
        inbox = await inboxes.enter_async_context(Inbox(client, tmp_path / "inbox.db"))
        drain = inbox.drain()
        ended: list[BaseException] = []

        async def consume() -> None:
            while True:
                try:
                    delivery = await anext(drain)
                except (StopAsyncIteration, RuntimeError, MessagesError) as error:
                    ended.append(error)
                    break
                await delivery.ack()
            await asyncio.sleep(1)  # a cancellation that was only put off would arrive here

        consumer = asyncio.ensure_future(consume())
        await asyncio.sleep(10)
        assert not consumer.done()
        await {"client": clients.aclose, "inbox": inboxes.aclose, "drain": drain.aclose}[closed]()
        await consumer
        assert not consumer.cancelling()
        assert len(ended) == 1
        if closed == "inbox":
            assert isinstance(ended[0], RuntimeError)
            assert str(ended[0]) == "the inbox is closed"


@case("P3")
@on_virtual_clock
async def test_a_store_that_is_slower_than_the_grace_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain is closed while the disk takes ten seconds to keep an answer: it is kept, and delivered by the next one."""
    sandbox, loop = Sandbox(packs=1), asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    reached, released = asyncio.Event(), threading.Event()
    places: list[str] = []

    def slow(name: str) -> None:
        places.append(name)
        if name == "before commit" and "read" in places and not released.is_set():
            loop.call_soon_threadsafe(reached.set)
            released.wait()

    async with client_of(sandbox) as client, Inbox(client, tmp_path / "inbox.db") as inbox:
        monkeypatch.setattr(failpoints, "hook", slow)
        drain = inbox.drain()
        waiting = asyncio.ensure_future(anext(drain))
        await reached.wait()
        closing = asyncio.ensure_future(drain.aclose())
        await asyncio.sleep(0)
        loop.jump(10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not closing.done()
        released.set()
        await closing
        with pytest.raises(StopAsyncIteration):
            await waiting
        delivered = [delivery async for delivery in inbox.drain()]
    assert [delivery.pack_id for delivery in delivered] == sandbox.pack_ids()
    assert sandbox.count("mark") == 1

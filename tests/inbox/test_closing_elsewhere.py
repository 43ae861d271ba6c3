"""Another task closes the client, the inbox or its drain while a consumer waits: its own task is not cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cases import case
from mlmessages import Inbox, MessagesClient
from mlmessages.errors import MessagesError
from mlmessages.testing import DROP, EXECUTE, HANG, Behaviour, Sandbox, on
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

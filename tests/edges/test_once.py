"""One call, one execution: aiohttp repeats a GET when a reused connection drops, and this client does not let it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from edges.sockets import PACK, PAGE, Wire, answering, client_at, server, within
from mlmessages import Retry
from mlmessages.errors import AnswerLost
from mlmessages.testing import DROP, RESET, Sandbox, on

answer = answering(PAGE)


async def dropping_the_second(wire: Wire, writer: asyncio.StreamWriter) -> None:
    """The first answer keeps the connection open; the second request is read (and executed), and not answered."""
    if len(wire.requests) == 2:
        writer.close()
    else:
        await answer(wire, writer)


@within(5)
async def test_bare_aiohttp_executes_a_get_twice() -> None:
    """What this file is about: one call of aiohttp alone, two executions. The tests below could fail."""
    async with server(dropping_the_second) as wire, aiohttp.ClientSession() as session:
        for query in ("?mark_as_read=false", ""):
            async with session.get(f"{wire.base_url}/messages/packs/{PACK}{query}") as response:
                await response.read()
    assert wire.marks == 2


@pytest.mark.parametrize("borrowed", [False, True])
@within(5)
async def test_a_marking_get_on_a_dropped_connection_is_executed_once(borrowed: bool) -> None:
    """`AnswerLost`, and the wire saw one marking request; also over a session that was lent."""
    async with (
        server(dropping_the_second) as wire,
        aiohttp.ClientSession() as lent,
        client_at(wire.base_url, session=lent if borrowed else None) as client,
    ):
        await client.page(PACK)
        with pytest.raises(AnswerLost):
            await client.page(PACK, mark_as_read=True)
    assert wire.connections == 1
    assert wire.marks == 1
    assert len(wire.requests) == 2


@within(5)
async def test_a_read_on_a_dropped_connection_is_not_repeated_behind_our_back() -> None:
    """With one attempt it is `AnswerLost`, and the wire saw one request for it."""
    once = Retry(attempts=1)
    async with server(dropping_the_second) as wire, client_at(wire.base_url, retry=once) as client:
        await client.page(PACK)
        with pytest.raises(AnswerLost):
            await client.page(PACK)
        assert len(wire.requests) == 2


@within(5)
async def test_a_read_on_a_dropped_connection_is_repeated_by_the_policy(caplog: pytest.LogCaptureFixture) -> None:
    """With two attempts the second one answers; the retry is in the log, and there are no more than two requests."""
    with caplog.at_level("INFO", "mlmessages"):
        async with server(dropping_the_second) as wire, client_at(wire.base_url) as client:
            await client.page(PACK)
            assert len((await client.page(PACK)).messages) == 1
            assert len(wire.requests) == 3
    assert ["AnswerLost" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("ending", [DROP, RESET], ids=["closed", "reset"])
@within(10)
async def test_every_request_is_counted(ending: Any) -> None:
    """Reads are dropped on reused connections: the drain's report and the server count the same requests."""
    sandbox = Sandbox(packs=30, rules=[on("peek", every=4).do(ending)])
    async with (
        sandbox.serve() as served,
        client_at(served.base_url, auth=served.token, retry=Retry(base=0.01)) as client,
        client.drain(concurrency=4) as drain,
    ):
        found = [conversation async for conversation in drain]
    assert len(found) == 30
    assert sandbox.count("peek") > 30
    assert drain.report.requests == len(sandbox.log)


@within(10)
async def test_a_mark_whose_connection_drops_is_sent_once_by_a_drain_too() -> None:
    """Executed or not, the dropped mark is not repeated before `settle_time`; the drain goes on with the others."""
    sandbox = Sandbox(packs=5, rules=[on("mark", nth=2).do(DROP)])
    async with sandbox.serve() as served, client_at(served.base_url, auth=served.token) as client:
        drain = client.drain(concurrency=1)
        for _ in range(5):
            await anext(drain)
        assert drain.report.waiting == 1
        await drain.aclose()
    assert sandbox.count("mark") == 4
    assert len({entry.pack_id for entry in sandbox.log if entry.kind == "mark"}) == 4

"""`client.drain()`: every conversation once, past the cap; coming back for the next one is the acknowledgement."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from cases import case
from drain.draining import drained, gets
from mlmessages import Limits, Retry
from mlmessages.errors import ServerError
from mlmessages.testing import (
    DROP,
    EXECUTE,
    Behaviour,
    Delay,
    Hold,
    Pack,
    RateWindow,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock

# -- the main job ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [0, 1, 999, 1000, 1001, 2500])
@on_virtual_clock
async def test_every_conversation_comes_once_past_the_cap(packs: int) -> None:
    """N one-page packs: each is handed over once, with 2 requests a pack and at most ceil(N / cap) + 2 listings."""
    sandbox = Sandbox(packs=packs)
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [conversation async for conversation in drain]
    assert sorted(c.pack_id for c in found) == sandbox.pack_ids()
    assert sorted(ids(found)) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert gets(sandbox) == 2 * packs
    assert sandbox.count("listing") <= -(-packs // 1000) + 2
    assert drain.report.conversations == drain.report.messages == packs
    assert drain.report.requests == len(sandbox.log)
    assert drain.report.listings == sandbox.count("listing")


@on_virtual_clock
async def test_a_conversation_holds_all_that_was_read() -> None:
    """`messages` is the whole pack, newest first; `unread` the counterparty's that were unread, oldest first."""
    sandbox = Sandbox([Pack(messages=7, unread=2)])
    async with client_of(sandbox) as client, client.drain(limit=3) as drain:
        [conversation] = [c async for c in drain]
    assert len(conversation.messages) == 7
    created = [message.created for message in conversation.messages if message.created]
    assert created == sorted(created, reverse=True)
    assert [m.id for m in conversation.unread] == [conversation.messages[2].id, conversation.messages[0].id]
    assert conversation.status is not None
    assert conversation.status.can_reply
    assert conversation.resource == f"/packs/{conversation.pack_id}"
    assert not conversation.marked


@on_virtual_clock
async def test_the_whole_drain_keeps_within_the_documented_budget() -> None:
    """600 packs on the default limits: never a 429, on a server that counts 500 GETs a minute."""
    sandbox = Sandbox(packs=600, behaviour=Behaviour(rate=RateWindow(), latency=0.12))
    async with client_of(sandbox, limits=Limits()) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert len(found) == 600
    assert sandbox.throttled == 0


# -- resuming is the acknowledgement -----------------------------------------------------------------------------------


@on_virtual_clock
async def test_break_leaves_the_last_conversation_unread() -> None:
    """Coming back marks; `break` does not: of three that were handed over, two are marked, and nothing else."""
    sandbox = Sandbox(packs=20)
    found = []
    async with client_of(sandbox) as client:
        async with client.drain() as drain:
            async for conversation in drain:
                found.append(conversation)
                if len(found) == 3:
                    break
        assert sandbox.marked_ids() == set(ids(found[:2]))
        assert sandbox.unread == 18


@on_virtual_clock
async def test_an_exception_of_the_consumer_leaves_the_conversation_unread() -> None:
    """What a handler failed on is not marked."""
    sandbox = Sandbox(packs=3)
    async with client_of(sandbox) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.drain() as drain:
                async for _ in drain:
                    raise ZeroDivisionError
    assert sandbox.marked_ids() == set()


@on_virtual_clock
async def test_leaving_the_client_closes_a_drain_that_was_left_open() -> None:
    """`break` without a context manager leaks no task; what was not acknowledged stays unread."""
    sandbox = Sandbox(packs=20)
    async with client_of(sandbox) as client:
        async for _ in client.drain():
            break
    assert sandbox.marked_ids() == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@case("T11")
@pytest.mark.parametrize(
    ("answer", "first"),
    [((), 0), ((EXECUTE, Reply(502)), 0), ((Delay(1), EXECUTE, Reply(502)), 1)],
    ids=["healthy", "every read fails", "reads ahead fail"],
)
@on_virtual_clock
async def test_what_is_left_by_break_and_let_go_takes_no_memory(answer: tuple[Any, ...], first: int) -> None:
    """Drains and fetches that a long-lived client has made and no one holds are gone, without a complaint of asyncio."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    sandbox = Sandbox(packs=20)
    async with client_of(sandbox, retry=Retry(attempts=1)) as client:
        left: list[weakref.ref[object]] = []
        for _ in range(5):
            drain, fetch = client.drain(), client.fetch(sandbox.pack_ids())
            for generator in (drain, fetch):
                await anext(generator, None)
                left.append(weakref.ref(generator))
            if answer:
                sandbox.add(on("peek", pack=sandbox.pack_ids()[first:]).do(*answer))
        del drain, fetch, generator
        await asyncio.sleep(60)
        gc.collect()
        assert [each() for each in left] == [None] * 10
    assert complaints == []


@case("T11")
@on_virtual_clock
async def test_a_drain_in_doubt_that_is_let_go_is_still_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """When the client closes: its marks may have reached what no one has seen."""
    sandbox = Sandbox(packs=3, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with client_of(sandbox) as client:
        number = 0
        async for _ in client.drain():
            number += 1
            if number == 2:
                break
        gc.collect()
    assert "1 of its marks may have been executed" in caplog.text


@on_virtual_clock
async def test_a_closed_drain_is_over() -> None:
    """After `aclose`, which may be called twice, there is nothing more to iterate."""
    sandbox = Sandbox(packs=3)
    async with client_of(sandbox) as client:
        drain = client.drain()
        await anext(drain)
        await drain.aclose()
        await drain.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(drain)


@on_virtual_clock
async def test_cancelling_at_every_await_leaves_the_client_usable_and_the_report_true() -> None:
    """The consumer is cancelled at its k-th step, for every k: nothing marked is unseen, and a second drain gets the
    rest.
    """
    for k in range(1, 120):
        sandbox = Sandbox(packs=4, behaviour=Behaviour(latency=0.01), rules=[on("mark", nth=2).do(EXECUTE, Send())])
        seen = []
        async with client_of(sandbox) as client:
            drain = client.drain(concurrency=2)

            async def consume() -> None:
                async with drain:
                    async for conversation in drain:
                        seen.append(conversation)

            task = asyncio.ensure_future(consume())
            for _ in range(k * 3):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            report = drain.report
            assert report.conversations == len(seen)
            assert report.messages == len(ids(seen))
            assert not lost(sandbox, [*seen, *report.unseen]), k
            async with client.drain() as rest:
                again = [c async for c in rest]
        assert not lost(sandbox, [*seen, *report.unseen, *again]), k
        assert sandbox.unread == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_closing_does_not_wait_for_reads() -> None:
    """A page that is read ahead is not answered: `aclose` returns all the same."""
    sandbox = Sandbox(packs=2, rules=[on("peek", nth=2).do(Hold("z"), EXECUTE)])
    async with client_of(sandbox) as client:
        drain = client.drain(concurrency=2)
        await anext(drain)
        before = asyncio.get_running_loop().time()
        await drain.aclose()
        assert asyncio.get_running_loop().time() - before < 1
    assert sandbox.count("peek") == 2


@on_virtual_clock
async def test_closing_does_not_wait_for_a_mark_that_has_not_left() -> None:
    """A cancelled consumer is free at once although its acknowledgement still waits for the budget; the pack stays
    unread.
    """
    sandbox = Sandbox(packs=2)
    async with client_of(sandbox, limits=Limits(reads=3, period=1000)) as client:
        drain = client.drain(concurrency=2)
        await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))  # the fourth GET has to wait 1,000 s
        await asyncio.sleep(1)
        resumed.cancel()
        before = asyncio.get_running_loop().time()
        await drain.aclose()
        assert asyncio.get_running_loop().time() - before < 1
    assert sandbox.count("mark") == 0
    assert sandbox.unread == 2


@on_virtual_clock
async def test_closing_waits_for_a_mark_that_is_in_flight_and_reports_what_only_it_showed() -> None:
    """The mark executes while the drain is closed; the message that only its answer shows is in `report.unseen`."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(Send(), Hold("z"), EXECUTE)])
    async with client_of(sandbox) as client:
        drain = client.drain()
        first = await anext(drain)
        resumed = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(1)
        resumed.cancel()
        closing = asyncio.ensure_future(drain.aclose())
        await asyncio.sleep(1)
        assert not closing.done()
        sandbox.release("z")
        await closing
        [unseen] = drain.report.unseen
        assert unseen.marked
        assert not lost(sandbox, [first, unseen])


@on_virtual_clock
async def test_a_drain_has_one_consumer() -> None:
    """A second `anext` beside a running one is a RuntimeError, and does no harm."""
    sandbox = Sandbox(packs=2, behaviour=Behaviour(latency=1))
    async with client_of(sandbox) as client, client.drain() as drain:
        first = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one consumer"):
            await anext(drain)
        assert (await first).pack_id in sandbox.pack_ids()


# -- weather -----------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_a_stormy_server_is_drained_whole() -> None:
    """Every fifth read fails with 503, every seventh is a 429, every eleventh mark is lost: nothing is lost, nothing is
    left.
    """
    sandbox = Sandbox(
        packs=200,
        messages=3,
        rules=[
            on("peek", every=5).do(Reply(503)),
            on("pack", every=7).do(Reply(429, headers={"Retry-After": "1"})),
            on("mark", every=11).do(EXECUTE, DROP),
        ],
    )
    async with client_of(sandbox) as client, client.drain() as drain:
        found = [c async for c in drain]
    assert set(ids(found)) == sandbox.message_ids()
    assert len(ids(found)) == 600
    assert sandbox.unread == 0
    assert not lost(sandbox, found)


@on_virtual_clock
async def test_a_slow_consumer_bounds_what_is_read_ahead() -> None:
    """With `concurrency=4`, never more than four conversations are read that were not handed over."""
    sandbox = Sandbox(packs=50)
    async with client_of(sandbox) as client, client.drain(concurrency=4) as drain:
        handed = 0
        async for _ in drain:
            handed += 1
            await asyncio.sleep(10)
            assert sandbox.count("peek") - handed <= 4


@on_virtual_clock
async def test_retries_that_are_spent_on_the_listing_end_the_drain() -> None:
    """A listing that answers 503 for ever is a `ServerError`, within the deadline."""
    sandbox = Sandbox(packs=1, rules=[on("listing").do(Reply(503))])
    async with client_of(sandbox, retry=Retry(deadline=60)) as client, client.drain() as drain:
        with pytest.raises(ServerError):
            await anext(drain)
    assert asyncio.get_running_loop().time() <= 60


@on_virtual_clock
async def test_the_report_counts_what_was_sent() -> None:
    """A listing that was repeated after a 503 and a 429 counts three times, as on the wire."""
    rules = [on("listing", nth=1).do(Reply(503)), on("listing", nth=2).do(Reply(429)), on("mark").do(Reply(503))]
    sandbox = Sandbox(packs=1, rules=rules)
    async with client_of(sandbox) as client, client.drain() as drain:
        await drained(drain, sandbox)
    assert drain.report.listings == sandbox.count("listing")
    assert drain.report.requests == len(sandbox.log)


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"concurrency": True}, {"limit": 0}, {"limit": 1.5}, {"settle_time": -1}]
)
@on_virtual_clock
async def test_wrong_options_are_refused_at_the_call(wrong: dict[str, object]) -> None:
    """A ValueError before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="must be"):
            client.drain(**wrong)  # type: ignore[arg-type]
    assert sandbox.log == []


@pytest.mark.parametrize("k", range(1, 11))
@on_virtual_clock
async def test_an_error_of_a_token_source_ends_the_drain_loudly(k: int) -> None:
    """What the user's own source raises comes out of `anext`, once; then the drain is over and nothing is marked
    unseen.
    """

    class Source:
        calls = 0

        async def token(self) -> str:
            self.calls += 1
            if self.calls == k:
                raise OSError("the vault is closed")
            return sandbox.token

        async def rejected(self, token: str) -> None:
            """Never happens here."""

    sandbox = Sandbox(packs=4)
    found = []
    async with client_of(sandbox, auth=Source()) as client:
        drain = client.drain(concurrency=2)
        with pytest.raises(OSError, match="vault"):
            while True:
                found.append(await anext(drain))
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
    assert not lost(sandbox, [*found, *drain.report.unseen])

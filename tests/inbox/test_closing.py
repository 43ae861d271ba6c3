"""Several at a time, cancellation, and closing: nothing is lost, nothing leaks."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.observed import gets, now, states, until
from mlmessages import Delivery, Inbox, Limits, MessagesClient, failpoints
from mlmessages.errors import (
    JournalError,
)
from mlmessages.testing import (
    DROP,
    EXECUTE,
    Behaviour,
    Delay,
    Hold,
    Message,
    Pack,
    Reply,
    Sandbox,
    Send,
    on,
)
from worlds import client_of, ids, lost, on_virtual_clock

FIRST = "2000000000000001"


@case("D11")
@pytest.mark.parametrize("concurrency", [1, 3])
@on_virtual_clock
async def test_a_slow_consumer_holds_back_the_claims(
    concurrency: int, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """10 s a delivery: never more than `concurrency` packs are claimed or read ahead, at any moment."""
    sandbox = Sandbox(packs=20, behaviour=Behaviour(latency=0.1))
    async with inbox_of(sandbox, concurrency=concurrency) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            for _ in range(10):
                await asyncio.sleep(1)
                assert sum(state == "issued" for state in states(journal).values()) <= concurrency
                assert sandbox.count("mark") <= len(consumer.deliveries) + concurrency
            await delivery.ack()
    assert len(consumer.ids) == 20


@case("D4")
@on_virtual_clock
async def test_break_and_the_next_drain_goes_on(inbox_of: Any, consumer: Any) -> None:
    """`break` without closing: a new drain takes over, hands over the rest, each once; the one before says so if used."""
    sandbox = Sandbox(packs=10, behaviour=Behaviour(latency=0.01))
    async with inbox_of(sandbox, concurrency=3) as inbox:
        old = inbox.drain()
        async for delivery in old:
            consumer.deliveries.append(delivery)
            if len(consumer.deliveries) == 2:
                break
        await consumer.empty(inbox)
        with pytest.raises(RuntimeError, match="taken over"):
            await anext(old)
        assert inbox.report.owed == 0
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert asyncio.all_tasks() == {asyncio.current_task()}


@case("D4", "D6")
@pytest.mark.parametrize("closing", [False, True])
@on_virtual_clock
async def test_break_leaks_nothing_and_the_message_comes_again(closing: bool, inbox_of: Any, consumer: Any) -> None:
    """With and without `aclosing`: no task is left; what was not acknowledged, or read ahead, comes after the restart."""
    sandbox = Sandbox(packs=10, behaviour=Behaviour(latency=0.01))
    async with inbox_of(sandbox, concurrency=3) as inbox:
        if closing:
            async with aclosing(inbox.drain()) as drain:
                async for _ in drain:
                    break
        else:
            async for _ in inbox.drain():
                break
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with inbox_of(sandbox) as inbox:
        again = await consumer.empty(inbox)
    assert again[0].redelivered
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_a_drain_has_one_consumer_and_an_inbox_one_drain(inbox_of: Any, consumer: Any) -> None:
    """A second `anext`, or a second drain, beside a waiting one is a RuntimeError, and does no harm."""
    sandbox = Sandbox(packs=2, behaviour=Behaviour(latency=1))
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        first = asyncio.ensure_future(anext(drain))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one consumer"):
            await anext(drain)
        with pytest.raises(RuntimeError, match="one drain"):
            inbox.drain()
        consumer.deliveries += [await first, *[d async for d in drain]]
        with pytest.raises(StopAsyncIteration):
            await anext(drain)
        await drain.aclose()
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("D1")
@on_virtual_clock
async def test_cancelling_at_every_await_loses_nothing(tmp_path: Path, inbox_of: Any) -> None:
    """The consumer is cancelled at its k-th step, for every k; the next drain of the same inbox gets the rest, each once."""
    for k in range(1, 90):
        sandbox = Sandbox(
            [Pack(messages=3), Pack(), Pack(messages=[Message(), Message(hidden=True)]), Pack()],
            behaviour=Behaviour(latency=0.004),
            rules=[
                on("mark", nth=2).do(EXECUTE, DROP),
                on("mark", nth=3).do(Reply(404)),
                on("mark", nth=4).do(Reply(403)),
            ],
        )
        seen: list[Delivery] = []
        async with inbox_of(sandbox, path=tmp_path / f"{k}.db", concurrency=2, limit=2) as inbox:

            async def consume(drain: Any) -> None:
                async for delivery in drain:
                    seen.append(delivery)
                    await delivery.ack()

            drain = inbox.drain()
            task = asyncio.ensure_future(consume(drain))
            for _ in range(k):
                await asyncio.sleep(0 if k % 2 else 0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if k % 3:  # else it goes on with the very same drain
                await drain.aclose()
                drain = inbox.drain()
            await consume(drain)
            report = inbox.report
            assert (report.owed, report.waiting) == (0, 0), k
            assert report.messages >= len(ids(seen))
            await asyncio.sleep(3700)  # the refused one
            await consume(inbox.drain())
        async with inbox_of(sandbox, path=tmp_path / f"{k}.db") as inbox:
            seen += [d async for d in inbox.drain()]
        hidden = sandbox.unread_ids()
        assert len(hidden) == 1
        assert set(ids(seen)) == sandbox.message_ids() - hidden, k
        assert not lost(sandbox, seen), k
        assert asyncio.all_tasks() == {asyncio.current_task()}


@case("D2")
@on_virtual_clock
async def test_a_consumer_that_is_cancelled_during_any_commit_loses_nothing(
    tmp_path: Path, inbox_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while the k-th commit is under way in its thread, for every k; the same inbox drains the rest, each once."""
    loop = asyncio.get_running_loop()
    for k in itertools.count(1):
        sandbox = Sandbox(
            packs=5,
            rules=[
                on("mark", nth=1).do(EXECUTE, DROP),
                on("mark", nth=2).do(Reply(404)),
                on("mark", nth=3).do(Reply(403)),
            ],
        )
        seen: list[Delivery] = []
        commits = itertools.count(1)

        async with inbox_of(sandbox, path=tmp_path / f"{k}.db", concurrency=2) as inbox:

            async def consume() -> None:
                async for delivery in inbox.drain():
                    seen.append(delivery)
                    await delivery.ack()

            task = asyncio.ensure_future(consume())

            def cancelling(name: str) -> None:
                if name == "before commit" and next(commits) == k:
                    cancelled = threading.Event()
                    loop.call_soon_threadsafe(lambda: (task.cancel(), loop.call_soon(loop.call_soon, cancelled.set)))
                    assert cancelled.wait(30)

            monkeypatch.setattr(failpoints, "hook", cancelling)
            await asyncio.gather(task, return_exceptions=True)
            monkeypatch.setattr(failpoints, "hook", None)
            await consume()
            assert (inbox.report.owed, inbox.report.waiting) == (0, 0), k
            assert len(inbox.report.parked) == 1, k
            await asyncio.sleep(3700)
            await consume()
        async with inbox_of(sandbox, path=tmp_path / f"{k}.db") as inbox:
            left_over = [d async for d in inbox.drain()]
        assert all(d.redelivered for d in left_over)
        assert len(ids(seen)) == len(set(ids(seen))), k
        assert set(ids(seen + left_over)) == sandbox.message_ids(), k
        if not task.cancelled():
            assert k > 10
            break


@case("D17")
@on_virtual_clock
async def test_timeouts_around_each_step_lose_nothing(inbox_of: Any, consumer: Any) -> None:
    """`asyncio.timeout` around `anext`, longer than a listing takes, again and again: all comes, each once."""
    sandbox = Sandbox(packs=8, behaviour=Behaviour(latency=0.05), rules=[on("mark", nth=3).do(EXECUTE, DROP)])
    async with inbox_of(sandbox, concurrency=2) as inbox:
        drain = inbox.drain()
        while True:
            try:
                async with asyncio.timeout(0.06):
                    delivery = await anext(drain)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
            consumer.deliveries.append(delivery)
            await delivery.ack()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    assert len(consumer.ids) == len(set(consumer.ids)) == 8
    assert sandbox.unread == 0


@on_virtual_clock
async def test_closing_gives_what_has_left_a_few_seconds_and_delivers_it_next(inbox_of: Any, consumer: Any) -> None:
    """An answer that comes 2 s after `aclose` is stored, and is the next drain's without another GET."""
    sandbox = Sandbox(packs=3, rules=[on("mark", nth=2).do(EXECUTE, Delay(2), Send(pack=int(FIRST)))])
    async with inbox_of(sandbox, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            consumer.deliveries.append(await anext(drain))
            await until(lambda: sandbox.count("mark") >= 2)
        marks = {e.pack_id for e in gets(sandbox)}
        assert now() < 3
        assert inbox.report.waiting == 0
        await consumer.empty(inbox)
    assert len(consumer.ids) == len(set(consumer.ids))
    assert marks <= {d.pack_id for d in consumer.deliveries}
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_closing_does_not_wait_for_ever_for_an_answer(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """After 5 s the request is given up: the pack waits, and is read again; the inbox can be left at once."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=2).do(Hold("z"), EXECUTE)])
    async with inbox_of(sandbox, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            consumer.deliveries.append(await anext(drain))
            await until(lambda: sandbox.held("z"))
            before = now()
        assert now() - before < 6
        assert inbox.report.waiting == 1
    sandbox.release("z")
    async with inbox_of(sandbox) as inbox:
        assert inbox.report.waiting == 1
        await consumer.empty(inbox)
    assert sorted(set(consumer.ids)) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_closing_does_not_wait_for_requests_that_have_not_left(journal: Path, inbox_of: Any) -> None:
    """Looks that still wait for the budget are cancelled; their packs are given back, and nothing waits for them."""
    sandbox = Sandbox(packs=6)
    async with inbox_of(sandbox, client={"limits": Limits(reads=3, period=1000)}, concurrency=4) as inbox:
        async with inbox.drain() as drain:
            await anext(drain)
            await anext(drain)
            before = now()
        assert now() - before < 1
        assert inbox.report.waiting == 0
        assert "issued" not in states(journal).values()
    assert sandbox.count("mark") == 2


@case("D7")
@on_virtual_clock
async def test_closing_from_another_task_gives_back_what_was_claimed(
    journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """A signal handler closes the drain while the consumer waits: it ends, no row stays claimed, nothing is lost."""
    sandbox = Sandbox(packs=6)
    async with inbox_of(sandbox, client={"limits": Limits(reads=3, period=1000)}, concurrency=4) as inbox:
        drain = inbox.drain()

        async def consume() -> None:
            async for delivery in drain:
                consumer.deliveries.append(delivery)
                await delivery.ack()

        task = asyncio.ensure_future(consume())
        await asyncio.sleep(1)
        await drain.aclose()
        await task
        assert "issued" not in states(journal).values()
        assert inbox.report.owed == 4
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())


@case("D8")
@on_virtual_clock
async def test_a_second_inbox_on_the_same_journal_is_refused(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """In the same process: `JournalError`, nothing is sent; the first goes on unharmed; afterwards the file is free."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(JournalError, match="another inbox"):
            async with inbox_of(sandbox):
                pass
        assert sandbox.log == []
        await consumer.empty(inbox)
    async with inbox_of(sandbox):
        pass
    assert len(gets(sandbox)) == 3


@case("D12")
def test_a_client_of_another_loop_is_refused(journal: Path) -> None:
    """An inbox on a client that belongs to another loop: RuntimeError, no file."""
    sandbox = Sandbox(packs=1)
    with asyncio.Runner() as runner:
        session = runner.run(_made(sandbox))
        client = MessagesClient(sandbox.token, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session)
        runner.run(client.__aenter__())

        async def elsewhere() -> None:
            async with Inbox(client, journal):
                pass

        with pytest.raises(RuntimeError, match="event loop"):
            asyncio.run(elsewhere())
        runner.run(client.__aexit__(None, None, None))
        runner.run(session.close())
    assert not journal.exists()


async def _made(sandbox: Sandbox) -> Any:
    return sandbox.session()


@case("D13")
@on_virtual_clock
async def test_a_handler_may_use_the_client_while_it_holds_a_delivery(tmp_path: Path) -> None:
    """With one request at a time and one conversation ahead, a handler that asks for more does not dead-lock."""
    sandbox = Sandbox(packs=4)
    seen: list[Delivery] = []
    async with client_of(sandbox, limits=Limits(reads=10**6, per_second=None, concurrency=1)) as client:
        async with Inbox(client, tmp_path / "j.db", concurrency=1) as inbox:
            async for delivery in inbox.drain():
                await client.page(delivery.pack_id)
                await delivery.ack()
                seen.append(delivery)
    assert len(ids(seen)) == 4


@case("D19")
@on_virtual_clock
async def test_many_interleavings_of_faults_and_closings(tmp_path: Path, inbox_of: Any) -> None:
    """Drains that are closed at odd moments, over every kind of fault, one inbox: nothing is lost, left or doubled."""
    sandbox = Sandbox(
        packs=40,
        messages=2,
        behaviour=Behaviour(latency=0.03, cap=7),
        rules=[
            on("mark", every=5).do(EXECUTE, DROP),
            on("mark", every=7).do(Reply(404)),
            on("mark", every=11).do(Send(), EXECUTE, Reply(502)),
            on("peek", every=3).do(Reply(503)),
        ],
    )
    seen: list[Delivery] = []
    async with inbox_of(sandbox, concurrency=3, limit=1, park_after=30) as inbox:
        for steps in range(1, 12):
            async with inbox.drain() as drain:
                for _ in range(steps % 5):
                    async for delivery in drain:
                        seen.append(delivery)
                        await delivery.ack()
                        break
        async for delivery in inbox.drain():
            seen.append(delivery)
            await delivery.ack()
        assert inbox.report.parked == ()
    assert len(ids(seen)) == len(set(ids(seen)))
    assert set(ids(seen)) == sandbox.message_ids()
    assert sandbox.unread == 0


@case("T12")
@on_virtual_clock
async def test_an_inbox_is_entered_once(tmp_path: Path) -> None:
    """As a client is: `RuntimeError` while it is open, which it stays, and afterwards; a journal in use is no entering."""
    sandbox = Sandbox(packs=3)
    path = tmp_path / "inbox.db"
    async with client_of(sandbox) as client:
        inbox, other = Inbox(client, path), Inbox(client, path)
        async with inbox:
            with pytest.raises(JournalError):
                await other.__aenter__()
            with pytest.raises(RuntimeError, match="entered once"):
                await inbox.__aenter__()
            async for delivery in inbox.drain():
                await delivery.ack()
                break
        with pytest.raises(RuntimeError, match="entered once"):
            await inbox.__aenter__()
        async with other:
            found = [delivery async for delivery in other.drain()]
    assert len(found) == 2
    assert len(gets(sandbox)) == 3

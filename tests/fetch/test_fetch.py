"""`client.fetch()`: many conversations, each once, failures as values, against the sandbox on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing

import pytest

from cases import case
from mlmessages import Limits
from mlmessages.errors import Forbidden, NotFound
from mlmessages.models import Conversation, PackFailure
from mlmessages.testing import EXECUTE, Behaviour, Delay, Reply, Sandbox, on
from worlds import PLENTY, client_of, ids, on_virtual_clock


@on_virtual_clock
async def test_each_pack_comes_once_and_whole() -> None:
    """Ids as int or str, some of them twice: one conversation each, with all its messages, and nothing is marked."""
    sandbox = Sandbox(packs=20, messages=120, behaviour=Behaviour(max_limit=50))
    asked: list[int | str] = [*map(int, sandbox.pack_ids()), *sandbox.pack_ids()]
    async with client_of(sandbox) as client:
        found = [c async for c in client.fetch(asked, limit=100)]
    assert all(isinstance(c, Conversation) for c in found)
    assert sorted(c.pack_id for c in found) == sandbox.pack_ids()
    assert sorted(ids(found)) == sorted(sandbox.message_ids())  # type: ignore[arg-type]
    assert sandbox.count("mark") == 0
    assert len(sandbox.log) == 20 * 3


@on_virtual_clock
async def test_a_pack_that_fails_is_a_value() -> None:
    """A refused and an unknown pack are `PackFailure`s among the conversations; the rest goes on."""
    sandbox = Sandbox(packs=5)
    refused, *good = sandbox.pack_ids()
    sandbox.refuse([refused])
    async with client_of(sandbox) as client:
        found = {c.pack_id: c async for c in client.fetch([refused, 99, *good])}
    errors = {pack_id: failure.error for pack_id, failure in found.items() if isinstance(failure, PackFailure)}
    assert isinstance(errors[refused], Forbidden)
    assert isinstance(errors["99"], NotFound)
    assert all(isinstance(found[pack], Conversation) for pack in good)


@on_virtual_clock
async def test_they_come_in_completion_order() -> None:
    """A slow pack does not hold up the others."""
    sandbox = Sandbox(packs=10)
    slow, *rest = sandbox.pack_ids()
    sandbox.add(on("peek", pack=slow).do(Delay(20), EXECUTE))
    async with client_of(sandbox) as client:
        found = [c.pack_id async for c in client.fetch([slow, *rest], concurrency=3)]
    assert found[-1] == slow
    assert sorted(found) == sorted([slow, *rest])


@pytest.mark.parametrize("kind", ["generator", "async generator"])
@on_virtual_clock
async def test_an_endless_source_is_not_read_ahead(kind: str) -> None:
    """Of a generator no more ids are pulled than are in flight or handed over; a slow consumer holds it back."""
    sandbox = Sandbox(packs=100)
    pulled = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        for pack_id in sandbox.pack_ids():
            pulled += 1
            yield int(pack_id)

    async def later() -> AsyncIterator[int]:
        for number in numbers():
            await asyncio.sleep(0.01)
            yield number

    async with (
        client_of(sandbox) as client,
        aclosing(client.fetch(numbers() if kind == "generator" else later(), concurrency=4)) as fetched,
    ):
        handed = 0
        async for _ in fetched:
            handed += 1
            await asyncio.sleep(1)
            assert pulled - handed <= 3  # with the one that is held: four
            if handed == 20:
                break
    assert pulled <= 23
    assert asyncio.all_tasks() == {asyncio.current_task()}


@case("P3")
@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
@pytest.mark.parametrize("concurrency", [1, 3])
@on_virtual_clock
async def test_as_many_are_in_flight_as_concurrency_says(kind: str, concurrency: int) -> None:
    """Never one more, and no fewer while there are ids: counted where the requests arrive."""
    sandbox = Sandbox(packs=12)
    in_flight, most = 0, 0

    class Counting:
        """The seller's token, asked for when a request is about to leave."""

        async def token(self) -> str:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(1)
            in_flight -= 1
            return sandbox.token

        async def rejected(self, token: str) -> None:
            """Never happens here."""

    async def later() -> AsyncIterator[str]:
        for pack_id in sandbox.pack_ids():
            yield pack_id

    def source() -> Iterable[str] | AsyncIterator[str]:
        if kind == "async generator":
            return later()
        return sandbox.pack_ids() if kind == "list" else iter(sandbox.pack_ids())

    async with client_of(sandbox, auth=Counting()) as client:
        async for _ in client.fetch(source(), concurrency=concurrency):
            assert most == concurrency
    assert most == concurrency


@on_virtual_clock
async def test_a_slow_source_does_not_hold_back_what_is_there() -> None:
    """An id that takes an hour to come does not delay the conversations before it."""
    sandbox = Sandbox(packs=3)

    async def slow() -> AsyncIterator[str]:
        for pack_id in sandbox.pack_ids():
            yield pack_id
        await asyncio.sleep(3600)

    async with client_of(sandbox) as client:
        fetched = client.fetch(slow())
        for _ in range(3):
            await anext(fetched)
        assert asyncio.get_running_loop().time() < 10
        with pytest.raises(StopAsyncIteration):
            await anext(fetched)
        assert asyncio.get_running_loop().time() >= 3600


@on_virtual_clock
async def test_leaving_the_client_closes_a_fetch_that_was_left_open() -> None:
    """`break` without `aclosing` leaves no task behind."""
    sandbox = Sandbox(packs=50)
    async with client_of(sandbox) as client:
        fetched = client.fetch(sandbox.pack_ids())
        async for _ in fetched:
            break
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_cancelling_at_every_await_leaves_the_client_usable() -> None:
    """The consumer is cancelled at its k-th step, for every k: no task is left, and a new fetch gets everything."""
    for k in range(1, 40):
        sandbox = Sandbox(packs=6, behaviour=Behaviour(latency=0.01))
        async with client_of(sandbox) as client:

            async def consume() -> None:
                async with aclosing(client.fetch(sandbox.pack_ids(), concurrency=2)) as fetched:
                    async for _ in fetched:
                        await asyncio.sleep(0.002)

            task = asyncio.ensure_future(consume())
            await asyncio.sleep(k * 0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len([c async for c in client.fetch(sandbox.pack_ids())]) == 6
        await sandbox.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_mark_as_read_marks_the_first_page_alone() -> None:
    """With `mark_as_read` every conversation is marked by its first page; a lost answer is a failure, not a second
    mark.
    """
    sandbox = Sandbox(packs=4, messages=30)
    lost, *_ = sandbox.pack_ids()
    sandbox.add(on("mark", pack=lost).do(EXECUTE, Reply(502)))
    async with client_of(sandbox) as client:
        found = [c async for c in client.fetch(sandbox.pack_ids(), limit=10, mark_as_read=True)]
    assert sorted(type(c).__name__ for c in found) == ["Conversation"] * 3 + ["PackFailure"]
    assert sandbox.count("mark") == 4
    assert sandbox.unread == 0


@on_virtual_clock
async def test_sellers_that_share_a_budget_take_turns() -> None:
    """Three clients on one `Limits` of 30 requests a minute: each gets a third of them."""
    limits = Limits(reads=30, per_second=None)
    sandbox = Sandbox(packs=100)
    counts = [0, 0, 0]

    async def work(i: int) -> None:
        async with client_of(sandbox, limits=limits) as client:
            async with aclosing(client.fetch(sandbox.pack_ids(), concurrency=10)) as fetched:
                async for _ in fetched:
                    counts[i] += 1

    tasks = [asyncio.ensure_future(work(i)) for i in range(3)]
    await asyncio.sleep(200)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(counts) >= 100
    assert max(counts) - min(counts) <= 12


@pytest.mark.parametrize("wrong", [["1", "x"], "123", 5, [True], [1.5], ["../1"]])
@on_virtual_clock
async def test_wrong_ids_are_refused_before_anything_is_sent(wrong: object) -> None:
    """A list is checked at the call: a ValueError, and no request."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="pack_id"):
            client.fetch(wrong)  # type: ignore[arg-type]
    assert sandbox.log == []


@pytest.mark.parametrize("cancelled", ["source", "reads", "reads that have not begun"])
@on_virtual_clock
async def test_what_somebody_else_cancels_does_not_look_like_an_end(cancelled: str) -> None:
    """A source whose own task was cancelled, or all tasks of the program: a `CancelledError`, no quiet end, no waiting."""
    sandbox = Sandbox(packs=4, behaviour=Behaviour(latency=1.0))
    task = asyncio.ensure_future(asyncio.sleep(1000))

    async def source() -> AsyncIterator[str]:
        yield from_the_list[0]
        if cancelled == "source":
            task.cancel()
            await task
        for pack_id in from_the_list[1:]:
            yield pack_id

    from_the_list = sandbox.pack_ids()
    async with client_of(sandbox, limits=Limits(**PLENTY)) as client:
        before = asyncio.all_tasks()
        fetching = client.fetch(source() if cancelled == "source" else from_the_list)
        consumer = asyncio.ensure_future(anext(fetching))
        await asyncio.sleep(0.5 if cancelled == "reads" else 0)
        if cancelled != "source":
            for each in asyncio.all_tasks() - before - {consumer}:
                each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
            async for _ in fetching:
                pass
    task.cancel()


@on_virtual_clock
async def test_a_source_that_always_raises_is_asked_once() -> None:
    """An iterator that raises whenever it is asked ends the fetch with its first error."""
    sandbox, asked = Sandbox(packs=1), []

    class Broken(Iterator[str]):
        def __next__(self) -> str:
            asked.append(1)
            raise OSError("the disk is gone")

    async with client_of(sandbox) as client:
        with pytest.raises(OSError, match="the disk"):
            await anext(client.fetch(Broken()))
    assert len(asked) == 1


@on_virtual_clock
async def test_what_the_source_raises_comes_out() -> None:
    """An error of the iterable ends the fetch with that error, after what was read before it; it leaves no task."""
    sandbox = Sandbox(packs=3)

    def broken() -> Iterator[str]:
        yield from sandbox.pack_ids()[:2]
        raise OSError("the disk is gone")

    async def broken_later() -> AsyncIterator[str]:
        for pack_id in broken():
            yield pack_id

    async with client_of(sandbox, limits=Limits(**PLENTY)) as client:
        for source in (broken(), broken_later()):
            found = []
            with pytest.raises(OSError, match="the disk"):
                async for fetched in client.fetch(source):
                    found.append(fetched.pack_id)
            assert sorted(found) == sandbox.pack_ids()[:2]
        assert len([t for t in asyncio.all_tasks() if "_read" in repr(t)]) == 0

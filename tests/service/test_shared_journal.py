"""An inbox whose journal other workers write to as well: their facts, a seat that is lost, slots that inboxes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cases import case
from mlmessages import Delivery, Inbox, Limits
from mlmessages.errors import JournalError, LeaseLost
from mlmessages.inbox.dispatcher import Settings
from mlmessages.inbox.inbox import run_service, stop_service
from mlmessages.inbox.notified import CheckBudget
from mlmessages.inbox.slots import Slots
from mlmessages.journal.engine import Engine
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.store import Seat, StoredMessage
from mlmessages.testing import EXECUTE, Hold, Sandbox, on
from worlds import client_of, on_virtual_clock

FIRST = "2000000000000001"
SETTLE, SECOND_LOOK, LEASE = 120.0, 900.0, 30.0


class Worker:
    """One process with a share of the memory."""

    def __init__(self, memory: Memory, name: str) -> None:
        self.store = MemoryStore(memory)
        self.name = name
        self._engine = Engine(lambda: self.store)
        self.lost = False

    def take(self, seller_id: str) -> Seat:
        self.store.begin()
        self.store.add_seller(seller_id)
        self.store.register(self.name, self.name, LEASE)
        [taken] = self.store.take(self.name, 1, settle_time=SETTLE, second_look=SECOND_LOOK, seller_id=seller_id)
        self.store.commit()
        return taken.seat

    def place(self, seller_id: str, settle_time: float) -> Worker:
        self.seller_id = seller_id
        return self

    async def enter(self) -> tuple[Engine, Seat]:
        self.seat = self.take(self.seller_id)
        await self._engine.open()
        return self._engine, self.seat

    async def leave(self) -> None:
        await self._engine.close()

    def listen(self, rung: Callable[[], None]) -> None:
        self.rung = rung

    def check(self) -> None:
        if self.lost:
            raise LeaseLost("the lease is over")

    async def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        pass

    async def spent(self) -> list[tuple[str, float, int]]:
        return []


@asynccontextmanager
async def inbox_on(worker: Worker, sandbox: Sandbox, **options: Any) -> AsyncIterator[Inbox]:
    async with client_of(sandbox) as client, Inbox(client, worker, **options) as inbox:
        yield inbox


def every(seconds: float) -> Callable[[], float]:
    return lambda: seconds


@on_virtual_clock
async def test_what_others_have_written_is_taken_in(named: Any) -> None:
    """A late answer and a notification, written by a worker without the seat: delivered and looked up."""
    loop = asyncio.get_running_loop()
    memory = Memory(loop.time)
    got: list[tuple[str, bool]] = []
    sandbox = Sandbox(packs=1)
    worker, other = Worker(memory, "a"), Worker(memory, "b")

    async def handler(delivery: Delivery) -> None:
        got.extend((message.id, delivery.redelivered) for message in delivery.messages)

    async with inbox_on(worker, sandbox) as inbox:
        service = asyncio.ensure_future(run_service(inbox, handler, Settings(2, every(86_400), 3, 10.0)))
        await asyncio.sleep(20)
        del got[:]
        missing = sandbox.send(FIRST)
        sandbox.read_elsewhere(FIRST)
        with_late = StoredMessage("late", b'{"id":"late"}', unread=True)
        other.store.begin()
        other.store.read(worker.seat, "77", [with_late], None, held=False)
        other.store.add_check(worker.seat, missing, 60.0, held=False)
        other.store.commit()
        worker.rung()
        await asyncio.sleep(1)
        assert got == [("late", False)]
        assert sandbox.count("listing") == 3
        await asyncio.sleep(120)
        assert got == [("late", False), (missing, False)]
        worker.rung()
        await asyncio.sleep(10)
        assert len(got) == 2
        stop_service(inbox)
        await service


@on_virtual_clock
async def test_a_ring_without_a_service_is_for_the_next_drain() -> None:
    """What others have written comes in it, once."""
    memory = Memory(asyncio.get_running_loop().time)
    worker, other = Worker(memory, "a"), Worker(memory, "b")
    async with inbox_on(worker, Sandbox(packs=1)) as inbox:
        first = [delivery.pack_id async for delivery in inbox.drain()]
        other.store.begin()
        other.store.read(worker.seat, "77", [StoredMessage("late", b'{"id":"late"}', unread=True)], None, held=False)
        other.store.commit()
        worker.rung()
        second = [delivery.pack_id async for delivery in inbox.drain()]
    assert (first, second) == ([FIRST], ["77"])


@on_virtual_clock
async def test_a_lost_lease_ends_the_service_at_once() -> None:
    """Its handlers are cancelled, nothing more is marked, and `LeaseLost` says why."""
    memory = Memory(asyncio.get_running_loop().time)
    sandbox, cancelled = Sandbox(packs=2), []
    worker = Worker(memory, "a")

    async def handler(delivery: Delivery) -> None:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            cancelled.append(delivery.pack_id)
            raise

    async with inbox_on(worker, sandbox, concurrency=3) as inbox:
        service = asyncio.ensure_future(run_service(inbox, handler, Settings(3, every(60), 3, 1000.0)))
        await asyncio.sleep(10)
        await asyncio.sleep(LEASE)
        Worker(memory, "b").take(str(sandbox.seller_id))
        sandbox.add_pack()
        began = asyncio.get_running_loop().time()
        with pytest.raises(LeaseLost):
            await service
        assert asyncio.get_running_loop().time() - began < 70
    assert sorted(cancelled) == sorted(sandbox.pack_ids()[:2])
    assert sandbox.count("mark") == 2


@on_virtual_clock
async def test_slots_are_shared_and_a_wait_for_one_is_no_delivery() -> None:
    """Two inboxes with one slot: one handler at a time; who has waited in vain gets it later, as not redelivered."""
    memory = Memory(asyncio.get_running_loop().time)
    sandboxes = [Sandbox(packs=2, seller_id=700100200 + n) for n in range(2)]
    slots, busy, most, got = Slots(1), 0, 0, []
    seconds = 10.0

    async def handler(delivery: Delivery) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        try:
            await asyncio.sleep(seconds)
        finally:
            busy -= 1
        got.append((delivery.seller_id, delivery.redelivered))

    async with (
        inbox_on(Worker(memory, "a"), sandboxes[0]) as first,
        inbox_on(Worker(memory, "b"), sandboxes[1]) as second,
    ):
        settings = Settings(2, every(60), 3, 15.0, slots=slots)
        services = [asyncio.ensure_future(run_service(inbox, handler, settings)) for inbox in (first, second)]
        await asyncio.sleep(15)
        for inbox in (first, second):
            stop_service(inbox)
        await asyncio.gather(*services)
        assert most == 1
        assert len(got) == 2
        seconds = 0.0
        services = [asyncio.ensure_future(run_service(inbox, handler, settings)) for inbox in (first, second)]
        await asyncio.sleep(5)
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
    assert len(got) == 4
    assert not any(redelivered for _, redelivered in got)


@on_virtual_clock
async def test_a_budget_of_look_ups_may_be_shared(named: Any) -> None:
    """Two services that share it send no more than one does."""
    memory = Memory(asyncio.get_running_loop().time)
    sandboxes = [Sandbox(packs=0, seller_id=700100200 + n) for n in range(2)]
    async with (
        inbox_on(Worker(memory, "a"), sandboxes[0]) as first,
        inbox_on(Worker(memory, "b"), sandboxes[1]) as second,
    ):
        settings = Settings(2, every(60), 3, 10.0, look_ups=CheckBudget(Limits(reads=100)))
        services = [asyncio.ensure_future(run_service(inbox, print, settings)) for inbox in (first, second)]
        for n in range(20):
            await first.notify(named(f"a{n}"))
            await second.notify(named(f"b{n}"))
        await asyncio.sleep(299)
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
    assert sum(sandbox.count("message") for sandbox in sandboxes) == 8
    assert all(sandbox.count("message") for sandbox in sandboxes)


@on_virtual_clock
async def test_what_is_no_place_is_refused() -> None:
    """A `ValueError`, before anything opens."""
    async with client_of(Sandbox(packs=0)) as client:
        with pytest.raises(ValueError, match="path"):
            Inbox(client, 5)  # type: ignore[arg-type]
    assert issubclass(LeaseLost, JournalError)


@case("Q64")
@on_virtual_clock
async def test_a_second_look_is_not_early_after_another_handover() -> None:
    """What a dead worker had claimed is read again a quarter of an hour after the takeover, whoever holds it by then."""
    loop = asyncio.get_running_loop()
    memory, sandbox = Memory(loop.time), Sandbox(packs=1)
    dead, second, third = (Worker(memory, name) for name in "abc")
    seat = dead.take(str(sandbox.seller_id))
    dead.store.begin()
    dead.store.listed(seat, [(FIRST, 1, None)], None)
    dead.store.claim(seat, FIRST)
    dead.store.commit()
    await asyncio.sleep(LEASE)
    taken_over = loop.time()
    settings = Settings(2, every(86_400), 3, 10.0)
    for worker, seconds in ((second, 200), (third, 1200)):
        async with inbox_on(worker, sandbox) as inbox:
            service = asyncio.ensure_future(run_service(inbox, lambda _: None, settings))
            await asyncio.sleep(seconds)
            stop_service(inbox)
            await service
        await asyncio.sleep(LEASE)
    first, again = (entry.at for entry in sandbox.log if entry.kind == "mark")
    assert first - taken_over < 200
    assert again - taken_over >= SECOND_LOOK


@case("Q65")
@on_virtual_clock
async def test_what_is_read_after_a_takeover_is_delivered_by_the_successor_alone() -> None:
    """The answer comes when another worker has the seat already, and before the first one has heard of it."""
    memory = Memory(asyncio.get_running_loop().time)
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(EXECUTE, Hold("answer"))])
    worker, other = Worker(memory, "a"), Worker(memory, "b")
    got: list[Delivery] = []
    async with inbox_on(worker, sandbox, settle_time=SETTLE) as inbox:
        service = asyncio.ensure_future(run_service(inbox, got.append, Settings(2, every(60), 3, 10.0)))
        await asyncio.sleep(1)
        memory.workers.clear()  # its lease is over
        seat = other.take(str(sandbox.seller_id))
        sandbox.release("answer")
        with pytest.raises(LeaseLost):
            await service
    assert got == []
    assert other.store.undelivered(seat) == [FIRST]

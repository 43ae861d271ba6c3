"""A worker: its lease, what it is told, what it may still send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from cases import case
from journal.stores import SETTLE, entry
from mlmessages.errors import JournalError, LeaseLost
from mlmessages.journal.engine import Engine
from mlmessages.journal.journal import Journal
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.seats import SeatChange, Worker
from mlmessages.journal.store import Disconnected, Seat
from worlds import on_virtual_clock


def memory() -> Memory:
    """A store in memory on the virtual clock."""
    loop = asyncio.get_running_loop()
    return Memory(loop.time)


@asynccontextmanager
async def process(shared: Memory, name: str, *, lease: float = 30.0) -> AsyncIterator[tuple[Worker, list[SeatChange]]]:
    """A worker in a process of its own, and what it was told."""
    told: list[SeatChange] = []
    engine = Engine(lambda: MemoryStore(shared))
    await engine.open()
    worker = Worker(engine, name=name, lease=lease, told=told.append)
    await worker.start()
    yield worker, told
    await worker.stop()
    await engine.close()


def kill(worker: Worker) -> None:
    """It does nothing any more."""
    assert worker._beating is not None
    worker._beating.cancel()


async def add(shared: Memory, *sellers: str) -> None:
    store = MemoryStore(shared)
    store.begin()
    for seller in sellers:
        store.add_seller(seller)
    store.commit()


@on_virtual_clock
async def test_a_seat_is_held_as_long_as_its_worker_lives() -> None:
    """For hours, by renewal; a second worker is told who holds it."""
    shared = memory()
    async with process(shared, "one") as (one, told), process(shared, "two") as (two, _):
        seat = await one.take("7", settle_time=SETTLE)
        for _ in range(4):
            await asyncio.sleep(600)
            one.check(seat)
            with pytest.raises(JournalError, match="seller 7 is held by worker one"):
                await two.take("7", settle_time=SETTLE)
        assert told == [SeatChange("taken", seat)]
        assert one.seats == (seat,)


@on_virtual_clock
async def test_what_a_dead_worker_held_is_taken_over_within_a_lease() -> None:
    """After the lease, not before; and the dead one, should it wake, sends nothing from two thirds of it on."""
    shared = memory()
    loop = asyncio.get_running_loop()
    async with process(shared, "one") as (one, told), process(shared, "two") as (two, _):
        seat = await one.take("7", settle_time=SETTLE)
        died = loop.time()
        kill(one)
        while True:
            try:
                taken = await two.take("7", settle_time=SETTLE)
                break
            except JournalError:
                if loop.time() - died < 19:
                    one.check(seat)
                await asyncio.sleep(1)
        assert 25 <= loop.time() - died <= 31
        assert taken == Seat("7", seat.no, seat.epoch + 1)
        with pytest.raises(LeaseLost):
            one.check(seat)
        await one.beat()
        assert told[-1] == SeatChange("lost", seat)
        assert one.seats == ()
        with pytest.raises(LeaseLost):
            one.check(seat)


@on_virtual_clock
async def test_a_worker_that_cannot_renew_sends_nothing_after_two_thirds_of_its_lease() -> None:
    """Counted from before the last renewal was sent; a renewal makes it good again."""
    shared = memory()
    async with process(shared, "one") as (one, _):
        seat = await one.take("7", settle_time=SETTLE)
        kill(one)
        await asyncio.sleep(19.9)
        one.check(seat)
        await asyncio.sleep(0.2)
        with pytest.raises(LeaseLost, match="could not be renewed"):
            one.check(seat)
        assert not one.is_trusted
        await one.beat()
        one.check(seat)


@case("Q68")
@pytest.mark.parametrize("clock", ["time", *(["clock_gettime"] if hasattr(time, "CLOCK_BOOTTIME") else [])])
@on_virtual_clock
async def test_a_suspended_machine_is_noticed(monkeypatch: pytest.MonkeyPatch, clock: str) -> None:
    """The loop's clock stood still: that of Linux, or the wall's alone, says that the lease is over; it is renewed."""
    shared = memory()
    async with process(shared, "one") as (one, _):
        seat = await one.take("7", settle_time=SETTLE)
        slept, real = 0.0, getattr(time, clock)
        monkeypatch.setattr(time, clock, lambda *name: real(*name) + slept)
        one.check(seat)
        slept = 21.0
        with pytest.raises(LeaseLost):
            one.check(seat)
        await one.beat()
        one.check(seat)


@on_virtual_clock
async def test_a_ring_reaches_the_holder_within_a_second() -> None:
    """Written by another worker: told once; what it writes itself does not ring."""
    shared = memory()
    async with process(shared, "one") as (one, told):
        seat = await one.take("7", settle_time=SETTLE)
        rung = []
        journal = Journal(one.place(seat))
        await journal.open()
        journal.listen(lambda: rung.append(True))
        await journal.add_check("own", 60.0)
        await asyncio.sleep(3)
        assert rung == []
        store = MemoryStore(shared)
        store.begin()
        store.add_check(seat, "other", 60.0, held=False)
        store.commit()
        await asyncio.sleep(1.1)
        assert (rung, told[-1]) == ([True], SeatChange("rung", seat))
        await asyncio.sleep(10)
        assert rung == [True]
        await journal.close()
        assert one.seats == (seat,)


@on_virtual_clock
async def test_sellers_are_shared_equally_and_surplus_is_named() -> None:
    """One worker takes all; when a second comes, the first has too many, gives them back, and the second takes them."""
    shared = memory()
    async with process(shared, "one") as (one, told):
        await add(shared, *"1234567")
        assert await one.balance(one.seats, settle_time=SETTLE) == ([*one.seats], [])
        assert len(one.seats) == 7
        async with process(shared, "two") as (two, _):
            assert await two.balance(two.seats, settle_time=SETTLE) == ([], [])
            assert not two.seats
            taken, surplus = await one.balance(one.seats, settle_time=SETTLE)
            assert (taken, len(surplus)) == ([], 3)
            for each in surplus:
                await one.release(each)
            assert told[-1] == SeatChange("released", surplus[-1])
            assert await two.balance(two.seats, settle_time=SETTLE) == ([*two.seats], [])
            assert {seat.seller_id for seat in two.seats} == {seat.seller_id for seat in surplus}
        await one.balance(one.seats, settle_time=SETTLE)
        assert len(one.seats) == 7


@on_virtual_clock
async def test_a_journal_whose_seat_was_lost_decides_nothing_and_keeps_its_facts() -> None:
    """`LeaseLost` for a claim; what was read and acknowledged is written all the same."""
    shared = memory()
    async with process(shared, "one") as (one, _), process(shared, "two") as (two, told):
        old = Journal(one.place_of("7", SETTLE))
        await old.open()
        await old.listed([("1", 1, None)], None)
        await old.claim("1")
        kill(one)
        await asyncio.sleep(31)
        new = Journal(two.place_of("7", SETTLE))
        await new.open()
        for decision in (
            old.claim("1"),
            old.listed([("2", 1, None)], None),
            old.reopen("1", outcome_unknown=False),
            old.reopen_claims(0.0),
            old.dead_letter("1", ["a"], "KeyError"),
        ):
            with pytest.raises(LeaseLost):
                await decision
        with pytest.raises(LeaseLost):
            old.check()
        with pytest.raises(LeaseLost):  # stored all the same: its successor delivers it
            await old.read("1", [entry("a"), entry("b")], None)
        await old.acknowledge("1", ["a"])
        [row] = await new.rows()
        assert (row.pack_id, row.state, row.outcome_unknown) == ("1", "open", True)
        assert await new.entries("1") == ([entry("b")], None)
        await asyncio.sleep(1.1)
        assert told[-1].what == "rung"
        await old.close()
        await new.close()
        assert (one.seats, two.seats) == ((), ())


@on_virtual_clock
async def test_a_worker_that_ends_is_followed_at_once() -> None:
    """SIGTERM: the next one takes its seats without waiting for the lease."""
    shared = memory()
    async with process(shared, "two") as (two, _):
        async with process(shared, "one") as (one, _):
            await one.take("7", settle_time=SETTLE)
        assert (await two.take("7", settle_time=SETTLE)).epoch == 2


@on_virtual_clock
async def test_a_seat_whose_taker_was_cancelled_is_given_back() -> None:
    """The store has it as held, and no inbox serves it: another worker gets it within a heartbeat."""
    shared = memory()
    async with process(shared, "one") as (one, _), process(shared, "two") as (two, _):
        for steps in range(6):
            taking = asyncio.create_task(one.take("7", settle_time=SETTLE))
            for _ in range(steps):
                await asyncio.sleep(0)
            taking.cancel()
            [seat] = await asyncio.gather(taking, return_exceptions=True)
            if isinstance(seat, Seat):
                await one.release(seat)
            await asyncio.sleep(2.5)
            assert one.seats == ()
            await two.release(await two.take("7", settle_time=SETTLE))


class Breaking(MemoryStore):
    """A store whose connection breaks when it is told to."""

    breaks = False

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        if self.breaks:
            self.breaks = False
            raise Disconnected("the line is cut")
        return super().begin(seats)


@on_virtual_clock
async def test_after_a_broken_connection_a_seat_can_be_taken_at_once() -> None:
    """What was held is lost, and given back before anything is taken: its own worker is not in the way."""
    store = Breaking(memory())
    engine = Engine(lambda: store)
    await engine.open()
    told: list[SeatChange] = []
    worker = Worker(engine, name="one", told=told.append)
    await worker.start()
    journal = Journal(worker.place_of("7", SETTLE))
    await journal.open()
    await journal.listed([("1", 1, None)], None)
    await journal.claim("1")
    store.breaks = True
    with pytest.raises(Disconnected):
        await journal.claim("1")
    with pytest.raises(JournalError, match="open the inbox again"):
        await journal.claim("1")
    again = Journal(worker.place_of("7", SETTLE))
    await again.open()
    assert [change.what for change in told] == ["taken", "lost", "taken"]
    assert [(row.state, row.outcome_unknown) for row in await again.rows()] == [("open", True)]
    await again.claim("1")
    again.check()
    await journal.close()
    again.check()
    await again.close()
    await worker.stop()
    await engine.close()

"""A pack that was claimed when its holder died: read again, and once more a quarter of an hour after the takeover."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cases import case
from fleet.simulated import Process, World, world_of
from mlmessages.journal.seats import SECOND_LOOK
from mlmessages.testing import HANG, Behaviour, on
from worlds import on_virtual_clock

INTERVAL = 60.0  # seconds between two listings that no notification asks for


@asynccontextmanager
async def taken_over(lag: float = 0.0) -> AsyncIterator[tuple[World, Process]]:
    """One seller with one conversation, whose first holder died in its marking request; the second has read it."""
    behaviour = Behaviour(lag=lag)
    async with world_of(1, 1, rules=[on("mark", nth=1).do(HANG)], behaviour=behaviour) as world:
        async with world.process("a") as first:
            await world.until(lambda: marks(world) == 1)
            first.kill()
            async with world.process("b") as second:
                await world.until(lambda: len(world.deliveries) == 1)
                yield world, second


def marks(world: World) -> int:
    return sum(entry.kind == "mark" for entry in world.marketplace.log)


@case("Q67")
@on_virtual_clock
async def test_what_is_written_before_the_second_look_does_not_wait_for_it() -> None:
    """No notification comes: the next listing shows it, and it is read at once, again and again."""
    async with taken_over() as (world, _):
        [seller] = world.marketplace.sellers
        [pack] = seller.pack_ids()
        for _ in range(3):
            message = seller.send(pack, "¿Y bien?")
            await world.until(lambda message=message: message in world.delivered, within=INTERVAL + 5)  # type: ignore[misc]
        assert marks(world) == 5


@case("Q67")
@on_virtual_clock
async def test_a_read_before_the_second_look_does_not_stand_for_it() -> None:
    """What the late request of the dead holder marks after that read is seen by the second look, as unread."""
    async with taken_over() as (world, _):
        begun = asyncio.get_running_loop().time()
        [seller] = world.marketplace.sellers
        [pack] = seller.pack_ids()
        early = seller.send(pack, "¿Y bien?")
        await world.until(lambda: early in world.delivered, within=INTERVAL + 5)
        hidden = seller.send(pack, "¿Hola?")
        seller.read_elsewhere(pack)  # no listing shows the pack any more
        await world.until(lambda: hidden in world.delivered, within=SECOND_LOOK)
        assert asyncio.get_running_loop().time() - begun > SECOND_LOOK - 200  # counted from the takeover
        assert [message.id for message in world.deliveries[-1].unread] == [hidden]
        before = marks(world)
        await asyncio.sleep(2 * SECOND_LOOK)
        assert marks(world) == before


@case("Q67")
@on_virtual_clock
async def test_the_next_holder_reads_it_before_the_second_look_too() -> None:
    """The seat is given back in between: what waits for a second look alone is known from the journal."""
    async with taken_over() as (world, second):
        second.running.cancel()
        await asyncio.wait([second.running])
        [seller] = world.marketplace.sellers
        [pack] = seller.pack_ids()
        async with world.process("c"):
            await world.until(lambda: any(entry.kind == "listing" for entry in world.marketplace.log[-2:]))
            message = seller.send(pack, "¿Y bien?")
            await world.until(lambda: message in world.delivered, within=INTERVAL + 5)
            hidden = seller.send(pack, "¿Hola?")
            seller.read_elsewhere(pack)
            await world.until(lambda: hidden in world.delivered, within=SECOND_LOOK)


@case("Q67")
@on_virtual_clock
async def test_a_pack_that_stays_listed_costs_little_until_its_second_look() -> None:
    """Hidden messages count as unread for ever: two reads find nothing, and then the second look is waited for.

    Another count means something new, which is read at once.
    """
    async with taken_over() as (world, process):
        [seller] = world.marketplace.sellers
        [pack] = seller.pack_ids()
        seller.hide(seller.send(pack, "…"))
        before = marks(world)
        await asyncio.sleep(6 * INTERVAL)
        assert marks(world) == before + 2
        assert process.fleet.report.parked == 0
        message = seller.send(pack, "¿Y bien?")
        await world.until(lambda: message in world.delivered, within=INTERVAL + 5)
        await asyncio.sleep(SECOND_LOOK)
        assert process.fleet.report.parked == 1


@case("Q67")
@on_virtual_clock
async def test_a_second_look_that_shows_nothing_ends_it() -> None:
    """Also where listings that lagged led to reads before it which had shown nothing: it is not parked."""
    async with taken_over(lag=2 * INTERVAL) as (world, process):
        await asyncio.sleep(INTERVAL * 3)
        assert marks(world) == 4  # that of the dead holder, the first look, and two for a listing that lagged
        await asyncio.sleep(SECOND_LOOK)
        assert marks(world) == 5
        await asyncio.sleep(INTERVAL * 3)
        assert (process.fleet.report.parked, process.fleet.report.owed) == (0, 0)

"""Handlers of a fleet that do not return: the other sellers are served all the same, and it is said whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from cases import case
from fleet.simulated import World, world_of
from mlmessages import Delivery, Limits
from mlmessages.events import Event, HangEvent
from mlmessages.inbox.slots import Slots
from mlmessages.otel import OpenTelemetry
from worlds import PLENTY, on_virtual_clock


def hanging_for(world: World, sellers: int) -> Callable[[Delivery], Awaitable[None]]:
    """A handler that never returns for the first so many sellers, and takes a second for the others."""
    bad = {seller.seller_id for seller in world.marketplace.sellers[:sellers]}

    async def handler(delivery: Delivery) -> None:
        if delivery.seller_id in bad:
            await asyncio.Event().wait()
        await asyncio.sleep(1)
        await world.handler(delivery)

    return handler


@case("Q69")
@pytest.mark.parametrize(("bad", "concurrency", "handlers"), [(1, 32, 8), (3, 4, 8), (1, 4, 2)])
@on_virtual_clock
async def test_handlers_that_never_return_leave_room_for_the_other_sellers(
    bad: int, concurrency: int, handlers: int
) -> None:
    """One seller with all that it may have ready, or a few: the others have all their messages, within minutes."""
    async with world_of(10, 10, limits=Limits(**PLENTY)) as world:
        async with world.process(
            "a", handler=hanging_for(world, bad), concurrency=concurrency, handlers=handlers, grace=0.0
        ):
            await world.until(lambda: len(world.deliveries) == (10 - bad) * 10, within=300)


@case("Q69")
@on_virtual_clock
async def test_what_hangs_is_told_again_and_again_with_its_sellers(caplog: pytest.LogCaptureFixture) -> None:
    """Every five minutes while no call is free; rarely while others are; and as an event and a metric."""
    told: list[HangEvent] = []
    reader = InMemoryMetricReader()
    metrics = OpenTelemetry(TracerProvider(), MeterProvider([reader]))

    def on_event(event: Event) -> None:
        metrics(event)
        if isinstance(event, HangEvent):
            told.append(event)

    async with world_of(3, 1, limits=Limits(**PLENTY)) as world:
        sellers = {seller.seller_id for seller in world.marketplace.sellers}
        async with world.process("a", handler=hanging_for(world, 3), handlers=2, grace=0.0, on_event=on_event):
            await asyncio.sleep(1860)
    warnings = [record.getMessage() for record in caplog.records if "not returned" in record.getMessage()]
    assert len(warnings) == len(told) == 6
    assert all(set(event.sellers) < sellers and len(event.sellers) == event.calls == 2 for event in told)
    assert [event.free for event in told] == [0] * 6
    assert told[0].seconds < 400
    assert told[-1].seconds > 1500
    for seller in told[0].sellers:
        assert f"{seller} for 0:0" in warnings[0]
    assert "1 seller waits" in warnings[0]
    data = reader.get_metrics_data()
    assert data is not None
    counted = [m for m in data.resource_metrics[0].scope_metrics[0].metrics if m.name == "mlmessages.handler.hangs"]
    assert [point.value for point in counted[0].data.data_points] == [6]  # type: ignore[union-attr]


@case("Q69")
@on_virtual_clock
async def test_where_calls_are_free_it_is_told_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """Twice as long until the next time, up to an hour; no more when it has returned."""
    async with world_of(2, 1, limits=Limits(**PLENTY)) as world:
        back = asyncio.Event()

        async def handler(delivery: Delivery) -> None:
            await back.wait()

        async with world.process("a", handler=handler, grace=0.0):
            await asyncio.sleep(4 * 3600)
            warned = caplog.text.count("not returned")
            assert 4 <= warned <= 7
            assert "30 are free" in caplog.text
            back.set()
            await asyncio.sleep(2 * 3600)
            assert caplog.text.count("not returned") == warned


@on_virtual_clock
async def test_sellers_take_turns() -> None:
    """However many calls one of them waits for; one that is given up costs its seller no turn."""
    slots, order = Slots(1), list[str]()

    async def call(seller: str) -> None:
        async with slots.call(seller):
            order.append(seller)
            await asyncio.sleep(1)

    waiting = [asyncio.create_task(call(seller)) for seller in ("a", "a", "a", "a", "b", "b", "c")]
    await asyncio.sleep(0.5)
    waiting[1].cancel()
    waiting[4].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["a", "a", "b", "c", "a"]
    assert slots.free == 1


@on_virtual_clock
async def test_a_call_that_is_given_up_as_its_turn_comes_leaves_its_slot() -> None:
    """The turn and the cancellation come in the same step of the loop."""
    slots, begun = Slots(1), list[str]()

    async def call(seller: str) -> None:
        async with slots.call(seller):
            begun.append(seller)

    async with slots.call("a"):
        given_up, other = asyncio.create_task(call("b")), asyncio.create_task(call("c"))
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up, other])
    assert begun == ["c"]
    assert slots.free == 1

"""A fleet in virtual time: many sellers, several processes on one store, one budget."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from cases import case
from fleet.simulated import world_of
from mlmessages import Delivery, Fleet, Limits, MessagesClient, Notification, events
from mlmessages.fleet.memory import MemoryDatabase, SharedMemory
from mlmessages.fleet.missed import MissedNotifications
from mlmessages.journal.store import Seat
from mlmessages.models import Token
from mlmessages.otel import OpenTelemetry
from mlmessages.testing import Behaviour, RateWindow, Reply, on
from worlds import on_virtual_clock


@case("S10")
@on_virtual_clock
async def test_every_seller_is_drained_and_named() -> None:
    """All messages of all sellers come, each delivery with its seller's id, and nothing is left unread."""
    async with world_of(6, 4) as world, world.process("a") as process:
        await world.until(lambda: len(world.deliveries) == 24)
        assert world.delivered == world.marketplace.message_ids()
        assert world.marketplace.unread == 0
        sellers = {delivery.seller_id for delivery in world.deliveries}
        assert sellers == {seller.seller_id for seller in world.marketplace.sellers}
        report = process.fleet.report
        assert len(report.sellers) == 6
        assert (report.conversations, report.messages, report.owed) == (24, 24, 0)
        assert report.requests == len(world.marketplace.log)


@case("S11")
@on_virtual_clock
async def test_two_processes_share_the_sellers_evenly_and_none_is_served_twice() -> None:
    """The second takes half of what the first has; each conversation is marked once."""
    async with world_of(8, 3) as world, world.process("a") as first:
        await world.until(lambda: len(first.fleet.report.sellers) == 8)
        async with world.process("b") as second:
            await world.until(lambda: len(second.fleet.report.sellers) == 4)
            assert not set(first.fleet.report.sellers) & set(second.fleet.report.sellers)
            await world.until(lambda: world.delivered == world.marketplace.message_ids())
        await world.until(lambda: len(first.fleet.report.sellers) == 8)
    marks = [entry.pack_id for entry in world.marketplace.log if entry.kind == "mark"]
    assert len(marks) == len(set(marks)) == 24


@case("S12")
@on_virtual_clock
async def test_the_sellers_of_a_process_that_dies_are_taken_over() -> None:
    """Within the lease and two seconds each has a holder again, and nothing is lost."""
    async with world_of(6, 20, limits=Limits(reads=30, period=60.0, per_second=None)) as world:
        async with world.process("a") as first, world.process("b") as second:
            await world.until(lambda: len(second.fleet.report.sellers) == 3 == len(first.fleet.report.sellers))
            first.kill()
            died = asyncio.get_running_loop().time()
            await world.until(lambda: len(second.fleet.report.sellers) == 6)
            assert asyncio.get_running_loop().time() - died <= 30 + 2
            await world.until(lambda: world.delivered == world.marketplace.message_ids())
            assert world.marketplace.unread == 0


@case("S13")
@on_virtual_clock
async def test_a_process_that_stops_hands_over_within_seconds() -> None:
    """What it has in hand it finishes; two seconds later others have its sellers."""
    async with world_of(4, 1) as world, world.process("b") as second:
        async with world.process("a") as first:
            await world.until(lambda: len(first.fleet.report.sellers) == 2)
        stopped = asyncio.get_running_loop().time()
        await world.until(lambda: len(second.fleet.report.sellers) == 4)
        assert asyncio.get_running_loop().time() - stopped <= 2


@case("T15")
@on_virtual_clock
async def test_a_process_ends_although_its_database_is_away() -> None:
    """It is stopped while the answers of marks cannot be stored: it ends within half a minute, and nothing is lost.

    The claims stand: who takes the sellers over reads those conversations again.
    """
    async with world_of(1, 6, behaviour=Behaviour(latency=1.0)) as world:
        async with asyncio.timeout(60), world.process("a") as first:
            await world.until(lambda: any(entry.kind == "mark" for entry in world.marketplace.log))
            await asyncio.sleep(0.5)  # they are executed, and answered when the database has gone
            first.database.cut_off()
            stopped = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopped < 30
        async with world.process("b"):
            await world.until(lambda: world.delivered == world.marketplace.message_ids(), within=1200)


@case("S14")
@on_virtual_clock
async def test_one_budget_is_never_exceeded_and_the_sellers_share_it() -> None:
    """No 429 over three processes; at half time no seller is far behind the others."""
    behaviour = Behaviour(rate=RateWindow(reads=60, period=60.0))
    limits = Limits(reads=60, period=60.0, per_second=None)
    async with world_of(6, 30, limits=limits, behaviour=behaviour) as world:
        async with world.process("a"), world.process("b"), world.process("c"):
            await world.until(lambda: len(world.deliveries) >= 90)
            share = {seller.seller_id: 0 for seller in world.marketplace.sellers}
            for delivery in world.deliveries:
                share[delivery.seller_id] += 1
            assert min(share.values()) >= 5
            await world.until(lambda: world.delivered == world.marketplace.message_ids())
    assert not [entry for entry in world.marketplace.log if entry.status == 429]


@case("S15")
@on_virtual_clock
async def test_a_seller_whose_tokens_are_dead_is_stopped_and_the_others_go_on() -> None:
    """The reason is kept with the seller and in the report, until the seller is served again."""
    async with world_of(3, 2) as world:
        dead = world.marketplace.sellers[1]
        dead.oauth.revoke()
        async with world.process("a") as process:
            await world.until(lambda: len(world.deliveries) == 4 and process.fleet.report.stopped)
            [(seller_id, reason)] = process.fleet.report.stopped
            assert seller_id == dead.seller_id
            assert "ReauthorizationRequired" in reason
            assert dead.token not in reason
            [stopped] = [each for each in await process.database.journals.sellers() if each.stopped]
            assert (stopped.seller_id, stopped.stopped) == (seller_id, reason)
            assert dead.seller_id not in process.fleet.report.sellers
            # The seller agrees again: served on when that is told, and not before.
            now, oauth = datetime.now(UTC), dead.oauth
            oauth.grant()
            world.shared.tokens[seller_id].token = Token(
                oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller_id
            )
            await process.database.journals.resume(seller_id)
            await world.until(lambda: world.delivered == world.marketplace.message_ids())
            assert (seller_id in process.fleet.report.sellers, process.fleet.report.stopped) == (True, ())


@case("S23")
@pytest.mark.parametrize("whose", ["application", "seller"])
@on_virtual_clock
async def test_missed_notifications_are_asked_for_once_and_reach_every_seller(whose: Any) -> None:
    """Five a minute at most over all processes, each seller once an hour; what is found rings for its seller alone."""
    behaviour = Behaviour(missed_feeds_of=whose)
    async with world_of(4, 1, behaviour=behaviour) as world, world.process("a"), world.process("b"):
        await world.until(lambda: len(world.deliveries) == 4)
        seller = world.marketplace.sellers[2]
        hidden = seller.send(seller.pack_ids()[0], "¿Y bien?")
        world.marketplace.missed(
            {
                "topic": "marketplace_messages",
                "resource": f"/marketplace/messages/{hidden}",
                "user_id": int(seller.seller_id),
                "application_id": int(world.marketplace.application.client_id),
            }
        )
        await world.until(lambda: hidden in world.delivered, within=120)
        await asyncio.sleep(3500)
    asked = [entry for entry in world.marketplace.log if entry.kind == "missed"]
    assert {entry.seller_id for entry in asked} == {seller.seller_id for seller in world.marketplace.sellers}
    assert all(len([entry for entry in asked if 0 <= entry.at - first.at < 59]) <= 5 for first in asked)
    assert len(asked) <= 4 * 2 * 2  # a page with something new is followed by one without; twice an hour at the most


@case("S23")
@on_virtual_clock
async def test_missed_notifications_that_are_refused_harm_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A warning; deliveries go on."""
    async with world_of(1, 1, rules=[on("missed").do(Reply(403))]) as world, world.process("a"):
        await asyncio.sleep(60)
        assert "missed notifications cannot be read" in caplog.text
        world.marketplace.sellers[0].send(world.marketplace.pack_ids()[0], "¿Y bien?")
        await world.until(lambda: world.delivered == world.marketplace.message_ids())


@case("S24")
@on_virtual_clock
async def test_a_notification_at_any_process_reaches_the_holder_within_seconds() -> None:
    """It rings: the listing does not wait for its interval."""
    async with world_of(2, 1) as world, world.process("a"):
        await world.until(lambda: len(world.deliveries) == 2)
        await asyncio.sleep(10)
        seller = world.marketplace.sellers[1]
        message = seller.send(seller.pack_ids()[0], "¿Y bien?")
        async with MemoryDatabase(world.shared, "replica") as replica:
            told = Notification.parse(
                f'{{"topic": "messages", "resource": "{message}", "user_id": {seller.seller_id}}}'.encode()
            )
            assert await replica.notify(told)
            assert not await replica.notify(evolve(told, user_id="1"))
            assert not await replica.notify(evolve(told, user_id=None))
        await world.until(lambda: message in world.delivered, within=8)


@on_virtual_clock
async def test_one_run_at_a_time_and_a_handler_that_can_be_called() -> None:
    """`RuntimeError` for a second run, `ValueError` for handlers that are none."""
    async with world_of(1, 1) as world, world.process("a") as process:
        await world.until(lambda: len(world.deliveries) == 1)
        assert repr(process.fleet) == "Fleet(sellers=1)"
        with pytest.raises(RuntimeError, match="runs already"):
            await process.fleet.run(world.handler)
    async with MemoryDatabase(world.shared) as database:
        fleet = Fleet(database, "1", "secret")
        assert fleet.report.sellers == ()
        with pytest.raises(ValueError, match="handler"):
            await fleet.run("print")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="on_error"):
            await fleet.run(world.handler, on_error=5)  # type: ignore[arg-type]


@case("S19")
@on_virtual_clock
async def test_events_tell_who_holds_whom_and_who_is_stopped() -> None:
    """Taken, lost, released, each with its epoch; a stop with its reason and time. Metrics add up to what is held."""
    told: list[Any] = []
    reader = InMemoryMetricReader()
    hook = OpenTelemetry(TracerProvider(), MeterProvider([reader]))

    def on_event(event: Any) -> None:
        told.append(event)
        hook(event)

    async with world_of(3, 1) as world:
        dead = world.marketplace.sellers[2]
        dead.oauth.revoke()
        async with world.process("a", on_event=on_event) as process:
            await world.until(lambda: len(world.deliveries) == 2 and process.fleet.report.stopped)
            assert len(process.fleet.report.sellers) == 2
            async with world.process("b") as other:
                await world.until(lambda: len(other.fleet.report.sellers) == 1)
                await world.until(lambda: len(process.fleet.report.sellers) == 1)
            held = process.fleet.report.sellers[0]
            seat = world.shared.memory.sellers[held].seat  # as if another worker had taken it
            seat[""] = evolve(seat[""], epoch=99, worker="another")
            await asyncio.sleep(60)
    seats = [(event.seller_id, event.what) for event in told if isinstance(event, events.SeatEvent)]
    assert seats.count((dead.seller_id, "taken")) == seats.count((dead.seller_id, "released")) == 1
    assert {what for _, what in seats} == {"taken", "released", "lost"}
    [stop] = [event for event in told if isinstance(event, events.StopEvent)]
    assert (stop.seller_id, stop.seconds) == (dead.seller_id, 3600.0)
    assert "ReauthorizationRequired" in stop.reason
    data = reader.get_metrics_data()
    assert data is not None
    sums = {
        metric.name: sum(getattr(point, "value", 0) for point in metric.data.data_points)
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    assert sums["mlmessages.seats"] == 0  # all that was taken was given back or lost
    assert sums["mlmessages.stops"] == 1
    assert sums["mlmessages.lease.lost"] >= 1


@case("S16")
@on_virtual_clock
async def test_a_handler_replies_with_the_client_of_the_seller() -> None:
    """It is open, entering it changes nothing, and the reply is the seller's own."""
    async with world_of(2, 1) as world:
        replied: list[str] = []
        fleets: list[Fleet] = []

        async def reply(delivery: Delivery) -> None:
            async with fleets[0].client(delivery.seller_id) as client:
                await client.send(delivery.pack_id, "Thank you")
            sent = await fleets[0].client(delivery.seller_id).send(delivery.pack_id, "We will answer today")
            assert sent.is_from(delivery.seller_id)
            replied.append(delivery.seller_id)

        async with world.process("a", handler=reply) as process:
            fleets.append(process.fleet)
            await world.until(lambda: len(replied) == 2)
        # After the run it is a client like any other.
        async with world.marketplace.session() as session, MemoryDatabase(world.shared) as database:
            application = world.marketplace.application
            alone = Fleet(
                database,
                application.client_id,
                application.client_secret,
                base_url=world.marketplace.base_url,
                session=session,
            )
            async with alone.client(replied[0]) as client:
                assert (await client.unread()).packs == ()


@case("S17")
@on_virtual_clock
async def test_no_more_handlers_run_at_a_time_than_asked() -> None:
    """Over all sellers of a process."""
    async with world_of(10, 3) as world:
        running, most = 0, 0

        async def slow(delivery: Delivery) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(5)
            running -= 1
            await world.handler(delivery)

        async with world.process("a", handler=slow, handlers=4):
            await world.until(lambda: len(world.deliveries) == 30)
        assert most == 4


@case("S18")
@on_virtual_clock
async def test_listings_that_nothing_asks_for_fit_the_budget() -> None:
    """Forty idle sellers on 60 reads a minute: at most a fifth of them, so each is listed once in 200 seconds."""
    async with world_of(40, 0, limits=Limits(reads=60, period=60.0, per_second=None)) as world:
        async with world.process("a"):
            await world.until(lambda: len(world.marketplace.log) >= 40)
            before = len(world.marketplace.log)
            await asyncio.sleep(2000)
            listings = [entry for entry in world.marketplace.log[before:] if entry.kind == "listing"]
            assert 2000 / 60 * 60 * 0.15 <= len(listings) <= 2000 / 60 * 60 * 0.21


@on_virtual_clock
async def test_only_the_named_sellers_are_served() -> None:
    """`sellers=`: the others stay unread."""
    async with world_of(4, 2) as world:
        chosen = [seller.seller_id for seller in world.marketplace.sellers[:2]]
        async with world.process("a", sellers=chosen) as process:
            await world.until(lambda: len(world.deliveries) == 4)
            await asyncio.sleep(120)
            assert process.fleet.report.sellers == tuple(chosen)
        assert {delivery.seller_id for delivery in world.deliveries} == set(chosen)
        assert world.marketplace.unread == 4


@case("Q61")
@on_virtual_clock
async def test_a_named_seller_that_is_stopped_is_left_alone_for_an_hour() -> None:
    """`sellers=` takes it again when the hour is over, and not every second."""
    async with world_of(2, 1) as world:
        dead, chosen = world.marketplace.sellers[0], [seller.seller_id for seller in world.marketplace.sellers]
        dead.oauth.revoke()
        told: list[events.Event] = []
        async with world.process("a", sellers=chosen, on_event=told.append):
            await asyncio.sleep(3500)
            assert len([event for event in told if isinstance(event, events.StopEvent)]) == 1
            await asyncio.sleep(200)
            assert len([event for event in told if isinstance(event, events.StopEvent)]) == 2


@case("Q62")
@on_virtual_clock
async def test_two_fleets_on_one_database_serve_their_own_sellers() -> None:
    """Each message comes once, to the handler of the fleet that was asked to serve its seller."""
    async with world_of(2, 2) as world, world.marketplace.session() as session:
        one, two = (seller.seller_id for seller in world.marketplace.sellers)
        given: dict[str, list[Delivery]] = {one: [], two: []}
        application = world.marketplace.application
        async with MemoryDatabase(world.shared) as database:
            running = [
                asyncio.create_task(
                    Fleet(
                        database,
                        application.client_id,
                        application.client_secret,
                        base_url=world.marketplace.base_url,
                        session=session,
                        sellers=[seller],
                    ).run(given[seller].append)
                )
                for seller in (one, two)
            ]
            await asyncio.sleep(60)
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        for seller, deliveries in given.items():
            assert [delivery.seller_id for delivery in deliveries] == [seller, seller]


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0}, {"handlers": True}, {"settle_time": -1}, {"api": "mars"}, {"base_url": "http://example.com"},
        {"sellers": ["x"]}, {"limits": 5}, {"retry": 1}, {"timeout": 0}, {"client_id": ""}, {"client_secret": "a b"},
        {"database": "postgresql://localhost/x"},
    ],
    ids=str,
)  # fmt: skip
@on_virtual_clock
async def test_wrong_arguments_are_refused_at_once(wrong: dict[str, Any]) -> None:
    """`ValueError`, before anything is taken or sent."""
    database = MemoryDatabase(SharedMemory())
    arguments = {"database": database, "client_id": "1", "client_secret": "secret", **wrong}
    with pytest.raises(ValueError, match="must"):
        Fleet(**arguments)


@case("Q63")
@on_virtual_clock
async def test_missed_notifications_outlive_a_seller_that_was_given_back() -> None:
    """Its client is closed when its turn comes, or between two pages: the others still have theirs."""
    async with (
        world_of(1, 0) as world,
        world.marketplace.session() as session,
        MemoryDatabase(world.shared) as database,
    ):
        [seller] = world.marketplace.sellers
        clients = [
            MessagesClient(token, seller_id=seller.seller_id, base_url=world.marketplace.base_url, session=session)
            for token in ("closed", seller.token)
        ]
        services: Any = {
            n: SimpleNamespace(client=client, seat=Seat(n)) for n, client in zip("12", clients, strict=True)
        }
        async with clients[1]:
            missed = MissedNotifications(database, str(world.marketplace.application.client_id), services)
            asking = asyncio.create_task(missed.run())
            await asyncio.sleep(60)
            asking.cancel()
            await asyncio.wait([asking])
        assert [entry.kind for entry in world.marketplace.log] == ["missed"]

"""`client.drain()` on a hostile server and network, in virtual time, world by world."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import aiohttp

from mlmessages import Drain, Limits, MessagesClient, Retry
from mlmessages.errors import MessagesError
from mlmessages.models import DrainReport
from mlmessages.testing import virtual_run

from .server import SELLER
from .wire import Wire
from .world import ATTEMPTS, EVER, SETTLE, TIMEOUT, Outcome, World, now, world_of

MOST_SETBACKS = 5
"""Of a pack whose mark may have been executed, until it is set aside."""


def drain(seed: int) -> Outcome:
    """Drain once, to the end or until the consumer, the client or the server ends it."""
    return virtual_run(_drain(seed))


async def _drain(seed: int) -> Outcome:
    rng = random.Random(seed)
    world = world_of(rng)
    ending = rng.choice(["its end", "its end", "break", "closed by another", "client closed", "cancelled"])
    limit, concurrency = rng.choice([2, 3, 5, 50]), rng.choice([1, 2, 8])
    wire = Wire(world.answer)
    life = asyncio.ensure_future(world.life(rng.choice([0.0, 60.0, 400.0])))
    seen: set[str] = set()
    h = world.habits
    kind = f"{h.order} marks={h.marks} total={h.total} lag={h.lag:g} late={h.shows_read:g} {world.moderation} {ending}"
    outcome = Outcome(kind, "?", 0)
    async with aiohttp.ClientSession(connector=wire) as session:
        async with MessagesClient(
            "APP_USR-1",
            seller_id=SELLER,
            base_url="http://127.0.0.1",
            session=session,
            limits=Limits(reads=10**6, per_second=None),
            retry=Retry(attempts=ATTEMPTS, base=0.5, deadline=60),
            timeout=TIMEOUT,
        ) as client:
            draining = client.drain(concurrency=concurrency, limit=limit, settle_time=SETTLE)
            consumer = asyncio.ensure_future(_consume(world, draining, seen, outcome, ending))
            until = EVER if ending in ("its end", "break") else rng.expovariate(1 / 30)
            await asyncio.wait([consumer], timeout=until)
            cut = await _end(ending, draining, consumer, outcome)
        await asyncio.wait([consumer])
        if consumer.cancelled():
            outcome.ended = "cancelled"
            if ending != "cancelled":
                outcome.wrong += ("the consumer was cancelled",)
        else:
            outcome.ended = "closed by another" if cut else consumer.result()
        over = now()
        life.cancel()
        await wire.stop()
    outcome.requests, outcome.faults = world.requests, tuple(world.faults)
    _judge(world, draining.report, seen, over, outcome)
    return outcome


async def _end(ending: str, draining: Drain, consumer: asyncio.Task[str], outcome: Outcome) -> bool:
    """End a drain that goes on; return True if it was closed by another task than its consumer's."""
    if consumer.done() or ending == "client closed":
        return False
    if ending == "closed by another":
        await draining.aclose()
        return True
    if ending != "cancelled":
        outcome.wrong += ("it does not end",)
    consumer.cancel()
    await asyncio.wait([consumer])
    return False


def _judge(world: World, report: DrainReport, seen: set[str], over: float, outcome: Outcome) -> None:
    """Compare what was handed over, and what the report says, with what is true."""
    shown = seen | {message.id for conversation in report.unseen for message in conversation.messages}
    outcome.lost = tuple(row.id for pack, row in world.reached() if row.id not in shown and pack not in report.in_doubt)
    aside = {failure.pack_id: failure.error for failure in report.set_aside}
    if "mark: executed, unreadable" not in world.faults:
        early = any(world.gave_up_early(error, pack) for pack, error in aside.items())
        outcome.wrong += ("a pack was given up early",) if early else ()
    # Moderation may bring a message back after the end.
    if outcome.ended != "its end" or world.last_listing <= world.last_event or world.moderation == "hides":
        return
    for pack in report.in_doubt:  # only what failed again and again
        walked = pack in aside and "cannot be walked" not in str(aside[pack])
        if pack not in aside or (walked and world.setbacks[pack] <= MOST_SETBACKS):
            outcome.wrong += ("in doubt after its end",)
    if len(aside) >= world.habits.cap:  # that nothing announces, full of packs that cannot be marked: it hides the rest
        return
    outcome.left = tuple(
        row.id
        for pack, thread in world.server.threads.items()
        if pack not in aside
        for row in thread.visible(over)
        if row.read is None and not row.by_seller
    )


async def _consume(world: World, draining: Drain, seen: set[str], outcome: Outcome, ending: str) -> str:
    rng = world.rng
    patience = rng.choice([1, 2, 5]) if ending == "break" else 10**6
    try:
        async for conversation in draining:
            ids = [message.id for message in conversation.messages]
            if set(ids) & seen:
                outcome.wrong += ("handed over twice",)
            seen.update(ids)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0.1, 1.0, 30.0]))
            patience -= 1
            if not patience:
                break
    except MessagesError as error:
        if world.gave_up_early(error, "listing"):
            outcome.wrong += ("the listing was given up early",)
        return type(error).__name__
    except RuntimeError:
        return "the client is closed"
    with suppress(RuntimeError):
        await draining.aclose()
    return "its end" if patience else "break"

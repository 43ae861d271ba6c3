"""`messages`, `mark_read` and `fetch` on a hostile server and network, in virtual time, world by world."""

from __future__ import annotations

import asyncio
import random

import aiohttp

from mlmessages import Limits, MessagesClient, Retry
from mlmessages.errors import MessagesError
from mlmessages.models import Conversation, PackFailure
from mlmessages.testing import virtual_run

from .server import SELLER, Row
from .walks import can_tell, stays
from .wire import Wire
from .world import ATTEMPTS, TIMEOUT, Outcome, World, now, world_of


def read(seed: int) -> Outcome:
    """Read every conversation of a world in one of the three ways.

    What was there from the first request to the last is shown, each id once, or an error says that it was not; and what
    `mark_read` marked is in what it returns, unless moderation took it away meanwhile.
    """
    return virtual_run(_read(seed))


async def _read(seed: int) -> Outcome:
    rng = random.Random(seed)
    world = world_of(rng)
    how = rng.choice(["messages", "mark_read", "fetch", "fetch, marking"])
    limit = rng.choice([2, 3, 5, 50])
    life = asyncio.ensure_future(world.life(rng.choice([0.0, 20.0])))
    begun = now()
    wire = Wire(world.answer)
    outcome = Outcome(how, "read", 0)
    async with (
        aiohttp.ClientSession(connector=wire) as session,
        MessagesClient(
            "APP_USR-1",
            seller_id=SELLER,
            base_url="http://127.0.0.1",
            session=session,
            limits=Limits(reads=10**6, per_second=None),
            retry=Retry(attempts=ATTEMPTS, base=0.5, deadline=60),
            timeout=TIMEOUT,
        ) as client,
    ):
        there = {pack: thread.visible(begun) for pack, thread in world.server.threads.items()}
        if how.startswith("fetch"):
            await _fetch(client, world, there, limit, outcome, mark=how != "fetch")
        else:
            for pack, rows in there.items():
                await _one(client, world, pack, rows, limit, outcome, mark=how == "mark_read")
    life.cancel()
    await wire.stop()
    habits = world.habits
    outcome.kind = f"{how} {habits.order} total={habits.total} lag={habits.lag:g} {world.moderation}"
    outcome.requests, outcome.faults = world.requests, tuple(world.faults)
    return outcome


async def _one(
    client: MessagesClient, world: World, pack: str, there: list[Row], limit: int, outcome: Outcome, *, mark: bool
) -> None:
    try:
        if mark:
            ids = [message.id for message in (await client.mark_read(pack)).messages]
        else:
            ids = [message.id async for message in client.messages(pack, limit=limit)]
    except MessagesError as error:
        _judge_error(world, pack, error, outcome, marked=mark)
        return
    _judge(world, pack, there, ids, 50 if mark else limit, outcome, marked=mark)


async def _fetch(
    client: MessagesClient, world: World, there: dict[str, list[Row]], limit: int, outcome: Outcome, *, mark: bool
) -> None:
    came: list[str] = []
    async for fetched in client.fetch(there, limit=limit, mark_as_read=mark):
        came.append(fetched.pack_id)
        if isinstance(fetched, PackFailure):
            _judge_error(world, fetched.pack_id, fetched.error, outcome, marked=mark)
            continue
        assert isinstance(fetched, Conversation)
        ids = [message.id for message in fetched.messages]
        _judge(world, fetched.pack_id, there[fetched.pack_id], ids, limit, outcome, marked=mark)
    if sorted(came) != sorted(there):
        outcome.wrong += ("not each pack once",)


def _judge_error(world: World, pack: str, error: MessagesError, outcome: Outcome, *, marked: bool) -> None:
    outcome.ended = type(error).__name__
    if not marked and world.gave_up_early(error, pack):
        outcome.wrong += ("given up early",)


def _judge(
    world: World, pack: str, there: list[Row], ids: list[str], limit: int, outcome: Outcome, *, marked: bool
) -> None:
    """Compare what was shown with what was there."""
    if len(ids) != len(set(ids)):
        outcome.wrong += ("a message twice",)
    if not can_tell(world.habits, limit, marked=marked, still=world.last_event < 0):
        return
    outcome.left += tuple(row.id for row in there if stays(row, now()) and row.id not in ids)
    # A marking answer that cannot be read is read again at once, here without a second look after the wait.
    behind = world.habits.lag and "mark: executed, unreadable" in world.faults
    if marked and not behind:
        outcome.lost += tuple(row.id for of, row in world.reached() if of == pack and row.id not in ids)

"""Many lives of a service, each from a seed: arrivals, hidden messages, failing handlers, restarts, lost answers."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from mlmessages import Delivery
from mlmessages.testing import DROP, EXECUTE, Garbage, Reply, Sandbox, on
from worlds import on_virtual_clock

WORLDS = int(os.environ.get("MLMESSAGES_RUNS", "20"))
FAULTS: dict[str, tuple[Any, ...]] = {
    "answer lost": (EXECUTE, DROP),
    "never executed": (DROP,),
    "unreadable": (EXECUTE, Garbage()),
    "refused": (Reply(404),),
    "server error": (EXECUTE, Reply(502)),
}


class Handler:
    """Fails at random, takes its time at random, and writes down what it has taken, in order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.failing = 0.3
        self.slow = 20.0
        self.taken: list[tuple[str, str]] = []
        self.first: dict[str, bool] = {}  # by the id of a message: was it handed over as redelivered, the first time
        self.busy: set[str] = set()

    async def __call__(self, delivery: Delivery) -> None:
        ids = [message.id for message in delivery.messages]
        assert delivery.pack_id not in self.busy, "two deliveries of a pack at once"
        assert ids == sorted(ids), "out of order"
        self.busy.add(delivery.pack_id)
        try:
            await asyncio.sleep(self.chance.random() * self.slow)
            if self.chance.random() < self.failing:
                raise LookupError
        finally:
            self.busy.discard(delivery.pack_id)
        self.taken += [(delivery.pack_id, id_) for id_ in ids]


async def live(seed: int, inbox_of: Any) -> None:
    chance = random.Random(seed)
    sandbox = Sandbox(packs=4, messages=2, unread=1)
    handler = Handler(chance)
    hidden: set[str] = set()

    def happen() -> None:
        roll = chance.random()
        pack = chance.choice(sandbox.pack_ids())
        visible = [id_ for id_ in sandbox.message_ids() if id_ not in hidden]
        if roll < 0.45:
            sandbox.send(pack)
        elif roll < 0.55 and visible:
            hidden.add(chance.choice(sorted(visible)))
            for id_ in hidden:
                sandbox.hide(id_)
        elif roll < 0.7:
            for id_ in hidden:
                sandbox.reveal(id_)
            hidden.clear()
        elif roll < 0.85:
            fault = chance.choice(sorted(FAULTS))
            sandbox.add(on("mark", times=1).do(*FAULTS[fault]))
        else:
            sandbox.add(on("listing", times=1).do(Reply(503)))

    for _ in range(chance.randint(1, 3)):
        async with inbox_of(sandbox, concurrency=chance.randint(1, 3)) as inbox:
            for _ in range(chance.randint(1, 3)):
                service = asyncio.ensure_future(
                    inbox.run(handler, interval=chance.choice([6, 30]), attempts=1000, grace=chance.choice([0, 5, 60]))
                )
                for _ in range(chance.randint(1, 12)):
                    await asyncio.sleep(chance.random() * 12)
                    happen()
                service.cancel()
                with suppress(asyncio.CancelledError):
                    await service
    for id_ in hidden:
        sandbox.reveal(id_)
    handler.failing = 0.0
    async with inbox_of(sandbox) as inbox:
        service = asyncio.ensure_future(inbox.run(handler, interval=30))
        await asyncio.sleep(20_000)
        assert not service.done()
        service.cancel()
        with suppress(asyncio.CancelledError):
            await service
        assert inbox.report.owed == 0
    times = Counter(id_ for _, id_ in handler.taken)
    # What was read before and was hidden while we looked is no news when it is shown again: no listing tells of it.
    assert sandbox.unread == 0
    missing = sandbox.marked_ids() - set(times)
    assert not missing, f"lost: {missing}"
    assert {id_: n for id_, n in times.items() if n > 1} == {}, "taken twice"


@pytest.mark.parametrize("seed", range(WORLDS))
@on_virtual_clock
async def test_each_message_is_taken_once_and_in_order(seed: int, inbox_of: Any) -> None:
    """Whatever happens: the handler takes each message exactly once, oldest first in a delivery, one pack at a time."""
    await live(seed, inbox_of)

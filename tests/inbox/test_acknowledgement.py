"""Rule 7: delivered is what was acknowledged."""

from __future__ import annotations

from typing import Any

import pytest

from mlmessages.errors import (
    JournalError,
)
from mlmessages.testing import (
    Message,
    Pack,
    Sandbox,
)
from worlds import ids, on_virtual_clock

FIRST = "2000000000000001"


@on_virtual_clock
async def test_rule_8_a4_what_was_not_acknowledged_comes_first_after_a_restart(inbox_of: Any, consumer: Any) -> None:
    """The same ids, `redelivered`, from the store; what was acknowledged does not come again; new packs come after."""
    sandbox = Sandbox(packs=6)
    async with inbox_of(sandbox) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            if len(consumer.deliveries) % 2:
                await delivery.ack()
    owed = ids(d for i, d in enumerate(consumer.deliveries) if i % 2)
    arrival = sandbox.send(FIRST)
    marks = sandbox.count("mark")
    async with inbox_of(sandbox) as inbox:
        again = await consumer.empty(inbox)
    assert sorted(ids(again[:3])) == sorted(owed)
    assert ids(again[3:]) == [arrival]
    assert [d.redelivered for d in again] == [True, True, True, False]
    assert sandbox.count("mark") == marks + 1
    async with inbox_of(sandbox) as inbox:
        assert await consumer.empty(inbox) == []


@on_virtual_clock
async def test_what_several_looks_stored_is_redelivered_in_one_piece_oldest_first(inbox_of: Any, consumer: Any) -> None:
    """An old message that became visible later stands before the newer one that was stored first."""
    sandbox = Sandbox([Pack(messages=[Message("old", hidden=True), Message("new")])])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox, ack=False)
        for id_ in sandbox.unread_ids():
            sandbox.reveal(id_)
        sandbox.send(FIRST, "newest")
        await consumer.empty(inbox, ack=False)
    async with inbox_of(sandbox) as inbox:
        [delivery] = await consumer.empty(inbox)
    assert [m.text for m in delivery.messages] == ["old", "new", "newest"]


@on_virtual_clock
async def test_a_delivery_that_is_not_acknowledged_holds_nobody_up_and_is_not_repeated(
    inbox_of: Any, consumer: Any
) -> None:
    """A consumer that never acknowledges gets every other delivery, and in the same process none of them twice."""
    sandbox = Sandbox(packs=20)
    async with inbox_of(sandbox, concurrency=2) as inbox:
        await consumer.empty(inbox, ack=False)
        arrival = sandbox.send(FIRST)
        await consumer.empty(inbox, ack=False)
    assert len(consumer.ids) == len(set(consumer.ids)) == 21
    assert consumer.ids[-1] == arrival


@on_virtual_clock
async def test_an_acknowledgement_may_come_after_the_drain_and_not_after_the_inbox(
    inbox_of: Any, consumer: Any
) -> None:
    """`ack` after the drain's end is durable; after the inbox was left it is a `JournalError`, and the message comes again."""
    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox) as inbox:
        first, second = await consumer.empty(inbox, ack=False)
        await first.ack()
    with pytest.raises(JournalError):
        await second.ack()
    async with inbox_of(sandbox) as inbox:
        [again] = await consumer.empty(inbox)
    assert ids([again]) == ids([second])

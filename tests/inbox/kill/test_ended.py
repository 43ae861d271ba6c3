"""What a drain that has come to its end leaves to the next process."""

from __future__ import annotations

from pathlib import Path

from mlmessages import Inbox
from mlmessages.testing import Behaviour, Sandbox
from worlds import client_of, on_virtual_clock


@on_virtual_clock
async def test_a_listing_that_lagged_leaves_nothing_owed(tmp_path: Path) -> None:
    """B7: packs that were listed again after their mark, by a listing that lags, cost the next process no request."""
    sandbox = Sandbox(2, behaviour=Behaviour(lag=2.0))
    marks = []
    for _ in range(2):
        async with client_of(sandbox) as client, Inbox(client, tmp_path / "inbox.db") as inbox:
            async for delivery in inbox.drain():
                await delivery.ack()
        marks.append(sandbox.count("mark"))
    assert marks[0] == marks[1] <= 4

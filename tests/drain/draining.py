"""What the tests of `client.drain()` share."""

from __future__ import annotations

from mlmessages import Drain
from mlmessages.models import Conversation
from mlmessages.testing import Sandbox
from worlds import ids

FIRST = 2000000000000001


def gets(sandbox: Sandbox) -> int:
    """How many pages were asked for."""
    return sandbox.count("peek") + sandbox.count("mark")


async def drained(drain: Drain, sandbox: Sandbox) -> list[Conversation]:
    """All that a drain yields; of each it is checked that `marked` is true, if it says so."""
    found = []
    async for conversation in drain:
        assert not conversation.marked or set(ids([conversation])) <= sandbox.marked_ids()
        found.append(conversation)
    return found

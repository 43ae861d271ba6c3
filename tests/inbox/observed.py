"""What a test of the inbox looks at: the server's log, the journal's file, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from mlmessages.journal.sqlite import contents
from mlmessages.testing import Entry, Sandbox


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


def gets(sandbox: Sandbox, pack_id: str | None = None) -> list[Entry]:
    """The reads of conversations, marking or not, of one pack or all."""
    return [e for e in sandbox.log if e.kind in ("mark", "peek") and pack_id in (None, e.pack_id)]


def states(path: Path) -> dict[str, str]:
    """What the journal says of each pack that is not done."""
    return {row.pack_id: row.state for row in contents(path).rows}


async def until(condition: Callable[[], object]) -> None:
    """Let the loop's time pass until something is so."""
    async with asyncio.timeout(10_000):
        while not condition():
            await asyncio.sleep(0.01)

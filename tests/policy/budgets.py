"""`Limits` for tests of the budget: with room, or met by 429s at will."""

from __future__ import annotations

import asyncio

from mlmessages import Limits, Retry
from policy.traffic import LONGEST_PAUSE


def roomy(reads: int = 500, writes: int = 500, period: float = 60.0, per_second: float | None = None) -> Limits:
    """Limits whose concurrency is not what limits."""
    return Limits(reads, writes, period, concurrency=10_000, per_second=per_second)


class Paused:
    """Limits that meet 429s at will, and a clock."""

    def __init__(self, **options: int) -> None:
        self.limits = Limits(per_second=None, **options)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def refuse(self, retry_after: float | None, longest: float = LONGEST_PAUSE) -> float:
        """One request that meets a 429."""
        permit = await self.limits.acquire("the one")
        wait = self.limits.refused(permit, retry_after, Retry().delay, longest)
        self.limits.release(permit)
        return wait

    async def next_start(self, *, write: bool = False) -> float:
        """When another's next request starts; it is answered at once."""
        permit = await self.limits.acquire("another", write=write)
        self.limits.release(permit, answered=True)
        return self.now

"""How long ago something was, also where the machine was suspended meanwhile.

A laptop that sleeps and a virtual machine that is paused stop the clock of the event loop. What other machines count
on, such as the end of a lease, comes all the same.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from attrs import frozen

_BOOT_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)  # Linux has it: it counts what was slept


@frozen
class Moment:
    """A moment of this process, by every clock that may have gone on."""

    loop: float
    boot: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Return this moment. Needs a running event loop."""
        wall = time.time()
        boot = wall if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
        return cls(asyncio.get_running_loop().time(), boot, wall)

    @property
    def age(self) -> float:
        """The seconds since then, by the clock that says most.

        The wall clock sees the pause of a virtual machine, which stops all others. Where it is set forward, something
        is taken to be older than it is, which is safe: it is renewed.
        """
        now = Moment.now()
        return max(now.loop - self.loop, now.boot - self.boot, now.wall - self.wall)

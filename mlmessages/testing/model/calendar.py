"""The server's time: seconds of a clock that only goes forward, and the date that it shows."""

from __future__ import annotations

from collections.abc import Callable

START = 1772452800.0
"""The date on which a sandbox begins unless it is given another: 2026-03-02 12:00 UTC."""


class Calendar:
    """The date of a sandbox, driven by a clock that counts seconds from any beginning.

    `begins`: the date of the clock's first reading.
    """

    def __init__(self, clock: Callable[[], float], begins: float = START) -> None:
        self.begins = begins
        self._clock = clock
        self._origin = clock()

    @property
    def now(self) -> float:
        """The seconds of the clock."""
        return self._clock()

    @property
    def today(self) -> float:
        """The date, in seconds since 1970."""
        return self.begins + self._clock() - self._origin

    def start(self) -> None:
        """Read the clock once: one that counts from its first reading starts now."""
        self._clock()

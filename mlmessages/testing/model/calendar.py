"""The server's time: seconds of a clock that only goes forward, and the date that it shows."""

from __future__ import annotations

from collections.abc import Callable

START = 1772452800.0
"""The date on which a sandbox begins (2026-03-02 12:00 UTC); its clock counts on from there."""


class Calendar:
    """The date of a sandbox, driven by a clock that counts seconds from any beginning."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._origin = clock()

    @property
    def now(self) -> float:
        """The seconds of the clock."""
        return self._clock()

    @property
    def today(self) -> float:
        """The date, in seconds since 1970."""
        return START + self._clock() - self._origin

    def start(self) -> None:
        """Read the clock once: one that counts from its first reading starts now."""
        self._clock()

"""The counters behind a `RateWindow`: reads and writes apart, for the application or for each seller."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import attrs

from .behaviour import RateWindow


class Counter(Protocol):
    """Counts requests against a limit."""

    def admit(self, now: float) -> float:
        """Let a request in and return 0.0, or refuse it and return the seconds until one would be let in."""


@attrs.define
class _Fixed:
    limit: int
    period: float
    offset: float
    _window: float = -1.0
    _used: int = 0

    def admit(self, now: float) -> float:
        window = (now - self.offset) // self.period
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= self.limit:
            return (window + 1) * self.period + self.offset - now
        self._used += 1
        return 0.0


@attrs.define
class _Sliding:
    limit: int
    period: float
    _admitted: deque[float] = attrs.field(factory=deque)

    def admit(self, now: float) -> float:
        while self._admitted and self._admitted[0] <= now - self.period:
            self._admitted.popleft()
        if len(self._admitted) >= self.limit:
            return self._admitted[0] + self.period - now if self._admitted else self.period
        self._admitted.append(now)
        return 0.0


@attrs.define
class _Bucket:
    limit: int
    period: float
    _tokens: float = attrs.field(default=attrs.Factory(lambda self: float(self.limit), takes_self=True))
    _filled: float | None = None

    def admit(self, now: float) -> float:
        per_second = self.limit / self.period
        if self._filled is not None:
            self._tokens = min(float(self.limit), self._tokens + (now - self._filled) * per_second)
        self._filled = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / per_second if per_second else self.period
        self._tokens -= 1.0
        return 0.0


def counter(window: RateWindow, limit: int) -> Counter:
    """Return a fresh counter of the window's kind."""
    if window.kind == "sliding":
        return _Sliding(limit, window.period)
    if window.kind == "bucket":
        return _Bucket(limit, window.period)
    return _Fixed(limit, window.period, window.offset)


@attrs.define
class Budget:
    """The requests that a window lets in."""

    window: RateWindow | None
    _counters: dict[tuple[bool, str | None], Counter] = attrs.field(factory=dict)

    def admit(self, reads: bool, seller_id: str | None, now: float) -> float:
        """Let a read or a write in and return 0.0, or refuse it and return the seconds until one would be let in."""
        if self.window is None:
            return 0.0
        key = (reads, seller_id if self.window.per == "seller" else None)
        if key not in self._counters:
            self._counters[key] = counter(self.window, self.window.reads if reads else self.window.writes)
        return self._counters[key].admit(now)

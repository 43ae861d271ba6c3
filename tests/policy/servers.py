"""Three ways to count 500 requests a minute: which one Mercado Libre uses is unknown, so the budget has to suit all."""

from __future__ import annotations

from collections import deque


class FixedWindow:
    """Counts anew at every full `period`; `offset` moves that moment."""

    def __init__(self, size: int = 500, period: float = 60.0, offset: float = 0.0) -> None:
        self._size = size
        self._period = period
        self._offset = offset
        self._window: float | None = None
        self._counted = 0

    def admits(self, now: float) -> bool:
        """Whether a request that arrives at `now` is served; else it is a 429."""
        window = (now + self._offset) // self._period
        if window != self._window:
            self._window, self._counted = window, 0
        self._counted += 1
        return self._counted <= self._size


class SlidingLog:
    """Remembers when each request of the last `period` came."""

    def __init__(self, size: int = 500, period: float = 60.0) -> None:
        self._size = size
        self._period = period
        self._log: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Whether a request that arrives at `now` is served; else it is a 429."""
        while self._log and self._log[0] <= now - self._period:
            self._log.popleft()
        self._log.append(now)
        return len(self._log) <= self._size


class TokenBucket:
    """A bucket of `size` tokens that fills up within `period`."""

    def __init__(self, size: int = 500, period: float = 60.0) -> None:
        self._size = size
        self._rate = size / period
        self._tokens = float(size)
        self._seen = 0.0

    def admits(self, now: float) -> bool:
        """Whether a request that arrives at `now` is served; else it is a 429."""
        self._tokens = min(self._size, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def busiest(log: list[float], period: float) -> int:
    """The most entries of `log` that lie within any `period`: w60 for 60."""
    recent: deque[float] = deque()
    most = 0
    for moment in sorted(log):
        while recent and recent[0] <= moment - period + 1e-6:  # a microsecond for the rounding of floats
            recent.popleft()
        recent.append(moment)
        most = max(most, len(recent))
    return most

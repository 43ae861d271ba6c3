"""Gates at which requests are held until a test opens them."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict


class Gates:
    """Named gates, shut at first and open for good; they work across loops and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    async def passed(self, gate: str) -> None:
        """Return when the gate is open."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if gate in self._open:
                return
            opened: asyncio.Future[None] = loop.create_future()
            self._waiting[gate].add(opened)
        try:
            await opened
        finally:
            with self._lock:
                self._waiting[gate].discard(opened)

    def release(self, gate: str) -> None:
        """Open the gate for good."""
        with self._lock:
            self._open.add(gate)
            waiting = list(self._waiting[gate])
        for opened in waiting:
            loop = opened.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, opened)

    def waiting(self, gate: str) -> int:
        """Return how many requests wait there."""
        with self._lock:
            return len(self._waiting[gate])


def _resolve(opened: asyncio.Future[None]) -> None:
    if not opened.done():
        opened.set_result(None)

"""Requests on a virtual network: each is counted by the server at a random point within its latency."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

from mlmessages import Retry

LONGEST_PAUSE = 300.0


class Server(Protocol):
    """What counts requests."""

    def admits(self, now: float) -> bool:
        """Whether a request that arrives at `now` is served."""
        ...


class Budget(Protocol):
    """What is under test: `Limits`, or something naive in its place."""

    async def acquire(self, owner: object, *, write: bool = False) -> Any: ...

    def release(self, permit: Any, *, answered: bool = False) -> None: ...

    def refused(
        self, permit: Any, retry_after: float | None, delay: Callable[[int], float], longest: float
    ) -> float: ...


class Generous:
    """A server that serves everybody."""

    def admits(self, now: float) -> bool:
        return True


def lognormal(median: float, sigma: float, seed: int = 1) -> Callable[[], float]:
    """Latencies as they are observed on the internet."""
    rng = random.Random(seed)
    return lambda: median * rng.lognormvariate(0.0, sigma)


class Network:
    """Sends requests through `budget` to `server`, and keeps the wire log."""

    def __init__(
        self, budget: Budget, server: Server | None = None, latency: Callable[[], float] = lambda: 0.1, seed: int = 1
    ) -> None:
        self.started: list[float] = []
        self.counted: list[float] = []  # by the server
        self.written: list[float] = []  # those of `counted` that are no GETs
        self.refused: list[float] = []  # 429s
        self._budget = budget
        self._server = server or Generous()
        self._latency = latency
        self._random = random.Random(seed)

    async def request(self, owner: object = None, *, write: bool = False, patience: float | None = None) -> bool:
        """One request; False: a 429. Given up on after `patience`, or cancelled, it still arrives."""
        loop = asyncio.get_running_loop()
        permit = await self._budget.acquire(owner, write=write)
        answered = False
        try:
            self.started.append(loop.time())
            latency = self._latency()
            answer: asyncio.Future[bool] = loop.create_future()
            loop.call_later(latency * self._random.random(), self._arrive, answer, write)
            async with asyncio.timeout(patience):
                await asyncio.sleep(latency)
            if not answer.result():
                self._budget.refused(permit, None, Retry().delay, LONGEST_PAUSE)
                return False
            answered = True
            return True
        finally:
            self._budget.release(permit, answered=answered)

    def _arrive(self, answer: asyncio.Future[bool], write: bool) -> None:
        now = asyncio.get_running_loop().time()
        (self.written if write else self.counted).append(now)
        served = self._server.admits(now)
        if not served:
            self.refused.append(now)
        answer.set_result(served)


async def send_all(network: Network, requests: int, owner: object = None) -> float:
    """How many seconds `requests` requests take, all asked for at once."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for _ in range(requests):
            group.create_task(network.request(owner))
    return loop.time() - began

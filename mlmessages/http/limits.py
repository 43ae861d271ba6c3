"""The request budget: never more than it, all of it. The one place that knows aiolimiter."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from aiolimiter import AsyncLimiter
from attrs import define

from ..api.arguments import check_int, seconds
from ..events import PauseEvent, extra

_log: Final = logging.getLogger("mlmessages")
_LONGEST_PAUSE: Final = 300.0  # seconds that a pause may last in another event loop than the one it began in
_WORTH_A_WARNING: Final = 5.0  # seconds of a pause


@define(eq=False)
class Permit:
    """The right to send one request. It comes back to its window some time after it was released."""

    window: _Window
    started: float
    probe: bool = False
    refused: bool = False


class _Window:
    """`size` permits, each returned `period` seconds after its *answer*.

    So there are never more than `size` in any period, as the server counts.
    """

    def __init__(self, size: int, period: float) -> None:
        self.size = size
        self.period = period
        self.in_flight = 0
        self.line = _Line()
        self._returning: list[float] = []  # a heap

    def used(self, now: float) -> int:
        returning = self._returning
        while returning and returning[0] <= now:
            heappop(returning)
        return self.in_flight + len(returning)

    def opens_at(self, now: float) -> float | None:
        """When a permit is free: `now`, or later; None: a period after one of those in flight is answered."""
        if self.used(now) < self.size:
            return now
        return self._returning[0] if self._returning else None

    def give_back(self, now: float, *, sent: bool, counted: bool) -> None:
        """A request is over.

        `sent`: it left. `counted`: the server has counted it; one given up on may still arrive, and holds its permit
        for a whole period more.
        """
        self.in_flight -= 1
        if sent:
            heappush(self._returning, now + (1 if counted else 2) * self.period)

    def moved(self, now: float) -> _Window:
        """This window in another event loop, by another clock: what was in flight was given up on."""
        window = _Window(self.size, self.period)
        latest = now + 2 * self.period
        window._returning = sorted(min(t, latest) for t in self._returning) + [latest] * self.in_flight
        return window


class _Line:
    """Waiting in line: one at the front at a time; among several owners in turn, and in order within each."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[object, OrderedDict[asyncio.Future[None], None]] = OrderedDict()
        self._busy = False

    def step_up(self) -> bool:
        """Go to the front of the line if nobody is there; then `leave` must follow."""
        if self._busy:
            return False
        self._busy = True
        return True

    async def enter(self, owner: object) -> None:
        """Return at the front of the line when it is the owner's turn; `leave` must follow."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came and the cancellation with it
                self.leave()
            else:
                self._remove(owner, turn)
            raise

    def leave(self) -> None:
        """Let the next one to the front."""
        while self._waiting:
            owner, turns = next(iter(self._waiting.items()))
            turn = next(iter(turns))
            self._remove(owner, turn)
            if not turn.done():  # cancelled a moment ago: no turn is lost for its owner
                if turns:
                    self._waiting.move_to_end(owner)
                turn.set_result(None)
                return
        self._busy = False

    def _remove(self, owner: object, turn: asyncio.Future[None]) -> None:
        if turns := self._waiting.get(owner):
            turns.pop(turn, None)
            if not turns:
                del self._waiting[owner]


class Limits:
    """How fast: the request budget of one application, shared by every client that is given this object.

    - `reads`, `writes`: how many GETs, and how many other requests, may start in any `period` seconds, as the server
      counts them. 500 each in 60 s is documented; whether per application or per seller is unknown.
    - `concurrency`: how many requests are in flight at most.
    - `per_second`: how many start in a second, evenly spread; None: no such limit.

    The budget holds in one process, for a fixed or a sliding window and for a token bucket, and is used up to the last
    request. A request that was given up on (timed out, cancelled) counts for a `period` more: it may still arrive.
    After a 429 everyone pauses, then one request goes first. Clients that share it take turns. It may be used in
    successive `asyncio.run`s, but by one event loop at a time (`RuntimeError`). Values out of range: `ValueError`.
    """

    def __init__(
        self,
        reads: int = 500,
        writes: int = 500,
        period: float = 60.0,
        concurrency: int = 32,
        per_second: float | None = 100,
    ) -> None:
        self.reads: Final = check_int("reads", reads, 1)
        self.writes: Final = check_int("writes", writes, 1)
        self.period: Final = seconds("period", period)
        self.concurrency: Final = check_int("concurrency", concurrency, 1)
        if per_second is not None and not (
            isinstance(per_second, (int, float)) and not isinstance(per_second, bool) and 1 <= per_second < math.inf
        ):
            raise ValueError(f"per_second must be a number of at least 1, or None, not {per_second!r}")
        self.per_second: Final = per_second
        self.refusals = 0  # 429s so far
        self._reading = _Window(self.reads, self.period)
        self._writing = _Window(self.writes, self.period)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spike: AsyncLimiter | None = None
        self._fronts: dict[asyncio.Future[None], None] = {}  # in order: who waits longest looks first
        self._paused_until = self._paused_at = self._warned_until = -math.inf
        self._rounds = 0  # of refusals in a row
        self._storm = False  # after a pause: one request goes first and finds out
        self._probe: Permit | None = None

    def __repr__(self) -> str:
        named = ("reads", "writes", "period", "concurrency", "per_second")
        known = vars(self)  # not all of them yet, in the traceback of a wrong argument
        return f"Limits({', '.join(f'{name}={known[name]}' for name in named if name in known)})"

    @property
    def used(self) -> int:
        """How many of the `reads` are used up at this moment: in flight, or started too short a time ago."""
        return self._reading.used(self._loop.time()) if self._loop is not None else 0

    async def acquire(self, owner: object, *, write: bool = False) -> Permit:
        """Wait until one more request may start; `release` must follow.

        `owner` is whose turn it is among those that share.
        """
        loop = self._bind()
        window = self._writing if write else self._reading
        line = window.line
        if not line.step_up():
            await line.enter(owner)
        try:
            while (obstacle := self._obstacle(window, loop.time())) is not None:
                await self._front(obstacle)
            if self._spike is not None:
                await self._spike.acquire()
                while (obstacle := self._obstacle(window, loop.time())) is not None:  # a pause began meanwhile
                    await self._front(obstacle)
            permit = Permit(window, loop.time(), probe=self._storm)
            window.in_flight += 1
            if permit.probe:
                self._probe = permit
            return permit
        finally:
            line.leave()

    def release(self, permit: Permit, *, sent: bool = True, answered: bool = False) -> None:
        """The request of `permit` is over.

        `sent`: it left this machine. `answered`: with anything but a 429 or silence, which ends a storm.
        """
        if self._probe is permit:
            self._probe = None
        if answered and permit.started >= self._paused_until:
            self._storm = False
            self._rounds = 0
        permit.window.give_back(self._now(), sent=sent, counted=answered or permit.refused)
        self._wake()

    def refused(
        self, permit: Permit, retry_after: float | None, delay: Callable[[int], float], longest: float
    ) -> float:
        """A 429: pause everyone; the seconds to wait. `delay` gives the wait of the n-th round of refusals in a row.

        What was in flight together is refused together, and is one round. The pause only ever grows, up to `longest`
        from now.
        """
        self.refusals += 1
        permit.refused = True
        now = self._now()
        if permit.started > self._paused_at:
            self._rounds += 1
            self._paused_at = now
        wait = max(retry_after or 0.0, delay(self._rounds))
        self._paused_until = max(self._paused_until, now + min(wait, longest))
        self._storm = True
        if self._paused_until - max(now, self._warned_until) > _WORTH_A_WARNING:  # else it was told, or nearly
            pause = PauseEvent(self._paused_until - now)
            _log.warning("429: too many requests; pausing for %.1f s", pause.seconds, extra=extra(pause))
            self._warned_until = self._paused_until
        return wait

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return loop
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("one Limits cannot be used in two event loops at the same time")
        now = loop.time()
        self._loop = loop
        # One at a time: AsyncLimiter(n, 1) would let 2n - 1 start within a second.
        self._spike = AsyncLimiter(1, 1 / self.per_second) if self.per_second is not None else None
        self._reading = self._reading.moved(now)
        self._writing = self._writing.moved(now)
        self._fronts = {}
        self._probe = None
        self._paused_until = min(self._paused_until, now + _LONGEST_PAUSE)
        self._paused_at = min(self._paused_at, now)
        self._warned_until = min(self._warned_until, self._paused_until)
        return loop

    def _obstacle(self, window: _Window, now: float) -> float | None:
        """When to look again at whether a request may start (infinity: when another one is over); None: it may, now."""
        if now < self._paused_until:
            return self._paused_until
        in_flight = self._reading.in_flight + self._writing.in_flight
        if in_flight >= self.concurrency or (self._storm and self._probe is not None):
            return math.inf
        opens_at = window.opens_at(now)
        if opens_at is None:
            return math.inf
        return opens_at if opens_at > now else None

    async def _front(self, until: float) -> None:
        """Wait at the front of a line until the moment `until`, or until a request is over."""
        assert self._loop is not None
        woken = self._loop.create_future()
        timer = self._loop.call_at(until, _resolve, woken) if until != math.inf else None
        self._fronts[woken] = None
        try:
            await woken
        finally:
            self._fronts.pop(woken, None)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        for woken in self._fronts:
            _resolve(woken)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

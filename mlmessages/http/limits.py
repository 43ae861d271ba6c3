"""The request budget: never more than it, all of it. The one place that knows aiolimiter."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, Protocol

from aiolimiter import AsyncLimiter
from attrs import define

from ..api.arguments import check_int, check_seconds
from ..events import PauseEvent, extra

_log: Final = logging.getLogger("mlmessages")
_LONGEST_PAUSE: Final = 300.0  # seconds that a pause may last in another event loop than the one it began in
_WORTH_A_WARNING: Final = 5.0  # seconds of a pause
CLOCK_STEP: Final = max(time.get_clock_info("monotonic").resolution, 0.001)
"""Seconds by which a moment may be told too early: 16 ms on Windows; uvloop's clock counts milliseconds."""


class Window(Protocol):
    """Where the permits of one kind of request come from, so many in any period as the server counts."""

    @property
    def in_flight(self) -> int:
        """How many permits were taken and not given back."""
        ...

    def used(self, now: float) -> int:
        """Return how many permits are in flight or not yet back."""
        ...

    def opens_at(self, now: float) -> float:
        """Return when to look for a permit: `now`, or later; infinity: when a request that is in flight is over."""
        ...

    @property
    def ready(self) -> bool:
        """True if `take` has a permit; False: `fetch` first."""
        ...

    async def fetch(self, wanted: int) -> None:
        """Try to get up to `wanted` permits. Raises `NotSent` if that cannot be known."""
        ...

    def take(self) -> Hashable:
        """Take a permit, by the name that `give_back` wants."""
        ...

    def is_valid(self, name: Hashable) -> bool:
        """Return False if a permit that was taken may be another process's by now."""
        ...

    def give_back(self, name: Hashable, now: float, *, sent: bool, counted: bool) -> None:
        """End a request.

        `sent`: it left. `counted`: the server has counted it; one that was given up may still arrive, and holds its
        permit for a whole period more.
        """
        ...

    def give_back_unused(self) -> None:
        """Give back what was fetched and not taken: nothing waits for it any more."""
        ...

    def moved(self, now: float) -> Window:
        """Return this window for another event loop, whose clock says `now`; what was in flight was given up."""
        ...

    def returns(self, now: float) -> Mapping[float, int]:
        """Return how many permits come back within how many seconds, where only this process knows of them."""
        ...

    def spend(self, seconds: float, count: int, now: float) -> None:
        """Take `count` permits, which come back so many seconds from `now`, where only this process knows of them."""
        ...


class MemoryWindow:
    """`size` permits in memory, each returned `period` seconds after its *answer*.

    So there are never more than `size` in any period, as the server counts.
    """

    ready: Final = True  # as soon as `opens_at` says so

    def __init__(self, size: int, period: float) -> None:
        self.in_flight = 0
        self._size = size
        self._period = period
        self._returning: list[float] = []  # a heap of moments

    def used(self, now: float) -> int:
        """Return how many permits are in flight or not yet back."""
        returning = self._returning
        while returning and returning[0] <= now:
            heappop(returning)
        return self.in_flight + len(returning)

    def opens_at(self, now: float) -> float:
        """Return when a permit is free; infinity: a period after one that is in flight is answered."""
        if self.used(now) < self._size:
            return now
        return self._returning[0] if self._returning else math.inf

    async def fetch(self, wanted: int) -> None:
        """Do nothing: the permits are here."""

    def take(self) -> None:
        """Take a permit; one is as good as another."""
        self.in_flight += 1

    def is_valid(self, _: Hashable) -> bool:
        """Return True: it is this process's own."""
        return True

    def give_back(self, _: Hashable, now: float, *, sent: bool, counted: bool) -> None:
        self.in_flight -= 1
        if sent:
            heappush(self._returning, now + (1 if counted else 2) * self._period + CLOCK_STEP)

    def give_back_unused(self) -> None:
        """Do nothing: nothing is fetched."""

    def moved(self, now: float) -> MemoryWindow:
        """Return this window for another event loop, whose clock says `now`; what was in flight was given up."""
        window = MemoryWindow(self._size, self._period)
        latest = now + 2 * self._period + CLOCK_STEP
        window._returning = sorted(min(t, latest) for t in self._returning) + [latest] * self.in_flight
        return window

    def returns(self, now: float) -> Counter[float]:
        """Return how many permits come back within how many seconds; what is in flight was given up."""
        step = self._period / 60  # few numbers instead of one for each request; one step more, for clocks that disagree
        found = Counter(math.ceil((moment - now) / step + 1) * step for moment in self._returning if moment > now)
        found[2 * self._period] += self.in_flight
        return +found

    def spend(self, seconds: float, count: int, now: float) -> None:
        """Take `count` permits, which come back so many seconds from `now`: two periods at the most."""
        moment = now + min(seconds, 2 * self._period) + CLOCK_STEP
        self._returning += [moment] * min(count, self._size)
        heapify(self._returning)


class FairQueue:
    """A lock whose owners take turns; within each owner the first comes first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[object, OrderedDict[asyncio.Future[None], None]] = OrderedDict()
        self._held = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def try_acquire(self) -> bool:
        """Take the lock if it is free; then `release` must follow."""
        if self._held:
            return False
        self._held = True
        return True

    async def acquire(self, owner: object) -> None:
        """Wait for the lock, in the owner's turn; `release` must follow."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came and the cancellation with it
                self.release()
            else:
                self._remove(owner, turn)
            raise

    def release(self) -> bool:
        """Hand the lock to the next one; return False if none waits."""
        while self._waiting:
            owner, turns = next(iter(self._waiting.items()))
            turn = next(iter(turns))
            self._remove(owner, turn)
            if not turn.done():  # cancelled a moment ago: no turn is lost for its owner
                if turns:
                    self._waiting.move_to_end(owner)
                turn.set_result(None)
                return True
        self._held = False
        return False

    def _remove(self, owner: object, turn: asyncio.Future[None]) -> None:
        if turns := self._waiting.get(owner):
            turns.pop(turn, None)
            if not turns:
                del self._waiting[owner]


@define(eq=False)
class Permit:
    """The right to send one request. It comes back to its window some time after it was released.

    `probe`: the one request after a pause that finds out whether others may follow. `refused`: it was answered 429.
    """

    window: Window
    name: Hashable
    started: float
    probe: bool = False
    refused: bool = False


class Brake:
    """What a 429 does: everyone pauses, then one request goes first and finds out whether the storm is over.

    A pause is a moment, and that moment only moves on: no answer to another request ends it early.
    """

    def __init__(self) -> None:
        self.refusals = 0
        self.rounds = 0  # of refusals in a row
        self.half_open = False  # after a pause, until a request is answered
        self._paused_until = self._paused_at = self._warned_until = -math.inf
        self._probe: Permit | None = None

    def blocked_until(self, now: float) -> float:
        """Return when a request may start: `now`, or later; infinity: when the probe is over."""
        if now < self._paused_until:
            return self._paused_until
        return math.inf if self.half_open and self._probe is not None else now

    def start(self, permit: Permit) -> None:
        if self.half_open:
            permit.probe = True
            self._probe = permit

    def end(self, permit: Permit, *, answered: bool) -> None:
        """Note that a request is over. `answered`: with anything but a 429 or silence, which ends a storm."""
        if self._probe is permit:
            self._probe = None
        if answered and permit.started >= self._paused_until:
            self.half_open = False
            self.rounds = 0

    def refuse(
        self, permit: Permit, now: float, retry_after: float | None, delay: Callable[[int], float], longest: float
    ) -> float:
        """Pause everyone for a 429; return the seconds to wait. See `Limits.refused`."""
        self.refusals += 1
        permit.refused = True
        if permit.started > self._paused_at:  # what was in flight together is refused together, and is one round
            self.rounds += 1
            self._paused_at = now
        wait = max(retry_after or 0.0, delay(self.rounds))
        self._paused_until = max(self._paused_until, now + min(wait, longest))
        self.half_open = True
        if self._paused_until - max(now, self._warned_until) > _WORTH_A_WARNING:  # else it was told, or nearly
            pause = PauseEvent(self._paused_until - now)
            _log.warning("429: too many requests; pausing for %.1f s", pause.seconds, extra=extra(pause))
            self._warned_until = self._paused_until
        return wait

    def move(self, now: float) -> None:
        """Go on in another event loop, whose clock says `now`."""
        self._probe = None
        self._paused_until = min(self._paused_until, now + _LONGEST_PAUSE)
        self._paused_at = min(self._paused_at, now)
        self._warned_until = min(self._warned_until, self._paused_until)


class Limits:
    """How fast: the request budget of one application, shared by every client that is given this object.

    - `reads`, `writes`: how many GETs, and how many other requests, may start in any `period` seconds, as the server
      counts them. 500 each in 60 s [documented: limits]; whether per application or per seller is unknown.
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
        self.period: Final = check_seconds("period", period)
        self.concurrency: Final = check_int("concurrency", concurrency, 1)
        if per_second is not None and not (
            isinstance(per_second, (int, float)) and not isinstance(per_second, bool) and 1 <= per_second < math.inf
        ):
            raise ValueError(f"per_second must be a number of at least 1, or None, not {per_second!r}")
        self.per_second: Final = per_second
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spike: AsyncLimiter | None = None
        self._reading, self._writing, self._brake = self._budget()
        self._read_queue, self._write_queue = FairQueue(), FairQueue()
        self._fronts: dict[asyncio.Future[None], None] = {}  # in order: what waits longest looks first
        self._knows_the_past = False

    def __repr__(self) -> str:
        named = ("reads", "writes", "period", "concurrency", "per_second")
        known = vars(self)  # not all of them yet, in the traceback of a wrong argument
        return f"{type(self).__name__}({', '.join(f'{name}={known[name]}' for name in named if name in known)})"

    @property
    def used(self) -> int:
        """How many of the `reads` are used up at this moment: in flight, or started too short a time ago."""
        return self._reading.used(self._loop.time()) if self._loop is not None else 0

    @property
    def refusals(self) -> int:
        """How many requests were answered 429 so far."""
        return self._brake.refusals

    def spent(self) -> list[tuple[str, float, int]]:
        """Return what is used up at this moment, for the process that comes after this one.

        That is for each kind, ``read`` or ``write``, how many permits come back within how many seconds.
        """
        now = self._now()
        self._knows_the_past = True
        return [
            (kind, seconds, count)
            for kind, window in (("read", self._reading), ("write", self._writing))
            for seconds, count in window.returns(now).items()
        ]

    def carry_over(self, spent: Iterable[tuple[str, float, int]]) -> None:
        """Take what an earlier process has spent off the budget: once, for then this object knows by itself."""
        if self._knows_the_past:
            return
        self._knows_the_past = True
        now = self._bind().time()
        for kind, seconds, count in spent:
            (self._writing if kind == "write" else self._reading).spend(seconds, count, now)

    async def acquire(self, owner: object, *, write: bool = False) -> Permit:
        """Wait until one more request may start; `release` must follow.

        `owner` is whose turn it is among those that share.
        """
        loop = self._bind()
        window, queue = (self._writing, self._write_queue) if write else (self._reading, self._read_queue)
        if not queue.try_acquire():
            await queue.acquire(owner)
        try:
            await self._open(window, queue)
            if self._spike is not None:
                await self._spike.acquire()
                await self._open(window, queue)  # again: a pause may have begun meanwhile
            permit = Permit(window, window.take(), loop.time())
            self._brake.start(permit)
            return permit
        finally:
            if not queue.release():
                window.give_back_unused()

    def is_valid(self, permit: Permit) -> bool:
        """Return False if other processes may use the permit by now: asked directly before a request leaves.

        That is so where this process was stopped, or its machine suspended, since `acquire`.
        """
        return permit.window.is_valid(permit.name)

    def release(self, permit: Permit, *, sent: bool = True, answered: bool = False) -> None:
        """End the request of `permit`.

        `sent`: it left this machine. `answered`: with anything but a 429 or silence, which ends a storm.
        """
        self._brake.end(permit, answered=answered)
        permit.window.give_back(permit.name, self._now(), sent=sent, counted=answered or permit.refused)
        for woken in self._fronts:
            _resolve(woken)

    def refused(
        self, permit: Permit, retry_after: float | None, delay: Callable[[int], float], longest: float
    ) -> float:
        """Pause everyone for a 429; return the seconds to wait.

        `delay` gives the wait of the n-th round of refusals in a row, `retry_after` its floor. What was in flight
        together is refused together, and is one round. The pause only ever grows, up to `longest` from now.
        """
        return self._brake.refuse(permit, self._now(), retry_after, delay, longest)

    def _budget(self) -> tuple[Window, Window, Brake]:
        """Return the permits of reads and of writes, and the brake: of this process alone."""
        return MemoryWindow(self.reads, self.period), MemoryWindow(self.writes, self.period), Brake()

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
        self._read_queue, self._write_queue = FairQueue(), FairQueue()
        self._fronts = {}
        self._brake.move(now)
        return loop

    async def _open(self, window: Window, queue: FairQueue) -> None:
        """Return when `window` has a permit and nothing keeps a request from starting now."""
        assert self._loop is not None
        while True:
            now = self._loop.time()
            room = self.concurrency - self._reading.in_flight - self._writing.in_flight
            until = max(math.inf if room <= 0 else now, self._brake.blocked_until(now), window.opens_at(now))
            if until > now:
                await self._wait(until)
            elif window.ready:
                return
            else:
                at_once = room if self.per_second is None else min(room, math.ceil(self.per_second))
                await window.fetch(min(1 + len(queue), at_once))

    async def _wait(self, until: float) -> None:
        """Wait until the moment `until`, or until a request is over."""
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


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

"""Clocks: the running loop's, and a virtual one, an event loop that jumps to its next timer instead of waiting for it.

For code whose outside world is memory, such as `Sandbox.session()`, and threads started by `run_in_executor`, which
are waited for in real time. A real socket's traffic would be overtaken.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import attrs

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_STEP = 1e-6  # a timer is at least this far ahead: one that rounds to "now" would stop the clock for ever
_RESOLUTION = 1e-9  # seconds by which asyncio may run a timer early


class NothingToWaitFor(RuntimeError):
    """Every task waits, no timer is set, no thread is at work: the program would stand still for ever."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at 0 and moves only when there is nothing else to do."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        self._jobs: set[_Job] = set()
        self._closing_threads = 0
        super().__init__(_JumpingSelector(selectors.DefaultSelector(), self))
        # asyncio runs timers early by the resolution of the system's clock (15.6 ms on Windows before Python 3.13),
        # which says nothing of this one; there is no public way to say so
        self._clock_resolution = _RESOLUTION

    def time(self) -> float:
        """Return the virtual seconds."""
        return self._virtual_now

    def jump(self, seconds: float) -> None:
        """Move the clock forward."""
        then = self._virtual_now + max(seconds, _STEP)
        if then + _RESOLUTION == then:  # asyncio runs a timer whose time is before now plus the resolution
            then = math.nextafter(then, math.inf)
        self._virtual_now = then

    @property
    def threads_at_work(self) -> bool:
        """Whether something in an executor is still to come."""
        self._jobs = {job for job in self._jobs if job.pending}
        return bool(self._jobs) or self._closing_threads > 0

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer, at least a step ahead."""
        return super().call_at(max(when, self._virtual_now + _STEP), callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Work in a thread. The clock stands still until that is done, also when its caller gives it up."""
        job = _Job()

        def work(*args: *Ts) -> T:
            job.running = True
            try:
                return func(*args)
            finally:
                job.running = False
                with suppress(RuntimeError):  # the loop is closed: no caller waits
                    self.call_soon_threadsafe(lambda: None)

        future: asyncio.Future[T] = super().run_in_executor(executor, work, *args)
        job.answered = future.done
        self._jobs.add(job)
        return future

    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        """Join the threads, in real time."""
        self._closing_threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._closing_threads -= 1


@attrs.define(eq=False)
class _Job:
    """Work in a thread: its caller may have given it up while it still runs."""

    running: bool = False
    answered: Callable[[], bool] = lambda: False

    @property
    def pending(self) -> bool:
        return self.running or not self.answered()


class _JumpingSelector(selectors.BaseSelector):
    """Polls the real selector; where the loop would wait for a timer, moves its clock there."""

    def __init__(self, real: selectors.BaseSelector, loop: VirtualClockLoop) -> None:
        self._real = real
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self._loop.threads_at_work:
            return self._real.select(None)
        if timeout is not None:
            self._loop.jump(timeout)
            return []
        if len(self._real.get_map()) <= 1:  # only the loop's own wake-up pipe
            raise NothingToWaitFor("every task waits, no timer is set and no thread is at work")
        return self._real.select(None)

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def close(self) -> None:
        self._real.close()


class LoopClock:
    """Seconds of the running event loop, carried on from loop to loop; where no loop runs it stands still."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0
        self._last = 0.0

    def __call__(self) -> float:
        """Return the seconds since the first call."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._last
        if loop is not self._loop:
            self._loop = loop
            self._origin = loop.time() - self._last
        self._last = loop.time() - self._origin
        return self._last


def virtual_run(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine as `asyncio.run` does, on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)

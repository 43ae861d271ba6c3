"""A thread for what blocks: an engine's calls run in it one after the other, and a silent one is cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from ..errors import JournalError
from .store import Disconnected

T = TypeVar("T")


class Blocking(Protocol):
    """What lives in such a thread."""

    patience: float | None  # seconds after which a call is cut off by `interrupt`, from another thread; None: never

    def close(self) -> None:
        """Close the connection or the file of the engine."""

    def interrupt(self) -> None:
        """Make the call that is under way in the thread fail."""

    def explain(self, error: Exception) -> JournalError | None:
        """Translate what a call raised; None: it is a bug."""


B = TypeVar("B", bound=Blocking)


class EngineThread(Generic[B]):
    """A thread that makes one `Blocking` thing and then runs calls on it."""

    def __init__(self, make: Callable[[], B], name: str) -> None:
        self._make = make
        self._name = name
        self._made: B | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.breaks = 0  # how often its connection broke: what was read before may be wrong

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._thread is not None

    async def open(self) -> None:
        """Start the thread, and make what lives in it. Raises `JournalError`; `RuntimeError` if it is open."""
        if self.is_open:
            raise RuntimeError("the journal is open already")
        thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._open)
        except BaseException:
            thread.shutdown(wait=True)
            if self._made is not None:  # cancelled meanwhile
                self._made.close()
                self._made = None
            raise
        self._thread = thread

    def _open(self) -> None:
        self._made = self._make()

    async def close(self) -> None:
        """Close what lives in the thread, after what was called before, and end the thread."""
        thread, made = self._thread, self._made
        self._thread = self._made = None
        if thread is None or made is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(thread, made.close)
        except asyncio.CancelledError:
            made.interrupt()  # else the event loop would stand still below for as long as a peer is silent
            raise
        finally:
            thread.shutdown(wait=True)

    async def call(self, work: Callable[[B], T]) -> T:
        """Run `work` in the thread. What it raises is explained; `JournalError` if the thread has ended."""
        if self._thread is None or self._made is None:
            raise JournalError("the journal is closed")
        loop, made = asyncio.get_running_loop(), self._made
        if made.patience is None:
            return await loop.run_in_executor(self._thread, self._run, made, work)
        watchdog = _Watchdog(made, loop)
        call: asyncio.Future[T] = loop.run_in_executor(self._thread, self._run, made, work, watchdog)
        watchdog.wait(made.patience)
        call.add_done_callback(lambda _: watchdog.stop())
        return await asyncio.shield(call)  # a caller that gives up ends its own wait, and not the watch over the call

    def _run(self, made: B, work: Callable[[B], T], watchdog: _Watchdog | None = None) -> T:
        """Run `work`, and count what breaks, here: its caller may have gone."""
        if watchdog is not None:
            watchdog.began = time.monotonic()
        try:
            return explained(made, work)
        except Disconnected:
            self.breaks += 1
            raise


class _Watchdog:
    """Cuts a call off that takes too long, from when it began: calls before it may have kept it waiting."""

    def __init__(self, made: Blocking, loop: asyncio.AbstractEventLoop) -> None:
        self.began: float | None = None
        self._made = made
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        patience = self._made.patience or 0.0
        left = patience if self.began is None else patience - (time.monotonic() - self.began)
        if left > 0.001:
            self.wait(left)
        else:
            self._made.interrupt()


def explained(made: Any, work: Callable[[Any], T]) -> T:
    """Run `work`; what an engine raises becomes a `JournalError`."""
    try:
        return work(made)
    except JournalError:
        raise
    except Exception as error:
        meaning = made.explain(error)
        if meaning is None:
            raise
        raise meaning from None

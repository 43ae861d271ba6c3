"""Running a coroutine so that Ctrl-C and SIGTERM end it soon, also while it waits."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeAlias, TypeVar

from .terminal import note

T = TypeVar("T")
_SignalHandler: TypeAlias = Callable[[int, FrameType | None], None]

_GRACE: Final = 0.4  # seconds for an orderly end, such as a marking request that waits for its answer
_AGAIN: Final = 0.1


def run(main: Coroutine[object, object, T], grace: float = _GRACE, *, terminated: bool = True) -> T:
    """Return the result of `main`, which runs in an event loop of its own.

    Ctrl-C cancels it, and keeps cancelling where it holds on to something (`asyncio.shield`); what is raised is a
    `KeyboardInterrupt`. It has `grace` seconds for an orderly end, and until a token request that has left is answered,
    because its answer holds the only good refresh token; a second Ctrl-C ends that. SIGBREAK (Windows' Ctrl-Break) does
    the same, and so does SIGTERM, unless `terminated` is False. A handler of the `signal` module wakes the loop on
    every system.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        interruption = _Interruption(loop, task, grace)
        with _handling(interruption, terminated):
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                if interruption.times:
                    raise KeyboardInterrupt from None
                raise
            finally:
                interruption.wait_for_answers()


class _Interruption:
    """What a signal does to the task of a program: a handler of the module `signal`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[T], grace: float) -> None:
        self.times = 0
        self._task: Final = task
        self._loop = loop
        self._grace = grace
        self._told = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        self.times += 1
        if self.times == 1:
            self._loop.call_soon_threadsafe(self._cancel, self._grace)
        elif self.times == 2:
            self._loop.call_soon_threadsafe(self._cancel, _AGAIN)

    def _cancel(self, next_after: float) -> None:
        if not self._task.done():
            self._task.cancel()
            self._loop.call_later(next_after, self._insist)

    def _insist(self) -> None:
        if self._waits_for_answers():
            self._loop.call_later(_AGAIN, self._insist)
        else:
            self._cancel(_AGAIN)

    def _waits_for_answers(self) -> bool:
        """Return whether a token request is under way that the second Ctrl-C has not cut."""
        from ..auth.in_flight import answers_awaited

        waits = bool(answers_awaited) and self.times == 1
        if waits and not self._told:
            self._told = True
            note("A token request has left: waiting for its answer, because its tokens would be lost. Ctrl-C cuts it.")
        return waits

    def wait_for_answers(self) -> None:
        """Return when no token request is under way that was interrupted once: closing the loop would cancel it."""
        if self.times:
            self._loop.run_until_complete(self._answers())

    async def _answers(self) -> None:
        from ..auth.in_flight import answers_awaited

        while self._waits_for_answers():
            await asyncio.wait(answers_awaited, timeout=_AGAIN)


@contextmanager
def _handling(handler: _SignalHandler, terminated: bool) -> Iterator[None]:
    """Let `handler` take the signals that end a program, unless the host has decided what they do."""
    found: dict[int, _SignalHandler | int | None] = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            found[signal.SIGINT] = signal.default_int_handler
        names = ("SIGTERM", "SIGBREAK") if terminated else ("SIGBREAK",)
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                found[number] = signal.SIG_DFL
    for number in found:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in found.items():
            signal.signal(number, before)

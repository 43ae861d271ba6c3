"""Running a coroutine so that Ctrl-C ends it soon, whatever it waits for."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeVar

T = TypeVar("T")

_GRACE: Final = 0.4  # seconds for an orderly end, such as a marking request that waits for its answer
_AGAIN: Final = 0.1


def run(main: Coroutine[object, object, T], grace: float = _GRACE) -> T:
    """The result of `main`, in an event loop of its own.

    Ctrl-C cancels it, and keeps cancelling where it holds on to something (`asyncio.shield`); what comes out is a
    `KeyboardInterrupt`. It has `grace` seconds for an orderly end, but a second Ctrl-C ends that. This works on Windows
    too: a handler of the `signal` module wakes the loop.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        with _cancelled_by_ctrl_c(loop, task, grace) as interrupts:
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                if interrupts:
                    raise KeyboardInterrupt from None
                raise


@contextmanager
def _cancelled_by_ctrl_c(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T], grace: float) -> Iterator[list[int]]:
    interrupts: list[int] = []

    def insist(after: float) -> None:
        if not task.done():
            task.cancel()
            loop.call_later(after, insist, _AGAIN)

    def on_sigint(number: int, _: FrameType | None) -> None:
        interrupts.append(number)
        if len(interrupts) <= 2:
            loop.call_soon_threadsafe(insist, grace if len(interrupts) == 1 else _AGAIN)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts  # someone else decides what Ctrl-C means
        return
    signal.signal(signal.SIGINT, on_sigint)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""Cancelling a coroutine at one of its suspensions, to be swept over all of them."""

from __future__ import annotations

import asyncio
import enum
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Cancel(enum.Enum):
    """The moment of a cancellation."""

    WAITING = "while it waits"
    WOKEN = "when what it waits for has just come"


async def cancelled_at(coroutine: Coroutine[Any, Any, T], step: int, cancel: Cancel) -> T:
    """`coroutine`, whose task is cancelled at its suspension number `step`, from 0; to be a task of its own."""
    return await _stepwise(coroutine, step, cancel)


@types.coroutine
def _stepwise(coroutine: Coroutine[Any, Any, T], step: int, cancel: Cancel) -> Generator[Any, Any, T]:
    task = asyncio.current_task()
    assert task is not None
    resume, value = coroutine.send, None
    while True:
        try:
            future = resume(value)
        except StopIteration as stop:
            return stop.value
        if step == 0:
            if cancel is Cancel.WAITING or future is None:
                task.cancel()
            else:
                # Before the task's own callback: the future is done, and the task is cancelled before it runs.
                future.add_done_callback(lambda _: task.cancel())
        step -= 1
        try:
            resume, value = coroutine.send, (yield future)
        except BaseException as error:
            resume, value = coroutine.throw, error

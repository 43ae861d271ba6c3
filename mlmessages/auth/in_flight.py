"""Token requests that have left and whose answer is not kept yet: to end the program now would lose the tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

answers_awaited: Final[set[asyncio.Task[Any]]] = set()
"""The tasks that have sent a token request and have not kept its answer yet: to end one loses the tokens.

Each ends by itself within the timeout of its request. What ends a program on Ctrl-C waits for them.
"""


@contextmanager
def answer_awaited() -> Iterator[None]:
    """In this block the current task is one of `answers_awaited`."""
    task = asyncio.current_task()
    assert task is not None
    answers_awaited.add(task)
    try:
        yield
    finally:
        answers_awaited.discard(task)


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; where the caller is cancelled, `work` is finished first.

    A second cancellation does not wait.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_forget_error)  # there is no caller left to hear of it
        if not task.done():
            await asyncio.wait({task})
        raise


def _forget_error(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()

"""Calls that may wait for ever, such as a read from a pipe, made so that Ctrl-C works meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

T = TypeVar("T")

_BLOCK: Final = 1 << 16


async def apart(call: Callable[[], T]) -> T:
    """Return the result of `call`, which may raise `OSError`.

    It runs in a daemon thread, which the end of the program does not wait for: Ctrl-C works while it is blocked.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[], None]) -> None:
        if not came.done():
            how()

    def run() -> None:
        try:
            how = partial(came.set_result, call())
        except OSError as error:
            how = partial(came.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: it was Ctrl-C
            loop.call_soon_threadsafe(settle, how)

    threading.Thread(target=run, daemon=True).start()
    return await came


async def read_stdin() -> bytes:
    """Return what comes next on standard input; an empty value at its end.

    It does not use Python's buffer: a thread that waits holds its lock at the end of the program.
    """
    return await apart(lambda: os.read(0, _BLOCK))

"""The library's log as lines on stderr, so that a user who waits knows what for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .terminal import note

_OURS: Final = "mlmessages"
_OTHERS: Final = ("aiohttp", "asyncio")


class _ToStderr(logging.Handler):
    """Writes each record as a line, but of retries that wait for the same thing at the same time only the first."""

    with_time = False
    _quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "ml_event", None) == "retry" and record.levelno > logging.DEBUG:
            if time.monotonic() < self._quiet_until:
                return
            self._quiet_until = time.monotonic() + getattr(record, "ml_wait", 0.0) * 0.8
        at = (
            f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{record.msecs:03.0f} "
            if self.with_time
            else ""
        )
        note(at + record.getMessage())


_handler: Final = _ToStderr()


@contextmanager
def narrate() -> Iterator[None]:
    """Write on stderr what the library logs: retries and pauses, and with `say_more` each request."""
    loggers = [logging.getLogger(name) for name in (_OURS, *_OTHERS)]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(_handler)
    loggers[0].setLevel(logging.INFO)
    _handler.with_time = False
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(_handler)
            logger.setLevel(level)


def say_more(times: int) -> None:
    """Write each request as well; from 2 on with the time, and what aiohttp and asyncio log."""
    logging.getLogger(_OURS).setLevel(logging.DEBUG)
    if times > 1:
        _handler.with_time = True
        for name in _OTHERS:
            logging.getLogger(name).addHandler(_handler)
            logging.getLogger(name).setLevel(logging.INFO)

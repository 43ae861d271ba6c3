"""The library's log lines as messages on stderr: someone who waits wants to know what for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..escaping import one_line
from .terminal import note


class _ToStderr(logging.Handler):
    """Each message as a line, but of requests that wait for the same thing at the same time only the first."""

    _quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "ml_event", None) == "retry":
            if time.monotonic() < self._quiet_until:
                return
            self._quiet_until = time.monotonic() + getattr(record, "ml_wait", 0.0) * 0.8
        note(one_line(record.getMessage()))


@contextmanager
def narrate() -> Iterator[None]:
    """Say on stderr what the library logs: retries and pauses."""
    logger, handler = logging.getLogger("mlmessages"), _ToStderr(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)

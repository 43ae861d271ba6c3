"""The library's log lines as messages on stderr: someone who waits wants to know what for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .terminal import note, one_line


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
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

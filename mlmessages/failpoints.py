"""Named places where the kill test ends the process; in production nothing happens there."""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None  # set by the kill test, in a process of its own


def failpoint(name: str) -> None:
    """The program is at the place `name`."""
    if hook is not None:
        hook(name)

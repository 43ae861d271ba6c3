"""What is said where the extra ``postgres`` is not installed."""

from __future__ import annotations

from ..installing import how_to_install


def missing() -> RuntimeError:
    """Return the error that names the line to type."""
    return RuntimeError(f'a Database needs the extra "postgres": {how_to_install("mlmessages[postgres]")}')

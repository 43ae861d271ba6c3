"""What is said where the extra ``postgres`` is not installed."""

from __future__ import annotations


def missing() -> RuntimeError:
    """The error that names the line to type."""
    return RuntimeError('a Database needs the extra "postgres": python -m pip install "mlmessages[postgres]"')

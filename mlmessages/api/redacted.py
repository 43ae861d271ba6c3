"""Texts that do not show themselves: what a seller writes, and, in `auth`, tokens.

A traceback with locals, and what shortens the values in it, calls `repr`, takes a slice, iterates or formats. Each of
these gives a text that is hidden again. `str(text)`, joining, encoding and writing as JSON give the text itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import SupportsIndex, TypeVar

T = TypeVar("T")


class HiddenText(str):
    """A text whose repr, slices, characters and formatted form say how long it is, and nothing else."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} characters>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __getitem__(self, key: SupportsIndex | slice) -> HiddenText:
        return type(self)(super().__getitem__(key))

    def __iter__(self) -> Iterator[HiddenText]:
        return map(type(self), super().__iter__())

    def __add__(self, other: str) -> HiddenText:
        return type(self)(super().__add__(other))


class RedactedText(HiddenText):
    """What a seller writes."""

    __slots__ = ()


def redact(value: T) -> T | RedactedText:
    """Return `value`, hidden if it is a text, before any frame that holds it can be shown."""
    return RedactedText(value) if isinstance(value, str) else value

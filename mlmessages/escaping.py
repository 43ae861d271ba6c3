"""Texts of other people made safe to show, in a terminal, a log or on a page."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"  # invisible, but emoji and several scripts are wrong without them


def escape_controls(text: str) -> str:
    r"""Return `text` with everything escaped that would act instead of being seen; line breaks and tabs stay.

    That is control characters (ANSI sequences begin with one), bidirectional overrides, invisible characters and lone
    surrogates: ``\x1b``, ``\u202e``.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char if char in "\n\t" or _is_seen(char) else escaped(char) for char in text)


def one_line(text: str) -> str:
    """Return `text` as `escape_controls` does, on one line."""
    return " ".join(escape_controls(text).split())


def escaped(char: str) -> str:
    """Return a character as Python spells it in ASCII."""
    return char.encode("unicode_escape").decode("ascii")


def _is_seen(char: str) -> bool:
    if char.isprintable() or char in _JOINERS:
        return True
    return unicodedata.category(char) == "Zs"  # blanks other than the common one

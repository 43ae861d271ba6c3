"""Lists of pack ids, one a line; blank lines, and comments from ``#`` to the end of a line, are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, NoReturn

import click

from .blocking import read_stdin
from .input_text import Decoder

_BLOCK: Final = 1 << 16
_LONGEST: Final = 10_000  # characters of a line: a file with a longer one is no list of ids


class _Reading:
    """Lines that come in pieces of bytes; a wrong one is a `click.UsageError` with its number."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._rest = ""
        self._decoder = Decoder()

    def feed(self, piece: bytes) -> Iterator[str]:
        """Yield the ids of the lines that `piece` completes; an empty one completes the last line."""
        lines = (self._rest + self._decoder.feed(piece)).split("\n")
        self._rest = lines.pop() if piece else ""
        for line in lines:
            self._number += 1
            if pack_id := self._pack_id(line):
                yield pack_id
        if len(self._rest) > _LONGEST:
            self._number += 1
            self._refuse(self._rest)

    def _pack_id(self, line: str) -> str | None:
        from ..api.arguments import check_id

        word = line.partition("#")[0].strip()
        if not word:
            return None
        try:
            return check_id("pack_id", word)
        except ValueError:
            self._refuse(word)

    def _refuse(self, word: str) -> NoReturn:
        shown = word[:40]
        raise click.UsageError(f"line {self._number:,} of {self._name} is no pack id: {shown!r}")


def in_file(path: Path) -> dict[str, None]:
    """Return the ids in a file, each once, in its order; all of it is checked."""
    reading = _Reading(click.format_filename(path))
    found: dict[str, None] = {}
    try:
        with path.open("rb") as file:
            while piece := file.read(_BLOCK):
                found.update(dict.fromkeys(reading.feed(piece)))
        found.update(dict.fromkeys(reading.feed(b"")))
    except OSError as error:
        raise click.UsageError(f"{click.format_filename(path)} cannot be read: {error.strerror}") from None
    return found


async def on_stdin() -> AsyncIterator[str]:
    """Yield the ids on standard input as they come."""
    reading = _Reading("standard input")
    more = True
    while more:
        piece = await read_stdin()
        more = bool(piece)
        for pack_id in reading.feed(piece):
            yield pack_id

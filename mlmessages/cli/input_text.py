"""Text that other programs wrote: standard input and files, as bytes whose encoding is found out."""

from __future__ import annotations

import codecs
import sys
from typing import Final

import click

_UTF_16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class NotText(ValueError):
    """Bytes that are neither UTF-8 nor, with its mark, UTF-16."""


def decode(data: bytes) -> str:
    """Return the text in `data`: UTF-16 where its mark stands first, as PowerShell writes it, else UTF-8.

    Raises `NotText` for anything else: a guess at a code page would send other letters than were written.
    """
    try:
        return data.decode("utf-16" if data.startswith(_UTF_16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        raise NotText("it is neither UTF-8 nor, with its byte order mark, UTF-16") from None


class Decoder:
    """`decode` for text that comes in pieces; what cannot be decoded becomes U+FFFD."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._start = b""

    def feed(self, piece: bytes) -> str:
        """Return the text that `piece` completes; an empty one ends it."""
        if self._decoder is None:
            self._start += piece
            if piece and len(self._start) < len(codecs.BOM_UTF16_LE):
                return ""
            name = "utf-16" if self._start.startswith(_UTF_16_MARKS) else "utf-8-sig"
            self._decoder = codecs.getincrementaldecoder(name)("replace")
            return self._decoder.decode(self._start, final=not piece)
        return self._decoder.decode(piece, final=not piece)


def from_stdin() -> str:
    """Return all of standard input, without the line end that programs write last; misuse where it is no text."""
    if sys.stdin.isatty():
        text = sys.stdin.read()
    else:
        try:
            text = decode(sys.stdin.buffer.read())
        except NotText as error:
            raise click.UsageError(f"What comes from standard input is no text: {error}") from None
    return text.removesuffix("\n").removesuffix("\r")

"""What reaches a terminal: consoles, notes, and other characters for those that it may not have."""

from __future__ import annotations

import codecs
import errno
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from ..escaping import escaped, one_line

if TYPE_CHECKING:
    from rich.console import Console

# What stands for our own characters on a terminal, or in a file, that cannot encode them.
_IN_ASCII: Final = {"·": "-", "✓": "+", "✗": "x", "…": "~"}
MOST_NAMED: Final = 50  # packs: more lines would hide everything else
_WIDE: Final = 100_000  # columns of what is no terminal: no line of a file is cut


def prepare_streams() -> None:
    """Replace, visibly, what stdout or stderr cannot encode: no such character may end the program."""
    codecs.register_error("mlmessages", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mlmessages")


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(char) or escaped(char) for char in bad), error.end


def stdout() -> Console:
    """Return the console for data."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Return the console for progress and messages."""
    return _console(sys.stderr)


def _console(stream: io.TextIOBase | object) -> Console:
    from rich.console import Console

    assert isinstance(stream, io.TextIOBase)
    width = None if stream.isatty() else _WIDE
    # Without markup, emoji codes and highlighting: what is printed was often written by a stranger.
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)  # type: ignore[arg-type] # IO[str]


def counted(number: int, noun: str) -> str:
    """Return ``1 message``, ``2,500 messages``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def not_opened(host: str, port: int, error: OSError) -> click.ClickException:
    """Return the error for a port that cannot be listened on, and what to do."""
    reason = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return click.ClickException(f"port {port} of {host} cannot be opened: {reason}; choose another with --port")


def note(text: str) -> None:
    """Write one line for the reader on stderr; control characters in it are shown as escapes."""
    click.echo(one_line(text), err=True)


def named_failures(what: str, failures: Sequence[tuple[str, str]], number: int, others: str) -> None:
    """Write on stderr the first of `number` packs and why they failed; `others`: where the rest is."""
    named = failures[:MOST_NAMED]
    for pack_id, reason in named:
        note(f"{what}: {pack_id}: {reason}")
    if number > len(named):
        note(f"{what}: {number - len(named):,} more, see {others}")

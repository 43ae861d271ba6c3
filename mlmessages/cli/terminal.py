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

# Our own characters, for a terminal or a file that cannot encode them.
_IN_ASCII: Final = {"·": "-", "✓": "+", "✗": "x", "…": "~"}
MOST_NAMED: Final = 50  # packs: more would bury all else
_WIDE: Final = 100_000  # columns of what is no terminal: no line of a file is cut


def prepare_streams() -> None:
    """Let no character that stdout or stderr cannot encode end the program: it is replaced, visibly."""
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
    """The console for data."""
    return _console(sys.stdout)


def stderr() -> Console:
    """The console for progress and messages."""
    return _console(sys.stderr)


def _console(stream: io.TextIOBase | object) -> Console:
    from rich.console import Console

    assert isinstance(stream, io.TextIOBase)
    width = None if stream.isatty() else _WIDE
    # Markup, emoji codes and highlighting are off: what is printed was often written by a stranger.
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]


def counted(number: int, noun: str) -> str:
    """``1 message``, ``2,500 messages``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def not_opened(host: str, port: int, error: OSError) -> click.ClickException:
    """A port that cannot be listened on, and what to do."""
    reason = "it is taken" if error.errno == errno.EADDRINUSE else one_line(error.strerror or str(error))
    return click.ClickException(
        f"port {port} of {one_line(host)} cannot be opened: {reason}; choose another with --port"
    )


def note(text: str) -> None:
    """One message for the reader, on stderr."""
    click.echo(text, err=True)


def named_failures(what: str, failures: Sequence[tuple[str, str]], number: int, others: str) -> None:
    """Name the first of `number` packs and why they failed, on stderr; `others`: where to find the rest."""
    named = failures[:MOST_NAMED]
    for pack_id, reason in named:
        note(f"{what}: {pack_id}: {one_line(reason)}")
    if number > len(named):
        note(f"{what}: {number - len(named):,} more, see {others}")

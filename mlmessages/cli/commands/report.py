"""``mlmessages report``: a page with figures of the conversations that ``fetch`` or ``drain`` wrote."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, tzinfo
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from ...installing import how_to_install
from ..blocking import apart, read_stdin
from ..interruptible import run
from ..settings import SELLER_ID
from ..terminal import counted, note, stderr

if TYPE_CHECKING:
    from ...report.facts import Facts
    from ...report.figures import Figures
    from ..progress import Frame

_BLOCK: Final = 1 << 18
_LONGEST: Final = 1 << 28  # bytes of a line: a longer one is no conversation
_EVERY: Final = 10.0


@click.command(short_help="Make a page with figures of what `fetch` or `drain` wrote.")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path), metavar="FILE.jsonl"
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.html",
    help="Where the page goes; an older report there is replaced.",
)
@click.option(
    "--seller-id",
    envvar=SELLER_ID,
    show_envvar=True,
    metavar="ID",
    help="The seller; without it, the one whom the messages name.",
)
@click.option(
    "--time-zone",
    default="UTC",
    show_default=True,
    metavar="NAME",
    help="Whose days are counted, such as America/Sao_Paulo.",
)
@click.option(
    "--language",
    type=click.Choice(["en", "es", "pt"]),
    default="en",
    show_default=True,
    help="English, Spanish or Portuguese.",
)
@click.option("--no-links", is_flag=True, help="No links to the sales: those of Global Selling are not on these pages.")
def report(
    *,
    file: Path,
    out: Path,
    seller_id: str | None,
    time_zone: str,
    language: Literal["en", "es", "pt"],
    no_links: bool,
) -> None:
    """Make one HTML page of the conversations in FILE.jsonl, which `fetch`, `fetch --messages` or `drain` wrote; - is
    standard input.

    \b
    It shows
      messages and conversations a day,
      how long buyers waited for an answer,
      the unanswered conversations, oldest first, with links to their sales,
      the blocked ones, by reason.

    The page is readable by you alone, for buyers' words are in it. It needs no network and runs no script: open it in
    any browser, light or dark. Nothing is sent, and no token is needed.
    """
    _check_extra()
    zone = _zone(time_zone)
    seller_id = _digits(seller_id) if seller_id is not None else None
    target = _Target(out)
    if str(file) != "-" and file.resolve() == out.resolve():
        raise click.UsageError("FILE.jsonl and --out must be two files")
    target.check()
    reading = _Reading(file, seller_id)
    try:
        run(reading.run())
    except KeyboardInterrupt:
        raise KeyboardInterrupt("no report was written.") from None
    seller = seller_id or _seller(reading.facts, reading.name)
    _write(reading, _figures(reading, seller, zone, time_zone), target, language=language, links=not no_links)


def _check_extra() -> None:
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        needs = f"the report needs {' and '.join(missing)}"
        raise click.ClickException(f"{needs}; install it with: {how_to_install('mlmessages[report]')}")


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones, such as America, is one
        if not available_timezones():
            needs = "this system has no time zones (Windows has none of its own)"
            raise click.ClickException(f"{needs}; install them with: {how_to_install('tzdata')}") from None
        expected = "--time-zone must be a name such as America/Sao_Paulo"
        raise click.UsageError(f"{expected}, not {name[:40]!r}") from None


def _digits(seller_id: str) -> str:
    from ...api.arguments import check_id

    try:
        return check_id("--seller-id", seller_id)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


class _Target:
    """The file that the page is written to; only an older report is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name: Final = click.format_filename(path)

    def check(self) -> None:
        """Raise `click.UsageError` if the page may not go there."""
        from ...report.page import MARKER

        if not self._path.parent.is_dir():
            raise click.UsageError(f"{self.name} cannot be written: its folder does not exist")
        try:
            if self._path.is_symlink():
                raise click.UsageError(f"{self.name} is a symbolic link, which is not followed: name another file")
            if not self._path.exists():
                return
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise click.UsageError(f"{self.name} is not a regular file")
            marker = MARKER.encode()
            with self._path.open("rb") as file:
                start = file.read(len(marker))
        except OSError as error:
            raise click.UsageError(f"{self.name} cannot be read: {error.strerror}") from None
        if start and start != marker:
            raise click.UsageError(f"{self.name} is no report of mlmessages, and is not replaced: name another file")

    def put(self, page: str) -> None:
        """Write the page: whole or not at all, readable by its owner alone."""
        from ...files import replace_private

        self.check()  # again: reading may have taken minutes
        try:
            replace_private(self._path, page.encode())
        except OSError as error:
            raise click.ClickException(f"{self.name} cannot be written: {error.strerror}") from None


class _Reading:
    """The facts of a file, and how far it is read."""

    def __init__(self, path: Path, seller_id: str | None) -> None:
        from ...report.facts import Facts

        on_stdin = str(path) == "-"
        self.name: Final = "standard input" if on_stdin else click.format_filename(path)
        self.short_name: Final = self.name if on_stdin else click.format_filename(path.name)
        self.facts: Final[Facts] = Facts(seller_id)
        self.written: datetime | None = None
        self.torn = False
        self._path = None if on_stdin else path
        self._read = self._number = 0
        self._size = 0

    async def run(self) -> None:
        """Read it all; what is wrong with it is a `click.UsageError`."""
        from ..progress import shown

        pieces = self._on_stdin() if self._path is None else self._in_file(self._path)
        async with shown(stderr(), lambda: len(self.facts.messages), self._frame, every=_EVERY), aclosing(pieces):
            try:
                await self._lines(pieces)
            except OSError as error:
                raise click.UsageError(f"{self.name} cannot be read: {error.strerror}") from None

    async def _on_stdin(self) -> AsyncGenerator[bytes, None]:
        while piece := await read_stdin():
            yield piece

    async def _in_file(self, path: Path) -> AsyncGenerator[bytes, None]:
        # Not in the loop: opening a pipe waits for its writer.
        with await apart(lambda: path.open("rb", buffering=0)) as file:
            state = os.fstat(file.fileno())
            if stat.S_ISREG(state.st_mode):
                self._size, self.written = state.st_size, datetime.fromtimestamp(state.st_mtime, UTC)
            while piece := await apart(lambda: file.read(_BLOCK)):
                yield piece

    async def _lines(self, pieces: AsyncGenerator[bytes, None]) -> None:
        rest = bytearray()
        async for piece in pieces:
            self._read += len(piece)
            if b"\n" in piece:
                first, *lines, last = piece.split(b"\n")
                self._add(bytes(rest) + first)
                for line in lines:
                    self._add(line)
                rest = bytearray(last)
            else:
                rest += piece
            if len(rest) > _LONGEST:
                raise self._not_ours("it is too long")
        if rest:
            self._add(bytes(rest), last=True)

    def _add(self, line: bytes, *, last: bool = False) -> None:
        from ...report import lines

        self._number += 1
        try:
            self.facts.add(lines.read(line))
        except lines.NotOurs as error:
            if not last or not lines.may_be_torn(line):
                raise self._not_ours(str(error)) from None
            self.torn = True

    def _not_ours(self, reason: str) -> click.UsageError:
        where = f"line {self._number:,} of {self.name}"
        return click.UsageError(f"{where} was not written by `fetch` or `drain`: {reason}")

    def _frame(self, rate: float) -> Frame:
        from ..progress import Frame

        figures = (counted(len(self.facts.messages), "message"), f"{rate:,.0f} a second")
        share = min(self._read / self._size, 1.0) if self._size else None
        return Frame(counted(len(self.facts.packs), "conversation"), share, figures)


def _seller(facts: Facts, name: str) -> str | None:
    """Return the one seller whom the messages name; None if there are no messages."""
    if len(facts.sellers) == 1:
        [found] = facts.sellers
        return found
    if not facts.messages:
        return None
    said = f"name {len(facts.sellers):,} sellers" if facts.sellers else "do not name the seller"
    raise click.UsageError(f"the messages in {name} {said}: pass --seller-id")


def _figures(reading: _Reading, seller_id: str | None, zone: tzinfo, zone_name: str) -> Figures:
    from ...report.figures import figures

    as_of = reading.written or datetime.now(UTC)
    return figures(reading.facts, seller_id, zone=zone, zone_name=zone_name, as_of=as_of)


def _write(
    reading: _Reading, found: Figures, target: _Target, *, language: Literal["en", "es", "pt"], links: bool
) -> None:
    from ...report.languages import LANGUAGES
    from ...report.page import Source, page

    if reading.torn:
        note(f"The last line of {reading.name} is torn, and left out.")
    if found.messages and not found.from_seller:
        note(f"No message in {reading.name} is from the seller {found.seller_id}.")
    source = Source(reading.short_name, written=found.as_of == reading.written, torn=reading.torn)
    target.put(page(found, source, LANGUAGES[language], links=links))
    what = f"{counted(found.conversations, 'conversation')}, {counted(found.messages, 'message')}"
    note(f"{target.name}: {what}; {found.unanswered:,} unanswered, {found.blocked_conversations:,} blocked.")

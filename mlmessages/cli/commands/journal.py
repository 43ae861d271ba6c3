"""``mlmessages journal``: what a journal owes, beside a running drain too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from ...escaping import one_line
from .. import json_lines
from ..database import opened_database, required_database, with_database
from ..interruptible import run
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from ...journal.sqlite import Contents
    from ...journal.store import Row
    from ...postgres.database import Database


@attrs.frozen
class _ByState:
    """The packs of a journal that are not done, by their state."""

    open: list[Row]
    issued: list[Row]
    waiting: list[Row]
    parked: list[Row]


class _ShowByDefault(click.Group):
    """`journal FILE` is `journal show FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [name for option in show.params for name in option.opts if name.startswith("-")]
        if args and args[0].split("=")[0] in options:  # the options of `show` may stand first
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ShowByDefault, short_help="Show what a journal owes, and what is parked and why; move it.")
def journal() -> None:
    """Show what a journal owes, and what is parked and why: `mlmessages journal FILE`.

    With --database, the seller stands in the place of the file. `journal move FILE` takes a file into a database.
    """


@click.command(short_help="What a journal owes, and what is parked and why.")
@click.argument("file", metavar="FILE|SELLER")
@click.option("--json", "as_json", is_flag=True, help="All of it, as one JSON object.")
@click.option("--retry-parked", is_flag=True, help="Open the parked packs again; not while a drain runs.")
@with_database
def show(*, file: str, as_json: bool, retry_parked: bool, database: str | None) -> None:
    """Show what the journal FILE says at this moment, or with --database what is kept of the seller.

    A drain or a service may run meanwhile. No request is sent.

    \b
    done            read, and stored
    open            to be read
    issued          a request that marks has left, or is about to; or the drain was killed then
    waiting         such a request may still arrive at the server; read again after that
    parked          refused or failed too often; the first drain after the moment shown tries again
    unacknowledged  read, and perhaps not in the file: delivered again by the next drain
    dead letters    unacknowledged ones that the handler of `serve` failed at too often: see its --retry-dead
    """
    if database is None or Path(file).is_file():
        contents = _of_file(Path(file), retry_parked)
    else:
        contents = _of_seller(file, opened_database(database), retry_parked)
    packs = _sorted(contents.rows)
    if as_json:
        json_lines.write(_as_json(contents, packs))
    else:
        _print(stdout(), contents, packs)


def _of_file(file: Path, retry_parked: bool) -> Contents:
    from ...journal import sqlite as journals

    if not file.is_file():
        raise click.UsageError(f"The file {click.format_filename(file)} does not exist.")
    if retry_parked:
        note(f"{counted(journals.retry_parked(file), 'parked pack')} will be read again by the next drain.")
    return journals.contents(file)


def _of_seller(seller_id: str, database: Database, retry_parked: bool) -> Contents:
    from ...api.arguments import check_id
    from ...postgres.contents import contents

    if retry_parked:
        raise click.UsageError("--retry-parked is for files")
    try:
        seller = check_id("SELLER", seller_id)
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def asked() -> Contents:
        async with database:
            return await contents(database, seller)

    return run(asked())


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@required_database
def move(*, file: Path, database: str) -> None:
    """Take the journal FILE into a database: its seller is served from there on, and the file no more.

    Ended anywhere and run again, it goes on where it was; at the end the file is called FILE.moved. There is no way
    back. The tokens come with `mlmessages auth exchange`, or before.
    """
    from ...postgres.move import move as moved

    opened = opened_database(database)

    async def main() -> None:
        async with opened:
            done = await moved(file, opened)
        note(
            f"Seller {done.seller_id}: {counted(done.messages, 'message id')} moved,"
            f" {counted(done.undelivered, 'message')} to be delivered."
        )

    run(main())


journal.add_command(show)
journal.add_command(move)


def _sorted(rows: list[Row]) -> _ByState:
    from ...journal.store import ISSUED, OPEN, PARKED

    rows = sorted(rows, key=lambda row: (row.wait, row.pack_id))
    opened = [row for row in rows if row.state == OPEN]
    return _ByState(
        open=[row for row in opened if not row.wait],
        issued=[row for row in rows if row.state == ISSUED],
        waiting=[row for row in opened if row.wait],
        parked=[row for row in rows if row.state == PARKED],
    )


def _as_json(contents: Contents, packs: _ByState) -> dict[str, object]:
    return {
        "seller_id": contents.seller_id,
        "done": contents.done,
        "open": len(packs.open),
        "issued": [row.pack_id for row in packs.issued],
        "waiting": [{"pack_id": row.pack_id, "until": _iso(_moment(contents, row))} for row in packs.waiting],
        "unacknowledged": [{"pack_id": pack_id, "messages": n} for pack_id, n in contents.undelivered.items()],
        "dead_letters": [{"pack_id": pack_id, "messages": n} for pack_id, n in contents.dead.items()],
        "parked": [
            {
                "pack_id": row.pack_id,
                "reason": _reason(row),
                "times": row.attempts,
                "tried_again_after": _iso(_moment(contents, row)),
            }
            for row in packs.parked
        ],
    }


def _print(console: Console, contents: Contents, packs: _ByState) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold", style="dim")
    for what, number, remark in _figures(contents, packs):
        table.add_row(what, f"{number:,}", Text(remark))
    console.print(Text(f"Journal of seller {one_line(contents.seller_id)}", "bold"))
    console.print(table)
    if not packs.parked:
        return
    parked = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    parked.add_column("parked", no_wrap=True, style="cyan")
    parked.add_column("tried again after", no_wrap=True)
    parked.add_column("why", overflow="fold")
    for row in packs.parked:
        moment = _shown(_moment(contents, row), "%Y-%m-%d %H:%M")
        parked.add_row(Text(one_line(row.pack_id)), moment, Text(one_line(_reason(row))))
    console.print()
    console.print(parked)


def _figures(contents: Contents, packs: _ByState) -> Iterator[tuple[str, int, str]]:
    yield "done", contents.done, ""
    yield "open", len(packs.open), ""
    yield "issued", len(packs.issued), "or left so by a drain that was killed" if packs.issued else ""
    until = ""
    if packs.waiting:
        until = f"until {_shown(_moment(contents, packs.waiting[-1]), '%H:%M:%S')} at most: keep the journal"
    yield "waiting", len(packs.waiting), until
    unacknowledged = counted(sum(contents.undelivered.values()), "message") if contents.undelivered else ""
    yield "unacknowledged", len(contents.undelivered), unacknowledged
    yield "dead letters", len(contents.dead), "see `mlmessages serve --retry-dead`" if contents.dead else ""
    yield "parked", len(packs.parked), ""


def _moment(contents: Contents, row: Row) -> datetime | None:
    """Return when the pack may be read; None for a moment that no calendar has."""
    try:
        return datetime.fromtimestamp(contents.due[row.pack_id], UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _shown(moment: datetime | None, form: str) -> str:
    return f"{moment:{form}} UTC" if moment is not None else "never"


def _reason(row: Row) -> str:
    from ... import errors

    return str(errors.load(row.error))

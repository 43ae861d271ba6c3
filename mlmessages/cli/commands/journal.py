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
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from ...journal.sqlite import Contents
    from ...journal.store import Row


@attrs.frozen
class _ByState:
    """The packs of a journal that are not done, by their state."""

    open: list[Row]
    issued: list[Row]
    waiting: list[Row]
    parked: list[Row]


@click.command(short_help="Show what a journal of `drain` owes, and what is parked and why.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All of it, as one JSON object.")
@click.option("--retry-parked", is_flag=True, help="Open the parked packs again; not while a drain runs.")
def journal(*, file: Path, as_json: bool, retry_parked: bool) -> None:
    """Show what the journal FILE says at this moment; a drain may run meanwhile. No request is sent.

    \b
    done            read, and stored
    open            to be read
    issued          a request that marks has left, or is about to; or the drain was killed then
    waiting         such a request may still arrive at the server; read again after that
    parked          refused or failed too often; the first drain after the moment shown tries again
    unacknowledged  read, and perhaps not in the file: delivered again by the next drain
    dead letters    unacknowledged ones that the handler of `serve` failed at too often: see its --retry-dead
    """
    from ...journal import sqlite as journals

    if retry_parked:
        note(f"{counted(journals.retry_parked(file), 'parked pack')} will be read again by the next drain.")
    contents = journals.contents(file)
    packs = _sorted(contents.rows)
    if as_json:
        json_lines.write(_as_json(contents, packs))
    else:
        _print(stdout(), contents, packs)


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

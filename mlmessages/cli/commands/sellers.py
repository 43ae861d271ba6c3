"""``mlmessages sellers``: who holds whom, what each is owed, and who is stopped and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ...escaping import one_line
from .. import json_lines
from ..database import opened_database, required_database
from ..interruptible import run
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from ...postgres.database import Database, SellerOverview

STOPPED = 3


@click.command(short_help="List the sellers of a database: holder, owed, oldest, stopped and why.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a seller.")
@required_database
def sellers(*, database: str, as_json: bool) -> None:
    """List the sellers of a database.

    \b
    holder       the worker that serves the seller; `-`: none at this moment
    owed         conversations to be read; waiting: of those, not yet
    parked       conversations given up for now
    undelivered  messages that no handler has acknowledged, and the age of the oldest
    dead         messages that the handler failed at too often
    stopped      why no worker takes the seller

    Exit code 3 if a seller is stopped or has dead letters.
    """
    rows = run(_overview(opened_database(database)))
    if as_json:
        for row in rows:
            json_lines.write(_as_json(row))
    elif rows:
        _print(rows)
    stopped = sum(row.stopped is not None for row in rows)
    dead = sum(row.dead > 0 for row in rows)
    note(_summary(rows, stopped, dead))
    if stopped or dead:
        raise click.exceptions.Exit(STOPPED)


async def _overview(database: Database) -> tuple[SellerOverview, ...]:
    async with database:
        return await database.overview()


def _summary(rows: tuple[SellerOverview, ...], stopped: int, dead: int) -> str:
    if not rows:
        return "There are no sellers yet: `mlmessages auth url`, then `mlmessages auth exchange`, adds one."
    held = sum(row.alive for row in rows)
    parts = [f"{counted(len(rows), 'seller')}, {held:,} held"]
    parts += [f"{stopped:,} stopped"] if stopped else []
    parts += [f"{dead:,} with dead letters"] if dead else []
    return ", ".join(parts) + "."


def _as_json(row: SellerOverview) -> dict[str, object]:
    return {
        "seller_id": row.seller_id,
        "holder": row.holder if row.alive else None,
        "stopped": row.stopped,
        "listed_at": _iso(row.listed_at),
        "owed": row.owed,
        "issued": row.issued,
        "waiting": row.waiting,
        "parked": row.parked,
        "undelivered": row.undelivered,
        "oldest_undelivered": _iso(row.oldest_undelivered),
        "dead": row.dead,
        "unknown_notifications": row.unknown_notifications,
    }


def _print(rows: tuple[SellerOverview, ...]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("seller", no_wrap=True, style="cyan")
    table.add_column("holder", no_wrap=True)
    for name in ("owed", "waiting", "parked", "undelivered", "oldest", "dead"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("stopped", overflow="fold", style="red")
    for row in rows:
        holder = one_line(row.holder or "-") if row.alive else "-"
        numbers = [f"{n:,}" for n in (row.owed, row.waiting, row.parked, row.undelivered)]
        table.add_row(
            row.seller_id,
            Text(holder),
            *numbers,
            _age(row.oldest_undelivered),
            f"{row.dead:,}",
            Text(one_line(row.stopped or "")),
        )
    stdout().print(table)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _age(moment: datetime | None) -> str:
    if moment is None:
        return ""
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

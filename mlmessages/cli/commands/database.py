"""``mlmessages database``: the schema, whether it keeps its promises, and new keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...escaping import one_line
from .. import json_lines
from ..database import opened_database, required_database
from ..interruptible import run
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from ...postgres.database import Database
    from ...postgres.status import Status

_MOST_CLOCK: float = 5.0  # seconds between two clocks that a lease of 30 leaves room for


@click.group(short_help="Set up, check and re-encrypt the database of many sellers.")
def database() -> None:
    """Set up, check and re-encrypt the database of many sellers."""


@database.command()
@click.option("--schema", "name", default="mlmessages", show_default=True, metavar="NAME", help="The schema's name.")
def schema(*, name: str) -> None:
    """Print the SQL that makes the schema, for the one who may create it: `… | psql DATABASE`."""
    from ...postgres.connection import check_schema
    from ...postgres.schema import script

    try:
        click.echo(script(check_schema(name)), nl=False)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@database.command()
@required_database
def upgrade(*, database: str) -> None:
    """Bring the schema up to this program's version; programs of the version before go on beside it."""
    found = run(_status(opened_database(database)))
    note(f"The schema is of version {found.schema}.")


@database.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@required_database
def check(*, database: str, as_json: bool) -> None:
    """Look whether the database keeps its promises: durability, clock, versions, standbys, workers.

    Exit code 1 if one of them is not kept.
    """
    found = run(_status(opened_database(database)))
    lines = _verdicts(found)
    if as_json:
        json_lines.write(
            {
                "server": found.server,
                "schema": found.schema,
                "clock": round(found.clock, 3),
                "standbys": found.standbys,
                "synchronous": found.synchronous,
                "workers": [
                    {
                        "name": each.name,
                        "version": each.version,
                        "since": each.since.isoformat(),
                        "shares": each.shares,
                        "sellers": each.sellers,
                    }
                    for each in found.workers
                ],
                "failed": [name for good, name, _ in lines if not good],
            }
        )
    else:
        _print(lines)
    if not all(good for good, _, _ in lines):
        raise click.exceptions.Exit(1)


@database.command()
@required_database
def rekey(*, database: str) -> None:
    """Encrypt all tokens and messages by the first key of MLMESSAGES_KEY.

    \b
    1. Put the new key in front of the old one, in every process: MLMESSAGES_KEY=NEW,OLD
    2. mlmessages database rekey
    3. Take the old key away.

    It may be repeated, and while workers work.
    """
    changed = run(_rekey(opened_database(database)))
    note(f"{counted(changed, 'row')} encrypted by the first key.")


async def _status(opened: Database) -> Status:
    from ...postgres.status import status

    async with opened:
        return await status(opened)


async def _rekey(opened: Database) -> int:
    from ...postgres.rekey import rekey as rewritten

    async with opened:
        return await rewritten(opened.statements, opened.keys)


def _verdicts(found: Status) -> list[tuple[bool, str, str]]:
    """Return a line for each promise: whether it is kept, its name, and what to know or do."""
    standby = (
        f"{counted(found.standbys, 'standby')}, "
        + ("a commit waits for one" if found.synchronous else "asynchronous: a failover may lose the last instants")
        if found.standbys
        else "none: what the disk loses is lost"
    )
    workers = ", ".join(
        f"{one_line(each.name)} ({each.version}, {counted(each.sellers, 'seller')})" for each in found.workers
    )
    ahead = f"{abs(found.clock):.1f} s {'ahead of' if found.clock > 0 else 'behind'} this machine's"
    return [
        (not found.is_standby, "server", f"PostgreSQL {found.server}" + (", a standby" if found.is_standby else "")),
        (found.is_durable, "durable", "what is acknowledged is on the disk" if found.is_durable else "fsync is off"),
        (abs(found.clock) <= _MOST_CLOCK, "clock", ahead),
        (True, "schema", f"version {found.schema}, for programs from version {found.oldest} on"),
        (True, "standbys", standby),
        (True, "workers", workers or "none at this moment"),
    ]


def _print(lines: list[tuple[bool, str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for good, name, text in lines:
        table.add_row(Text("✓", "green") if good else Text("✗", "red"), name, Text(text))
    stdout().print(table)

"""``mlmessages unread``: which conversations have unread messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...escaping import one_line
from .. import json_lines
from ..interruptible import run
from ..options import with_settings
from ..settings import Settings
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...models import UnreadListing


@click.command(short_help="List the conversations with unread messages.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object: user_id, capped, packs (pack_id, count, resource)."
)
@click.option("--ids", "ids_alone", is_flag=True, help="The ids alone, one a line, as `fetch --packs -` reads them.")
@with_settings
def unread(settings: Settings, *, as_json: bool, ids_alone: bool) -> None:
    """List the conversations with unread messages: one request, which marks nothing.

    The server lists 1,000 at most (500 on domestic sites); you are told when there may be more.

    \b
    mlmessages unread --ids | mlmessages fetch --packs - --out unread.jsonl
    """
    if as_json and ids_alone:
        raise click.UsageError("one of --json and --ids")
    listing = run(_listing(settings.client()))
    if ids_alone:
        for row in listing.packs:
            click.echo(row.pack_id)
    elif as_json:
        packs = [{"pack_id": row.pack_id, "count": row.count, "resource": row.resource} for row in listing.packs]
        json_lines.write({"user_id": listing.user_id, "capped": listing.capped, "packs": packs})
    elif listing.packs:
        _print_table(listing)
    note(_summary(listing))
    if listing.user_id not in (None, settings.seller_id):  # no error: a Global Selling seller has several ids
        note(
            f"This is the list of user {listing.user_id}, not of seller {settings.seller_id}: is the seller id right?"
            " `mlmessages doctor` tries both on a conversation."
        )


async def _listing(client: MessagesClient) -> UnreadListing:
    async with client:
        return await client.unread()


def _print_table(listing: UnreadListing) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("pack", no_wrap=True, style="cyan")
    table.add_column("unread", no_wrap=True, justify="right")
    table.add_column("resource", overflow="fold", style="dim")
    for row in listing.packs:
        table.add_row(row.pack_id, f"{row.count:,}", Text(one_line(row.resource or "")))
    stdout().print(table)


def _summary(listing: UnreadListing) -> str:
    if not listing.packs:
        return "Nothing is unread."
    messages = counted(sum(row.count for row in listing.packs), "unread message")
    found = f"{counted(len(listing.packs), 'conversation')}, {messages}."
    if listing.capped:
        found += " There may be more: the server's list is capped, and shows others only when these have been read."
    return found

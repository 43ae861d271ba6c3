"""``mlmessages send``: a reply."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...escaping import one_line
from ..interruptible import run
from ..settings import Settings, with_settings
from ..terminal import note

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...models import Message


@click.command(short_help="Reply in a conversation.")
@click.argument("pack")
@click.argument("text")
@click.option("--to", metavar="USER", help="Whom to write to, instead of whoever wrote last on the other side.")
@click.option(
    "--attach",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to send with it; up to 25 times.",
)
@click.option("--site-id", metavar="SITE", help="The site of the sale, such as MLM: needed with --attach.")
@with_settings
def send(
    settings: Settings, *, pack: str, text: str, to: str | None, files: tuple[Path, ...], site_id: str | None
) -> None:
    """Send TEXT to the other side of the conversation PACK; - reads it from standard input.

    At most one message is sent: when no answer comes, the conversation is looked at, and you are told whether it is
    there. The id of the message is printed. Exit code 1 if moderation rejected it: then nobody receives it.
    """
    if files and site_id is None:
        raise click.UsageError("--attach needs --site-id, the site of the sale, such as MLM.")
    text = _from_stdin() if text == "-" else text
    try:
        sent = run(_send(settings.client(), pack, text, to=to, files=files, site_id=site_id or ""))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(one_line(sent.id))
    if sent.rejected:
        reason = (sent.moderation.reason if sent.moderation else None) or "the server gives no reason"
        raise click.ClickException(f"nobody receives it: moderation rejected it ({one_line(reason).replace('_', ' ')})")
    note(f"Sent: {one_line(sent.status or 'the server does not say more')}.")


async def _send(
    client: MessagesClient, pack: str, text: str, *, to: str | None, files: tuple[Path, ...], site_id: str
) -> Message:
    async with client:
        ids = [await client.upload(file, site_id=site_id) for file in files]
        return await client.send(pack, text, to=to, attachments=ids)


def _from_stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("What comes from standard input is no text.") from None

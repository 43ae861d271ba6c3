"""``mlmessages send``: a reply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...escaping import one_line
from ..input_text import from_stdin
from ..interruptible import run
from ..options import with_settings
from ..settings import Settings
from ..terminal import note

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...models import Message


@click.command(short_help="Reply in a conversation.")
@click.argument("pack")
@click.argument("text")
@click.option("--to", metavar="USER", help="The user to write to, instead of the one who wrote last on the other side.")
@click.option(
    "--attach",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to send with it; up to 25 times.",
)
@click.option("--site-id", metavar="SITE", help="The site of the sale, such as MLM: needed with --attach.")
@click.option(
    "--any-type", is_flag=True, help="Attach files of types that the site does not document too, such as .xml."
)
@with_settings
def send(
    settings: Settings,
    *,
    pack: str,
    text: str,
    to: str | None,
    files: tuple[Path, ...],
    site_id: str | None,
    any_type: bool,
) -> None:
    """Send TEXT to the other side of the conversation PACK; - reads it from standard input.

    At most one message is sent: when no answer comes, the conversation is looked at, and you are told whether it is
    there. The id of the message is printed. Exit code 1 if moderation rejected it: then it does not reach the buyer.
    """
    if files and site_id is None:
        raise click.UsageError("--attach needs --site-id, the site of the sale, such as MLM.")
    text = from_stdin() if text == "-" else text
    sending = _Sending(pack, text, to, files, site_id or "", any_type=any_type)
    try:
        sent = run(sending.run(settings.client()))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(sending.how_far()) from None
    click.echo(one_line(sent.id))
    if sent.rejected:
        reason = (sent.moderation.reason if sent.moderation else None) or "the server gives no reason"
        raise click.ClickException(f"it does not reach the buyer: moderation rejected it ({reason.replace('_', ' ')})")
    status = sent.status or ""
    note("Sent." if status in ("", "available") else f"Sent; its status is {status}.")


class _Sending:
    """A reply on its way, and how far it is."""

    def __init__(
        self, pack: str, text: str, to: str | None, files: tuple[Path, ...], site_id: str, *, any_type: bool
    ) -> None:
        self._pack = pack
        self._text = text
        self._to = to
        self._files = files
        self._site_id = site_id
        self._any_type = any_type
        self._left = False

    async def run(self, client: MessagesClient) -> Message:
        async with client:
            ids = [
                await client.upload(file, site_id=self._site_id, check_type=not self._any_type) for file in self._files
            ]
            self._left = True
            return await client.send(self._pack, self._text, to=self._to, attachments=ids)

    def how_far(self) -> str:
        """Say what is known when it was interrupted."""
        if not self._left:
            return "nothing was sent."
        look = f"mlmessages messages {self._pack}"
        return f"the message may have been sent. Before you send it again, look at the conversation: {look}"

"""``mlmessages download``: the attachments of one conversation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..interruptible import run
from ..options import with_settings
from ..settings import Settings
from ..terminal import counted, note

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...models import Attachment

_LONGEST_NAME: Final = 100  # characters of the name that a sender gave to a file
_MOST_BYTES: Final = 240  # of the whole name: file systems take 255
_KEPT: Final = frozenset("._- ()")  # in such a name, beside letters and digits


@click.command(short_help="Save the attachments of one conversation.")
@click.argument("pack")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder, which is made if it is missing; a file that is there already is not asked for again.",
)
@click.option("--site-id", metavar="SITE", help="The site of the sale, such as MLM, where the server needs it.")
@click.option(
    "--allow-threat", is_flag=True, help="Also the files of which the server warns that they may be dangerous."
)
@with_settings
def download(settings: Settings, *, pack: str, folder: Path, site_id: str | None, allow_threat: bool) -> None:
    """Save each attachment of the conversation PACK as a file of DIR. The conversation stays unread.

    The path of each file that is saved is printed. A file's name begins with its id, so that no two are the same, and
    goes on with the name that the sender gave it. Exit code 3 if some files could not be saved.
    """
    saving = _Saving(folder, site_id, allow_threat)
    client = settings.client()
    _make(folder)
    try:
        run(saving.run(client, pack))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{saving.summary()} Run the same command again to go on.") from None
    note(saving.summary())
    if saving.failed:
        raise click.exceptions.Exit(3)


def _make(folder: Path) -> None:
    """Make the folder if it is missing, for its owner alone: what buyers send is private."""
    name = click.format_filename(folder)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        raise click.UsageError(
            f"--to {name}: there is no folder {click.format_filename(folder.parent)} to make it in"
        ) from None
    except OSError as error:
        raise click.UsageError(f"--to {name} cannot be made: {error.strerror}") from None


class _Saving:
    """The attachments of a conversation, and what became of them."""

    def __init__(self, folder: Path, site_id: str | None, allow_threat: bool) -> None:
        self._folder = folder
        self._site_id = site_id
        self._allow_threat = allow_threat
        self._saved = self._there = 0
        self.failed = 0

    async def run(self, client: MessagesClient, pack: str) -> None:
        async with client:
            seen: set[str] = set()
            async for message in client.messages(pack):
                for attachment in message.attachments:
                    if attachment.filename and attachment.filename not in seen:
                        seen.add(attachment.filename)
                        await self._save(client, attachment)

    async def _save(self, client: MessagesClient, attachment: Attachment) -> None:
        from ...api.arguments import check_attachment_id
        from ...errors import APIError, DecodeError, TransportError

        try:
            check_attachment_id(attachment.filename)
        except ValueError as error:  # a name with a path in it, for example
            self._failed("a file", str(error))
            return
        name = file_name(attachment)
        target = self._folder / name
        if target.exists():
            self._there += 1
            return
        if attachment.potential_security_threat and not self._allow_threat:
            self._failed(name, "the server warns that it may be dangerous: see --allow-threat")
            return
        try:
            await client.download(attachment, target, site_id=self._site_id, allow_threat=self._allow_threat)
        except (APIError, DecodeError, TransportError) as error:
            self._failed(name, str(error))
        else:
            self._saved += 1
            click.echo(target)

    def _failed(self, name: str, reason: str) -> None:
        self.failed += 1
        note(f"Not saved: {name}: {reason}")

    def summary(self) -> str:
        """Say how many files there are, in a sentence."""
        said = f"{counted(self._saved, 'file')} saved in {click.format_filename(self._folder)}"
        if self._there:
            said += f", {self._there:,} there already"
        return said + (f"; {self.failed:,} not saved." if self.failed else ".")


def file_name(attachment: Attachment) -> str:
    """Return a name that is safe in every system: the attachment's id, and what is harmless of the sender's name."""
    id_ = attachment.filename or ""
    stem, dot, suffix = id_.rpartition(".")
    given = attachment.original_filename or ""
    words = "".join(char if char.isalnum() or char in _KEPT else "_" for char in given).strip("._ ")[:_LONGEST_NAME]
    words = words.removesuffix(dot + suffix) if dot else words
    room = max(_MOST_BYTES - len(id_.encode()), 0)
    words = words.encode()[:room].decode(errors="ignore").rstrip()
    if not words:
        return id_
    return f"{stem} {words}.{suffix}" if dot else f"{id_} {words}"

"""``mlmessages messages``: one conversation, read without marking it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import click

from ...escaping import escape_controls, one_line
from .. import json_lines
from ..interruptible import run
from ..options import with_settings
from ..settings import Settings
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ...client import MessagesClient
    from ...models import Attachment, ConversationStatus, Message

_QUIET = {None, "available"}  # what the status of nearly every message says
_INDENT = "  "


@attrs.frozen
class _Thread:
    """A conversation as it was read."""

    status: ConversationStatus | None
    longest_reply: int | None
    oldest_first: list[Message]


@click.command(short_help="Show one conversation, without marking it as read.")
@click.argument("pack")
@click.option("--json", "as_json", is_flag=True, help="Each message as one line of JSON, as the server sent it.")
@with_settings
def messages(settings: Settings, *, pack: str, as_json: bool) -> None:
    """Show the conversation PACK, the newest message last. It stays unread.

    Control characters and the like in a message are shown as escapes, such as \\x1b.
    """
    thread = run(_read(settings.client(), pack))
    if as_json:
        for message in thread.oldest_first:
            json_lines.write(message.raw)
        note(f"{counted(len(thread.oldest_first), 'message')}. {_standing(thread)}")
        return
    console = stdout()
    for line in _lines(console, pack, settings.seller_id, thread):
        console.print(line, soft_wrap=True)


async def _read(client: MessagesClient, pack: str) -> _Thread:
    status: ConversationStatus | None = None
    longest: int | None = None
    found: list[Message] = []
    async with client:
        try:
            pages = client.pages(pack)
        except ValueError:
            expected = "PACK must be a number as `mlmessages unread` lists it"
            raise click.UsageError(f"{expected}, not {pack[:40]!r}") from None
        async for page in pages:
            status, longest = page.conversation or status, page.seller_max_message_length or longest
            found += page.messages
    start = datetime.min.replace(tzinfo=UTC)
    found.reverse()  # the server sends the newest first [observed: answers]; where it does not, dates decide
    found.sort(key=lambda message: message.created or message.received or start)
    return _Thread(status, longest, found)


def _lines(console: Console, pack: str, seller_id: str, thread: _Thread) -> Iterator[Text]:
    """Yield the conversation line by line, wrapped to the width of the terminal."""
    from rich.text import Text

    blocked = thread.status is not None and thread.status.blocked
    yield Text.assemble(("Pack " + pack, "bold"), " · ", (_standing(thread), "yellow" if blocked else ""))
    room = max(console.width - len(_INDENT), 10)
    for message in thread.oldest_first:
        yield Text()
        yield _heading(message, seller_id)
        for body, style in _bodies(message):
            for line in Text(escape_controls(body), style).wrap(console, room):
                yield Text(_INDENT) + line
    if not thread.oldest_first:
        yield Text("No messages.", "dim")


def _standing(thread: _Thread) -> str:
    """Return in words whether the seller can write, and if not, why."""
    status = thread.status
    if status is None:
        return "the server does not say whether you can write"
    if status.blocked:
        said = f"blocked: {one_line(status.blocked_reason or '')}"
    else:
        said = one_line(status.status or "open")
        if thread.longest_reply:
            said += f", replies of up to {counted(thread.longest_reply, 'character')}"
    return said + (", Mercado Libre's agent speaks for the buyer" if status.handled_by_agent else "")


def _heading(message: Message, seller_id: str) -> Text:
    from rich.text import Text

    ours = message.is_from(seller_id)
    name = one_line(message.sender_name or "") or f"User {one_line(message.sender_id or 'unknown')}"
    when = message.created or message.received
    heading = Text.assemble(("You", "bold green") if ours else (name, "bold cyan"))
    heading.append(f" · {when:%Y-%m-%d %H:%M} UTC" if when else " · no date", "dim")
    if message.read is None and not ours:
        heading.append(" · unread", "yellow")
    for remark in _remarks(message):
        heading.append(f" · {one_line(remark)}", "red")
    return heading


def _remarks(message: Message) -> Iterator[str]:
    if message.status not in _QUIET:
        yield str(message.status).replace("_", " ")
    if message.moderation is not None and message.moderation.reason:
        yield message.moderation.reason.replace("_", " ")


def _bodies(message: Message) -> Iterator[tuple[str, str]]:
    """Yield the texts of a message, each with its style."""
    if message.text:
        yield message.text, ""
    elif not message.attachments:
        yield "(no text)", "dim"
    if message.text_translated:
        yield f"translated: {message.text_translated}", "italic"
    for attachment in message.attachments:
        yield _described(attachment), "magenta"


def _described(attachment: Attachment) -> str:
    name = one_line(attachment.original_filename or attachment.filename or "without a name")
    facts = [one_line(attachment.type)] if attachment.type else []
    if attachment.size is not None:
        facts.append(counted(attachment.size, "byte"))
    if attachment.potential_security_threat:
        facts.append("the server warns that it may be dangerous")
    return f"[attachment] {name}" + (f" ({', '.join(facts)})" if facts else "")

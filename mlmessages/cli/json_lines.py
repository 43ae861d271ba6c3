"""JSON for pipes, terminals and files: ASCII alone, so that no encoding can spoil it and nothing in it acts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..inbox.drain import Delivery
    from ..models import ConversationStatus, Message


def write(value: object) -> None:
    """`value` as one line of JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=True))  # escapes every control character too


def line(value: object) -> bytes:
    """`value` as one line of a file."""
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"


def delivery(value: Delivery) -> dict[str, object]:
    """Return what `drain` writes and `serve` hands over."""
    return {
        "pack_id": value.pack_id,
        "redelivered": value.redelivered,
        "status": status(value.status),
        "messages": messages(value.messages, value.unread),
    }


def messages(rows: Iterable[Message], unread: Collection[Message]) -> list[dict[str, object]]:
    """Each message as the server sent it, and whether it is new to the seller."""
    new = {row.id for row in unread}
    return [{"unread": row.id in new, "raw": row.raw} for row in rows]


def status(value: ConversationStatus | None) -> object:
    """Whether one can write, in the spelling of the wire."""
    from ..api.decoding import dump_status

    dumped = dump_status(value)
    return json.loads(dumped) if dumped is not None else None

"""JSON for pipes, terminals and files: ASCII alone, so that no encoding can spoil it and nothing in it acts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from importlib.resources import files
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..inbox.drain import Delivery
    from ..models import Conversation, ConversationStatus, Message, PackFailure


def write(value: object) -> None:
    """Write `value` as one line of JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=True))  # escapes every control character too


def line(value: object) -> bytes:
    """Return `value` as one line of a file."""
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"


# The second key of a line tells which command wrote it: see `LineFile`.


def delivery(value: Delivery) -> dict[str, object]:
    """Return what `drain` writes and `serve` hands over."""
    return {
        "pack_id": value.pack_id,
        "redelivered": value.redelivered,
        "seller_id": value.seller_id,
        "status": _status(value.status),
        "messages": _messages(value.messages, value.unread),
    }


def conversation(value: Conversation, seller_id: str) -> list[dict[str, object]]:
    """Return the one line that `fetch` writes."""
    return [
        {
            "pack_id": value.pack_id,
            "status": _status(value.status),
            "seller_id": seller_id,
            "messages": _messages(reversed(value.messages), value.unread),
        }
    ]


def by_message(value: Conversation, seller_id: str) -> list[dict[str, object]]:
    """Return the lines that `fetch --messages` writes: at least one, so that an empty conversation is there too."""
    rows = _messages(reversed(value.messages), value.unread) or [{"unread": False, "raw": None}]
    last = len(rows) - 1
    return [
        {"pack_id": value.pack_id, "last": number == last, "seller_id": seller_id, **row}
        for number, row in enumerate(rows)
    ]


def failure(value: PackFailure, seller_id: str) -> dict[str, object]:
    """Return the line that `fetch --failed` writes."""
    from ..errors import APIError

    error = value.error
    status = error.status if isinstance(error, APIError) else None
    return {
        "pack_id": value.pack_id,
        "error": type(error).__name__,
        "seller_id": seller_id,
        "status": status,
        "reason": str(error),
    }


def schema(command: str) -> object:
    """Return the JSON schema of the lines of `command`, one of several where its options decide."""
    whole = json.loads(files(__package__).joinpath("lines.schema.json").read_text("utf-8"))
    kinds = [name for name in whole["$defs"] if name.partition(" ")[0] == command]
    found = [{"title": f"mlmessages {name}", **whole["$defs"][name]} for name in kinds]
    return {"$schema": whole["$schema"], **(found[0] if len(found) == 1 else {"oneOf": found})}


def schema_option(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option ``--schema``, which prints the schema of the lines of `command` and ends."""

    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(json.dumps(schema(command), indent=2))
            ctx.exit()

    return click.option(
        "--schema",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Print the JSON schema of a line.",
    )


def _messages(rows: Iterable[Message], unread: Collection[Message]) -> list[dict[str, object]]:
    """Return each message as the server sent it, and whether it is new to the seller."""
    new = {row.id for row in unread}
    return [{"unread": row.id in new, "raw": row.raw} for row in rows]


def _status(value: ConversationStatus | None) -> object:
    """Return whether the seller can write, in the spelling of the wire."""
    from ..api.decoding import dump_status

    dumped = dump_status(value)
    return json.loads(dumped) if dumped is not None else None

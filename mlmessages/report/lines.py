"""A line of a file that ``drain``, ``fetch`` or ``fetch --messages`` wrote, as models."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from ..api.decoding import load_status, message
from ..api.json import dump_json, parse_json
from ..errors import DecodeError
from ..models import ConversationStatus, Message

_PACK: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_START: Final = b'{"pack_id":"'  # of every line, but for blanks


class NotOurs(ValueError):
    """The line was not written by a command of ours; the text says why, without quoting it."""


@attrs.frozen
class Line:
    """A line read: the `messages` of the pack, oldest first, all of them or some."""

    pack_id: str
    status: ConversationStatus | None
    messages: tuple[Message, ...]


def read(line: bytes) -> Line:
    """Return what `line` says; raise `NotOurs` if another program wrote it."""
    try:
        value = parse_json(line)
    except ValueError:
        raise NotOurs("it is not JSON") from None
    pack_id = value.get("pack_id") if isinstance(value, dict) else None
    if not isinstance(pack_id, str) or not _PACK.fullmatch(pack_id):
        raise NotOurs("it has no pack id")
    if "status" in value and isinstance(rows := value.get("messages"), list):
        return Line(pack_id, _status(value["status"]), tuple([_message(row, pack_id) for row in rows]))
    if "last" in value and "raw" in value:
        return Line(pack_id, None, () if value["raw"] is None else (_message(value, pack_id),))
    raise NotOurs("it holds neither a conversation nor a message")


def may_be_torn(end: bytes) -> bool:
    """Return whether `end`, which has no newline, may be the beginning of a line whose writer was ended.

    A power failure may also have left NUL bytes.
    """
    start = end[: 2 * len(_START)].replace(b" ", b"")[: len(_START)]
    return _START.startswith(start) or not end.strip(b"\0")


def _status(value: Any) -> ConversationStatus | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise NotOurs("its status is no object")
    return load_status(dump_json(value))


def _message(row: Any, pack_id: str) -> Message:
    try:
        return message(row["raw"], pack_id)
    except (DecodeError, KeyError, TypeError):
        raise NotOurs("it holds something else than messages") from None

"""An answer of the API, and a refusal on the way to one."""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs

JSON = "application/json; charset=utf-8"


@attrs.frozen
class Answer:
    """A status, headers and a body; `ids` are the messages in it."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=lambda: {"Content-Type": JSON})
    ids: tuple[str, ...] = ()


class Refused(Exception):
    """A refusal in the usual form, or with a `body` of its own."""

    def __init__(self, status: int, message: str, error: str | None, body: Mapping[str, object] | None = None) -> None:
        said = body or {"message": message, "error": error, "status": status, "cause": []}
        self.answer = Answer(status, json.dumps(said).encode())

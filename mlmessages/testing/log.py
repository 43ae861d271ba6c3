"""The log of requests, for assertions: one entry a request, in the order of arrival."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from .model.requests import Kind


@attrs.frozen
class Entry:
    """One request as the server saw it."""

    at: float
    """When the server counted it: its arrival, or for one that was held back its execution."""
    kind: Kind
    method: str
    path: str
    query: Mapping[str, str]
    pack_id: str | None
    status: int | None = None
    """What was answered; None: nothing, or not yet."""
    executed: bool = False
    """Whether the server did what was asked, and would have answered 200."""
    ids: tuple[str, ...] = ()
    """The messages in the executed answer, whether or not it reached the client."""
    body: object = None
    """The JSON that was posted."""
    seller_id: str | None = None
    """The seller whom the access token speaks for; None where it is not taken."""

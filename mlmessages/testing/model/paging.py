"""Which messages a page shows, and what it says of the others."""

from __future__ import annotations

import re

import attrs

from .answers import Refused
from .behaviour import Behaviour
from .conversations import StoredMessage
from .requests import ParsedRequest


@attrs.frozen
class Page:
    """The rows of a page, and its `paging` object; None where it has none."""

    rows: list[StoredMessage]
    paging: dict[str, int] | None


def number(request: ParsedRequest, name: str, default: int) -> int:
    """Return a number of the query; a documented refusal where it is none."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise Refused(400, f"Invalid {name} param", "bad_request")
    return int(text)


def page_of(visible: list[StoredMessage], counted: int, request: ParsedRequest, behaviour: Behaviour) -> Page:
    """Return the page that a request asks for; a documented refusal where its numbers are wrong.

    `visible` are the messages that can be shown, oldest first; `counted`, how many `total` counts.
    """
    limit = number(request, "limit", behaviour.default_limit)
    if limit <= 0:
        raise Refused(400, "The limit param must be greater than 0", "bad_request")
    offset = number(request, "offset", 0)
    if offset < 0:
        raise Refused(400, "Invalid offset param", "bad_request")
    given = limit if behaviour.max_limit is None else min(limit, behaviour.max_limit)
    rows = _slice(visible, offset, given, newest_first=behaviour.order == "newest")
    if not behaviour.paging:
        return Page(rows, None)
    paging = {"limit": given if behaviour.echo_limit == "given" else limit, "offset": offset}
    match behaviour.paging_total:
        case "all":
            paging["total"] = behaviour.told_total(counted)
        case "page":
            paging["total"] = len(rows)
        case "absent":
            pass
    return Page(rows, paging)


def _slice(oldest_first: list[StoredMessage], offset: int, limit: int, *, newest_first: bool) -> list[StoredMessage]:
    if not newest_first:
        return oldest_first[offset : offset + limit]
    end = max(0, len(oldest_first) - offset)
    return oldest_first[max(0, end - limit) : end][::-1]

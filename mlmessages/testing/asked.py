"""What a request asks for, read from its method, target and Authorization."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import parse_qsl

import attrs

Kind = Literal[
    "listing",
    "probe",
    "mark",
    "peek",
    "message",
    "missed",
    "send",
    "reasons",
    "caps",
    "option",
    "upload",
    "download",
    "token",
    "other",
]
Family = Literal["marketplace", "domestic"]

_ROUTE = re.compile(
    r"(?P<marketplace>/marketplace)?/messages/(?:"
    r"(?P<listing>unread)"
    r"|(?P<upload>attachments)(?:/(?P<file>[^/]+))?"
    r"|(?P<guide>action_guide)/packs/(?P<guided>[^/]+)(?:/(?P<part>caps_available|option))?"
    r"|(?P<probe>unread/)?packs/(?P<pack>[^/]+)(?:/sellers/(?P<seller>[^/]+))?"
    r"|(?P<message>[^/]+)"
    r")"
)


@attrs.frozen
class ParsedRequest:
    """One request."""

    method: str
    target: str
    """The path with its query, as sent."""
    path: str
    query: Mapping[str, str]
    kind: Kind
    family: Family
    token: str | None
    pack_id: str | None = None
    seller_id: str | None = None
    message_id: str | None = None
    file_id: str | None = None
    body: bytes = attrs.field(default=b"", repr=False)
    content_type: str = ""


_WRITES: frozenset[Kind] = frozenset({"send", "option", "upload"})


def read_request(
    method: str, target: str, authorization: str | None, body: bytes = b"", content_type: str = ""
) -> ParsedRequest:
    """The request as a value; whatever no route fits is of kind "other"."""
    path, _, query_text = target.partition("?")
    query = dict(parse_qsl(query_text, keep_blank_values=True)) if query_text else {}
    scheme, _, token = (authorization or "").partition(" ")
    known = token if scheme.lower() == "bearer" and token else None
    route = _ROUTE.fullmatch(path)
    if path == "/oauth/token":
        return ParsedRequest(
            method, target, path, query, "token", "domestic", known, body=body, content_type=content_type
        )
    if path == "/missed_feeds" and method == "GET":
        return ParsedRequest(method, target, path, query, "missed", "domestic", known)
    if route is None:
        return ParsedRequest(
            method, target, path, query, "other", "domestic", known, body=body, content_type=content_type
        )
    family: Family = "marketplace" if route["marketplace"] else "domestic"
    kind: Kind
    if route["listing"]:
        kind = "listing"
    elif route["upload"]:
        kind = "download" if method == "GET" and route["file"] else "other"
        kind = "upload" if method == "POST" and not route["file"] else kind
    elif route["guide"]:
        parts: dict[str | None, Kind] = {None: "reasons", "caps_available": "caps", "option": "option"}
        kind = parts[route["part"]]
        if method != ("POST" if kind == "option" else "GET"):
            kind = "other"
    elif route["message"]:
        kind = "message"
    elif not route["seller"] and (route["probe"] or family == "domestic"):
        kind = "other"  # only the marketplace thread is printed without its seller
    elif route["probe"]:
        kind = "probe"
    elif method == "POST":
        kind = "send"
    else:
        kind = "peek" if query.get("mark_as_read") == "false" else "mark"
    if method != "GET" and kind not in _WRITES:
        kind = "other"
    return ParsedRequest(
        method,
        target,
        path,
        query,
        kind,
        family,
        known,
        route["pack"] or route["guided"],
        route["seller"],
        route["message"],
        route["file"],
        body,
        content_type,
    )

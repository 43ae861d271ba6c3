"""Read what a request asks for from its method, its target and its Authorization."""

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
    "consent",
    "callback",
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
    """One request: which route of the API it fits, and the ids that its path names."""

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
_GUIDE_PARTS: Mapping[str | None, Kind] = {None: "reasons", "caps_available": "caps", "option": "option"}


def parse_request(
    method: str, target: str, authorization: str | None, body: bytes = b"", content_type: str = ""
) -> ParsedRequest:
    """Return the request as a value; one that fits no route is of kind "other"."""
    path, _, query_text = target.partition("?")
    query = dict(parse_qsl(query_text, keep_blank_values=True)) if query_text else {}
    scheme, _, token = (authorization or "").partition(" ")
    request = ParsedRequest(
        method,
        target,
        path,
        query,
        kind="other",
        family="domestic",
        token=token if scheme.lower() == "bearer" and token else None,
        body=body,
        content_type=content_type,
    )
    if path == "/oauth/token":
        return attrs.evolve(request, kind="token")
    if path == "/authorization" and method in ("GET", "POST"):
        return attrs.evolve(request, kind="consent")
    if path == "/callback" and method == "GET":
        return attrs.evolve(request, kind="callback")
    if path == "/missed_feeds" and method == "GET":
        return attrs.evolve(request, kind="missed")
    route = _ROUTE.fullmatch(path)
    if route is None:
        return request
    family: Family = "marketplace" if route["marketplace"] else "domestic"
    return attrs.evolve(
        request,
        kind=_kind_of(route, family, method, query),
        family=family,
        pack_id=route["pack"] or route["guided"],
        seller_id=route["seller"],
        message_id=route["message"],
        file_id=route["file"],
    )


def _kind_of(route: re.Match[str], family: Family, method: str, query: Mapping[str, str]) -> Kind:
    kind = _kind_by_path(route, family, method, query)
    writes = kind in _WRITES
    return kind if method == ("POST" if writes else "GET") else "other"


def _kind_by_path(route: re.Match[str], family: Family, method: str, query: Mapping[str, str]) -> Kind:
    if route["listing"]:
        return "listing"
    if route["upload"]:
        return "download" if route["file"] else "upload"
    if route["guide"]:
        return _GUIDE_PARTS[route["part"]]
    if route["message"]:
        return "message"
    if not route["seller"] and (route["probe"] or family == "domestic"):
        return "other"  # only the marketplace conversation is printed without its seller
    if route["probe"]:
        return "probe"
    if method == "POST":
        return "send"
    return "peek" if query.get("mark_as_read") == "false" else "mark"

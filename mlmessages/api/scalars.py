"""One value of the wire: read strictly, or None.

A strict reader takes a JSON value and returns the value of a model, None for null, or raises `Unexpected` for a value
of a type that the documentation does not name. `lenient` makes None of such a value. Nothing is coerced in silence: the
text ``"5"`` is no id of another type, and ``"false"`` is not true.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Unexpected(TypeError):
    """The value has another type than any documented one; says which was expected, and never what was found."""


# What reading a value of an unexpected type or range raises.
UNREADABLE: Final = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


def text(value: Any) -> str | None:
    """Return a text as it is."""
    if value is None or value.__class__ is str:
        return value
    raise Unexpected("expected a text")


def body(value: Any) -> str | None:
    """Return the text of a message, which the flat form of the documentation puts into an object."""
    if value is None or value.__class__ is str:
        return value
    return text(value["plain"] if value.__class__ is dict and "plain" in value else value)


def word(value: Any) -> str | None:
    """Return a word of an open vocabulary, lower-cased."""
    return value.lower() if value.__class__ is str else text(value)


def reason(value: Any) -> str | None:
    """Return a word, or None for ``""`` and ``"none"``, which the server writes for no reason [observed]."""
    if value is None:
        return None
    found = word(value)
    return None if found in ("", "none") else found


def identifier(value: Any) -> str | None:
    """Return an id as text: the server sends some as numbers and some as texts [documented and observed]."""
    if value.__class__ is int:
        return str(value)
    if value is None or value.__class__ is str:
        return value or None
    raise Unexpected("expected an id")


def number(value: Any) -> int | None:
    """Return a whole number, also one that came as a text."""
    if value is None or value.__class__ is int:
        return value
    if value.__class__ is str and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    raise Unexpected("expected a whole number")


def flag(value: Any) -> bool | None:
    """Return true or false."""
    if value is None or value.__class__ is bool:
        return value
    raise Unexpected("expected true or false")


def moment(value: Any) -> datetime | None:
    """Return a date, aware and in UTC, as all dates are [documented], also one that does not say so."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is UTC:
            return found
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (OverflowError, TypeError, ValueError):
        raise Unexpected("expected a date") from None


def lenient(read: Callable[[Any], T | None], value: Any) -> T | None:
    """Return what `read` makes of `value`, or None where it cannot be read."""
    try:
        return read(value)
    except UNREADABLE:
        return None


def kind(value: Any) -> str:
    """Return the JSON type of `value` in words: never the value, which may be what a buyer wrote."""
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "null")


def http_date(value: str | None) -> datetime | None:
    """Return an HTTP date, aware and in UTC, or None where there is none that can be (RFC 9110, 5.6.7)."""
    if value is None:
        return None
    try:
        found = parsedate_to_datetime(value)
        # The old form without a zone is in UTC, too.
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (IndexError, OverflowError, TypeError, ValueError):  # it depends on the version which of them
        return None

"""One value of the wire: read strictly, or None with its problem.

A strict reader takes a JSON value and returns the value of a model, None for null, or raises `Unexpected` for a value
of a type that the documentation does not name. Nothing is coerced in silence: ``"false"`` is not true, 5 is no text.
`lenient` makes None of what cannot be read; `forgiving` does so too, and says where it stood and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from attrs import evolve, fields, frozen

T = TypeVar("T")
Reader = Callable[[Any], Any]


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
    """Return the text of a message, which the flat form puts into an object [documented: messages]."""
    if value is None or value.__class__ is str:
        return value
    return text(value["plain"] if value.__class__ is dict and "plain" in value else value)


def word(value: Any) -> str | None:
    """Return a word of an open vocabulary, lower-cased."""
    return value.lower() if value.__class__ is str else text(value)


def reason(value: Any) -> str | None:
    """Return a word, or None for ``""`` and ``"none"``, which the server writes for no reason [observed: answers]."""
    if value is None:
        return None
    found = word(value)
    return None if found in ("", "none") else found


def identifier(value: Any) -> str | None:
    """Return an id as text: the server sends some as numbers, some as texts [documented: messages]."""
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
    """Return a date, aware and in UTC, as all dates are, also one that does not say so [documented: messages]."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is UTC:
            return found
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (OverflowError, TypeError, ValueError):
        raise Unexpected("expected a date") from None


def key(value: Any) -> str:
    """Return the id of a message, which it cannot do without; no journal can keep one with a NUL in it."""
    if value.__class__ is str and value and "\0" not in value:
        return value
    if value.__class__ is int:
        return str(value)
    raise Unexpected("expected an id")


class _Nothing(dict[str, Any]):
    """An object that is null: so is each of its values."""

    def __missing__(self, key: str) -> None:
        return None


_NOTHING: Final = _Nothing()


def an_object(value: Any) -> dict[str, Any]:
    """Return an object as it is, or an empty one for null."""
    if value.__class__ is dict:
        return value
    if value is None:
        return _NOTHING
    raise Unexpected("expected an object")


def party(value: Any) -> dict[str, Any]:
    """Return who writes or is written to; of several, as in the flat form, the first [observed: integrators]."""
    if value.__class__ is dict:
        return value
    if value.__class__ is list:
        return an_object(value[0]) if value else _NOTHING
    return an_object(value)


def array(value: Any) -> Sequence[Any]:
    """Return an array as it is, or an empty one for null."""
    if value.__class__ is list:
        return value
    if value is None:
        return ()
    raise Unexpected("expected an array")


def objects(value: Any) -> Sequence[Any]:
    """Return an array of objects as it is, or an empty one for null."""
    if value is None:
        return ()
    found = array(value)
    for item in found:
        if item.__class__ is not dict:
            raise Unexpected("expected an object")
    return found


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


# -- with the path of each value, and what could not be read -----------------------------------------------------------


class Traced:
    """A JSON value with its path, and the list of what could not be read. It is used as the value itself would be."""

    __slots__ = ("path", "problems", "value")

    def __init__(self, value: Any, path: str, problems: list[str]) -> None:
        self.value = value
        self.path = path
        self.problems = problems

    def get(self, key: str) -> Traced | None:
        """Return the value of a key with its path, or None where it is null or absent."""
        value = self.value.get(key)
        return None if value is None else Traced(value, f"{self.path}.{key}".lstrip("."), self.problems)

    __getitem__ = get

    def __bool__(self) -> bool:
        return bool(self.value)

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def __iter__(self) -> Iterator[Traced | None]:
        for i, value in enumerate(self.value):
            yield None if value is None else Traced(value, f"{self.path}[{i}]", self.problems)


def forgiving(read: Reader) -> Reader:
    """Return what reads a `Traced` value as `read` does a plain one, and notes a problem instead of raising."""

    def read_traced(traced: Traced | None) -> Any:
        if traced is None:
            return read(None)
        try:
            value = read(traced.value)
        except UNREADABLE as error:
            why = str(error) if isinstance(error, Unexpected) else "not readable"
            traced.problems.append(f"{traced.path}: {why}, found {kind(traced.value)}")
            return read(None)
        return Traced(value, traced.path, traced.problems) if isinstance(value, (dict, list)) else value

    return read_traced


_traced_object: Final = forgiving(an_object)
_traced_array: Final = forgiving(array)


def _traced_objects(traced: Traced | None) -> list[Any]:
    """As `objects`; what is no object is left out, and named.

    So is null, and an empty object, which stands for nothing [documented: messages].
    """
    return [item for item in map(_traced_object, _traced_array(traced)) if item]


@frozen
class Readers:
    """How the values of a message are read: all of them strictly, or all of them forgivingly."""

    text: Reader = text
    body: Reader = body
    word: Reader = word
    reason: Reader = reason
    identifier: Reader = identifier
    key: Reader = key
    number: Reader = number
    flag: Reader = flag
    moment: Reader = moment
    an_object: Reader = an_object
    party: Reader = party
    array: Reader = array
    objects: Reader = objects


STRICT: Final = Readers()
FORGIVING: Final = evolve(
    Readers(*[forgiving(getattr(STRICT, field.name)) for field in fields(Readers)]), objects=_traced_objects
)


# -- headers -----------------------------------------------------------------------------------------------------------


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

"""The action guide: for which reasons a seller may start a conversation, read from its two answers.

Options are few and are shown to a person: a field that cannot be read is None, an option without an id is an error.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import DecodeError
from ..models import Reason, Reasons, Template, Variable
from .decoding import bare_array, envelope
from .scalars import flag, identifier, kind, lenient, number, text, word

_DEEPEST: Final = 5  # of options within options: only null and empty ones are printed [documented: reasons]


def reasons(body: bytes, pack_id: str) -> Reasons:
    """Return the options of the action guide. Raises `DecodeError` where one has no id."""
    _, rows = envelope(body, "options")
    return Reasons(pack_id, tuple([_option(row, f"options[{i}]") for i, row in enumerate(rows)]))


def caps(body: bytes) -> dict[str, int]:
    """Return how often each option may still be used, by its id."""
    found = {}
    for row in bare_array(body):
        if isinstance(row, dict):
            option, cap = lenient(identifier, row.get("option_id")), lenient(number, row.get("cap_available"))
            if option is not None and cap is not None:
                found[option] = cap
    return found


def _option(raw: Any, path: str, depth: int = 0) -> Reason:
    id_ = _id(raw, path)
    get = raw.get
    inner = _list_of(get("child_options")) if depth < _DEEPEST else []
    return Reason(
        id=id_,
        type=lenient(word, get("type")),
        enabled=lenient(flag, get("enabled")),
        actionable=lenient(flag, get("actionable")),
        char_limit=lenient(number, get("char_limit")),
        cap_available=lenient(number, get("cap_available")),
        templates=tuple([_template(t, f"{path}.templates[{i}]") for i, t in enumerate(_list_of(get("templates")))]),
        children=tuple([_option(c, f"{path}.child_options[{i}]", depth + 1) for i, c in enumerate(inner)]),
        description=lenient(text, get("internal_description")),
    )


def _template(raw: Any, path: str) -> Template:
    id_ = _id(raw, path)
    texts = raw.get("texts")
    wordings = {
        site: shown.get("html") if isinstance(shown, dict) else shown
        for site, shown in (texts.items() if isinstance(texts, dict) else ())
    }
    return Template(
        id_,
        tuple([_variable(v, f"{path}.vars[{i}]") for i, v in enumerate(_list_of(raw.get("vars")))]),
        tuple([(site.upper(), words) for site, words in wordings.items() if isinstance(words, str)]),
    )


def _variable(raw: Any, path: str) -> Variable:
    return Variable(_id(raw, path), lenient(word, raw.get("type")))


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _id(raw: Any, path: str) -> str:
    """The id of an object, of which the caller may then ask for more."""
    if not isinstance(raw, dict):
        raise DecodeError("an answer cannot be read", (f"{path}: expected an object, found {kind(raw)}",))
    if found := lenient(identifier, raw.get("id")):
        return found
    raise DecodeError("an answer cannot be read", (f"{path}.id: expected an id, found {kind(raw.get('id'))}",))

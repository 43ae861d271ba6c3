"""JSON into models: the one place that knows cattrs and how the wire spells things.

One function, `_configure`, teaches a converter the shapes. It is used twice. The *strict* converter reads plain JSON
and raises at the first value that is not of a documented type. Then, and only then, the *forgiving* one reads the same
JSON wrapped in `_Traced`, which knows each value's path: such a value becomes None and a line in ``problems``, and no
message is dropped for its shape.

A message of a page is made with what nearly everybody asks for. Its other fields are read when somebody asks for them,
from the page's body, which is parsed again for that: values take three times the memory of their JSON, and for most of
them nobody ever asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import asdict, evolve, fields, frozen
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from ..errors import DecodeError
from ..models import (
    LATE_FIELDS,
    Attachment,
    ConversationStatus,
    Message,
    MessagePage,
    Moderation,
    Paging,
    Reason,
    Reasons,
    Resource,
    Template,
    UnreadListing,
    UnreadPack,
    Variable,
)
from .json import dump_json, parse_json

_Reader = Callable[..., Any]  # a cattrs structure hook: (value, type) -> value
_UNREADABLE = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


# -- the scalars of the wire, strictly: a value of a documented type, or an exception
# -----------------------------------


def _text(value: Any, _: Any = None) -> str | None:
    if value is None or value.__class__ is str:
        return value
    raise TypeError("expected a text")


def _body(value: Any, _: Any = None) -> str | None:
    if value.__class__ is dict and "plain" in value:  # of the legacy flat form
        return _text(value["plain"])
    return _text(value)


def _word(value: Any, _: Any = None) -> str | None:
    return value.lower() if value.__class__ is str else _text(value)


def _reason(value: Any, _: Any = None) -> str | None:
    word = _word(value)
    return None if word in ("", "none") else word


def _identifier(value: Any, _: Any = None) -> str | None:
    if value is None or value.__class__ is str:
        return value or None
    if value.__class__ is int:
        return str(value)
    raise TypeError("expected an id")


def _key(value: Any, _: Any = None) -> str:
    if key := _identifier(value):
        return key
    raise TypeError("expected an id")


def _number(value: Any, _: Any = None) -> int | None:
    if value is None or value.__class__ is int:
        return value
    if value.__class__ is str and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    raise TypeError("expected a whole number")


def _flag(value: Any, _: Any = None) -> bool | None:
    if value is None or value.__class__ is bool:
        return value
    raise TypeError("expected true or false")


def _moment(value: Any, _: Any = None) -> datetime | None:
    if value is None:
        return None
    if value.__class__ is not str:
        raise TypeError("expected a date")
    try:
        moment = datetime.fromisoformat(value)
        zone = moment.tzinfo
        if zone is UTC:
            return moment
        # All dates are UTC (documentation of the messages resource), also one that does not say so.
        return moment.replace(tzinfo=UTC) if zone is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise TypeError("expected a date") from None


def _object(value: Any, _: Any = None) -> Any:
    if value is None or value.__class__ is dict:
        return value
    raise TypeError("expected an object")


def _party(value: Any, _: Any = None) -> Any:
    if value.__class__ is list:  # the legacy form writes to several
        return _object(value[0]) if value else None
    return _object(value)


def _array(value: Any, _: Any = None) -> Any:
    if value is None or value.__class__ is list:
        return value
    raise TypeError("expected an array")


@frozen
class _Readers:
    """The scalar readers that a converter uses; strict ones, or the same made forgiving."""

    text: _Reader = _text
    body: _Reader = _body
    word: _Reader = _word
    reason: _Reader = _reason
    identifier: _Reader = _identifier
    key: _Reader = _key
    number: _Reader = _number
    flag: _Reader = _flag
    moment: _Reader = _moment
    object: _Reader = _object
    party: _Reader = _party
    array: _Reader = _array


class _Traced:
    """A JSON value that is not null, with its path, and the list of what could not be read."""

    __slots__ = ("path", "problems", "value")

    def __init__(self, value: Any, path: str, problems: list[str]) -> None:
        self.value = value
        self.path = path
        self.problems = problems

    def get(self, key: str) -> _Traced | None:
        value = self.value.get(key)
        return None if value is None else _Traced(value, f"{self.path}.{key}".lstrip("."), self.problems)

    __getitem__ = get

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def __bool__(self) -> bool:
        return bool(self.value)

    def __iter__(self) -> Iterator[_Traced]:
        for i, value in enumerate(self.value):
            if value is not None:
                yield _Traced(value, f"{self.path}[{i}]", self.problems)


def _forgiving(reader: _Reader) -> _Reader:
    def read(traced: _Traced | None, _: Any = None) -> Any:
        if traced is None:
            return None
        try:
            value = reader(traced.value)
        except _UNREADABLE as error:
            reason = str(error) if isinstance(error, TypeError) else "not readable"
            traced.problems.append(f"{traced.path}: {reason}, found {_kind(traced.value)}")
            return None
        if isinstance(value, dict):  # of `_party`, or the object itself
            return _Traced(value, traced.path, traced.problems)
        return traced if isinstance(value, list) else value

    return read


def _kind(value: Any) -> str:
    """The JSON type of `value`: never the value, which may be what a buyer wrote."""
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "null")


# -- the shapes --------------------------------------------------------------------------------------------------------


_Fields = dict[str, Callable[[Any], Any]]  # of a message: by name, how it is read from the JSON object


def _configure(converter: Converter, read: _Readers) -> _Fields:
    """Teach `converter` to structure the parts of an answer from what `read` reads; how to read a message's fields."""

    def generated(cls: type, **readers: _Reader) -> _Reader:
        overrides = {a.name: override(omit=a.name not in readers) for a in fields(cls)}
        overrides |= {name: override(omit=False, struct_hook=reader) for name, reader in readers.items()}
        return make_dict_structure_fn(cls, converter, _cattrs_detailed_validation=False, **overrides)  # type: ignore[arg-type]

    def dated(cls: type, date: str, alias: str, **readers: _Reader) -> _Reader:
        """`generated` for a class whose `date` has a second spelling."""
        structure = generated(cls, **readers, **{date: read.moment})

        def structure_dated(raw: Any, _: Any) -> Any:
            made = structure(raw, cls)
            if getattr(made, date) is None and alias in raw:
                return evolve(made, **{date: read.moment(raw[alias])})
            return made

        return structure_dated

    def structure_status(raw: Any, _: Any) -> ConversationStatus:
        made: ConversationStatus = status(raw, ConversationStatus)
        claims = [*(read.array(raw.get("claim_ids")) or ()), raw.get("claim_id")]
        found = [read.identifier(claim) for claim in claims if claim is not None]
        return evolve(made, claim_ids=tuple(dict.fromkeys(filter(None, found)))) if found else made

    status = generated(
        ConversationStatus,
        path=read.text,
        status=read.word,
        substatus=read.reason,
        status_date=read.moment,
        status_update_allowed=read.flag,
        shipping_id=read.identifier,
    )
    hooks = {
        Attachment: dated(
            Attachment,
            "creation_date",
            "date_created",
            filename=read.text,
            original_filename=read.text,
            type=read.text,
            size=read.number,
            potential_security_threat=read.flag,
        ),
        Moderation: dated(
            Moderation,
            "moderation_date",
            "date_moderated",
            status=read.word,
            reason=read.reason,
            by=read.reason,
            source=read.word,
        ),
        Resource: generated(Resource, id=read.identifier, name=read.text),
        Paging: generated(Paging, limit=read.number, offset=read.number, total=read.number),
        ConversationStatus: structure_status,
    }
    for cls, hook in hooks.items():
        converter.register_structure_hook(cls, hook)
    return _message_fields(read, hooks)


def _message_fields(read: _Readers, hooks: Mapping[type, _Reader]) -> _Fields:
    def top(key: str, reader: _Reader) -> Callable[[Any], Any]:
        return lambda raw: reader(raw.get(key))

    def inside(key: str, outer: _Reader, inner: str, reader: _Reader) -> Callable[[Any], Any]:
        return lambda raw: reader(found.get(inner)) if (found := outer(raw.get(key))) else None

    def one(cls: type) -> _Reader:
        structure = hooks[cls]
        return lambda value: structure(found, cls) if (found := read.object(value)) else None

    def each(cls: type) -> _Reader:
        structure = hooks[cls]  # an empty object stands for nothing in the legacy form
        return lambda value: tuple([structure(item, cls) for item in read.array(value) or () if read.object(item)])

    dates = ("created", "received", "available", "notified", "read")
    return {
        "id": top("id", read.key),
        "site_id": top("site_id", read.text),
        "client_id": top("client_id", read.identifier),
        "sender_id": inside("from", read.party, "user_id", read.identifier),
        "sender_name": inside("from", read.party, "name", read.text),
        "sender_email": inside("from", read.party, "email", read.text),
        "recipient_id": inside("to", read.party, "user_id", read.identifier),
        "status": top("status", read.word),
        "subject": top("subject", read.text),
        "text": top("text", read.body),
        "text_translated": top("text_translated", read.text),
        **{name: inside("message_date", read.object, name, read.moment) for name in dates},
        "moderation": top("message_moderation", one(Moderation)),
        "attachments": top("message_attachments", each(Attachment)),
        "resources": top("message_resources", each(Resource)),
    }


_STRICT: Final = Converter(detailed_validation=False)
_FORGIVING: Final = Converter(detailed_validation=False)
_STRICT_FIELDS: Final = _configure(_STRICT, _Readers())
_FORGIVING_FIELDS: Final = _configure(
    _FORGIVING, _Readers(**{a.name: _forgiving(getattr(_Readers(), a.name)) for a in fields(_Readers)})
)
# Looked up once.
_STRICT_PARTS: Final[dict[type, _Reader]] = {
    cls: _STRICT.get_structure_hook(cls) for cls in (Paging, ConversationStatus)
}


# -- messages ----------------------------------------------------------------------------------------------------------


# The flat form of "one message" that the documentation still prints beside the envelope.
_FLAT_DATES: Final = {
    "created": ("date_created", "date"),
    "received": ("date_received",),
    "available": ("date_available",),
    "notified": ("date_notified",),
    "read": ("date_read",),
}


def _from_flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The legacy flat form in the spelling of the others."""
    dates = {name: raw[key] for name, keys in _FLAT_DATES.items() for key in reversed(keys) if key in raw}
    # The flat form names the sale in two scalars; a list of resources is what all other forms have.
    resource = {name: raw[key] for name, key in (("id", "resource_id"), ("name", "resource")) if key in raw}
    return {
        "message_date": dates,
        "message_moderation": raw.get("moderation"),
        "message_attachments": raw.get("attachments"),
        "message_resources": [resource],
        # A mixture was seen too [integrators' code]: what is spelled as today counts.
        **{key: value for key, value in raw.items() if value is not None},
        "id": raw["message_id"],
    }


def _wire(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`raw` in the spelling of today."""
    return _from_flat(raw) if raw.get("id") is None and "message_id" in raw else raw


def _late(name: str) -> Callable[[Message], Any]:
    """What reads the field `name` of a message when somebody asks for it."""
    strictly, forgivingly = _STRICT_FIELDS[name], _FORGIVING_FIELDS[name]

    def read(message: Message) -> Any:
        wire = _wire(message.raw)
        try:
            return strictly(wire)
        except _UNREADABLE:
            object.__setattr__(message, "problems", _problems(wire))
            return forgivingly(_Traced(wire, "", []))

    return read


def _problems(wire: Mapping[str, Any]) -> tuple[str, ...]:
    traced = _Traced(wire, "", [])
    for field in _FORGIVING_FIELDS.values():
        field(traced)
    return tuple(dict.fromkeys(traced.problems))  # who wrote it is asked for three times


_PROBLEMS: Final = vars(Message)["problems"]


def _late_problems(message: Message) -> tuple[str, ...]:
    for name in _STRICT_FIELDS:
        getattr(message, name)
    try:
        found: tuple[str, ...] = _PROBLEMS.__get__(message)  # one of those could not be read
    except AttributeError:
        found = ()
    return found


def _late_pack(message: Message) -> str | None:
    """The pack, or the order: one that has no pack stands in its place [documented]."""
    named = {resource.name: resource.id for resource in message.resources if _is_pack_id(resource.id)}
    return next((named[name] for name in ("packs", "pack", "orders", "order") if name in named), None)


def _is_pack_id(value: str | None) -> bool:
    return value is not None and re.fullmatch("[0-9]{1,20}", value, re.ASCII) is not None


def _late_refused_files(message: Message) -> tuple[tuple[str, str], ...]:
    found = _wire(message.raw).get("attachments_validations")
    return tuple(
        (name, reason)
        for reason, names in (found.items() if isinstance(found, dict) else ())
        if isinstance(names, list)
        for name in names
        if isinstance(name, str)
    )


LATE_FIELDS.update({name: _late(name) for name in _STRICT_FIELDS})
LATE_FIELDS.update(problems=_late_problems, pack_id=_late_pack, refused_files=_late_refused_files)


class _Page:
    """The body of an answer, for who asks for more of its messages than they were made with."""

    __slots__ = ("_body", "_rows")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._rows: list[dict[str, Any]] | None = None

    def row(self, n: int) -> dict[str, Any]:
        body, rows = self._body, self._rows  # in this order: another thread may do the same
        if rows is None:
            rows = self._rows = parse_json(body)["messages"]
            self._body = b""
        return rows[n]


class _Draft(Message):
    """A message in the making, which becomes one when its class is assigned: only of this class it can be written to.

    The constructor of a read-only class pays a call for each field, and leaves none for later.
    """

    __slots__ = ()
    __setattr__ = object.__setattr__

    def __init__(self, id_: str, pack_id: str, page: _Page, row: int) -> None:
        self.id = id_
        self.pack_id = pack_id
        self._page = page
        self._row = row


def message(raw: Any, pack_id: str | None = None, path: str = "") -> Message:
    """One message from its JSON object, read from the pack `pack_id`; `DecodeError` if that has no readable id."""
    if raw.__class__ is not dict:
        raise DecodeError("an answer cannot be read", (f"{path or 'message'}: expected an object, found {_kind(raw)}",))
    found = _wire(raw).get("id")
    id_ = _lenient(_identifier, found)
    if id_ is None or "\0" in id_:
        raise DecodeError("an answer cannot be read", (f"{path}.id: expected an id, found {_kind(found)}".lstrip("."),))
    draft = _Draft.__new__(_Draft)
    draft.id, draft.raw = id_, raw
    if pack_id is not None:
        draft.pack_id = pack_id
    draft.__class__ = Message  # type: ignore[assignment]
    return draft


def _messages(rows: list[Any], body: bytes, pack_id: str) -> tuple[Message, ...]:
    """The messages of a page, with what nearly everybody asks for: whatever of that is of its usual type."""
    page, made = _Page(body), []
    for n, row in enumerate(rows):
        if row.__class__ is not dict or (id_ := row.get("id")).__class__ is not str or not id_ or "\0" in id_:
            return tuple([message(row, pack_id, f"messages[{i}]") for i, row in enumerate(rows)])
        draft = _Draft(id_, pack_id, page, n)
        if (text := row.get("text")).__class__ is str:
            draft.text = text
        if (status := row.get("status")).__class__ is str:
            draft.status = status.lower()
        if (sender := row.get("from")).__class__ is dict:
            if (user := sender.get("user_id")).__class__ is int:
                draft.sender_id = str(user)
            elif user.__class__ is str and user:
                draft.sender_id = user
        if (date := row.get("message_date")).__class__ is dict:
            try:
                draft.created = _moment(date.get("created"))
                draft.read = _moment(date.get("read"))
            except TypeError:
                pass  # who asks for it is told in `problems`
        if row.get("message_attachments") in (None, []):
            draft.attachments = ()
        draft.__class__ = Message  # type: ignore[assignment]
        made.append(draft)
    return tuple(made)


def _part(cls: type, raw: Any) -> Any:
    """A part of an envelope, or None where it is null, absent or unreadable: the messages beside it matter more."""
    if not isinstance(raw, dict):
        return None
    try:
        return _STRICT_PARTS[cls](raw, cls)
    except _UNREADABLE:
        return _FORGIVING.structure(_Traced(raw, "", []), cls)


def _lenient(reader: _Reader, value: Any) -> Any:
    """What `reader` reads, or None: for the extras of an envelope."""
    try:
        return reader(value)
    except _UNREADABLE:
        return None


# -- what a journal keeps ----------------------------------------------------------------------------------------------


def dump_raw(raw: Mapping[str, Any]) -> bytes:
    """A message's JSON object, to be kept. Raises `DecodeError` where it is nested too deeply to be written."""
    try:
        return dump_json(raw)
    except ValueError as error:
        raise DecodeError("a message cannot be stored", (str(error),)) from None


def stored_message(body: bytes, pack_id: str) -> Message:
    """The message of which `dump_raw` kept the JSON. Raises `DecodeError` where it cannot be read."""
    return message(_json(body), pack_id)


def dump_status(status: ConversationStatus | None) -> bytes | None:
    """A conversation's status in the spelling of the wire, to be kept."""
    if status is None:
        return None
    return dump_json(asdict(status, value_serializer=lambda _, __, v: v.isoformat() if isinstance(v, datetime) else v))


def load_status(body: bytes | None) -> ConversationStatus | None:
    """The status that `dump_status` kept."""
    return _part(ConversationStatus, parse_json(body)) if body else None


# -- the envelopes -----------------------------------------------------------------------------------------------------


def _envelope(body: bytes, key: str) -> tuple[dict[str, Any], list[Any]]:
    """The answer and its list `key`; without one it is a `DecodeError`, never an empty page: a throttled server answers
    such things.
    """
    try:
        value = parse_json(body)
    except ValueError as error:
        # The parser's own words quote the body.
        reason = "nested too deeply" if "deeply" in str(error) else "it is not JSON"
        raise DecodeError("an answer cannot be read", (f"{len(body)} bytes: {reason}",)) from None
    if not isinstance(value, dict):
        raise DecodeError("an answer cannot be read", (f"expected an object, found {_kind(value)}",))
    rows = value.get(key)
    if not isinstance(rows, list):
        found = _kind(rows) if key in value else "nothing"
        raise DecodeError("an answer cannot be read", (f"{key}: expected an array, found {found}",))
    return value, rows


_PACK: Final = re.compile(r"(?:^|/)packs?/([0-9]{1,20})(?=[/?#]|\Z)")


def unread_listing(body: bytes) -> UnreadListing:
    """The unread query's answer. The pack is the segment after ``packs``, whatever follows it.

    A row that names no pack is left out and told of in `problems`: the conversations beside it matter more.
    """
    envelope, rows = _envelope(body, "results")
    packs, problems = [], []
    for i, row in enumerate(rows):
        resource = row.get("resource") if isinstance(row, dict) else None
        found = _PACK.search(resource) if isinstance(resource, str) else None
        if found is not None:
            packs.append(UnreadPack(found[1], _lenient(_number, row.get("count")) or 0, resource))
        elif isinstance(row, dict):
            problems.append(f"results[{i}].resource: expected the path of a pack, found {_kind(resource)}")
        else:
            problems.append(f"results[{i}]: expected an object, found {_kind(row)}")
    user_id = _lenient(_identifier, envelope.get("user_id")) or _lenient(_identifier, envelope.get("userId"))
    return UnreadListing(user_id, tuple(packs), _lenient(_number, envelope.get("total")), tuple(problems))


def message_page(body: bytes, pack_id: str) -> MessagePage:
    """One page of the conversation `pack_id`."""
    envelope, rows = _envelope(body, "messages")
    return MessagePage(
        pack_id,
        _part(Paging, envelope.get("paging")) or Paging(),
        _part(ConversationStatus, envelope.get("conversation_status")),
        _messages(rows, body, pack_id),
        _lenient(_number, envelope.get("seller_max_message_length")),
    )


def single_message(body: bytes) -> Message:
    """One message asked for by its id: the envelope with one entry, or the legacy flat form."""
    try:
        value = parse_json(body)
    except ValueError:
        value = None
    if isinstance(value, dict) and "messages" not in value:
        return message(value)
    _, rows = _envelope(body, "messages")
    if not rows:
        raise DecodeError("an answer cannot be read", ("messages: expected one message, found none",))
    return message(rows[0], None, "messages[0]")


# -- what a write answers ----------------------------------------------------------------------------------------------


def _unreadable(reason: str) -> DecodeError:
    return DecodeError("an answer cannot be read", (reason,))


def _json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError:
        raise _unreadable(f"{len(body)} bytes: it is not JSON") from None


def sent_message(body: bytes, pack_id: str, seller_id: str) -> Message:
    """What a POST made: the message, or as little of it as the server tells.

    No answer of it is documented but that of the action guide, which says nothing of the sender: that is known.
    """
    value = _json(body)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    made = message(value, pack_id)
    return made if made.sender_id is not None else evolve(made, sender_id=seller_id)


_ATTACHMENT_ID: Final = re.compile(r"(?!.*\.\.)[0-9A-Za-z][0-9A-Za-z._-]{0,255}", re.ASCII)


def uploaded(body: bytes) -> str:
    """The id of an upload."""
    value = _json(body)
    found = value.get("id") if isinstance(value, dict) else None
    if isinstance(found, str) and _ATTACHMENT_ID.fullmatch(found):
        return found
    raise _unreadable(f"id: expected the id of an attachment, found {_kind(found)}")


def nothing(body: bytes) -> None:
    """Nothing is left of an answer that went to a sink; what is left is no file."""
    if body:
        raise DecodeError("the answer is JSON instead of a file")


def reasons(body: bytes, pack_id: str) -> Reasons:
    """The options of the action guide."""
    _, rows = _envelope(body, "options")
    return Reasons(pack_id, tuple([_option(row, f"options[{i}]") for i, row in enumerate(rows)]))


_DEEPEST: Final = 5  # of options within options: only null and empty ones were ever seen


def _option(raw: Any, path: str, depth: int = 0) -> Reason:
    get = _fields_of(raw, path).get
    inner = _list_of(get("child_options")) if depth < _DEEPEST else []
    return Reason(
        id=_named(raw, path),
        type=_lenient(_word, get("type")),
        enabled=_lenient(_flag, get("enabled")),
        actionable=_lenient(_flag, get("actionable")),
        char_limit=_lenient(_number, get("char_limit")),
        cap_available=_lenient(_number, get("cap_available")),
        templates=tuple([_template(t, f"{path}.templates[{i}]") for i, t in enumerate(_list_of(get("templates")))]),
        children=tuple([_option(c, f"{path}.child_options[{i}]", depth + 1) for i, c in enumerate(inner)]),
        description=_lenient(_text, get("internal_description")),
    )


def _template(raw: Any, path: str) -> Template:
    get = _fields_of(raw, path).get
    texts = get("texts")
    wordings = {
        site: text.get("html") if isinstance(text, dict) else text
        for site, text in (texts.items() if isinstance(texts, dict) else ())
    }
    return Template(
        _named(raw, path),
        tuple(
            [
                Variable(_named(v, f"{path}.vars[{i}]"), _lenient(_word, v.get("type")))
                for i, v in enumerate(_list_of(get("vars")))
            ]
        ),
        tuple([(site.upper(), words) for site, words in wordings.items() if isinstance(words, str)]),
    )


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _fields_of(raw: Any, path: str) -> dict[str, Any]:
    if isinstance(raw, dict):
        return raw
    raise _unreadable(f"{path}: expected an object, found {_kind(raw)}")


def _named(raw: Any, path: str) -> str:
    if found := _lenient(_identifier, _fields_of(raw, path).get("id")):
        name: str = found
        return name
    raise _unreadable(f"{path}.id: expected an id, found {_kind(raw.get('id'))}")


def caps(body: bytes) -> dict[str, int]:
    """How often each option may still be used: a bare array."""
    rows = _json(body)
    if not isinstance(rows, list):
        raise _unreadable(f"expected an array, found {_kind(rows)}")
    found = {}
    for row in rows:
        if isinstance(row, dict):
            option, cap = _lenient(_identifier, row.get("option_id")), _lenient(_number, row.get("cap_available"))
            if option is not None and cap is not None:
                found[option] = cap
    return found

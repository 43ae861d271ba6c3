"""Answers to models: the one place that knows cattrs, and how the wire spells the fields of a model.

One function, `_shapes`, says how each model is read. It is used twice. The *strict* readers take plain JSON and raise
at the first value that is not of a documented type. Then, and only then, the *forgiving* ones read the same JSON
wrapped in `Traced`, which knows the path of each value: such a value becomes None and a line in `problems`, and no
message is dropped for its shape.

cattrs generates the readers of the parts that come seldom. Those of a message and of what comes with every message are
written out, with positional arguments: that takes half the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

from attrs import evolve, fields
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from ..errors import DecodeError
from ..models import (
    Attachment,
    ConversationStatus,
    Message,
    MessagePage,
    Moderation,
    Paging,
    Resource,
    UnreadListing,
    UnreadPack,
)
from . import scalars
from .arguments import ATTACHMENT_ID, PACK_ID
from .calls import Response
from .json import dump_json, parse_json
from .scalars import FORGIVING, STRICT, UNREADABLE, Reader, Readers, Traced, http_date, kind, lenient

T = TypeVar("T")
_MessageReader = Callable[[Any, Mapping[str, Any], str | None], Message]


# -- the shapes --------------------------------------------------------------------------------------------------------


def _shapes(converter: Converter, read: Readers, resource: Callable[[Any, Any], Resource]) -> _MessageReader:
    """Teach `converter` the parts of an answer, made of what `read` reads; return what reads a message.

    `resource` makes one of an id and a name.
    """
    text, word, reason, identifier, moment = read.text, read.word, read.reason, read.identifier, read.moment
    an_object, party, objects, body, key = read.an_object, read.party, read.objects, read.body, read.key

    def moderation(raw: Any) -> Moderation:
        date = raw["moderation_date"]
        return Moderation(
            word(raw["status"]),
            reason(raw["reason"]),
            reason(raw.get("by")),
            word(raw.get("source")),
            moment(raw.get("date_moderated") if date is None else date),  # [documented: messages] in the flat form
        )

    def attachment(raw: Any) -> Attachment:
        date = raw.get("creation_date")
        return Attachment(
            text(raw["filename"]),
            text(raw.get("original_filename")),
            text(raw.get("type")),
            read.number(raw.get("size")),
            read.flag(raw.get("potential_security_threat")),
            moment(raw.get("date_created") if date is None else date),  # [observed: integrators]
        )

    def message(wire: Any, raw: Mapping[str, Any], pack_id: str | None) -> Message:
        """`wire`: the row in the spelling of today; `raw`: as it came.

        A key that all documented shapes have is looked up without a default, which takes half the time: a message
        without it is read forgivingly.
        """
        sender, recipient, date = party(wire["from"]), party(wire.get("to")), an_object(wire["message_date"])
        moderated = an_object(wire["message_moderation"])
        named = [resource(item["id"], item["name"]) for item in objects(wire["message_resources"])]
        resources = tuple(named)
        return Message(
            key(wire["id"]),
            text(wire["site_id"]),
            identifier(wire["client_id"]),
            identifier(sender["user_id"]),
            text(sender.get("name")),
            text(sender.get("email")),
            identifier(recipient.get("user_id")),
            word(wire["status"]),
            text(wire.get("subject")),
            body(wire["text"]),
            text(wire.get("text_translated")),
            moment(date["created"]),
            moment(date["received"]),
            moment(date["available"]),
            moment(date["notified"]),
            moment(date["read"]),
            moderation(moderated) if moderated else None,
            tuple([attachment(item) for item in objects(wire["message_attachments"])]),
            resources,
            _pack_in(resources) if pack_id is None else pack_id,
            raw,
        )

    def generated(cls: type, **readers: Reader) -> Callable[[Any, Any], Any]:
        """What cattrs makes of a class: the fields in `readers` are read, the others keep their default."""
        overrides: dict[str, Any] = {a.name: override(omit=a.name not in readers) for a in fields(cls)}
        overrides |= {name: override(struct_hook=_hook(reader)) for name, reader in readers.items()}
        return make_dict_structure_fn(cls, converter, **overrides)

    status_hook = generated(
        ConversationStatus,
        path=text,
        status=word,
        substatus=reason,
        status_date=moment,
        status_update_allowed=read.flag,
        shipping_id=identifier,
    )

    def status(raw: Any, _: Any) -> ConversationStatus:
        made: ConversationStatus = status_hook(raw, ConversationStatus)
        claims = [identifier(claim) for claim in (*read.array(raw.get("claim_ids")), raw.get("claim_id"))]
        found = tuple(dict.fromkeys(claim for claim in claims if claim is not None))
        return evolve(made, claim_ids=found) if found else made

    paging = generated(Paging, limit=read.number, offset=read.number, total=read.number)
    converter.register_structure_hook(Paging, paging)
    converter.register_structure_hook(ConversationStatus, status)
    return message


def _hook(reader: Reader) -> Callable[[Any, Any], Any]:
    return lambda value, _: reader(value)


def _resource(read: Readers) -> Callable[[Any, Any], Resource]:
    return lambda id_, name: Resource(read.identifier(id_), read.text(name))


_STRICT: Final = Converter(detailed_validation=False)
_FORGIVING: Final = Converter(detailed_validation=False)
# All messages of a conversation name the same pack and seller: `typed`, or the id 1 would be taken for true.
_strict_message: Final = _shapes(_STRICT, STRICT, lru_cache(maxsize=512, typed=True)(_resource(STRICT)))
_forgiving_message: Final = _shapes(_FORGIVING, FORGIVING, _resource(FORGIVING))
_STRICT_PARTS: Final[dict[type, Callable[[Any, Any], Any]]] = {
    cls: _STRICT.get_structure_hook(cls) for cls in (Paging, ConversationStatus)
}  # looked up once
_STRICT.register_unstructure_hook(datetime, datetime.isoformat)


def _pack_in(resources: tuple[Resource, ...]) -> str | None:
    """The pack that a message names; an order that has no pack stands in its place [documented: packs]."""
    named = {item.name: item.id for item in resources if item.id is not None and PACK_ID.fullmatch(item.id)}
    return next((named[name] for name in ("packs", "pack", "orders", "order") if name in named), None)


def _refused_files(found: Any) -> tuple[tuple[str, str], ...]:
    """The files that a send's answer lists as not taken: by reason, the names [documented: messages]."""
    if not isinstance(found, dict):
        return ()
    lists = ((why, names) for why, names in found.items() if isinstance(names, list))
    return tuple([(name, why) for why, names in lists for name in names if isinstance(name, str)])


# -- messages ----------------------------------------------------------------------------------------------------------


# The flat form of one message, which is still printed beside the envelope [documented: messages].
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
    named = {name: raw[key] for name, key in (("id", "resource_id"), ("name", "resource")) if key in raw}
    return {
        "message_date": dates,
        "message_moderation": raw.get("moderation"),
        "message_attachments": raw.get("attachments"),
        "message_resources": [named],
        # Mixtures exist: what is spelled as today counts [observed: integrators].
        **{key: value for key, value in raw.items() if value is not None},
        "id": raw["message_id"],
    }


def message(raw: Any, pack_id: str | None = None, row: int | None = None) -> Message:
    """Return the message of a JSON object, read from the pack `pack_id`.

    `row` is where it stood in the answer. Raises `DecodeError` where it has no readable id.
    """
    try:
        return _strict_message(raw, raw, pack_id)
    except UNREADABLE:
        pass
    return _unusual_message(raw, pack_id, "" if row is None else f"messages[{row}]")


def _unusual_message(raw: Any, pack_id: str | None, path: str) -> Message:
    """A message with a value of an undocumented type, or in the flat form."""
    if not isinstance(raw, dict):
        raise _unreadable(f"{path or 'message'}: expected an object, found {kind(raw)}")
    wire = _from_flat(raw) if raw.get("id") is None and "message_id" in raw else raw
    if lenient(scalars.key, wire.get("id")) is None:
        raise _unreadable(f"{path}.id: expected an id, found {kind(wire.get('id'))}".lstrip("."))
    problems: list[str] = []
    return evolve(_forgiving_message(Traced(wire, "", problems), raw, pack_id), problems=tuple(problems))


def _messages(rows: list[Any], pack_id: str) -> tuple[Message, ...]:
    try:
        return tuple([_strict_message(row, row, pack_id) for row in rows])
    except UNREADABLE:
        pass  # one of them is unusual: each by itself
    return tuple([message(row, pack_id, i) for i, row in enumerate(rows)])


def _part(cls: type[T], raw: Any) -> T | None:
    """A part of an envelope, or None where it is null, absent or unreadable: the messages beside it matter more."""
    if not isinstance(raw, dict):
        return None
    try:
        return _STRICT_PARTS[cls](raw, cls)  # type: ignore[no-any-return] # cattrs types its hooks so
    except UNREADABLE:
        return _FORGIVING.structure(Traced(raw, "", []), cls)


# -- what a journal keeps ----------------------------------------------------------------------------------------------


def dump_raw(raw: Mapping[str, Any]) -> bytes:
    """Return a message's JSON object, to be kept. Raises `DecodeError` where it is nested too deeply to be written."""
    try:
        return dump_json(raw)
    except ValueError as error:
        raise DecodeError("a message cannot be stored", (str(error),)) from None


def stored_message(body: bytes, pack_id: str) -> Message:
    """Return the message of which `dump_raw` kept the JSON. Raises `DecodeError` where it cannot be read."""
    return message(_parsed(body), pack_id)


def dump_status(status: ConversationStatus | None) -> bytes | None:
    """Return a conversation's status in the spelling of the wire, to be kept."""
    return None if status is None else dump_json(_STRICT.unstructure(status))


def load_status(body: bytes | None) -> ConversationStatus | None:
    """Return the status that `dump_status` kept."""
    return _part(ConversationStatus, parse_json(body)) if body else None


# -- the envelopes -----------------------------------------------------------------------------------------------------


def _unreadable(problem: str) -> DecodeError:
    return DecodeError("an answer cannot be read", (problem,))


def _parsed(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:  # from None: the parser's own words quote the body
        why = "nested too deeply" if "deeply" in str(error) else "it is not JSON"
        raise _unreadable(f"{len(body)} bytes: {why}") from None


def envelope(body: bytes, key: str) -> tuple[dict[str, Any], list[Any]]:
    """Return an answer and its array `key`.

    Raises `DecodeError` where there is no such array: it is never taken for an empty one, because a throttled server
    answers such things [observed: answers].
    """
    value = _parsed(body)
    if not isinstance(value, dict):
        raise _unreadable(f"expected an object, found {kind(value)}")
    rows = value.get(key)
    if not isinstance(rows, list):
        raise _unreadable(f"{key}: expected an array, found {kind(rows) if key in value else 'nothing'}")
    return value, rows


def bare_array(body: bytes) -> list[Any]:
    """Return an answer that is an array without an envelope. Raises `DecodeError` where it is something else."""
    value = _parsed(body)
    if not isinstance(value, list):
        raise _unreadable(f"expected an array, found {kind(value)}")
    return value


_PACK: Final = re.compile(r"(?:^|/)packs?/([0-9]{1,20})(?=[/?#]|\Z)")


def unread_listing(answer: Response) -> UnreadListing:
    """Return the unread query's answer. The pack is the segment after ``packs``.

    A row that names no pack is left out and told of in `problems`: the conversations beside it matter more.
    """
    value, rows = envelope(answer.body, "results")
    packs, problems = [], []
    for i, row in enumerate(rows):
        resource = row.get("resource") if isinstance(row, dict) else None
        found = _PACK.search(resource) if isinstance(resource, str) else None
        if found is not None:
            packs.append(UnreadPack(found[1], lenient(scalars.number, row.get("count")) or 0, resource))
        elif isinstance(row, dict):
            problems.append(f"results[{i}].resource: expected the path of a pack, found {kind(resource)}")
        else:
            problems.append(f"results[{i}]: expected an object, found {kind(row)}")
    user_id = lenient(scalars.identifier, value.get("user_id")) or lenient(scalars.identifier, value.get("userId"))
    total = lenient(scalars.number, value.get("total"))
    return UnreadListing(user_id, tuple(packs), total, tuple(problems), http_date(answer.headers.get("Date")))


def message_page(body: bytes, pack_id: str) -> MessagePage:
    """Return one page of the conversation `pack_id`."""
    value, rows = envelope(body, "messages")
    return MessagePage(
        pack_id,
        _part(Paging, value.get("paging")) or Paging(),
        _part(ConversationStatus, value.get("conversation_status")),
        _messages(rows, pack_id),
        lenient(scalars.number, value.get("seller_max_message_length")),
    )


def single_message(body: bytes) -> Message:
    """Return the message that was asked for by its id: an envelope with one entry, or the legacy flat form."""
    value = lenient(parse_json, body)
    if isinstance(value, dict) and "messages" not in value:
        return message(value)
    _, rows = envelope(body, "messages")
    if not rows:
        raise _unreadable("messages: expected one message, found none")
    return message(rows[0], None, 0)


# -- what a write answers ----------------------------------------------------------------------------------------------


def sent_message(body: bytes, pack_id: str, seller_id: str) -> Message:
    """Return what a POST made: the message, or as little of it as the server tells.

    Only the answer of the action guide is printed, and it does not name the sender, who is the seller
    [documented: reasons].
    """
    value = _parsed(body)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    made = message(value, pack_id)
    refused = _refused_files(made.raw.get("attachments_validations"))
    return evolve(made, sender_id=made.sender_id or seller_id, refused_files=refused)


def uploaded(body: bytes) -> str:
    """Return the id of an upload."""
    value = _parsed(body)
    found = value.get("id") if isinstance(value, dict) else None
    if isinstance(found, str) and ATTACHMENT_ID.fullmatch(found):
        return found
    raise _unreadable(f"id: expected the id of an attachment, found {kind(found)}")


def nothing(body: bytes) -> None:
    """Check that nothing is left of an answer that went to a sink; what is left is no file."""
    if body:
        raise DecodeError("the answer is JSON instead of a file")

"""What Mercado Libre posts when a message arrives or is read, as a value: read from every documented shape.

A notification is not signed, so it is not trusted: it says that there may be news, and names a message at most. An id
is taken out of its `resource`; the rest of it is never used, and never as a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from attrs import field, frozen

from ..errors import DecodeError
from .arguments import MESSAGE_ID, PACK_ID
from .json import parse_json
from .scalars import identifier, lenient, moment, number, text, word

TOPICS: Final = ("messages", "marketplace_messages")  # of the domestic sites, and of Global Selling
_HOST: Final = "api.mercadolibre.com"

_ID: Final = f"(?P<id>{MESSAGE_ID.pattern})"
# Bare, behind one of the two paths, or behind these on the API's own host; with a slash or a query after it
# [observed: integrators]. Anything else names no message.
_RESOURCE: Final = re.compile(
    rf"(?:(?:https://{re.escape(_HOST)})?/?(?:marketplace/)?messages/)?{_ID}/?(?:\?[\x21-\x7e]*)?", re.ASCII
)
# Segments of paths beside those of the messages.
_NO_IDS: Final = frozenset({"unread", "packs", "attachments", "action_guide", "messages", "marketplace"})


@frozen
class Notification:
    """One notification, of either topic.

    `message_id` is the message that `resource` names, or None where it names none: one that names a conversation, or
    something unknown, still says that there may be news (`is_news`). `user_id` is the notified seller. `actions` is
    ``("created",)`` or ``("read",)`` on domestic sites and empty elsewhere; an action that is no text is ``""``.
    `attempts`: how often it was sent. `raw` is the JSON object as it came. A field of another type than the documented
    one is None.
    """

    id: str | None
    topic: str
    resource: str | None = field(default=None, repr=False)  # a text that is not checked
    message_id: str | None = None
    user_id: str | None = None
    application_id: str | None = None
    actions: tuple[str, ...] = ()
    attempts: int | None = None
    sent: datetime | None = None
    received: datetime | None = None
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)

    @classmethod
    def parse(cls, body: bytes | bytearray | str | Mapping[str, Any]) -> Notification:
        """Return the notification in `body`: as it was posted, or an entry of the missed ones, parsed or not.

        Raises `DecodeError` for what is no JSON object with a topic.
        """
        value = _object(body)
        topic = value.get("topic")
        if not isinstance(topic, str) or not topic:
            raise DecodeError("the notification cannot be read", ("topic: expected a text",))
        names = [_text(value.get(key)) for key in ("id", "_id")]
        id_, resource = names[0] or names[1], _text(value.get("resource"))
        if id_ is not None and id_.startswith("/") and message_in(resource) is not None:
            id_, resource = resource, id_  # so they stand in the Global Selling sample of the missed ones
        return cls(
            id_,
            topic.lower(),
            resource,
            message_in(resource) if topic.lower() in TOPICS else None,
            _id(value.get("user_id")),
            _id(value.get("application_id")),
            _words(value.get("actions")),
            lenient(number, value.get("attempts")),
            lenient(moment, value.get("sent")),
            # misspelt for other topics [documented: notifications]
            lenient(moment, value.get("received", value.get("recieved"))),
            value,
        )

    @property
    def is_receipt(self) -> bool:
        """True if its actions are ``read`` and nothing else: a message was read, by our own marking perhaps.

        An action that the documentation does not name is no receipt.
        """
        return set(self.actions) == {"read"}

    @property
    def is_news(self) -> bool:
        """True if there may be a new message: it is of one of the two topics, and no receipt."""
        return self.topic in TOPICS and not self.is_receipt


def message_in(resource: str | None) -> str | None:
    """Return the id of the message that `resource` names, or None."""
    found = _RESOURCE.fullmatch(resource) if resource is not None else None
    return found["id"] if found is not None and found["id"] not in _NO_IDS else None


def missed(answer: bytes) -> tuple[Notification, ...]:
    """Return the notifications in a page of the missed ones, without those that cannot be read.

    Raises `DecodeError` where the answer is no such page.
    """
    entries = _object(answer).get("messages")  # so it is called for every topic
    if not isinstance(entries, list):
        raise DecodeError("the missed notifications cannot be read", ("messages: expected an array",))
    return tuple(_readable(entries))


def _readable(entries: Iterable[Any]) -> Iterable[Notification]:
    for entry in entries:
        try:
            yield Notification.parse(entry)
        except DecodeError:
            continue


def _object(body: object) -> Mapping[str, Any]:
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = parse_json(body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body))
        except ValueError:  # from None: what stands behind it holds the body
            raise DecodeError("it is not JSON") from None
    if not isinstance(body, Mapping):
        raise DecodeError("it is not a JSON object")
    return body


def _text(value: object) -> str | None:
    return lenient(text, value) or None


def _id(value: object) -> str | None:
    found = lenient(identifier, value)
    return found if found is not None and PACK_ID.fullmatch(found) else None


def _words(value: object) -> tuple[str, ...]:
    return tuple([lenient(word, item) or "" for item in value]) if isinstance(value, list) else ()

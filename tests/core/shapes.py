"""The documented shapes, as data that tests start from, and strategies that spoil them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from hypothesis import strategies as st

from mlmessages.api.calls import Response
from mlmessages.api.decoding import unread_listing
from mlmessages.models import UnreadListing

PAYLOADS = Path(__file__).parent.parent / "payloads"


def body(name: str) -> bytes:
    """The bytes of a payload."""
    return (PAYLOADS / f"{name}.json").read_bytes()


def payload(name: str) -> Any:
    """A payload as JSON."""
    return json.loads(body(name))


def dump(value: Any) -> bytes:
    """JSON as a server sends it."""
    return json.dumps(value).encode()


def listing_of(text: bytes, **headers: str) -> UnreadListing:
    """The unread listing in the answer with this body."""
    return unread_listing(Response(200, text, headers))


def values(model: Any) -> dict[str, Any]:
    """All fields of a model, also those that equality does not look at."""
    return attrs.asdict(model)


def documented_message() -> dict[str, Any]:
    """A message with every documented field filled in."""
    return {
        "id": "aa11bb22cc33dd44ee55ff6677889900",
        "site_id": "MLM",
        "client_id": 123,
        "from": {"user_id": 800300400, "name": "Test Buyer 1", "email": "buyer1@example.com"},
        "to": {"user_id": 700100200},
        "status": "available",
        "subject": "Test subject",
        "text": "Test text",
        "text_translated": "Texto de prueba",
        "message_date": {
            "created": "2020-01-01T00:00:01Z",
            "received": "2020-01-01T00:00:02Z",
            "available": "2020-01-01T00:00:03Z",
            "notified": "2020-01-01T00:00:04Z",
            "read": "2020-01-01T00:00:05Z",
        },
        "message_moderation": {
            "status": "clean",
            "reason": "automatic_message",
            "by": "somebody",
            "source": "online",
            "moderation_date": "2020-01-01T00:00:06Z",
        },
        "message_attachments": [
            {
                "filename": "1_a.png",
                "original_filename": "photo.png",
                "type": "image/png",
                "size": 5,
                "potential_security_threat": False,
                "creation_date": "2020-01-01T00:00:07Z",
            }
        ],
        "message_resources": [{"id": "2000099900011122", "name": "packs"}, {"id": "700100200", "name": "sellers"}],
    }


Path_ = tuple[str | int, ...]


def paths(value: Any, here: Path_ = ()) -> Iterator[Path_]:
    """The path of every value inside of `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*here, key)
        yield from paths(item, (*here, key))


def spelled(path: Path_) -> str:
    """A path as `problems` spells it."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def get(value: Any, path: Path_) -> Any:
    """The value at `path`."""
    for key in path:
        value = value[key]
    return value


def put(value: Any, path: Path_, new: Any) -> None:
    """Replace the value at `path`, where there still is such a place."""
    for key in path[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    last = path[-1]
    if (isinstance(last, str) and isinstance(value, dict)) or (isinstance(last, int) and isinstance(value, list)):
        value[last] = new  # type: ignore[index]  # which of the two it is, was looked at


MARK = "zqx"  # begins every generated text: what must never appear in an explanation
texts = st.text(max_size=12).map(lambda text: MARK + text)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(["id", "plain"]), inner, max_size=3)
    ),
    max_leaves=6,
)

"""`Notification.parse`: every documented shape, and whatever else may be posted. G4, G5, G6."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import case
from mlmessages import Notification
from mlmessages.api.notifications import missed
from mlmessages.errors import DecodeError

PAYLOADS = Path(__file__).parents[1] / "payloads"
ID = "aa11bb22cc33dd44ee55ff6677889900"


def payload(name: str) -> bytes:
    return (PAYLOADS / f"{name}.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "topic", "actions"),
    [
        ("notification_local_created", "messages", ("created",)),
        ("notification_local_read", "messages", ("read",)),
        ("notification_local_slash_resource", "messages", ("created",)),
        ("notification_marketplace", "marketplace_messages", ()),
        ("notification_local_actions_unknown", "messages", ("message_created",)),
    ],
)
def test_each_documented_shape_is_read(name: str, topic: str, actions: tuple[str, ...]) -> None:
    """Both topics, `id` and `_id`, a bare id and a path, a user id as number and text: one value."""
    found = Notification.parse(payload(name))
    raw = json.loads(payload(name))
    assert found.id == raw.get("id", raw.get("_id"))
    assert (found.topic, found.actions, found.message_id) == (topic, actions, ID)
    assert found.resource == raw["resource"]
    assert found.user_id == "700100200"
    assert found.application_id == "5503910054140000"
    assert found.attempts == 1
    assert found.sent == datetime(2026, 3, 9, 13, 44, 33, 6000, UTC)
    assert found.received == datetime(2026, 3, 9, 13, 44, 32, 984000, UTC)
    assert found.raw == raw


def test_a_body_may_be_bytes_text_or_an_object() -> None:
    """What was posted, its text, and what was parsed already are the same notification."""
    body = payload("notification_marketplace")
    assert Notification.parse(body) == Notification.parse(body.decode()) == Notification.parse(json.loads(body))


@case("G6", "K18")
@pytest.mark.parametrize("topic", ["messages", "marketplace_messages"])
@pytest.mark.parametrize(
    ("actions", "receipt"),
    [
        (["read"], True),
        (["READ"], True),
        (["read", "read"], True),
        (["created"], False),
        (["created", "read"], False),
        ([], False),
        (None, False),
        ("read", False),
        ({"read": True}, False),
        (["message_created"], False),
        (["read", "message_created"], False),
        (["read", {"name": "created"}], False),
        (["read", None], False),
        ([{"read": True}], False),
        ([["read"]], False),
        (["reading"], False),
    ],
    ids=str,
)
def test_only_a_list_that_is_nothing_but_read_is_a_receipt(actions: Any, receipt: bool, topic: str) -> None:
    """`read` alone is a receipt; whatever else stands there, or nothing, may be a new message."""
    found = Notification.parse({"topic": topic, "actions": actions, "resource": ID})
    assert (found.is_receipt, found.is_news) == (receipt, not receipt)


@case("K18")
@pytest.mark.parametrize("name", ["notification_local_actions_unknown", "notification_local_names_a_pack"])
def test_an_unusual_notification_is_news(name: str) -> None:
    """An action that is not documented, and a conversation instead of a message: there may be a new message."""
    found = Notification.parse(payload(name))
    assert (found.is_news, found.is_receipt, found.user_id) == (True, False, "700100200")


@case("G5")
@pytest.mark.parametrize(
    "resource",
    [
        ID,
        f"/messages/{ID}",
        f"/marketplace/messages/{ID}",
        f"https://api.mercadolibre.com/messages/{ID}",
        f"https://api.mercadolibre.com/marketplace/messages/{ID}",
        f"messages/{ID}",
        f"marketplace/messages/{ID}",
        f"/messages/{ID}/",
        f"{ID}/",
        f"/messages/{ID}?tag=post_sale",
        f"/messages/{ID}/?tag=post_sale",
        f"{ID}?tag=post_sale",
        f"https://api.mercadolibre.com/messages/{ID}?tag=post_sale&access_token=x",
    ],
)
def test_an_id_is_taken_out_of_a_resource(resource: str) -> None:
    """Bare, behind one of the two paths, or behind the API's own host; a slash or a query behind it is left out."""
    assert Notification.parse({"topic": "messages", "resource": resource}).message_id == ID


HOSTILE = [
    "//evil.example/x", f"//evil.example/messages/{ID}", f"https://evil.example/messages/{ID}", f"http://api.mercadolibre.com/messages/{ID}",
    f"https://api.mercadolibre.com.evil.example/messages/{ID}", f"https://api.mercadolibre.com@evil.example/messages/{ID}",
    f"https://user@api.mercadolibre.com/messages/{ID}", "/messages/../oauth/token", "/messages/%2e%2e", "/messages/..", "/messages/",
    f"/messages/{ID}\r\nX: y", f"{ID}\n", f"/messages/{ID}?a\nb", f"/messages/{ID}//", f"/messages/{ID}#x", "/orders/1", "messages", "marketplace/messages", "/messages/a/b",
    "/messages/packs/1/sellers/2", "/packs/1/sellers/2", "/messages/unread", "/messages/packs", "a" * 129, "", "１２３", "é", "a b", "a%20b",
    None, 5, True, [ID], {"id": ID},
]  # fmt: skip


@case("G5")
@pytest.mark.parametrize("resource", HOSTILE, ids=repr)
def test_a_hostile_resource_names_no_message(resource: object) -> None:
    """Other hosts, paths, escapes, line breaks, other types: there is no id in it, nothing else is used, and it rings."""
    found = Notification.parse({"topic": "messages", "resource": resource})
    assert found.message_id is None
    assert found.is_news


def test_another_topic_names_no_message() -> None:
    """`/items/MLB1`, or a bare id of an order, is no message."""
    found = Notification.parse({"topic": "orders_v2", "resource": "2000001"})
    assert (found.message_id, found.is_news) == (None, False)


@case("G4")
@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"1", b'"x"', b"null", b"{}", b'{"topic": 5}', b'{"topic": ""}', b"[" * 100_000,
                                  b'{"a":' * 5000, b"\xff\xfe", b'{"topic": NaN}'], ids=range(13))  # fmt: skip
def test_what_is_no_notification_is_a_decode_error(body: bytes) -> None:
    """No JSON, no object, no topic, nested without end: one typed error, which quotes nothing."""
    with pytest.raises(DecodeError) as caught:
        Notification.parse(body)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)  # fmt: skip
KEYS = ["id", "_id", "resource", "user_id", "application_id", "attempts", "sent", "received", "actions"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_a_field_of_another_type_is_none_and_never_an_error(fields: dict[str, Any]) -> None:
    """Whatever stands in the fields, a notification with a topic is read, and its ids are plain."""
    found = Notification.parse({"topic": "messages", **fields})
    assert found.user_id is None or (found.user_id.isascii() and found.user_id.isdigit())
    assert found.message_id is None or found.message_id.isascii()
    assert isinstance(found.actions, tuple)


def test_missed_ones_are_notifications_with_more_in_them() -> None:
    """The key is `messages`; the request and answer that failed stay in `raw`; an empty list is none."""
    [found] = missed(payload("missed_feeds_local"))
    assert (found.message_id, found.user_id, found.attempts) == (ID, "700100200", 5)
    assert found.raw["response"]["http_code"] == 400
    assert missed(payload("missed_feeds_empty")) == ()


def test_missed_ones_may_have_id_and_resource_exchanged() -> None:
    """So the Global Selling sample prints them; entries that cannot be read are left out."""
    entry = {
        "_id": f"/marketplace/messages/{ID}",
        "resource": "5da8a1b24be30a49eb600000",
        "topic": "marketplace_messages",
    }
    [found] = missed(json.dumps({"messages": [entry, 5, None, {}]}).encode())
    assert (found.message_id, found.id) == (ID, "5da8a1b24be30a49eb600000")


def test_an_answer_without_the_list_is_no_empty_list() -> None:
    """A 200 that is something else must not sound like "nothing was missed"."""
    with pytest.raises(DecodeError):
        missed(b'{"results": []}')


def test_the_repr_shows_nothing_that_a_stranger_wrote() -> None:
    """The resource and the raw object may be anything: they are not in a log line by accident."""
    assert "CANARY" not in repr(Notification.parse({"topic": "messages", "resource": "CANARY !", "text": "CANARY"}))

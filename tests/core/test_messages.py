"""From JSON to `Message` and `MessagePage`: field by field, whatever the spelling, and never a message lost."""

from __future__ import annotations

import copy
import json
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cases import case
from core.shapes import (
    MARK,
    PAYLOADS,
    anything,
    body,
    documented_message,
    dump,
    get,
    listing_of,
    paths,
    payload,
    put,
    scalars,
    spelled,
    values,
)
from mlmessages.api import json as json_home
from mlmessages.api.decoding import dump_raw, message, message_page, sent_message, single_message
from mlmessages.api.json import parse_json
from mlmessages.api.notifications import Notification
from mlmessages.errors import DecodeError
from mlmessages.models import Attachment, ConversationStatus, Message, Moderation, Paging, Resource

READS = sorted(path.stem for path in PAYLOADS.glob("*.json"))
PACKS = [name for name in READS if name.startswith("pack_") and name != "pack_resource"] + ["pending_page_pack_page"]
SINGLE = [name for name in READS if name.startswith(("message_by_id_", "send_response_"))]
LISTINGS = [name for name in READS if name.startswith(("unread_", "pending_page_unread"))]


def moment(*parts: int) -> datetime:
    """A UTC moment."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


# -- the samples of the documentation ----------------------------------------------------------------------------------


def test_the_pack_page_of_pending_messages_field_by_field(parser: str) -> None:
    """The pack sample of the "Pending messages" page comes out with every field."""
    page = message_page(body("pending_page_pack_page"), "2000000089077943")
    assert values(page) == {
        "pack_id": "2000000089077943",
        "paging": {"limit": 2, "offset": 1, "total": 31},
        "conversation": {
            "path": "/packs/2000000089077943/seller/415458330",
            "status": "active",
            "substatus": None,
            "status_date": moment(2019, 4, 8, 16, 36, 30),
            "status_update_allowed": False,
            "claim_ids": (),
            "shipping_id": None,
        },
        "messages": (
            {
                "id": "2c92808469fea23a0169febf14580001",
                "site_id": "MLM",
                "client_id": "123",
                "sender_id": "415458330",
                "sender_name": payload("pending_page_pack_page")["messages"][0]["from"]["name"],
                "sender_email": "test_user_83388960@testuser.com",
                "recipient_id": None,
                "status": "in_moderation",
                "subject": None,
                "text": "Test message ToUserId",
                "text_translated": None,
                "created": moment(2019, 4, 8, 20, 58, 49),
                "received": moment(2019, 4, 8, 20, 58, 49),
                "available": None,
                "notified": None,
                "read": moment(2019, 4, 8, 20, 58, 52),
                "moderation": {
                    "status": "non_moderated",
                    "reason": None,
                    "by": None,
                    "source": None,
                    "moderation_date": None,
                },
                "attachments": (
                    {
                        "filename": "415460047_a96d8dea-38cd-4402-938e-80a1c134fc5d.pdf",
                        "original_filename": "Ayuda-Memoria-Arduino-ELINSI.pdf",
                        "type": "application/octet-stream",
                        "size": 225677,
                        "potential_security_threat": False,
                        "creation_date": moment(2019, 4, 8, 20, 58, 49),
                    },
                ),
                "resources": ({"id": "2000000089077943", "name": "packs"}, {"id": "415458330", "name": "seller"}),
                "pack_id": "2000000089077943",
                "raw": payload("pending_page_pack_page")["messages"][0],
                "problems": (),
                "refused_files": (),
            },
        ),
        "seller_max_message_length": None,
    }
    assert page.messages[0].sender_name is not None


@pytest.mark.parametrize(
    ("name", "user_id", "rows"),
    [
        (
            "pending_page_unread",
            "29293123",
            (("123123123", 1, "/packs/123123123"), ("1231234123", 1, "/packs/1231234123")),
        ),
        ("pending_page_unread_empty", "1234512314", ()),
        ("pending_page_unread_seller", "123123", (("12312312", 1, "/packs/12312312"),)),
        (
            "unread_local_by_resource",
            "700100200",
            (("2000099900011122", 1, "/packs/2000099900011122/sellers/700100200"),),
        ),
        ("unread_local_empty_user_id_string", "700100200", ()),
        ("unread_local_en_docs_camel", "700100200", (("2000099900011122", 1, "/packs/2000099900011122"),)),
        ("unread_local_seller", "700100200", (("2000099900011122", 2, "/packs/2000099900011122/sellers/700100200"),)),
        (
            "unread_marketplace",
            "700100200",
            (("2000099900011122", 1, "/packs/2000099900011122"), ("2000099900011133", 4, "/packs/2000099900011133")),
        ),
        ("unread_marketplace_empty", "700100200", ()),
    ],
)
def test_each_documented_listing_field_by_field(name: str, user_id: str, rows: tuple[Any, ...], parser: str) -> None:
    """Each sample of the unread listing comes out with its user, packs, counts and resources."""
    listing = listing_of(body(name))
    assert (listing.user_id, listing.total, listing.capped) == (user_id, None, False)
    assert tuple((row.pack_id, row.count, row.resource) for row in listing.packs) == rows


def test_no_sample_that_a_read_returns_was_forgotten() -> None:
    """Every payload that is an answer of a read is in one of the lists that these tests go through."""
    tested = {*PACKS, *SINGLE, *LISTINGS}
    others = {name for name in READS if name not in tested}
    assert len(LISTINGS) == 10
    assert all(
        name.startswith(("action_guide_", "error_", "oauth_", "missed_feeds_", "notification_", "send_request_"))
        or name
        in ("claim_messages", "pack_resource", "marketplace_user_mapping", "test_user", "attachment_upload_response")
        for name in others
    )


@pytest.mark.parametrize("name", PACKS)
def test_every_pack_sample_parses_without_a_problem(name: str, parser: str) -> None:
    """Every sample of a pack parses: all messages, no problems, `raw` as it came."""
    raw = payload(name)
    page = message_page(body(name), "2000099900011122")
    assert [row.raw for row in page.messages] == raw["messages"]
    assert all(row.problems == () and row.pack_id == "2000099900011122" for row in page.messages)
    assert page.paging == Paging(**raw["paging"])
    assert page.conversation is not None
    assert page.conversation.status in ("active", "blocked")
    assert page.seller_max_message_length == raw.get("seller_max_message_length")


@pytest.mark.parametrize("name", SINGLE)
def test_every_single_message_sample_parses_without_a_problem(name: str, parser: str) -> None:
    """Every sample of one message parses, in an envelope or flat, with `raw` as it came."""
    raw = payload(name)
    one = single_message(body(name))
    assert one.raw == (raw["messages"][0] if "messages" in raw else raw)
    assert (one.problems, one.status) == ((), raw.get("status", "available"))
    assert one.id in ("aa11bb22cc33dd44ee55ff6677889900", "aa11bb22cc33dd44ee55ff6677889901", "testmessage0000001")


def test_the_legacy_flat_form_field_by_field(parser: str) -> None:
    """The flat form that the documentation still prints has the same fields as the others."""
    one = single_message(body("message_by_id_legacy_flat"))
    expected = Message(
        "aa11bb22cc33dd44ee55ff6677889900",
        site_id="MLB",
        sender_id="700100200",
        recipient_id="800300400",
        status="available",
        subject="Item subject",
        text="Ejemplo",
        created=moment(2016, 9, 1, 5, 15, 25, 821_000),
        received=moment(2016, 9, 1, 5, 15, 25, 821_000),
        available=moment(2016, 9, 1, 5, 15, 25, 821_000),
        notified=moment(2016, 9, 1, 5, 17, 42, 945_000),
        read=moment(2016, 9, 1, 21, 31, 19, 606_000),
        moderation=Moderation("clean", source="online", moderation_date=moment(2019, 3, 13, 13, 34, 26, 450_000)),
        resources=(Resource("2000088800011122", "orders"),),
        pack_id="2000088800011122",
        raw=payload("message_by_id_legacy_flat"),
    )
    assert values(one) == values(expected)


def test_the_smallest_answer_has_nothing_that_was_not_sent(parser: str) -> None:
    """The shortest flat form names no resource, no attachment, no moderation: none is made up."""
    one = single_message(body("send_response_minimal"))
    assert values(one) == values(
        Message(
            "aa11bb22cc33dd44ee55ff6677889900",
            status="available",
            created=moment(2026, 4, 17, 10, 30, 45, 123_000),
            raw=payload("send_response_minimal"),
        )
    )


def test_the_marketplace_pack_field_by_field(parser: str) -> None:
    """The Global Selling pack has names, a translation, an attachment, and no path in its status."""
    page = message_page(body("pack_marketplace"), "2000099900011122")
    (one,) = page.messages
    assert page.conversation == ConversationStatus(
        status="active", status_date=moment(2020, 2, 26, 17, 37, 42), status_update_allowed=False
    )
    assert (one.sender_name, one.text, one.text_translated) == (
        "TEST SELLER",
        "This is a message",
        "Este es un mensaje",
    )
    assert (one.sender_id, one.recipient_id, one.client_id) == ("700100200", "800300400", "1344270061100000")
    assert (one.available, one.notified, one.read) == (moment(2020, 3, 13, 15, 14, 10), None, None)
    assert one.attachments == (
        Attachment(
            "700100200_aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee.png",
            "photo.png",
            "image/png",
            536766,
            False,
            moment(2020, 3, 13, 15, 14, 10),
        ),
    )


def test_the_pack_of_a_message_asked_for_by_id_is_what_its_resources_name() -> None:
    """A message that was asked for by its id knows its pack from its resources, whatever their type and order."""
    assert single_message(body("message_by_id_envelope_local")).pack_id == "2000099900011122"
    resources = [{"id": 7, "name": "sellers"}, {"id": 2000099900011122, "name": "pack"}]
    assert message({"id": "a", "message_resources": resources}).pack_id == "2000099900011122"


@case("K17")
@pytest.mark.parametrize("name", ["orders", "order"])
def test_an_order_without_a_pack_stands_in_its_place(name: str, parser: str) -> None:
    """Where the resources name an order and no pack, in an envelope or flat, the order's id is the pack's."""
    resources = [{"id": "700100200", "name": "sellers"}, {"id": 2000088800011122, "name": name}]
    envelope = {"messages": [{"id": "a", "message_resources": resources}], "paging": None}
    flat = {"message_id": "a", "resource": name, "resource_id": "2000088800011122"}
    for text in (dump(envelope), dump(flat)):
        assert single_message(text).pack_id == "2000088800011122"
    both = [*resources, {"id": "2000099900011122", "name": "packs"}]
    assert message({"id": "a", "message_resources": both}).pack_id == "2000099900011122"


@case("K17")
@pytest.mark.parametrize("id_", ["", "x", "1/sellers/2", "１２", "9" * 21, None, True, -5])
def test_what_can_be_no_pack_id_is_not_taken_for_one(id_: Any) -> None:
    """Only ASCII digits can be asked for: anything else in the resources names no pack."""
    assert message({"id": "a", "message_resources": [{"id": id_, "name": "packs"}]}).pack_id is None
    resources = [{"id": id_, "name": "packs"}, {"id": 5, "name": "orders"}]
    assert message({"id": "a", "message_resources": resources}).pack_id == "5"


def test_the_sender_of_what_was_sent_is_the_seller_unless_the_server_says_another() -> None:
    """The answer of the action guide names no sender; one that does is believed, such as an agent's."""
    assert sent_message(dump({"id": "a"}), "1", "9").sender_id == "9"
    assert sent_message(dump({"id": "a", "from": {"user_id": 7}}), "1", "9").sender_id == "7"


@case("K32")
def test_the_files_that_a_send_lost_are_named(parser: str) -> None:
    """A 2xx answer of a send may say that files were not taken: each with its reason; without any there are none."""
    sent = sent_message(body("send_response_attachment_refused"), "1", "700100200")
    assert sent.refused_files == (("700100200_b7c1.pdf", "invalid_extension"),)
    assert single_message(body("message_by_id_legacy_flat")).refused_files == ()
    several = {"invalid_size": ["a", "b"], "forbidden": ["c"], "internal_error": None, "invalid_extension": [5, None]}
    assert sent_message(dump({"id": "a", "attachments_validations": several}), "1", "2").refused_files == (
        ("a", "invalid_size"),
        ("b", "invalid_size"),
        ("c", "forbidden"),
    )


# -- one value, many spellings -----------------------------------------------------------------------------------------

DAY = moment(2024, 8, 15, 21, 38, 30)
SPELLINGS: list[tuple[str, dict[str, Any], Any]] = [
    ("id", {"id": 123}, "123"),
    ("sender_id", {"from": {"user_id": 42}}, "42"),
    ("sender_id", {"from": {"user_id": "42"}}, "42"),
    ("sender_id", {"from": [{"user_id": 42}, {"user_id": 43}]}, "42"),
    ("sender_id", {"from": []}, None),
    ("sender_id", {"from": [None]}, None),
    ("sender_id", {"from": None}, None),
    ("sender_id", {"from": {}}, None),
    ("sender_id", {"from": {"user_id": ""}}, None),
    ("sender_name", {"from": {"name": None}}, None),
    ("sender_name", {"from": {"name": ""}}, ""),
    ("recipient_id", {"to": [{"user_id": "42"}]}, "42"),
    ("recipient_id", {"to": {"user_id": 42}}, "42"),
    ("client_id", {"client_id": None}, None),
    ("client_id", {"client_id": "1344270061100000"}, "1344270061100000"),
    ("client_id", {"client_id": 1344270061100000}, "1344270061100000"),
    ("status", {"status": "AVAILABLE"}, "available"),
    ("status", {"status": "In_Moderation"}, "in_moderation"),
    ("status", {"status": "something_new"}, "something_new"),
    ("text", {"text": {"plain": "words"}}, "words"),
    ("text", {"text": {"plain": None}}, None),
    ("text", {"text": "words"}, "words"),
    ("text", {"text": ""}, ""),
    ("text", {"text": " <br>\n"}, " <br>\n"),
    ("text", {"text": None}, None),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30Z"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30.000Z"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30.0000000Z"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30.000000000Z"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T17:38:30.000-04:00"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T17:38:30.000-0400"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30+00:00"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30"}}, DAY),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30.1234567Z"}}, DAY.replace(microsecond=123_456)),
    ("created", {"message_date": {"created": "2024-08-15T21:38:30.123456789-00:00"}}, DAY.replace(microsecond=123_456)),
    ("created", {"message_date": {"created": None}}, None),
    ("created", {"message_date": None}, None),
    ("created", {"message_date": {}}, None),
    ("moderation", {"message_moderation": None}, None),
    ("moderation", {"message_moderation": {}}, None),
    ("moderation", {"message_moderation": {"status": "NON_MODERATED", "by": "none"}}, Moderation("non_moderated")),
    (
        "moderation",
        {"message_moderation": {"status": "clean", "source": "ONLINE"}},
        Moderation("clean", source="online"),
    ),
    ("moderation", {"message_moderation": {"reason": "none"}}, Moderation()),
    ("moderation", {"message_moderation": {"reason": ""}}, Moderation()),
    ("moderation", {"message_moderation": {"reason": "NONE"}}, Moderation()),
    ("moderation", {"message_moderation": {"reason": "AUTOMATIC_MESSAGE"}}, Moderation(reason="automatic_message")),
    (
        "moderation",
        {"message_moderation": {"moderation_date": "2024-08-15T21:38:30Z"}},
        Moderation(moderation_date=DAY),
    ),
    (
        "moderation",
        {"message_moderation": {"date_moderated": "2024-08-15T17:38:30-04:00"}},
        Moderation(moderation_date=DAY),
    ),
    ("moderation", {"message_moderation": {"status": "clean", "is_automatic": True}}, Moderation("clean")),
    ("attachments", {"message_attachments": None}, ()),
    ("attachments", {"message_attachments": []}, ()),
    ("attachments", {"message_attachments": [{}]}, ()),
    ("attachments", {"message_attachments": [None, {"filename": "a"}]}, (Attachment("a"),)),
    ("attachments", {"message_attachments": [{"size": "5"}]}, (Attachment(size=5),)),
    (
        "attachments",
        {"message_attachments": [{"date_created": "2024-08-15T21:38:30Z"}]},
        (Attachment(creation_date=DAY),),
    ),
    ("resources", {"message_resources": [{"id": 5, "name": "packs"}]}, (Resource("5", "packs"),)),
    ("resources", {"message_resources": None}, ()),
    ("resources", {}, ()),
]


@pytest.mark.parametrize(("name", "raw", "expected"), SPELLINGS, ids=lambda value: json.dumps(value, default=str)[:70])
def test_one_value_whatever_the_spelling(name: str, raw: dict[str, Any], expected: Any) -> None:
    """Each documented or observed spelling of a field gives the same value, without a problem."""
    usual = documented_message() | raw  # with all other keys, or with none of them
    usual = usual if raw else {key: value for key, value in usual.items() if key != "message_resources"}
    rows = [message({"id": "a", **raw}), message(usual), *message_page(dump({"messages": [usual]}), "1").messages]
    for one in rows:
        assert getattr(one, name) == expected
        assert one.problems == ()
        if isinstance(expected, datetime):
            assert getattr(one, name).tzinfo is UTC


@case("P3")
@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize("day", ["2024-01-15", "2024-08-15"])
def test_a_date_without_a_zone_is_in_utc_on_every_machine(day: str) -> None:
    """All dates are UTC, also one that does not say so, wherever the machine is and whatever the season."""
    raw = {"id": "a", "message_date": {"created": f"{day}T21:38:30"}, "message_moderation": {"moderation_date": day}}
    one = message(raw)
    assert one.created == moment(*map(int, day.split("-")), 21, 38, 30)
    assert one.moderation == Moderation(moderation_date=moment(*map(int, day.split("-"))))
    found = Notification.parse({"topic": "messages", "sent": f"{day}T21:38:30", "received": f"{day}T21:38:30"})
    assert found.sent == found.received == one.created


@case("N6")
@pytest.mark.parametrize(
    "date",
    [
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "10000-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2024-08-15T25:00:00Z",
        "2024-08-15T21:38:30+99:00",
        "9" * 400,
    ],
)
def test_a_date_that_cannot_be_is_a_problem_and_no_exception(date: str) -> None:
    """A date out of the range of dates, or that no calendar has, is None and named; the others are read."""
    one = message({"id": "a", "message_date": {"created": date, "read": "2024-08-15T21:38:30Z"}})
    assert (one.created, one.read) == (None, DAY)
    assert one.problems == ("message_date.created: expected a date, found a text",)
    assert Notification.parse({"topic": "messages", "sent": date}).sent is None


@case("N6")
@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1e400", b"9" * 400, b"1" + b"0" * 30])
def test_a_number_out_of_range_is_a_problem_or_none_and_no_exception(number: bytes, parser: str) -> None:
    """A size, an id or a count beyond all numbers costs no message and no pack."""
    row = b'{"id": "a", "client_id": %s, "message_attachments": [{"size": %s}]}' % (number, number)
    page = message_page(b'{"messages": [%s], "paging": {"total": %s}}' % (row, number), "1")
    assert (page.messages[0].client_id, page.paging.total) == (None, None)
    assert page.messages[0].attachments == (Attachment(),)
    listing = listing_of(b'{"total": %s, "results": [{"resource": "/packs/1", "count": %s}]}' % (number, number))
    assert (listing.total, listing.packs[0].count) == (None, 0)


def test_the_flat_and_the_nested_spelling_of_one_message_are_equal() -> None:
    """A message in the legacy flat form and in the form of today comes out with the same fields."""
    nested = documented_message()
    date, moderation = nested["message_date"], nested["message_moderation"]
    flat = {key: nested[key] for key in ("site_id", "client_id", "from", "status", "subject", "text_translated")}
    flat |= {
        "message_id": nested["id"],
        "to": [nested["to"]],
        "text": {"plain": nested["text"]},
        **{f"date_{name}": date[name] for name in date},
        "moderation": moderation,
        "attachments": nested["message_attachments"],
        "message_resources": nested["message_resources"],
    }
    assert {**values(message(flat)), "raw": None} == {**values(message(nested)), "raw": None}


def test_a_mixture_of_both_forms_loses_nothing() -> None:
    """A flat message that spells a part as today, or holds today's keys as null, keeps what either spelling says."""
    mixed = message(
        {"message_id": "a", "id": None, "message_date": {"read": "2024-08-15T21:38:30Z"}, "resource": "orders"}
    )
    assert (mixed.id, mixed.read, mixed.resources) == ("a", DAY, (Resource(None, "orders"),))
    empty = message(
        {"message_id": "a", "message_date": None, "date_read": "2024-08-15T21:38:30Z", "message_resources": None}
    )
    assert (empty.read, empty.resources) == (DAY, ())
    assert message({"message_id": "a", "date": "2024-08-15T21:38:30Z"}).created == DAY
    both = {"message_id": "a", "date": "2020-01-01T00:00:00Z", "date_created": "2024-08-15T21:38:30Z"}
    assert message(both).created == DAY


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"claim_id": None}, ()),
        ({"claim_ids": None}, ()),
        ({"claim_ids": []}, ()),
        ({"claim_id": 5}, ("5",)),
        ({"claim_id": "5"}, ("5",)),
        ({"claim_ids": [5, "6"]}, ("5", "6")),
        ({"claim_ids": [5, 6], "claim_id": 5}, ("5", "6")),
        ({"claim_ids": [None, 6], "claim_id": ""}, ("6",)),
        ({"claim_ids": "x", "claim_id": 7}, ("7",)),
        ({"claim_ids": [{}, 8]}, ("8",)),
    ],
)
def test_claim_id_and_claim_ids_are_one_list(raw: dict[str, Any], expected: tuple[str, ...]) -> None:
    """Both spellings of the claims give one tuple of ids, each once."""
    page = message_page(dump({"messages": [], "conversation_status": {"status": "BLOCKED", **raw}}), "1")
    assert page.conversation is not None
    assert (page.conversation.claim_ids, page.conversation.status) == (expected, "blocked")


@pytest.mark.parametrize(
    ("paging", "expected"),
    [
        (None, Paging()),
        ({}, Paging()),
        ({"limit": "10", "offset": "0", "total": "31"}, Paging(10, 0, 31)),
        ({"limit": 10.5, "offset": True, "total": -1}, Paging(total=-1)),
        ({"limit": "ten", "total": 3}, Paging(total=3)),
        ([], Paging()),
        ("10", Paging()),
    ],
)
def test_paging_that_is_null_or_unreadable_costs_no_message(paging: Any, expected: Paging) -> None:
    """The numbers of `paging` may be texts, null or nonsense: the messages beside it are kept."""
    page = message_page(dump({"messages": [{"id": "a"}], "paging": paging, "seller_max_message_length": "350"}), "1")
    assert (page.paging, len(page.messages), page.seller_max_message_length) == (expected, 1, 350)


@pytest.mark.parametrize("status", [None, [], "active", 5])
def test_a_conversation_status_that_is_no_object_is_none(status: Any) -> None:
    """A page of a single message has no conversation status, and neither has one where it cannot be read."""
    assert message_page(dump({"messages": [], "conversation_status": status}), "1").conversation is None


def test_what_one_message_says_is_never_taken_for_another() -> None:
    """Messages of one page with resources and dates that differ in type, key or place keep their own."""
    spelled_out: list[list[dict[str, Any]]] = [
        [{"id": "5", "name": "packs"}],
        [{"id": 5, "name": "packs"}],
        [{"id": "5", "name": "sellers"}],
        [{"id": "6", "name": "packs"}],
        [{"id": "5", "name": "packs"}, {"id": "6", "name": "sellers"}],
        [{"id": "6", "name": "sellers"}, {"id": "5", "name": "packs"}],
        [{"id": None, "name": "packs"}],
        [{"name": "packs"}],
        [{"id": 1, "name": "packs"}],
        [{"id": True, "name": "packs"}],
        [{"id": 1.0, "name": "packs"}],
        [{"id": "1", "name": "packs"}],
        [{}],
        [],
    ] * 3
    page = message_page(
        dump(
            {
                "messages": [
                    documented_message() | {"id": f"m{i}", "message_resources": r} for i, r in enumerate(spelled_out)
                ]
            }
        ),
        "1",
    )
    for row, raw in zip(page.messages, spelled_out, strict=True):
        texts = [(item.get("id"), item.get("name")) for item in raw if item]
        ids = [None if id_ is None or isinstance(id_, (bool, float)) else str(id_) for id_, _ in texts]
        assert row.resources == tuple(Resource(id_, name) for id_, (_, name) in zip(ids, texts, strict=True))
        assert bool(row.problems) is any(isinstance(id_, (bool, float)) for id_, _ in texts)


# -- spoilt on purpose -------------------------------------------------------------------------------------------------

TEXT, ID, NUMBER, FLAG, DATE = (str,), (str, int), (int,), (bool,), ()
EXPECTED: dict[str, list[Any]] = {
    "a text": [
        ("site_id",),
        ("from", "name"),
        ("from", "email"),
        ("status",),
        ("subject",),
        ("text_translated",),
        ("text",),
    ]
    + [("message_moderation", key) for key in ("status", "reason", "by", "source")]
    + [("message_attachments", 0, key) for key in ("filename", "original_filename", "type")]
    + [("message_resources", 0, "name"), ("message_resources", 1, "name")],
    "an id": [
        ("client_id",),
        ("from", "user_id"),
        ("to", "user_id"),
        ("message_resources", 0, "id"),
        ("message_resources", 1, "id"),
    ],
    "a whole number": [("message_attachments", 0, "size")],
    "true or false": [("message_attachments", 0, "potential_security_threat")],
    "a date": [("message_date", key) for key in ("created", "received", "available", "notified", "read")]
    + [("message_moderation", "moderation_date"), ("message_attachments", 0, "creation_date")],
    "an object": [
        ("from",),
        ("to",),
        ("message_date",),
        ("message_moderation",),
        ("message_attachments", 0),
        ("message_resources", 1),
    ],
    "an array": [("message_attachments",), ("message_resources",)],
}
KINDS = {path: kind for kind, places in EXPECTED.items() for path in places}
JSON_TYPES = {"a text": str, "an object": dict, "an array": list, "true or false": bool}
FOUND = [
    (dict, "an object"),
    (list, "an array"),
    (str, "a text"),
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
]
FIELDS = {
    "from": ("sender_id", "sender_name", "sender_email"),
    "to": ("recipient_id",),
    "message_date": ("created", "received", "available", "notified", "read"),
    "message_moderation": ("moderation",),
    "message_attachments": ("attachments",),
    "message_resources": ("resources", "pack_id"),
}
PROBLEM = re.compile(
    r"[a-z_]+(\.[a-z_]+|\[\d+\])*: "
    r"(expected (a text|an id|a whole number|true or false|a date|an object|an array)), "
    r"found (an object|an array|a text|true or false|a number)"
)


def test_every_documented_field_has_a_type_here() -> None:
    """The table of types that the next tests use knows every field of a documented message."""
    assert set(KINDS) | {("id",), ("message_resources", 0)} == set(paths(documented_message()))


def _fits(kind: str, value: Any, path: tuple[str | int, ...]) -> bool:
    if value is None:
        return True
    if kind == "an id":
        return type(value) is str or (type(value) is int and -(2**63) <= value < 2**64)
    if kind == "a whole number":
        return type(value) is int and -(2**63) <= value < 2**64
    if kind == "a date":
        return False  # none of the generated texts is one
    return type(value) is JSON_TYPES[kind]


@given(st.sampled_from(sorted(KINDS, key=str)), scalars | st.just({}) | st.just([]))
def test_a_field_of_another_type_is_none_and_named_and_nothing_else_is(path: tuple[str | int, ...], value: Any) -> None:
    """A field of an undocumented type is None and named with path and reason; all the others are read as before."""
    raw = documented_message()
    put(raw, path, value)
    raw = parse_json(dump(raw))
    one = message(raw)
    fits = _fits(KINDS[path], value, path) or (path in (("from",), ("to",)) and value == [])
    what = next((word for kind, word in FOUND if isinstance(get(raw, path), kind)), "null")
    if path == ("text",) and value == {}:
        fits = False
    assert one.problems == (() if fits else (f"{spelled(path)}: expected {KINDS[path]}, found {what}",))
    before = values(message(documented_message()))
    touched = {*FIELDS.get(str(path[0]), (path[0],)), "raw", "problems"}
    assert {k: v for k, v in values(one).items() if k not in touched} == {
        k: v for k, v in before.items() if k not in touched
    }
    assert one.raw == raw


@given(st.data())
def test_no_message_is_ever_lost_for_its_shape(data: st.DataObject) -> None:
    """Any fields replaced by any JSON: every message of the page is there, and no explanation quotes a value."""
    rows = [documented_message() | {"id": f"m{i}"} for i in range(3)]
    places = [path for path in paths(rows) if path[1:] != ("id",) and len(path) > 1]
    for path in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4)):
        put(rows, path, data.draw(anything))
    envelope = {"messages": rows, "paging": data.draw(anything), "conversation_status": data.draw(anything)}
    page = message_page(dump(envelope), "1")
    assert [row.id for row in page.messages] == ["m0", "m1", "m2"]
    for row, raw in zip(page.messages, parse_json(dump(rows)), strict=True):
        assert row.raw == raw
        assert all(PROBLEM.fullmatch(problem) for problem in row.problems)
        assert MARK not in "".join(row.problems)


@given(st.data())
def test_spoilt_messages_are_the_same_with_and_without_orjson(data: st.DataObject) -> None:
    """A spoilt page comes out the same with either parser, fields, problems, `raw` and all."""
    row = documented_message()
    put(row, data.draw(st.sampled_from(sorted(KINDS, key=str))), data.draw(anything))
    text = dump({"messages": [row], "paging": {"total": 1}})
    with pytest.MonkeyPatch.context() as patch:
        first = values(message_page(text, "1"))
        patch.setattr(json_home, "orjson", None)
        assert values(message_page(text, "1")) == first


@given(st.data())
def test_a_spoilt_flat_message_is_kept_too(data: st.DataObject) -> None:
    """The legacy flat form with any field but its id replaced by any JSON is still a message."""
    raw = payload("message_by_id_legacy_flat")
    path = data.draw(st.sampled_from([path for path in paths(raw) if path != ("message_id",)]))
    put(raw, path, data.draw(anything))
    one = single_message(dump(raw))
    assert one.id == "aa11bb22cc33dd44ee55ff6677889900"
    assert all(PROBLEM.fullmatch(problem) for problem in one.problems)


# What stands for nothing in each type, and is therefore no problem; null is none in any.
NOTHING: dict[str, list[Any]] = {
    "a text": [""],
    "an id": ["", 0],
    "a whole number": [0],
    "true or false": [False],
    "a date": [],
    "an object": [{}],
    "an array": [[]],
}


@pytest.mark.parametrize("value", [False, 0, "", {}, [], None], ids=json.dumps)
def test_what_is_nothing_in_another_type_is_named(value: Any) -> None:
    """False, 0, an empty text, object or array in the place of a field of another type is a problem, and one alone."""
    for path, expected in KINDS.items():
        row = documented_message()
        put(row, path, value)
        [one] = message_page(dump({"messages": [row]}), "1").messages
        fine = value is None or any(value == fit and type(value) is type(fit) for fit in NOTHING[expected])
        fine = fine or (path in (("from",), ("to",)) and value == [])  # an empty list of recipients
        found = next((word for kind, word in FOUND if isinstance(value, kind)), "null")
        assert one.problems == (() if fine else (f"{spelled(path)}: expected {expected}, found {found}",))
        assert one.raw == row


def test_a_message_is_whole_in_its_copies(parser: str) -> None:
    """A copy, a pickle and an `evolve` of a message have every field of it, and match it."""
    [one] = message_page(dump({"messages": [documented_message()]}), "1").messages
    for copied in (copy.copy, copy.deepcopy, attrs.evolve, lambda row: pickle.loads(pickle.dumps(row))):
        again = copied(one)
        assert again is not one
        assert (again, values(again)) == (one, values(one))
    match one:
        case Message(id="aa11bb22cc33dd44ee55ff6677889900", text="Test text", moderation=Moderation(status="clean")):
            pass
        case _:
            pytest.fail("it does not match its own fields")


def test_a_field_that_no_message_has_is_an_attribute_error() -> None:
    """A misspelt field is an `AttributeError` that names it, and nothing that a message has can be changed or added."""
    [one] = message_page(dump({"messages": [documented_message()]}), "1").messages
    assert not hasattr(one, "txet")
    with pytest.raises(AttributeError, match="'Message' object has no attribute 'txet'"):
        _ = one.txet  # type: ignore[attr-defined]
    for name in (*(field.name for field in attrs.fields(Message)), "txet"):
        with pytest.raises(AttributeError):
            setattr(one, name, "something else")


@given(st.lists(st.sampled_from(sorted(KINDS, key=str)), max_size=6), st.booleans())
def test_a_key_that_is_absent_is_as_one_that_is_null(absent: list[tuple[str | int, ...]], spoilt: bool) -> None:
    """A message without some keys says the same as one with null there, also where another field cannot be read."""
    with_null, without = documented_message(), documented_message()
    for path in absent:
        put(with_null, path, None)
    for path in sorted(absent, key=len, reverse=True):
        if isinstance(path[-1], str):
            get(without, path[:-1]).pop(path[-1], None)
        else:
            put(without, path, None)
    assume({} not in [get(without, path) for path in paths(without)])  # an empty object stands for nothing
    if spoilt:
        with_null["site_id"] = without["site_id"] = 5
    assert {**values(message(without)), "raw": None} == {**values(message(with_null)), "raw": None}


def test_problems_say_where_and_why() -> None:
    """A problem reads "path: expected …, found …", and there is one for each unreadable field."""
    raw = documented_message()
    raw["message_date"] |= {"read": 5, "created": "yesterday"}
    raw["message_attachments"] = [{"size": 1.5}, "x"]
    raw["text"] = {"html": "secret words"}
    raw["message_resources"] = False
    assert set(message(raw).problems) == {
        "message_date.read: expected a date, found a number",
        "message_date.created: expected a date, found a text",
        "message_attachments[0].size: expected a whole number, found a number",
        "message_attachments[1]: expected an object, found a text",
        "text: expected a text, found an object",
        "message_resources: expected an array, found true or false",
    }


def test_raw_is_the_object_as_it_came() -> None:
    """`raw` holds undocumented keys too, and reading leaves it alone."""
    raw = documented_message() | {"data": {"option_id": None}, "conversation_first_message": False}
    before = copy.deepcopy(raw)
    assert message(raw).raw == before
    assert message(raw).raw is raw


@case("K16")
def test_a_message_too_deep_to_be_stored_is_a_decode_error_that_quotes_nothing(parser: str) -> None:
    """What cannot be written fails with a typed error, so that its pack can be parked and the others go on."""
    deep: Any = MARK
    for _ in range(200_000):  # Python 3.14 counts the bytes of the stack, and writes 2,000 levels
        deep = [deep]
    with pytest.raises(DecodeError, match="^a message cannot be stored; nested too deeply$") as caught:
        dump_raw({"id": "a", "data": deep})
    assert caught.value.__suppress_context__
    assert message(parse_json(dump_raw({"id": "a", "data": json.loads("[" * 300 + "]" * 300)}))).problems == ()

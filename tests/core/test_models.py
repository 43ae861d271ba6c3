"""The models: read-only values that compare as documented and hide what buyers wrote."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from core.shapes import documented_message
from mlmessages import models
from mlmessages.api.decoding import message
from mlmessages.errors import NotFound
from mlmessages.models import (
    Attachment,
    Conversation,
    ConversationStatus,
    DrainReport,
    FleetReport,
    InboxReport,
    Message,
    MessagePage,
    Moderation,
    PackFailure,
    Paging,
    Reason,
    Reasons,
    Resource,
    Template,
    Token,
    UnreadListing,
    UnreadPack,
    Variable,
)

GONE = NotFound(404)
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
EXAMPLES: list[Any] = [
    UnreadPack("1", 2, "/packs/1"),
    UnreadListing("9", (UnreadPack("1"),), 1),
    Paging(10, 0, 31),
    Attachment("a.png", "photo.png", "image/png", 5, False, NOON),
    Moderation("clean", None, None, "online", NOON),
    Resource("1", "packs"),
    Message("a", text="words"),
    ConversationStatus("/packs/1/sellers/2", "active", claim_ids=("5",)),
    MessagePage("1", Paging(), None, (Message("a"),), 350),
    Conversation("1", None, (Message("a"),), (Message("a"),)),
    Variable("VAR", "number"),
    Template("T", (Variable("VAR"),), (("MLA", "words"),)),
    Reason("OTHER", "free_text", True, True, 350, 1),
    Reasons("1", (Reason("OTHER"),)),
    PackFailure("1", GONE),
    DrainReport(1, 2, 3, 4, 0, (PackFailure("1", GONE),)),
    InboxReport(1, 2, 3, 4, 5, 1, NOON, (PackFailure("1", GONE),)),
    FleetReport(("9",), 1, 2, 3, 4, 5, 1, 0, (("8", "its tokens are dead"),)),
    Token("APP_USR-1", "TG-1", NOON, NOON, "9"),
]
named = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)


def test_there_is_an_example_of_each_model() -> None:
    """Every model of the module is tried here."""
    classes = {value for value in vars(models).values() if isinstance(value, type) and attrs.has(value)}
    assert {type(example) for example in EXAMPLES} == classes


@named
def test_assignment_raises(example: Any) -> None:
    """No field of a model can be assigned to, and none can be added."""
    for field in attrs.fields(type(example)):
        with pytest.raises(AttributeError):
            setattr(example, field.name, getattr(example, field.name))
    with pytest.raises(AttributeError):
        example.something_new = 1


@named
def test_equal_models_hash_alike_and_survive_copies(example: Any) -> None:
    """A model equals its copies, hashes as they do, and is no equal of anything else."""
    again = copy.copy(example)
    assert again == example
    assert hash(again) == hash(example)
    assert example not in (None, 1, "1", ())
    if not isinstance(example, (PackFailure, DrainReport, InboxReport)):  # an exception equals only itself
        assert pickle.loads(pickle.dumps(example)) == copy.deepcopy(example) == example


@named
def test_any_field_tells_two_models_apart_but_for_messages(example: Any) -> None:
    """Models without an id of their own are equal only if all their fields are; when it was asked is no part of one."""
    for field in attrs.fields(type(example)):
        other = attrs.evolve(example, **{field.name: "something else"})
        same = (isinstance(example, Message) and field.name != "id") or field.name == "answered_at"
        assert (other == example) is same
        assert not same or hash(other) == hash(example)


def test_messages_are_equal_by_id_alone() -> None:
    """One message read twice, moderated or read in between, is one message in a set."""
    before, after = Message("a", text="words"), Message("a", text="other words", read=NOON, status="moderated")
    assert before == after
    assert len({before, after, Message("b", text="words")}) == 2


def test_no_repr_shows_words_names_or_emails() -> None:
    """Text, subject, names, emails, file names and raw are in no repr, alone or inside of other models."""
    raw = documented_message()
    raw["text"] = raw["text_translated"] = raw["subject"] = "canary words"
    raw["from"] = {"user_id": 800300400, "name": "canary name", "email": "canary@example.com"}
    raw["message_attachments"][0]["original_filename"] = "canary.png"
    raw["data"] = "canary"
    one = message(raw, "1")
    holders = [one, MessagePage("1", Paging(), None, (one,)), Conversation("1", None, (one,), (one,))]
    holders.append(DrainReport(unseen=(holders[-1],)))  # type: ignore[arg-type]
    for holder in holders:
        for shown in (repr(holder), str(holder), f"{holder}", repr([holder])):
            assert "canary" not in shown
            assert one.id in shown
    assert (one.text, one.sender_name, one.sender_email) == ("canary words", "canary name", "canary@example.com")


def test_a_message_needs_an_id_and_nothing_else() -> None:
    """All other fields of a message are optional."""
    one = Message("a")
    empty = {"id": "a", "attachments": (), "resources": (), "raw": {}, "problems": (), "refused_files": ()}
    assert attrs.asdict(one) == {field.name: empty.get(field.name) for field in attrs.fields(Message)}


def test_the_fields_of_the_models() -> None:
    """The models have the fields that the interface names, in its order."""
    fields = {cls.__name__: " ".join(field.name for field in attrs.fields(cls)) for cls in map(type, EXAMPLES)}
    assert fields == {
        "UnreadPack": "pack_id count resource",
        "UnreadListing": "user_id packs total problems answered_at",
        "Paging": "limit offset total",
        "Attachment": "filename original_filename type size potential_security_threat creation_date",
        "Moderation": "status reason by source moderation_date",
        "Resource": "id name",
        "Message": "id site_id client_id sender_id sender_name sender_email recipient_id status subject text text_translated"
        " created received available notified read moderation attachments resources pack_id raw problems refused_files",
        "ConversationStatus": "path status substatus status_date status_update_allowed claim_ids shipping_id",
        "MessagePage": "pack_id paging conversation messages seller_max_message_length",
        "Conversation": "pack_id status messages unread marked resource",
        "InboxReport": "conversations messages listings requests owed waiting waits_until parked",
        "Variable": "id type",
        "Template": "id variables texts",
        "Reason": "id type enabled actionable char_limit cap_available templates children description",
        "Reasons": "pack_id options plain_send",
        "PackFailure": "pack_id error",
        "DrainReport": "conversations messages listings requests waiting set_aside unseen in_doubt",
        "FleetReport": "sellers conversations messages listings requests owed waiting parked stopped",
        "Token": "access_token refresh_token expires_at issued_at user_id refresh_issued_at refresh_sent_at refresh_refused_at",
    }


@pytest.mark.parametrize("word", ["moderated", "rejected", "blocked"])
def test_a_message_is_rejected_by_its_status_or_by_its_moderation(word: str) -> None:
    """Either place says that it is not delivered, in any case; all other words, known or not, do not."""
    assert message({"id": "a", "status": word.upper()}).rejected
    assert message({"id": "a", "status": "available", "message_moderation": {"status": word}}).rejected
    for other in ("available", "clean", "pending", "non_moderated", "in_moderation", "something_new", None):
        assert not message({"id": "a", "status": other, "message_moderation": {"status": other}}).rejected
    assert not Message("a").rejected


@pytest.mark.parametrize("seller", [42, "42"])
def test_is_from_does_not_care_for_the_type_of_the_id(seller: int | str) -> None:
    """Who wrote it is decided by the digits: an int and a text are the same seller."""
    assert message({"id": "a", "from": {"user_id": 42}}).is_from(seller)
    assert message({"id": "a", "from": {"user_id": "42"}}).is_from(seller)
    assert not message({"id": "a", "from": {"user_id": 43}}).is_from(seller)
    assert not message({"id": "a"}).is_from(seller)


# -- whether one can write ---------------------------------------------------------------------------------------------

# Every substatus of the blocking page, of integrators' code and of the errors, with a word that its explanation holds.
BLOCKS = {
    "blocked_by_time": "30 days",
    "blocked_by_buyer": "buyer",
    "blocked_by_mediation": "mediation",
    "blocked_by_mediation_fbm": "mediation",
    "blocked_by_fulfillment": "delivered",
    "blocked_by_payment": "payment",
    "blocked_by_conversation_initiated_by_seller": "seller may not start",
    "blocked_by_conversation_initiated_by_seller_limited": "action guide",
    "blocked_by_conversation_use_message_api": "plain messages",
    "blocked_by_cancelled_order": "cancelled",
    "blocked_by_cancelled_order_by_fraud": "fraud",
    "blocked_by_cancelled_order_hidden": "cancelled",
    "blocked_by_conversation_expired": "18 months",
    "blocked_by_refund": "refunded",
    "blocked_by_claim_change_open": "exchange",
    "blocked_by_claim_change_closed": "exchange",
    "blocked_by_deactivated_account": "deactivated",
    "blocked_by_restrictions": "restricted",
    "blocked_by_message_pending_review": "review",
    "blocked_by_return_to_buyer_fulfillment": "back to the buyer",
    "blocked_by_ai_assistant": "assistant",
    "blocked_by_ai_assistant_expired": "assistant",
    "blocked_by_ai_assistant_contact_closed": "closed",
    "block_by_ai_assistant_initiated_by_seller_expired": "assistant",
    "blocked_by_resale": "resold",
    "blocked_by_proximity_groceries": "groceries",
    "blocked_by_claim": "claim",
    "blocked_by_time_window": "time",
    "blocked_by_conversation_started_by_seller": "action guide",
    "blocked_by_excepted_case": "plain messages",
}


@pytest.mark.parametrize("substatus", BLOCKS)
def test_each_known_block_is_explained(substatus: str) -> None:
    """A block is named in words, one cannot reply, and the word of the server is kept."""
    status = ConversationStatus(status="blocked", substatus=substatus)
    assert (status.blocked, status.can_reply, status.substatus) == (True, False, substatus)
    assert status.blocked_reason is not None
    assert BLOCKS[substatus] in status.blocked_reason
    assert "_" not in status.blocked_reason


def test_a_block_that_nobody_knows_keeps_the_servers_word() -> None:
    """A new substatus is no error: it is the reason as it came; without one that is said."""
    assert ConversationStatus(status="blocked", substatus="blocked_by_moon").blocked_reason == "blocked_by_moon"
    assert ConversationStatus(status="blocked").blocked_reason == "the server gives no reason"


@pytest.mark.parametrize("status", ["active", "something_new", None])
def test_what_is_not_blocked_can_be_replied_to(status: str | None) -> None:
    """Only the server's word "blocked" blocks; a left-over substatus does not."""
    read = ConversationStatus(status=status, substatus="blocked_by_buyer")
    assert (read.blocked, read.can_reply, read.blocked_reason) == (False, True, None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/packs/1/sellers/2/conversations/agent", True),
        ("/packs/1/sellers/2/conversations/", True),
        ("/packs/1/sellers/2", False),
        ("/packs/1/seller/2", False),
        ("", False),
        (None, False),
    ],
)
def test_only_a_conversations_segment_means_an_agent(path: str | None, expected: bool) -> None:
    """Mercado Libre's agent speaks for the buyer only where the path has a conversations segment."""
    assert ConversationStatus(path).handled_by_agent is expected


@pytest.mark.parametrize(
    ("rows", "total", "capped"), [(499, None, False), (500, None, True), (1000, 1000, True), (3, 4, True)]
)
def test_capped_is_computed_from_rows_and_total(rows: int, total: int | None, capped: bool) -> None:
    """`capped` is computed for a listing that is built by hand as for one that was read."""
    assert UnreadListing("9", tuple(UnreadPack(str(i)) for i in range(rows)), total).capped is capped

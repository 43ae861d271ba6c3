"""What is kept of messages and conversations."""

from __future__ import annotations

from typing import Any

import pytest

from report.written import AGENT, BUYER, SELLER, by_message, drained, facts_of, fetched, message

OTHER = "700100201"


def test_each_message_counts_once_and_its_last_state_stands():
    """An id that comes again, in the same line or in a later one, is one message: as it was the last time."""
    facts = facts_of(
        [
            drained("11", message("a"), message("b", SELLER, 5)),
            drained("11", message("b", SELLER, 5, status="moderated"), message("c", BUYER, 9)),
        ]
    )
    assert [*facts.messages] == ["a", "b", "c"]
    assert facts.repeated == 1
    assert [fact.arrived for fact in facts.messages.values()] == [True, False, True]


def test_the_lines_of_a_pack_are_joined_and_the_last_known_status_stands():
    """A pack in many lines is one conversation; a line without a status does not undo one that had it."""
    facts = facts_of([drained("11"), drained("11", blocked="blocked_by_claim"), *by_message("11", message("a"))])
    [standing] = facts.packs.values()
    assert standing is not None
    assert (standing.blocked, standing.reason) == (True, "a claim is open")


def test_the_seller_is_whom_the_messages_name():
    """Both spellings of the resource count; what is no id does not."""
    named = [{"id": SELLER, "name": "seller"}]
    odd = [{"id": "<b>", "name": "sellers"}, {"id": None, "name": "sellers"}, {"id": OTHER, "name": "orders"}]
    rows = [message("a"), message("b", message_resources=named), message("c", message_resources=odd)]
    assert facts_of([fetched("11", *rows)]).sellers == {SELLER}
    assert facts_of([fetched("11", message("c", message_resources=odd))]).sellers == set()


@pytest.mark.parametrize(
    ("changes", "arrived"),
    [
        ({}, True),
        ({"status": "MODERATED"}, False),
        ({"status": "rejected"}, False),
        ({"status": "blocked"}, False),
        ({"message_moderation": {"status": "REJECTED"}}, False),
        ({"message_moderation": {"status": "blocked"}}, False),
        ({"status": "in_moderation"}, True),
        ({"status": "pending_translation"}, True),
        ({"message_moderation": {"status": "pending"}}, True),
        ({"message_moderation": None, "status": None}, True),
    ],
)
def test_what_moderation_refused_did_not_arrive(changes: dict[str, Any], arrived: bool):
    """Refused is what status or moderation say so of; what is still looked at counts as arrived."""
    facts = facts_of([fetched("11", message("a", **changes))])
    assert facts.messages["a"].arrived is arrived


@pytest.mark.parametrize(
    ("dates", "dated"),
    [
        ({"created": "2026-03-02T12:00:00Z"}, True),
        ({"created": None, "received": "2026-03-02T12:00:00Z"}, True),
        ({"available": "2026-03-02T12:00:00"}, True),
        ({"read": "2026-03-02T12:00:00Z"}, False),
        ({"created": "0001-01-01T00:00:00Z"}, False),
        ({"created": "9999-12-31T23:59:59Z"}, False),
        ({"created": "yesterday"}, False),
        (None, False),
    ],
)
def test_a_message_has_a_date_if_it_says_when_it_was_written(dates: dict[str, Any] | None, dated: bool):
    """Created, received or available; when it was read says nothing, and neither does a year before the first sale."""
    facts = facts_of([fetched("11", message("a", message_date=dates))])
    assert (facts.messages["a"].at == 1772452800.0) is dated
    assert (facts.messages["a"].at is None) is not dated


@pytest.mark.parametrize("seller_id", [None, SELLER])
def test_only_texts_that_may_wait_are_kept_and_no_more_than_their_beginning(seller_id: str | None):
    """Of the counterparty's, an agent's too, the first characters; of the seller's nothing."""
    rows = [message("a", text="x" * 5000), message("b", SELLER), message("c", AGENT), message("d", text=None)]
    facts = facts_of([fetched("11", *rows)], seller_id)
    assert [len(fact.text) for fact in facts.messages.values()] == [161, 0, 4, 0]


def test_another_seller_is_a_counterparty():
    """Where the seller is given, the texts of all others are kept, also of one whom the messages name as seller."""
    facts = facts_of([fetched("11", message("b", SELLER))], OTHER)
    assert facts.messages["b"].text == "Test"

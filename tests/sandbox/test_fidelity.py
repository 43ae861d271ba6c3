"""The answers have the keys and types of the documented samples."""

from __future__ import annotations

import pytest

from mlmessages.testing import Behaviour, Pack, Sandbox
from sandbox.samples import differences, sample

P = "2000099900011122"
S = "700100200"
DOMESTIC_PACK = f"/messages/packs/{P}/sellers/{S}?tag=post_sale"


def asked(in_memory, path, *, token=None, method="GET", messages=1, behaviour=None, pack=None):
    """What a sandbox of one conversation answers."""
    sandbox = Sandbox([pack or Pack(P, messages)], behaviour=behaviour)
    found = []

    async def scenario(ask):
        found.append(
            await ask.get(path.replace("{m}", min(sandbox.message_ids(), default="")), token=token, method=method)
        )

    in_memory(sandbox, scenario)
    return found[0]


@pytest.mark.parametrize(
    ("payload", "path", "messages"),
    [
        ("unread_marketplace", f"/marketplace/messages/unread?role=seller&tag=post_sale&user_id={S}", 1),
        ("pending_page_unread", "/marketplace/messages/unread", 1),
        ("unread_marketplace_empty", "/marketplace/messages/unread?role=seller", 0),
        ("unread_local_seller", "/messages/unread?role=seller&tag=post_sale", 1),
        ("unread_local_empty_user_id_string", "/messages/unread?role=seller&tag=post_sale", 0),
        ("unread_local_by_resource", f"/messages/unread/packs/{P}/sellers/{S}?tag=post_sale", 1),
        ("unread_local_empty_user_id_string", f"/messages/unread/packs/{P}/sellers/{S}?tag=post_sale", 0),
        ("unread_marketplace", f"/marketplace/messages/unread/packs/{P}/sellers/{S}", 1),
        ("pack_local_docs_shape", DOMESTIC_PACK, 2),
        ("pack_local_docs_shape", DOMESTIC_PACK + "&mark_as_read=false", 2),
        ("pack_marketplace", f"/marketplace/messages/packs/{P}", 2),
        ("pack_marketplace", f"/marketplace/messages/packs/{P}/sellers/{S}?limit=2", 2),
        ("message_by_id_envelope_local", "/messages/{m}?tag=post_sale", 1),
        ("message_by_id_envelope_marketplace", "/marketplace/messages/{m}", 1),
    ],
)
def test_an_answer_has_the_documented_keys_and_types(in_memory, payload, path, messages):
    seen = asked(in_memory, path, messages=messages)
    assert seen.status == 200
    assert differences(seen.json, sample(payload)) == []
    assert seen.headers["Content-Type"].startswith("application/json")


def test_the_shape_of_the_pending_messages_page_is_to_be_had(in_memory):
    behaviour = Behaviour(shape="pending")
    page = asked(in_memory, DOMESTIC_PACK, messages=3, behaviour=behaviour)
    assert differences(page.json, sample("pending_page_pack_page")) == []
    listing = asked(in_memory, "/messages/unread?role=seller", behaviour=behaviour)
    assert differences(listing.json, sample("pending_page_unread")) == []


def test_a_blocked_conversation_shows_its_reason(in_memory):
    seen = asked(
        in_memory, f"/marketplace/messages/packs/{P}", pack=Pack(P, 0, status="blocked", substatus="blocked_by_buyer")
    )
    documented = sample("pack_blocked")
    assert {k: seen.json["conversation_status"][k] for k in ("status", "substatus")} == {
        k: documented["conversation_status"][k] for k in ("status", "substatus")
    }
    assert seen.json["messages"] == []


@pytest.mark.parametrize(
    ("payload", "path", "token", "status"),
    [
        ("error_400_no_token_marketplace", "/marketplace/messages/unread", "", 400),
        ("error_401_invalid_token", DOMESTIC_PACK, "stale", 401),
        ("error_404_order", f"/messages/packs/2000000000009999/sellers/{S}?tag=post_sale", None, 404),
        ("error_403_pack_not_yours", f"/messages/packs/{P}/sellers/1?tag=post_sale", None, 403),
        ("error_403_user", "/marketplace/messages/unread?user_id=1", None, 403),
        ("error_404_resource", f"/messages/orders/{P}", None, 404),
        ("error_404_resource", f"/messages/packs/{P}", None, 404),
        ("error_404_message_storage", "/messages/aa11bb22cc33dd44ee55ff6677889900", None, 404),
    ],
)
def test_a_refusal_is_the_documented_one(in_memory, payload, path, token, status):
    seen = asked(in_memory, path, token=token)
    assert (seen.status, seen.json) == (status, sample(payload))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "The limit param must be greater than 0"),
        ("limit=-1", "The limit param must be greater than 0"),
        ("limit=x", "Invalid limit param"),
        ("limit=", "Invalid limit param"),
        ("offset=x", "Invalid offset param"),
        ("offset=-1", "Invalid offset param"),
    ],
)
def test_a_bad_page_is_refused_and_marks_nothing(in_memory, query, message):
    sandbox = Sandbox(1)

    async def scenario(ask):
        seen = await ask.pack(sandbox.pack_ids()[0], "&" + query)
        assert (seen.status, seen.json["message"]) == (400, message)
        assert sandbox.unread == 1
        assert not sandbox.log[0].executed

    in_memory(sandbox, scenario)


def test_the_domestic_listing_needs_its_role_and_the_marketplace_one_does_not(in_memory):
    assert asked(in_memory, "/messages/unread?tag=post_sale").status == 400
    assert asked(in_memory, "/marketplace/messages/unread?role=nonsense").status == 200
    assert asked(in_memory, "/messages/unread?role=buyer").json["results"] == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_nothing_but_get_and_post_is_implemented(in_memory, method):
    assert asked(in_memory, DOMESTIC_PACK, method=method).status == 404

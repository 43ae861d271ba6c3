"""Answers in the forms that the documentation or integrators have shown: held against the recorded payloads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from cases import case
from mlmessages.testing import Behaviour, Message, Pack, RateWindow, Sandbox
from sandbox.samples import differences, sample

P = "2000099900011122"
S = "700100200"
LISTING = "/messages/unread?role=seller&tag=post_sale"


def untyped(callee: Any) -> Any:
    """The same, for calls that a type check would refuse."""
    return callee


def test_a_listing_with_odd_rows(in_memory):
    documented = sample("unread_local_with_odd_row")
    odd = [None, 7, {"count": 1}, documented["results"][1]]
    sandbox = Sandbox([Pack(P)], behaviour=Behaviour(odd_rows=odd))

    async def scenario(ask):
        seen = await ask.get(LISTING)
        assert seen.json["results"] == [*odd, {"resource": f"/packs/{P}/sellers/{S}", "count": 1}]

    in_memory(sandbox, scenario)


def test_a_pack_under_two_spellings_with_two_counts_in_changing_order(in_memory):
    sandbox = Sandbox([Pack(P)], behaviour=Behaviour(spellings="both"))
    long, short = {"resource": f"/packs/{P}/sellers/{S}", "count": 1}, {"resource": f"/packs/{P}", "count": 2}

    async def scenario(ask):
        assert (await ask.get(LISTING)).json["results"] == [long, short]
        assert (await ask.get(LISTING)).json["results"] == [short, long]
        other = await ask.get("/marketplace/messages/unread")
        assert other.json["results"] == [{**short, "count": 1}, {**long, "count": 2}]
        await ask.pack(P)
        assert (await ask.get(LISTING)).json["results"] == []

    in_memory(sandbox, scenario)


def test_the_listing_of_another_user_and_packs_that_are_not_this_sellers(in_memory):
    """A wrong seller id: the listing is of another user, and each pack is refused."""
    sandbox = Sandbox([Pack(P)], behaviour=Behaviour(listing_user_id=5))

    async def scenario(ask):
        assert (await ask.get(LISTING)).json["user_id"] == 5
        assert (await ask.get("/marketplace/messages/unread")).json["userId"] == 5
        refused = await ask.get(f"/messages/packs/{P}/sellers/5?tag=post_sale")
        assert (refused.status, refused.json) == (403, sample("error_403_pack_not_yours"))
        assert sandbox.unread == 1

    in_memory(sandbox, scenario)


def test_a_global_seller_has_several_ids(in_memory):
    sandbox = Sandbox([Pack(P)], behaviour=Behaviour(listing_user_id=5, other_seller_ids=[5, "6"]))

    async def scenario(ask):
        for seller in (S, 5, 6):
            assert (await ask.get(f"/messages/packs/{P}/sellers/{seller}?mark_as_read=false")).status == 200
            assert (await ask.get(f"/marketplace/messages/unread?user_id={seller}")).status == 200
        assert (await ask.get(f"/messages/packs/{P}/sellers/7?mark_as_read=false")).status == 403

    in_memory(sandbox, scenario)


def test_a_message_by_its_id_in_the_flat_form_with_an_order_alone(in_memory):
    behaviour = Behaviour(by_id="flat", by_id_resources="orders")
    sandbox = Sandbox([Pack(P, [Message("Hola", read=True)])], behaviour=behaviour)

    async def scenario(ask):
        (message,) = sandbox.message_ids()
        flat = (await ask.get(f"/messages/{message}?tag=post_sale")).json
        assert differences(flat, sample("message_by_id_legacy_flat")) == []
        assert (flat["message_id"], flat["text"]) == (message, {"plain": "Hola"})
        assert (flat["resource"], flat["resource_id"]) == ("orders", P)
        assert flat["date_read"] is not None

    in_memory(sandbox, scenario)


def test_a_message_by_its_id_whose_resources_are_an_order_alone(in_memory):
    sandbox = Sandbox([Pack(P)], behaviour=Behaviour(by_id_resources="orders"))

    async def scenario(ask):
        (message,) = sandbox.message_ids()
        seen = (await ask.get(f"/messages/{message}?tag=post_sale")).json
        assert differences(seen, sample("message_by_id_envelope_local")) == []
        assert seen["messages"][0]["message_resources"] == [{"id": P, "name": "orders"}]

    in_memory(sandbox, scenario)


def test_the_pending_shape_has_a_flat_form_too(in_memory):
    sandbox = Sandbox([Pack(P)], behaviour=Behaviour(by_id="flat", shape="pending"))

    async def scenario(ask):
        (message,) = sandbox.message_ids()
        flat = (await ask.get(f"/messages/{message}?tag=post_sale")).json
        assert (flat["to"], flat["resource"], flat["resource_id"]) == (None, "packs", P)

    in_memory(sandbox, scenario)


def test_a_message_that_lost_a_file(in_memory):
    sandbox = Sandbox(
        [Pack(P, buyer_id=9)],
        behaviour=Behaviour(refuses_file=lambda name: "invalid_extension" if name.endswith(".pdf") else None),
    )

    async def upload(ask: Any, name: str) -> str:
        form = aiohttp.FormData()
        form.add_field("file", b"x", filename=name, content_type="text/plain")
        answer = await ask.get("/messages/attachments?tag=post_sale&site_id=MLA", method="POST", data=form)
        assert answer.status == 201
        return str(answer.json["id"])

    async def scenario(ask):
        files = [await upload(ask, "a.pdf"), await upload(ask, "b.txt")]
        body = {"from": {"user_id": S}, "to": {"user_id": 9}, "text": "...", "attachments": files}
        path = f"/messages/packs/{P}/sellers/{S}?tag=post_sale"
        sent = await ask.get(path, method="POST", json=body)
        documented = sample("send_response_attachment_refused")["attachments_validations"]
        assert sent.status == 201
        assert sent.json["attachments_validations"] == {**documented, "invalid_extension": [files[0]]}
        rows = (await ask.peek(P)).json["messages"]
        assert [file["filename"] for file in rows[0]["message_attachments"]] == [files[1]]

    in_memory(sandbox, scenario)


@pytest.mark.parametrize(
    ("payload", "resource", "actions"),
    [
        ("notification_local_created", None, None),
        ("notification_local_actions_unknown", None, {"created": ["message_created"]}),
        ("notification_local_names_a_pack", "/messages/packs/{pack}", None),
        ("notification_local_slash_resource", "/messages/{message}", None),
        (None, "messages/{message}?tag=post_sale", {"created": None}),
        (None, "https://api.mercadolibre.com/packs/{pack}/sellers/{seller}/", {"created": [{"a": 1}]}),
    ],
)
def test_notifications_in_every_form_that_was_met(in_memory, payload, resource, actions):
    sandbox = Sandbox([Pack(P)])
    posts: list[dict[str, Any]] = []

    async def target(body: bytes) -> int:
        posts.append(json.loads(body))
        return 200

    async def scenario(ask):
        async with sandbox.notify(target, topic="messages", resource=resource, actions=actions) as notifier:
            message = sandbox.send(P)
            await asyncio.sleep(1)
            assert notifier.answers == [200]
        told = (resource or "{message}").format(message=message, pack=P, seller=S)
        expected = ["created"] if actions is None else actions["created"]
        assert (posts[0]["resource"], posts[0].get("actions")) == (told, expected)
        if payload is not None:
            documented = {**sample(payload), "id": "x"}
            documented.pop("_id", None)
            assert differences(posts[0], documented) == []

    in_memory(sandbox, scenario)


def test_a_blocked_application(in_memory):
    sandbox = Sandbox([Pack(P)])

    async def scenario(ask):
        sandbox.oauth.blocked = True
        seen = await ask.peek(P)
        assert (seen.status, seen.json) == (401, sample("error_401_unauthorized_scopes"))
        assert await refresh(ask) == (400, sample("oauth_error_unauthorized_application"))
        sandbox.oauth.blocked = False
        assert (await ask.peek(P)).status == 200
        assert (await refresh(ask))[0] == 200

    async def refresh(ask: Any, **replaced: str) -> tuple[int, Any]:
        form = {
            "grant_type": "refresh_token",
            "client_id": sandbox.oauth.client_id,
            "client_secret": sandbox.oauth.client_secret,
            "refresh_token": str(sandbox.oauth.refresh_token),
        }
        answer = await ask.get("/oauth/token", method="POST", data={**form, **replaced})
        return answer.status, answer.json

    async def mismatch(ask):
        assert (await refresh(ask, client_id="2"))[1]["error"] == "invalid_client"
        sandbox.oauth.wrong_client = "invalid_grant"
        assert await refresh(ask, client_id="2") == (400, sample("oauth_error_client_mismatch"))
        sandbox.oauth.overrides = {"user_id": 5}
        assert (await refresh(ask))[1]["user_id"] == 5  # a refresh that answers for another user
        with pytest.raises(ValueError, match="invalid_client, invalid_grant"):
            sandbox.oauth.wrong_client = "wrong"  # type: ignore[assignment] # that is the point

    in_memory(sandbox, scenario)
    in_memory(sandbox, mismatch)


@case("R40")
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: untyped(Behaviour)(order="news"), r"'newest', 'oldest'"),
        (lambda: untyped(Behaviour)(marks="all"), r"'pack', 'page'"),
        (lambda: untyped(Behaviour)(shape="local"), r"'marketplace', 'domestic', 'pending'"),
        (lambda: untyped(RateWindow)(kind="leaky"), r"'fixed', 'sliding', 'bucket'"),
        (lambda: Sandbox(0).notify("http://x", resource="/messages/{id}"), r"{message}, {pack} and {seller}"),
        (lambda: untyped(Sandbox(0).count)("marks"), r"listing, probe, mark, peek"),
    ],
)
def test_a_wrong_word_is_refused_with_the_list_of_the_right_ones(wrong, named):
    with pytest.raises(ValueError, match=named):
        wrong()

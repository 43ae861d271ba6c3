"""Many sellers under one application: whose request it is, one budget, consent and notifications for each."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest

from cases import case
from mlmessages.testing import (
    EXECUTE,
    MARK_ALL,
    SNAPSHOT,
    Behaviour,
    HideIt,
    Marketplace,
    Message,
    Pack,
    RateWindow,
    Reply,
    RevealIt,
    Seller,
    Send,
    on,
    virtual_run,
)

LISTING = "/messages/unread?role=seller&tag=post_sale"


async def get(session: aiohttp.ClientSession, base_url: str, path: str, seller: Seller, **options: Any) -> Any:
    """The status and the JSON of an answer to a seller's token."""
    headers = {"Authorization": f"Bearer {seller.token}"}
    async with session.request(options.pop("method", "GET"), base_url + path, headers=headers, **options) as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if body else None


def in_memory(marketplace: Marketplace, scenario: Any) -> None:
    async def main() -> None:
        async with marketplace.session() as session:

            async def ask(path: str, seller: Seller, **options: Any) -> Any:
                return await get(session, marketplace.base_url, path, seller, **options)

            await scenario(ask)

    virtual_run(main())


def page(seller: Seller, pack: str) -> str:
    return f"/messages/packs/{pack}/sellers/{seller.seller_id}?tag=post_sale"


async def refreshed(ask: Any, seller: Seller) -> tuple[int, Any]:
    form = {
        "grant_type": "refresh_token",
        "client_id": seller.oauth.client_id,
        "client_secret": seller.oauth.client_secret,
        "refresh_token": seller.oauth.refresh_token,
    }
    status, answer = await ask("/oauth/token", seller, method="POST", data=form)
    return status, answer


def test_a_token_says_whose_conversations_these_are():
    marketplace = Marketplace(3, 2)
    one, two, _ = marketplace.sellers

    async def scenario(ask):
        for seller in marketplace.sellers:
            _, listing = await ask(LISTING, seller)
            assert listing["user_id"] == int(seller.seller_id)
            packs = [row["resource"].split("/")[2] for row in listing["results"]]
            assert sorted(packs) == sorted(seller.pack_ids())
        (pack, _) = one.pack_ids()
        assert (await ask(page(one, pack), two))[0] == 403  # the other's path
        assert (await ask(page(two, pack), two))[0] == 404  # the other's pack
        assert marketplace.unread == 6
        assert (await ask(page(one, pack), one))[0] == 200
        (marked,) = marketplace.marked_ids()
        assert (await ask(f"/messages/{marked}?tag=post_sale", one))[0] == 200
        assert (await ask(f"/messages/{marked}?tag=post_sale", two))[0] == 404
        assert one.marked_ids() == {marked}
        assert marketplace.unread_ids() == marketplace.message_ids() - {marked}
        assert [entry.seller_id for entry in marketplace.log][:3] == [s.seller_id for s in marketplace.sellers]

    in_memory(marketplace, scenario)
    assert len(set(marketplace.pack_ids())) == len(marketplace.message_ids()) == 6


@case("Q40")
@pytest.mark.parametrize(("per", "let_in"), [("application", [2, 0, 0]), ("seller", [2, 2, 2])])
def test_the_rate_window_is_for_the_application_or_for_each_seller(per, let_in):
    marketplace = Marketplace(3, 1, behaviour=Behaviour(rate=RateWindow(reads=2, per=per)))

    async def scenario(ask):
        for seller, expected in zip(marketplace.sellers, let_in, strict=True):
            statuses = [(await ask(LISTING, seller))[0] for _ in range(4)]
            assert statuses == [200] * expected + [429] * (4 - expected)
        await asyncio.sleep(60)
        assert (await ask(LISTING, marketplace.sellers[2]))[0] == 200

    in_memory(marketplace, scenario)
    assert marketplace.throttled == 12 - sum(let_in)


@case("Q41")
def test_tokens_are_each_sellers_own():
    marketplace = Marketplace(2, 1)
    one, two = marketplace.sellers

    async def scenario(ask):
        old = one.oauth.refresh_token
        status, granted = await refreshed(ask, one)
        assert (status, granted["user_id"]) == (200, int(one.seller_id))
        assert one.oauth.refresh_token != old
        assert (one.oauth.granted, two.oauth.granted) == (1, 0)
        two.oauth.expire()
        assert (await ask(LISTING, two))[0] == 401
        assert (await ask(LISTING, one))[0] == 200
        assert (await refreshed(ask, two))[0] == 200
        assert (await ask(LISTING, two))[0] == 200
        two.oauth.revoke()
        assert (await refreshed(ask, two))[1]["error"] == "invalid_grant"
        assert (await refreshed(ask, one))[0] == 200
        marketplace.application.blocked = True
        assert (await ask(LISTING, one))[1]["error"] == "unauthorized_scopes"
        assert (await refreshed(ask, one))[1]["error"] == "unauthorized_application"

    in_memory(marketplace, scenario)


def test_a_seller_comes_later_and_agrees():
    marketplace = Marketplace(1, 1)
    late = marketplace.add_seller([Pack(messages=[Message("¿Hola?")])], seller_id=5, consented=False)
    application = marketplace.application

    async def scenario(ask):
        assert (await ask(LISTING, late))[0] == 401
        address = {"response_type": "code", "client_id": application.client_id, "redirect_uri": "https://example.com/"}
        back = late.oauth.consent("https://auth.example.com/authorization?" + urlencode(address))
        form = {
            "grant_type": "authorization_code",
            "client_id": application.client_id,
            "client_secret": application.client_secret,
            "code": parse_qs(urlsplit(back).query)["code"][0],
            "redirect_uri": "https://example.com/",
        }
        status, granted = await ask("/oauth/token", late, method="POST", data=form)
        assert (status, granted["user_id"]) == (200, 5)
        assert len((await ask(LISTING, late))[1]["results"]) == 1

    in_memory(marketplace, scenario)
    assert marketplace.seller("5") is late
    with pytest.raises(LookupError, match="no seller 6"):
        marketplace.seller(6)
    with pytest.raises(ValueError, match="seller 5 is there twice"):
        marketplace.add_seller(seller_id=5)
    assert [seller.seller_id for seller in marketplace.sellers] == ["700100200", "5"]


def test_the_consent_page_names_every_seller():
    marketplace = Marketplace(2, 0)

    async def main():
        async with marketplace.session() as session:
            query = urlencode(
                {
                    "response_type": "code",
                    "client_id": marketplace.application.client_id,
                    "redirect_uri": "https://example.com/",
                }
            )
            async with session.get(f"{marketplace.base_url}/authorization?{query}") as answer:
                html = await answer.text()
        assert all(seller.seller_id in html for seller in marketplace.sellers)

    virtual_run(main())


@case("Q42")
@pytest.mark.parametrize(("scope", "listed"), [("application", 2), ("seller", 1)])
def test_notifications_tell_whose_they_are_and_missed_ones_are_listed(scope, listed):
    marketplace = Marketplace(2, 1, behaviour=Behaviour(missed_feeds_of=scope))
    posts = []

    async def taken(body: bytes) -> int:
        posts.append(json.loads(body))
        return 500

    async def scenario(ask):
        async with marketplace.notify(taken, topic="messages", application_id=9):
            for seller in marketplace.sellers:
                seller.send(seller.pack_ids()[0])
            await asyncio.sleep(3700)
        assert {post["user_id"] for post in posts} == {700100200, 700100201}
        _, missed = await ask("/missed_feeds?app_id=9", marketplace.sellers[0])
        assert len(missed["messages"]) == listed
        assert str(missed["messages"][0]["user_id"]) == marketplace.sellers[0].seller_id

    in_memory(marketplace, scenario)


def test_a_rule_can_be_for_one_seller():
    marketplace = Marketplace(2, 2)
    one, two = marketplace.sellers
    marketplace.add(on("listing", seller=two.seller_id).do(Reply(503)))

    async def scenario(ask):
        assert [(await ask(LISTING, seller))[0] for seller in (one, two)] == [200, 503]

    in_memory(marketplace, scenario)


def test_effects_find_the_conversation_and_the_message_of_any_seller():
    marketplace = Marketplace(2, 1)
    one, two = marketplace.sellers
    (pack,) = two.pack_ids()
    (message,) = two.message_ids()
    marketplace.add(on("listing", nth=1).do(Send(pack), HideIt(message), EXECUTE))
    marketplace.add(on("listing", nth=2).do(RevealIt(message), EXECUTE))
    marketplace.add(on("mark", nth=1).do(SNAPSHOT, MARK_ALL))

    async def scenario(ask):
        await ask(LISTING, one)
        assert len((await ask(page(two, pack) + "&mark_as_read=false", two))[1]["messages"]) == 1
        await ask(LISTING, one)
        assert len((await ask(page(two, pack) + "&mark_as_read=false", two))[1]["messages"]) == 2
        await ask(page(two, pack), two)
        assert (one.unread, two.unread) == (1, 0)

    in_memory(marketplace, scenario)
    for change in (one.hide, one.reveal):
        with pytest.raises(LookupError, match=f"no message {message}"):
            change(message)  # it is the other seller's


def test_packs_can_be_made_for_each_seller():
    marketplace = Marketplace(3, lambda number: [Pack(messages=[Message(f"seller {number}")])] * number)
    assert [len(seller.pack_ids()) for seller in marketplace.sellers] == [0, 1, 2]


@pytest.mark.asyncio
async def test_it_is_served_over_http():
    async with Marketplace(4, 3).serve() as server, aiohttp.ClientSession() as session:
        for seller in server.sellers:
            for pack in seller.pack_ids():
                status, _ = await get(session, server.base_url, page(seller, pack), seller)
                assert status == 200
        assert server.marketplace.unread == 0
        assert server.marketplace.count("mark") == 12


@case("Q43")
def test_a_thousand_sellers_fit_into_memory():
    """50,000 conversations, every one of them read by the token of its seller."""
    marketplace = Marketplace(1000, 50)
    assert (len(marketplace.sellers), marketplace.unread) == (1000, 50_000)
    last = marketplace.sellers[-1]

    async def scenario(ask):
        _, listing = await ask(LISTING, last)
        assert len(listing["results"]) == 50

    in_memory(marketplace, scenario)

"""The page where the seller agrees, as a browser meets it."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from mlmessages.testing import Sandbox

ADDRESS = {
    "response_type": "code",
    "client_id": "1000000000000000",
    "redirect_uri": "https://example.com/cb?x=1",
    "state": "s&\"'<b>",
}


def address(**changes):
    return "/authorization?" + urlencode({key: value for key, value in {**ADDRESS, **changes}.items() if value})


async def tokens(ask, code, uri):
    oauth = ask.sandbox.oauth
    form = {"grant_type": "authorization_code", "client_id": oauth.client_id, "client_secret": oauth.client_secret}
    answer = await ask.get("/oauth/token", method="POST", data={**form, "code": code, "redirect_uri": uri})
    return answer.status, answer.json


def test_the_seller_agrees_and_the_code_is_good_for_tokens_once(in_memory):
    sandbox = Sandbox(1)

    async def scenario(ask):
        page = await ask.get(address(), token="")
        html = page.body.decode()
        assert page.status == 200
        assert page.headers["Content-Type"].startswith("text/html")
        assert "<b>" not in html
        action = unescape(re.findall(r'action="([^"]+)"', html)[0])
        agreed = await ask.get(action, token="", method="POST", data={"answer": "yes", "seller": sandbox.seller_id})
        assert agreed.status == 302
        there = urlsplit(agreed.headers["Location"])
        query = parse_qs(there.query)
        assert (there.netloc, query["x"], query["state"]) == ("example.com", ["1"], [ADDRESS["state"]])
        status, granted = await tokens(ask, query["code"][0], ADDRESS["redirect_uri"])
        assert (status, granted["user_id"]) == (200, 700100200)
        assert (await tokens(ask, query["code"][0], ADDRESS["redirect_uri"]))[0] == 400
        assert [entry.kind for entry in sandbox.log] == ["consent", "consent", "token", "token"]

    in_memory(sandbox, scenario)


def test_the_seller_does_not_agree(in_memory):
    async def scenario(ask):
        refused = await ask.get(address(state=None), token="", method="POST", data={"answer": "no"})
        assert refused.status == 302
        query = parse_qs(urlsplit(refused.headers["Location"]).query)
        assert query == {
            "x": ["1"],
            "error": ["access_denied"],
            "error_description": ["The seller did not agree."],
        }

    in_memory(Sandbox(0), scenario)


@pytest.mark.parametrize(
    "changes",
    [{"client_id": "2"}, {"response_type": "token"}, {"redirect_uri": None}, {"redirect_uri": "javascript:alert(1)"}],
)
def test_an_address_that_is_not_complete_is_not_agreed_to(in_memory, changes):
    async def scenario(ask):
        for method in ("GET", "POST"):
            answer = await ask.get(address(**changes), token="", method=method, data={"answer": "yes", "seller": "1"})
            assert answer.status == 400
            assert "Location" not in answer.headers

    in_memory(Sandbox(0), scenario)


def test_an_unknown_seller_cannot_agree(in_memory):
    async def scenario(ask):
        answer = await ask.get(address(), token="", method="POST", data={"answer": "yes", "seller": "1"})
        assert (answer.status, "Location" in answer.headers) == (400, False)

    in_memory(Sandbox(0), scenario)


def test_the_page_where_the_browser_is_sent(in_memory):
    async def scenario(ask):
        assert b"auth exchange" in (await ask.get("/callback?code=TG-1&state=2", token="")).body
        denied = await ask.get("/callback?error=access_denied&error_description=%3Cb%3Eno", token="")
        assert b"did not agree" in denied.body
        assert b"&lt;b&gt;no" in denied.body
        assert b"<b>" not in denied.body

    in_memory(Sandbox(0), scenario)

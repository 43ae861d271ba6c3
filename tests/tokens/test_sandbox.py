"""The sandbox's token endpoint against what the documentation prints, without a client of ours."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from mlmessages.auth import grants
from mlmessages.testing import Behaviour, RateWindow, Sandbox
from worlds import on_virtual_clock

PAYLOADS = Path(__file__).parents[1] / "payloads"
REDIRECT_URI = "https://seller.example/callback"


def payload(name: str) -> Any:
    return json.loads((PAYLOADS / f"{name}.json").read_text())


async def post(sandbox: Sandbox, method: str = "POST", **form: str | None) -> tuple[int, Any]:
    fields = {"client_id": sandbox.oauth.client_id, "client_secret": sandbox.oauth.client_secret, **form}
    async with (
        sandbox.session() as session,
        session.request(
            method,
            f"{sandbox.base_url}/oauth/token",
            data={key: value for key, value in fields.items() if value is not None},
        ) as answer,
    ):
        return answer.status, await answer.json()


async def refreshed(sandbox: Sandbox, **form: str | None) -> tuple[int, Any]:
    return await post(sandbox, **{"grant_type": "refresh_token", "refresh_token": sandbox.oauth.refresh_token, **form})  # type: ignore[arg-type] # "method" is not among them


async def listed(sandbox: Sandbox, token: str) -> int:
    url = f"{sandbox.base_url}/marketplace/messages/unread?role=seller"
    async with (
        sandbox.session() as session,
        session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer,
    ):
        return answer.status


@on_virtual_clock
async def test_a_grant_is_as_documented() -> None:
    """The keys and their types are those of the captured answer."""
    status, answer = await refreshed(Sandbox(packs=0))
    captured = payload("oauth_token_ok")
    assert status == 200
    assert {key: type(value) for key, value in answer.items()} == {key: type(value) for key, value in captured.items()}
    assert (answer["expires_in"], answer["scope"]) == (captured["expires_in"], captured["scope"])


@on_virtual_clock
async def test_a_refresh_token_is_for_one_use() -> None:
    """Used again it is refused as captured, and only the newest works."""
    sandbox = Sandbox(packs=0)
    first = sandbox.oauth.refresh_token
    _, answer = await refreshed(sandbox)
    assert await refreshed(sandbox, refresh_token=first) == (400, payload("oauth_error_invalid_grant_message"))
    assert (await refreshed(sandbox, refresh_token=answer["refresh_token"]))[0] == 200
    assert sandbox.count("token") == 3
    assert [entry.executed for entry in sandbox.log] == [True, False, True]


@pytest.mark.parametrize("keeps_old", [True, False])
@on_virtual_clock
async def test_access_tokens_end(keeps_old: bool) -> None:
    """Each lives six hours, whether or not there is a newer one; or only the newest, where the sandbox is told so."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.keeps_old = keeps_old
    first = (await refreshed(sandbox))[1]["access_token"]
    second = (await refreshed(sandbox))[1]["access_token"]
    assert [await listed(sandbox, token) for token in (first, second)] == [200 if keeps_old else 401, 200]
    await asyncio.sleep(21599)
    assert await listed(sandbox, second) == 200
    await asyncio.sleep(1)
    assert await listed(sandbox, second) == 401


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"client_secret": "x"}, "invalid_client"),
        ({"client_id": None}, "invalid_client"),
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"refresh_token": None}, "invalid_grant"),
    ],
    ids=str,
)
@on_virtual_clock
async def test_each_refusal_has_its_code(form: dict[str, str | None], error: str) -> None:
    """400 with the classic body; nothing was used up."""
    sandbox = Sandbox(packs=0)
    status, answer = await refreshed(sandbox, **form)
    assert (status, answer["error"], answer["status"], answer["cause"]) == (400, error, 400, [])
    assert (await refreshed(sandbox))[0] == 200


@pytest.mark.parametrize("wrong", [None, "redirect_uri", "code_verifier", "code"])
@on_virtual_clock
async def test_a_code_is_for_one_use_and_for_who_asked(wrong: str | None) -> None:
    """It is worth tokens once, with the redirect address and the verifier that belong to it; a wrong try spends it."""
    sandbox = Sandbox(packs=0)
    url = grants.authorization_url("https://auth.example", sandbox.oauth.client_id, REDIRECT_URI, "state", "verifier")
    back = dict(parse_qsl(urlsplit(sandbox.oauth.consent(url)).query))
    assert back["state"] == "state"
    form = {
        "grant_type": "authorization_code",
        "code": back["code"],
        "redirect_uri": REDIRECT_URI,
        "code_verifier": "verifier",
    }
    if wrong is not None:
        assert (await post(sandbox, **{**form, wrong: "https://x.example"}))[0] == 400
    assert (await post(sandbox, **form))[0] == (200 if wrong in (None, "code") else 400)
    assert (await post(sandbox, **form))[0] == 400


def test_consent_is_given_to_its_own_application() -> None:
    """An address of another application is a mistake of the test."""
    sandbox = Sandbox(packs=0)
    with pytest.raises(ValueError, match="application"):
        sandbox.oauth.consent(
            "https://auth.example/authorization?" + urlencode({"response_type": "code", "client_id": "5"})
        )


@on_virtual_clock
async def test_revoked_is_revoked() -> None:
    """Neither the access token nor the refresh token is worth anything."""
    sandbox = Sandbox(packs=0)
    before = sandbox.oauth.refresh_token
    sandbox.oauth.revoke()
    assert await listed(sandbox, sandbox.token) == 401
    assert (await refreshed(sandbox, refresh_token=before))[0] == 400


@on_virtual_clock
async def test_it_is_outside_of_the_messages_budget() -> None:
    """A window that is used up refuses messages, and no refresh; only POST is known there."""
    sandbox = Sandbox(packs=0, behaviour=Behaviour(rate=RateWindow(reads=0, writes=0)))
    assert await listed(sandbox, sandbox.token) == 429
    assert (await refreshed(sandbox))[0] == 200
    assert (await post(sandbox, "GET"))[0] == 405

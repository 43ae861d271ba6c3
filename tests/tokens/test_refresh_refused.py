"""401s that no refresh cures, odd answers, refusals, and the end of the refresh token (F9, F10, F12, F13). Virtual clock throughout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest

from cases import case
from mlmessages import FileTokenStore
from mlmessages.errors import AuthError, RateLimited, ReauthorizationRequired, Unauthorized
from mlmessages.testing import EXECUTE, Hold, Redirect, Reply, Sandbox, on
from tokens.conftest import HOUR, client_with, first_token, hours, posts, source_of, stored
from worlds import on_virtual_clock

Warned = Callable[[str], list[str]]
FIRST = 2000000000000001


# -- F9: a 401 that no refresh cures ---------------------------------------------------------------------------------


@case("F9")
@on_virtual_clock
async def test_always_401_costs_one_refresh_and_is_unauthorized(store: FileTokenStore) -> None:
    """The application is blocked, say: twenty calls, one POST, and each call raises `Unauthorized`."""
    sandbox = Sandbox(packs=0, rules=[on("listing").do(Reply(401, {"message": "invalid_token"}))])
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(20):
            with pytest.raises(Unauthorized):
                await client.unread()
            await asyncio.sleep(10)
    assert len(posts(sandbox)) == 1


@case("F9")
@on_virtual_clock
async def test_one_path_that_is_always_401_costs_one_refresh(store: FileTokenStore) -> None:
    """A scope is missing: the path without it fails each time, the others go on, and nothing is refreshed for it."""
    sandbox = Sandbox(packs=1, rules=[on("peek").do(Reply(401, {"message": "not with this scope"}))])
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(20):
            await client.unread()
            with pytest.raises(Unauthorized):
                await client.page(FIRST)
    assert len(posts(sandbox)) == 1


@case("F9")
@on_virtual_clock
async def test_a_token_that_ends_after_one_strange_401_is_refreshed(store: FileTokenStore) -> None:
    """A single 401, then it works, and an hour later it is really over: that is not taken for the same thing."""
    sandbox = Sandbox(packs=1, rules=[on("peek", times=2).do(Reply(401, {"message": "invalid_token"}))])
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(Unauthorized):
            await client.page(FIRST)
        await client.page(FIRST)
        await asyncio.sleep(hours(1))
        sandbox.oauth.expire()
        await client.page(FIRST)
    assert len(posts(sandbox)) == 2


@case("F9")
@on_virtual_clock
async def test_a_late_401_does_not_discard_the_new_token(store: FileTokenStore) -> None:
    """A request that left with the old token is answered after the refresh: its 401 is about the old one."""
    sandbox = Sandbox(packs=2, rules=[on("peek", nth=1).do(Hold("late"), EXECUTE)])
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        late = asyncio.ensure_future(client.page(FIRST))
        await asyncio.sleep(1)
        sandbox.oauth.expire()
        await client.unread()
        sandbox.release("late")
        await late
    assert len(posts(sandbox)) == 1


# -- F10: odd answers ------------------------------------------------------------------------------------------------


@case("F10")
@on_virtual_clock
async def test_an_answer_without_a_refresh_token_keeps_the_old_one(store: FileTokenStore, warnings: Warned) -> None:
    """The old one stays in the store, with the age that it has, and there is a warning."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.overrides = {"refresh_token": None}
    token = first_token(sandbox, age=4 * HOUR)
    await store.save(token)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        kept = await stored(store)
        assert (kept.access_token, kept.refresh_token) == (sandbox.token, token.refresh_token)
        assert kept.refresh_issued_at == token.issued_at
        assert warnings("no refresh_token")
        await asyncio.sleep(hours(3.1))
        await client.unread()
    assert len(posts(sandbox)) == 2
    assert (await stored(store)).refresh_issued_at == token.issued_at


@case("F10")
@pytest.mark.parametrize(
    ("overrides", "life"),
    [
        ({"expires_in": "10800"}, 3),
        ({"expires_in": 10800.0, "scope": None, "user_id": "700100200", "extra": {"a": [1]}}, 3),
        ({"expires_in": None}, 3),
        ({"expires_in": "soon"}, 3),
        ({"expires_in": -1}, 3),
        ({"expires_in": True}, 3),
        ({"expires_in": 1e300}, 3),
        ({"refresh_token": ""}, 6),
        ({"refresh_token": "two words"}, 6),
        ({"user_id": None, "token_type": None}, 6),
    ],
    ids=str,
)
@on_virtual_clock
async def test_odd_values_are_read_or_replaced(store: FileTokenStore, overrides: Any, life: int) -> None:
    """A life as text, fields that nobody knows, or none: the token is used, and what it lacks stays as it was."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.overrides = overrides
    await store.save(first_token(sandbox, age=4 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    kept = await stored(store)
    assert kept.access_token == sandbox.token
    assert kept.refresh_token in ("TG-sandbox-0-700100200", "TG-sandbox-1-700100200")
    assert kept.issued_at is not None
    assert kept.expires_at - kept.issued_at == life * HOUR
    assert kept.user_id == "700100200"


@case("F10")
@pytest.mark.parametrize("overrides", [{"access_token": None}, {"access_token": ""}, {"access_token": "a\nb"}], ids=str)
@on_virtual_clock
async def test_an_answer_without_an_access_token_replaces_nothing(store: FileTokenStore, overrides: Any) -> None:
    """It is checked before it is saved: what was in the store stays there."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.overrides = overrides
    token = first_token(sandbox, age=4 * HOUR)
    await store.save(token)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        kept = await stored(store)
        assert (kept.access_token, kept.refresh_token) == (token.access_token, token.refresh_token)


# -- F12: refusals ---------------------------------------------------------------------------------------------------


@case("F12")
@on_virtual_clock
async def test_a_wrong_secret_is_not_the_sellers_affair(store: FileTokenStore) -> None:
    """`invalid_client`: an `AuthError` that names the secret, not `ReauthorizationRequired`; one POST for many calls."""
    sandbox = Sandbox(packs=0)
    token = first_token(sandbox, age=7 * HOUR)
    await store.save(token)
    async with client_with(sandbox, source_of(sandbox, store, client_secret="renewed-0000")) as client:
        for _ in range(5):
            with pytest.raises(AuthError, match="invalid_client") as refused:
                await client.unread()
            assert not isinstance(refused.value, ReauthorizationRequired)
            assert "secret" in (refused.value.hint or "")
            assert "renewed-0000" not in str(refused.value)
            await asyncio.sleep(5)
    assert len(posts(sandbox)) == 1
    assert await stored(store) == token  # and the note that one is under way is taken back


@case("F12")
@on_virtual_clock
async def test_a_revoked_consent_is_the_sellers_affair(store: FileTokenStore) -> None:
    """`invalid_grant`: `ReauthorizationRequired`, after one POST for many calls."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        sandbox.oauth.revoke()
        for _ in range(5):
            with pytest.raises(ReauthorizationRequired, match="already used"):
                await client.unread()
            await asyncio.sleep(5)
    assert len(posts(sandbox)) == 1


@case("F12")
@on_virtual_clock
async def test_each_call_has_an_error_of_its_own(store: FileTokenStore) -> None:
    """After two and a half seconds in which another process may have saved its tokens; one POST for all of them."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=7 * HOUR))
    sandbox.oauth.revoke()
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        started = asyncio.get_running_loop().time()
        errors = await asyncio.gather(*(client.unread() for _ in range(3)), return_exceptions=True)
        assert 2.4 < asyncio.get_running_loop().time() - started < 2.6
    assert {type(error) for error in errors} == {ReauthorizationRequired}
    assert len({id(error) for error in errors}) == 3
    assert len(posts(sandbox)) == 1


@case("F12")
@on_virtual_clock
async def test_two_secrets_in_one_day(store: FileTokenStore, warnings: Warned) -> None:
    """While the access token is good a wrong secret stops nobody: a warning, and a POST every quarter of an hour."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=3 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store, client_secret="renewed-0000")) as client:
        for _ in range(170):
            await client.unread()
            await asyncio.sleep(60)
    assert warnings("invalid_client")
    assert 12 <= len(posts(sandbox)) <= 17


@case("F12")
@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Reply(429, {"message": "local_rate_limited"}), RateLimited),
        (Reply(403, {"error": "forbidden", "message": "no"}), AuthError),
        (Reply(400, {"error_description": "no scope", "error": "invalid_scope", "status": 400}), AuthError),
        (Reply(401, {"error": "unauthorized_application"}), AuthError),
        (Redirect("https://elsewhere.example/oauth/token"), AuthError),
    ],
    ids=str,
)
@on_virtual_clock
async def test_other_refusals_are_errors_of_their_own(store: FileTokenStore, refusal: Any, error: Any) -> None:
    """None of them was executed: the refresh token is good, and when the endpoint works again so does the client."""
    sandbox = Sandbox(packs=0)
    rule = sandbox.add(on("token").do(refusal))
    token = first_token(sandbox, age=7 * HOUR)
    await store.save(token)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(error) as refused:
            await client.unread()
        assert not isinstance(refused.value, (ReauthorizationRequired, Unauthorized))
        if isinstance(refused.value, RateLimited):
            assert "asked too often" in str(refused.value.hint)
        assert await stored(store) == token
        sandbox.remove(rule)
        await asyncio.sleep(61)
        await client.unread()


@case("F12")
@on_virtual_clock
async def test_a_refusal_for_its_rate_is_repeated(store: FileTokenStore) -> None:
    """A 429 is no execution: the refresh is sent again, after the time that it asks for, and nobody notices."""
    sandbox = Sandbox(packs=0, rules=[on("token", times=2).do(Reply(429, {}, {"Retry-After": "5"}))])
    await store.save(first_token(sandbox))
    sandbox.oauth.expire()
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert [round(entry.at) for entry in posts(sandbox)] == [0, 5, 10]


@case("F12")
@on_virtual_clock
async def test_a_refused_refresh_is_repeated_later_and_later(store: FileTokenStore) -> None:
    """One minute, two, four, eight, then every quarter of an hour, while the token that is there serves."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(Reply(403, {"error": "forbidden"}))])
    await store.save(first_token(sandbox, age=3 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(400):
            await client.unread()
            await asyncio.sleep(10)
    asked = [entry.at for entry in posts(sandbox)]
    waits = [round((later - earlier) / 60) for earlier, later in pairwise(asked)]
    assert waits == [1, 2, 4, 8, 15, 15, 15]


# -- F13: the end of the refresh token -------------------------------------------------------------------------------


@case("F13")
@pytest.mark.parametrize(("days", "warned"), [(89, False), (91, True), (119, True)])
@on_virtual_clock
async def test_four_months_without_use_are_announced_thirty_days_before(
    store: FileTokenStore, warnings: Warned, days: int, warned: bool
) -> None:
    """An application that nobody used for three months is told of what comes."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=timedelta(days=days)))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert bool(warnings("ends in")) is warned


@case("F13")
@pytest.mark.parametrize(("days", "warned"), [(149, False), (151, True), (179, True), (181, True)])
@on_virtual_clock
async def test_six_months_of_one_refresh_token_are_announced_thirty_days_before(
    store: FileTokenStore, warnings: Warned, days: int, warned: bool
) -> None:
    """A refresh token that is never replaced has its own age, however young the access token is."""
    sandbox = Sandbox(packs=0)
    token = first_token(sandbox)
    await store.save(attrs.evolve(token, refresh_issued_at=datetime.now(UTC) - timedelta(days=days)))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert bool(warnings("ends in")) is warned


# -- K26: whose affair a refusal is --------------------------------------------------------------------------------------


def payload(name: str) -> Any:
    return json.loads((Path(__file__).parents[1] / "payloads" / f"{name}.json").read_text())


@case("K26")
@pytest.mark.parametrize(
    ("refusal", "hint"),
    [
        (Reply(400, payload("oauth_error_client_mismatch")), "another application"),
        (Reply(400, payload("oauth_error_unauthorized_application")), "blocked the application"),
        (Reply(401, payload("error_401_unauthorized_scopes")), "blocked the application"),
        (
            Reply(400, {"error": "invalid_grant", "error_description": "redirect_uri does not match"}),
            "letter by letter",
        ),
        (Reply(400, {"error": "redirect_uri_mismatch"}), "letter by letter"),
        (Reply(403, {"error": "invalid_operator_user_id"}), "administrator"),
    ],
    ids=["client mismatch", "application", "scopes", "redirect in words", "redirect", "operator"],
)
@on_virtual_clock
async def test_what_the_seller_cannot_mend_is_told_as_what_it_is(
    store: FileTokenStore, refusal: Reply, hint: str
) -> None:
    """An `AuthError` that is no `ReauthorizationRequired`; nothing is spent, and when it is mended a refresh works."""
    sandbox = Sandbox(packs=0)
    rule = sandbox.add(on("token").do(refusal))
    token = first_token(sandbox, age=7 * HOUR)
    await store.save(token)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(AuthError) as refused:
            await client.unread()
        assert not isinstance(refused.value, ReauthorizationRequired)
        assert hint in (refused.value.hint or "")
        assert await stored(store) == token
        sandbox.remove(rule)
        await asyncio.sleep(61)
        await client.unread()


@case("K26")
@on_virtual_clock
async def test_a_blocked_application_costs_no_refresh(store: FileTokenStore) -> None:
    """401 `unauthorized_scopes` to a read: no new token would help, and none is asked for."""
    reply = Reply(401, payload("error_401_unauthorized_scopes"))
    sandbox = Sandbox(packs=0, rules=[on("listing").do(reply)])
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await client.unread()
    assert posts(sandbox) == []


@case("K26")
@on_virtual_clock
async def test_a_definite_refusal_is_written_down(store: FileTokenStore) -> None:
    """`mlmessages auth status` can tell; a new authorisation forgets it."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=4 * HOUR))
    sandbox.oauth.revoke()
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(ReauthorizationRequired):
            await client.unread()
            await client.unread()
    kept = await stored(store)
    assert kept.refresh_refused_at is not None
    assert kept.refresh_sent_at is None
    assert kept.refresh_token is not None


@case("K26")
@pytest.mark.parametrize(
    ("refusal", "said", "hint"),
    [
        (Reply(401, {}), "(401): no reason given", "client secret"),
        (Reply(403, {}), "(403): no reason given", None),
        (
            Reply(400, {"error": "invalid_scope", "message": "client_id unknown"}),
            "invalid_scope",
            "another application",
        ),
        (Reply(400, {"error": "invalid_scope"}), "(400): invalid_scope", None),
        (Reply(400, {"error": "unauthorized_client", "message": "client_id unknown"}), "client_id", "client secret"),
    ],
    ids=["401", "403", "a word in the text", "a code without a hint", "a code before the text"],
)
@on_virtual_clock
async def test_the_hint_is_the_one_of_the_code_then_of_the_text_then_of_the_status(
    store: FileTokenStore, refusal: Reply, said: str, hint: str | None
) -> None:
    """And where none is known, there is none."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(refusal)])
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(AuthError) as refused:
            await client.unread()
    assert said in str(refused.value)
    assert (refused.value.hint or "").count(hint or "nothing") == (hint is not None)


# -- K35: odd answers that would do harm ---------------------------------------------------------------------------------


@case("K35")
@on_virtual_clock
async def test_tokens_of_another_seller_replace_nothing(store: FileTokenStore, warnings: Warned) -> None:
    """Refused loudly, with both ids; the token that is there is used to its end, and the refresh is not repeated."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.overrides = {"user_id": 5}
    token = first_token(sandbox, age=4 * HOUR)
    await store.save(token)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        (line,) = warnings("NOT RENEWED")
        assert "seller 5" in line
        assert str(sandbox.seller_id) in line
        await asyncio.sleep(hours(2.1))
        with pytest.raises(AuthError, match="tokens of seller 5") as refused:
            await client.unread()
        assert not isinstance(refused.value, ReauthorizationRequired)
        assert refused.value.hint
    kept = await stored(store)
    assert (kept.access_token, kept.refresh_token, kept.user_id) == (
        token.access_token,
        token.refresh_token,
        token.user_id,
    )
    assert len(posts(sandbox)) == 1


@case("K35")
@pytest.mark.parametrize("seconds", [0.001, "0.5", 1, 59])
@on_virtual_clock
async def test_a_life_of_no_time_is_no_storm(store: FileTokenStore, warnings: Warned, seconds: Any) -> None:
    """A minute is assumed at least, with a warning: a POST every half a minute, not one a call."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.overrides = {"expires_in": seconds}
    await store.save(first_token(sandbox, age=4 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(60):
            await client.unread()
            await asyncio.sleep(1)
    assert len(posts(sandbox)) <= 3
    assert warnings("very short")


@case("L6")
@on_virtual_clock
async def test_a_warning_promises_nothing_that_a_process_which_ends_cannot_keep(
    store: FileTokenStore, warnings: Warned
) -> None:
    """It says how long the old token is good, and not when the next attempt comes."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(Reply(403, {"error": "forbidden"}))])
    await store.save(first_token(sandbox, age=4 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    (line,) = warnings("NOT RENEWED")
    assert "is good for 2.0 h more" in line
    assert "tried again" not in line

"""`OAuthToken`: misuse, an empty store, refreshing on request. Virtual clock throughout."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from mlmessages import FileTokenStore, OAuthToken
from mlmessages.errors import AuthError, ReauthorizationRequired
from mlmessages.models import Token
from mlmessages.testing import Reply, Sandbox, on, virtual_run
from tokens.conftest import HOUR, MemoryStore, client_with, first_token, hours, posts, source_of, stored
from worlds import on_virtual_clock

# -- misuse, and what is not there -----------------------------------------------------------------------------------


@on_virtual_clock
async def test_an_empty_store_needs_the_seller(store: FileTokenStore) -> None:
    """No file is no token: `ReauthorizationRequired` with the command that begins it, and nothing is sent."""
    sandbox = Sandbox(packs=0)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(ReauthorizationRequired) as refused:
            await client.unread()
        assert "mlmessages auth url" in (refused.value.hint or "")
        await store.save(first_token(sandbox))
        await client.unread()
    assert len(sandbox.log) == 1


@on_virtual_clock
async def test_without_a_refresh_token_the_access_token_is_used_to_its_end(store: FileTokenStore) -> None:
    """No offline_access was granted: the token serves, then the seller must authorise again; nothing is sent."""
    sandbox = Sandbox(packs=0)
    await store.save(attrs.evolve(first_token(sandbox, age=5 * HOUR), refresh_token=None))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        await asyncio.sleep(hours(1.1))
        with pytest.raises(ReauthorizationRequired, match="offline_access"):
            await client.unread()
    assert posts(sandbox) == []


@on_virtual_clock
async def test_a_source_without_a_client_cannot_refresh(store: FileTokenStore) -> None:
    """A good token is given out; a refresh needs a client: `RuntimeError`, and the store is as it was."""
    sandbox = Sandbox(packs=0)
    token = first_token(sandbox)
    await store.save(token)
    auth = source_of(sandbox, store)
    assert await auth.token() == token.access_token
    with pytest.raises(RuntimeError, match="client"):
        await auth.refresh()
    assert await stored(store) == token


@on_virtual_clock
async def test_refresh_refreshes_now(store: FileTokenStore) -> None:
    """`refresh` does not wait until it is due, and returns what was saved."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox))
    auth = source_of(sandbox, store)
    async with client_with(sandbox, auth):
        token = await auth.refresh()
    assert token == await stored(store)
    assert token.access_token == sandbox.token
    assert len(posts(sandbox)) == 1


@on_virtual_clock
async def test_the_token_endpoint_may_be_somewhere_else(store: FileTokenStore) -> None:
    """`base_url` is where refreshes go: nobody listens there, so it is `NotSent`, and the refresh token is good."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=7 * HOUR))
    auth = source_of(sandbox, store, base_url="http://127.0.0.1:9/prefix/")
    async with client_with(sandbox, auth) as client:  # in memory every address is the sandbox
        with pytest.raises(AuthError, match="404"):
            await client.unread()
    assert sandbox.log[0].path == "/prefix/oauth/token"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_id": None}, "client_id"),
        ({"client_id": True}, "client_id"),
        ({"client_id": "1 2"}, "client_id"),
        ({"client_secret": ""}, "client_secret"),
        ({"client_secret": "canary\n"}, "client_secret"),
        ({"client_secret": b"canary"}, "client_secret"),
        ({"store": None}, "store"),
        ({"store": "seller.json"}, "store"),
        ({"base_url": "http://elsewhere.example"}, "base_url"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_at_once(changes: dict[str, Any], said: str) -> None:
    """`ValueError` that names the argument, and does not quote a secret."""
    arguments = {"client_id": 1, "client_secret": "secret", "store": MemoryStore(None), **changes}
    with pytest.raises(ValueError, match=said) as refused:
        OAuthToken(**arguments)
    assert "canary" not in str(refused.value)


def test_naive_dates_are_refused() -> None:
    """A token without a time zone would expire at another hour on another machine."""
    with pytest.raises(ValueError, match=r"Token\.expires_at"):
        Token("canary", None, datetime(2026, 1, 1))
    token = Token("canary-access", "canary-refresh", datetime.now(UTC), user_id=5)  # type: ignore[arg-type]
    assert token.user_id == "5"
    assert "canary" not in repr(token) + str(token) + f"{[token]}"


def test_a_failure_of_another_event_loop_makes_no_call_wait(file: Path) -> None:
    """One `OAuthToken` in one `asyncio.run` after the other: the second begins anew, however its clock stands."""
    sandbox = Sandbox(packs=0)
    asyncio.run(FileTokenStore(file).save(first_token(sandbox, age=4 * HOUR)))
    source = source_of(sandbox, FileTokenStore(file))
    rule = sandbox.add(on("token").do(Reply(403, {"error": "forbidden"})))

    async def listed() -> None:
        async with client_with(sandbox, source) as client:
            await client.unread()

    virtual_run(listed())
    sandbox.remove(rule)
    virtual_run(listed())
    assert [entry.status for entry in posts(sandbox)] == [403, 200]

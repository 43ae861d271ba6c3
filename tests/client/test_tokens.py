"""Whose token is used, what a 401 does, and what is no token."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, cast

import pytest

from cases import case
from mlmessages import Limits, MessagesClient, Retry, StaticToken, TokenSource
from mlmessages.errors import AuthError, MessagesError, NotSent, Unauthorized
from mlmessages.testing import Behaviour, Sandbox
from worlds import PLENTY, client_of, on_virtual_clock

FIRST = 2000000000000001


class Vault:
    """A `TokenSource` that hands out one token after another, as they are rejected."""

    def __init__(self, *tokens: Any) -> None:
        self.tokens = list(tokens)
        self.rejections: list[str] = []
        self.asked = 0

    async def token(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        return cast(str, self.tokens[0])  # a test may want it to be something else

    async def rejected(self, token: str) -> None:
        self.rejections.append(str(token))
        if self.tokens[0] == token and len(self.tokens) > 1:
            del self.tokens[0]


def client_with(source: TokenSource, sandbox: Sandbox, session: Any) -> MessagesClient:
    return MessagesClient(
        source, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session, limits=Limits(**PLENTY)
    )


@on_virtual_clock
async def test_a_new_token_cures_a_401() -> None:
    """The source is told which token was rejected, asked again, and the call succeeds; no attempt is used up."""
    sandbox = Sandbox(packs=1)
    vault = Vault("APP_USR-old", sandbox.token)
    async with sandbox.session() as session:
        client = MessagesClient(
            vault,
            seller_id=sandbox.seller_id,
            base_url=sandbox.base_url,
            session=session,
            retry=Retry(attempts=1),
        )
        async with client:
            assert len((await client.page(FIRST, mark_as_read=True)).messages) == 1
    assert vault.rejections == ["APP_USR-old"]
    assert [entry.status for entry in sandbox.log] == [401, 200]


@on_virtual_clock
async def test_the_same_token_again_means_unauthorized() -> None:
    """Nothing better is to be had: `Unauthorized`, with what to do, after one request."""
    sandbox = Sandbox(packs=1)
    vault = Vault("APP_USR-old")
    async with sandbox.session() as session, client_with(vault, sandbox, session) as client:
        with pytest.raises(Unauthorized) as refused:
            await client.page(FIRST)
    assert refused.value.hint
    assert refused.value.status == 401
    assert vault.rejections == ["APP_USR-old"]
    assert len(sandbox.log) == 1


@on_virtual_clock
async def test_a_second_401_is_final() -> None:
    """A source with one bad token after another is asked for one more, not for all of them, and told of both."""
    sandbox = Sandbox(packs=1)
    vault = Vault(*(f"APP_USR-{n}" for n in range(9)))
    async with sandbox.session() as session, client_with(vault, sandbox, session) as client:
        with pytest.raises(Unauthorized):
            await client.page(FIRST)
    assert len(sandbox.log) == 2
    assert vault.rejections == ["APP_USR-0", "APP_USR-1"]


@on_virtual_clock
async def test_a_plain_token_that_is_rejected_is_unauthorized() -> None:
    """A `str` is not renewed."""
    sandbox = Sandbox(packs=1)
    sandbox.rotate_token("APP_USR-new")
    async with client_of(sandbox) as client:
        sandbox.rotate_token("APP_USR-newer")
        with pytest.raises(Unauthorized):
            await client.unread()
    assert len(sandbox.log) == 1


@on_virtual_clock
async def test_a_token_that_expires_under_sixteen_calls_is_renewed_for_all_of_them() -> None:
    """Sixteen in flight meet a 401: each is sent once more with the new token, and all of them succeed."""
    sandbox = Sandbox(packs=16, behaviour=Behaviour(latency=0.1))
    vault = Vault(sandbox.token, "APP_USR-new")
    async with sandbox.session() as session, client_with(vault, sandbox, session) as client:
        calls = [asyncio.ensure_future(client.page(pack_id, mark_as_read=True)) for pack_id in sandbox.pack_ids()]
        await asyncio.sleep(0.01)
        sandbox.rotate_token("APP_USR-new")
        pages = await asyncio.gather(*calls)
    assert all(len(page.messages) == 1 for page in pages)
    assert sandbox.unread == 0
    assert vault.tokens == ["APP_USR-new"]
    assert sorted(entry.status or 0 for entry in sandbox.log) == [200] * 16 + [401] * 16


@on_virtual_clock
async def test_a_token_is_asked_for_before_every_request() -> None:
    """A source may renew its token on its own: the next request carries the new one."""
    sandbox = Sandbox(packs=1)
    vault = Vault(sandbox.token)
    async with sandbox.session() as session, client_with(vault, sandbox, session) as client:
        await client.unread()
        sandbox.rotate_token("APP_USR-new")
        vault.tokens = ["APP_USR-new"]
        await client.unread()
    assert [entry.status for entry in sandbox.log] == [200, 200]


NO_TOKENS = ["", " ", "APP_USR 1", "APP_USR-1\n", "APP_USR-1\r\nX-Evil: 1", "\x00", "APP_USR-é", "x" * 5000]


@pytest.mark.parametrize("token", [*NO_TOKENS, None, b"APP_USR-1", 7], ids=ascii)
@on_virtual_clock
async def test_a_source_that_gives_no_token_is_an_auth_error(token: Any) -> None:
    """What cannot stand in a header is not sent: `AuthError`, at once, without the text in it."""
    sandbox = Sandbox(packs=1)
    async with sandbox.session() as session, client_with(Vault(token), sandbox, session) as client:
        with pytest.raises(AuthError) as refused:
            await client.unread()
    assert sandbox.log == []
    assert "APP_USR" not in str(refused.value)


@pytest.mark.parametrize("token", NO_TOKENS, ids=ascii)
def test_a_text_that_cannot_be_a_token_is_refused_without_showing_it(token: str) -> None:
    """`ValueError` at construction; neither its text nor a traceback with locals has the token in it."""
    made: list[str] = []
    for make in (lambda: MessagesClient(token, seller_id=1), lambda: StaticToken(token)):
        try:
            make()
        except ValueError as error:
            made.append(str(error))
            report = traceback.TracebackException.from_exception(error, capture_locals=True)
            for frame in report.stack:
                if "mlmessages" in frame.filename and "tests" not in frame.filename:
                    assert "APP_USR" not in str(frame.locals)
    assert len(made) == 2
    assert not any("APP_USR" in message or "é" in message for message in made)


@pytest.mark.parametrize("auth", [None, 7, b"APP_USR-1", []], ids=str)
def test_auth_is_a_token_or_a_source(auth: Any) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match="auth"):
        MessagesClient(auth, seller_id=1)


@on_virtual_clock
async def test_a_sources_own_errors_come_through() -> None:
    """A vault that cannot be read is the caller's to know; nothing is sent, and the next call works."""

    class Broken(Vault):
        async def token(self) -> str:
            if not self.rejections:
                self.rejections.append("first time")
                raise PermissionError("the vault is locked")
            return await super().token()

    sandbox = Sandbox(packs=1)
    source = Broken(sandbox.token)
    async with sandbox.session() as session:
        client = MessagesClient(
            source,
            seller_id=sandbox.seller_id,
            base_url=sandbox.base_url,
            session=session,
            limits=Limits(concurrency=1),
        )
        async with client:
            with pytest.raises(PermissionError):
                await client.unread()
            assert len((await client.unread()).packs) == 1


@on_virtual_clock
async def test_a_source_that_raises_an_error_of_ours_ends_the_call_with_it() -> None:
    """`AuthError` of a source is raised as it is, and not retried."""

    class Empty(Vault):
        async def token(self) -> str:
            self.asked += 1
            raise AuthError("authorise the application first")

    sandbox = Sandbox(packs=1)
    source = Empty()
    async with sandbox.session() as session, client_with(source, sandbox, session) as client:
        with pytest.raises(MessagesError, match="authorise"):
            await client.unread()
    assert source.asked == 1
    assert sandbox.log == []


class _Renewing:
    """A `TokenSource` whose token endpoint is not reached at the first try after a rejection."""

    def __init__(self, good: str) -> None:
        self._tokens: list[str | Exception] = ["APP_USR-old", NotSent("no connection"), good]

    async def token(self) -> str:
        current = self._tokens[0]
        if isinstance(current, Exception):
            del self._tokens[0]
            raise current
        return current

    async def rejected(self, token: str) -> None:
        if self._tokens[0] == token:
            del self._tokens[0]


@case("T10")
@pytest.mark.parametrize("attempts", [1, 2])
@on_virtual_clock
async def test_a_renewal_that_is_not_reached_is_tried_again_as_any_request(attempts: int) -> None:
    """After a 401 nothing was executed: the policy decides, for a marking request too."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox, auth=_Renewing(sandbox.token), retry=Retry(attempts=attempts)) as client:
        if attempts == 1:
            with pytest.raises(NotSent):
                await client.page(FIRST, mark_as_read=True)
        else:
            assert len((await client.page(FIRST, mark_as_read=True)).messages) == 1
    assert [entry.status for entry in sandbox.log] == [401, 200][:attempts]

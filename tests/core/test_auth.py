"""Tokens: what can be one, and that none of them ever shows itself."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from typing import Any

import pytest

from mlmessages.auth.source import Secret, StaticToken, TokenSource, current_token
from mlmessages.errors import AuthError

CANARY = "APP_USR-canary-0000"
NO_TOKENS: list[Any] = [
    "",
    " ",
    f"{CANARY}\n",
    f"{CANARY}\r\nX-Evil: 1",
    f" {CANARY}",
    f"{CANARY} x",
    f"{CANARY}\x00",
    f"{CANARY}é",
    "x" * 4097,
]


class Source:
    """A token source that returns what it is told to."""

    def __init__(self, value: Any) -> None:
        self.value = value

    async def token(self) -> str:
        """What it was made with."""
        return self.value  # type: ignore[no-any-return]

    async def rejected(self, token: str) -> None:
        """Nothing."""


def asked(source: TokenSource) -> Secret:
    """The token that a request would be sent with."""
    return asyncio.run(current_token(source))


def test_a_static_token_is_always_the_same() -> None:
    """A static token is given out as it is, also after it was rejected."""
    source = StaticToken(CANARY)
    assert asked(source) == CANARY
    asyncio.run(source.rejected(CANARY))
    assert asked(source) == CANARY
    assert isinstance(source, TokenSource)


@pytest.mark.parametrize("value", [*NO_TOKENS, None, 5, CANARY.encode(), [CANARY]])
def test_what_is_no_token_is_refused_at_once_and_not_repeated(value: Any) -> None:
    """A token with a blank or a line break, or of another type, is a `ValueError` that does not quote it."""
    with pytest.raises(ValueError, match="^an access token is a string of visible ASCII characters") as caught:
        StaticToken(value)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [*NO_TOKENS, None, 5, CANARY.encode(), [CANARY]])
def test_a_source_that_gives_no_token_is_an_auth_error(value: Any) -> None:
    """What a source returns must be able to stand in a header; None is not sent as a token called None."""
    with pytest.raises(AuthError, match="not an access token") as caught:
        asked(Source(value))
    assert "canary" not in str(caught.value) + repr(caught.value)


def test_any_object_with_the_two_coroutines_is_a_source() -> None:
    """`TokenSource` is a protocol: nothing has to be inherited."""
    assert isinstance(Source(""), TokenSource)
    assert not isinstance(CANARY, TokenSource)
    assert asked(Source(CANARY)) == CANARY


def test_a_secret_does_not_show_itself() -> None:
    """A token is hidden in every repr, slice and format, also inside of containers and objects; `str` alone gives it."""
    secret = asked(StaticToken(CANARY))
    for shown in (
        repr(secret),
        f"{[secret]}",
        f"{ {'token': secret} }",
        f"{secret!r}",
        f"{secret}",
        f"{secret:.20}",
        repr(secret[:20]),
        repr(list(secret)),
        repr(StaticToken(CANARY)),
        repr(vars(StaticToken(CANARY))),
    ):
        assert "canary" not in shown
    assert str(secret) == CANARY
    assert repr(pickle.loads(pickle.dumps(secret))) == repr(secret)

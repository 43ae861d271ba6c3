"""Where access tokens come from, and a text that does not show itself."""

from __future__ import annotations

import re
from typing import Final, Protocol, TypeVar, runtime_checkable

from attrs import evolve

from ..api.redacted import HiddenText
from ..errors import AuthError
from ..models import Token

T = TypeVar("T")

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


class Secret(HiddenText):
    """A token, a code or a client secret: a text that neither its repr nor a slice of it shows; `str` gives it.

    So it stays hidden in containers, in log records, and in tracebacks with locals, also shortened ones.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


def conceal(value: T) -> T | Secret:
    """Return `value`, as a `Secret` if it is a text: the first line of what is given one, before it can raise."""
    return Secret(value) if isinstance(value, str) else value


def as_secret(text: str | None) -> Secret | None:
    """Return `text` as a `Secret`; None stays None."""
    return None if text is None else Secret(text)


def is_token(value: object) -> bool:
    """Return True for a text that can be a token: visible ASCII characters, 4,096 at most."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def concealed(token: Token) -> Token:
    """Return `token` with both tokens as `Secret`s: the form in which this package holds them."""
    return evolve(token, access_token=Secret(token.access_token), refresh_token=as_secret(token.refresh_token))


def revealed(token: Token) -> Token:
    """Return `token` with both tokens as plain texts: the form in which users get them, to keep or to send."""
    refresh_token = None if token.refresh_token is None else str(token.refresh_token)
    return evolve(token, access_token=str(token.access_token), refresh_token=refresh_token)


@runtime_checkable
class TokenSource(Protocol):
    """Where the client gets its access token, before every request.

    A source that has a method ``bind(http)`` too, plain or a coroutine, is given the client's way to post a form
    (`token_endpoint.Http`) when the client is entered; and to its ``unbind(http)``, if there is one, again before the
    client closes: what is under way may end there.
    """

    async def token(self) -> str:
        """Return the current access token."""
        ...

    async def rejected(self, token: str) -> None:
        """Forget `token`, which the server answered with 401, if it is still the current one.

        Then `token()` is called again.
        """
        ...


class StaticToken:
    """One access token, which is not renewed. Raises `ValueError` if the text cannot be one."""

    def __init__(self, token: str) -> None:
        token = conceal(token)
        if not is_token(token):
            raise ValueError("an access token is a string of visible ASCII characters, without blanks or line breaks")
        self._token = token

    def __repr__(self) -> str:
        return "StaticToken(***)"

    async def token(self) -> str:
        """Return the one token that was given, always the same."""
        return str(self._token)

    async def rejected(self, token: str) -> None:
        """Do nothing: the client gets the same token again, and raises `Unauthorized`."""


async def current_token(source: TokenSource) -> Secret:
    """Return the token of `source`, hidden; raise `AuthError` if it cannot stand in a header."""
    token: object = conceal(await source.token())
    if not isinstance(token, Secret) or not is_token(token):
        raise AuthError(
            "the token source returned something that is not an access token: no text, empty, or with blanks or line"
            " breaks"
        )
    return token

"""Who asks: where access tokens come from, and a text that does not show itself."""

from __future__ import annotations

import re
from typing import Final, Protocol, runtime_checkable

from .errors import AuthError

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


class Secret(str):
    """A text that a ``repr`` hides, alone and inside containers, log records and tracebacks with locals; `str` gives
    it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


@runtime_checkable
class TokenSource(Protocol):
    """Where the client gets its access token, before every request."""

    async def token(self) -> str:
        """The current access token."""
        ...

    async def rejected(self, token: str) -> None:
        """The server answered 401 to `token`: forget it, if it is still the current one. `token` is asked again."""
        ...


class StaticToken:
    """One access token, which nobody renews. Raises `ValueError` if it cannot be one."""

    def __init__(self, token: str) -> None:
        token = Secret(token) if isinstance(token, str) else token  # before a traceback can show it
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("an access token is a string of visible ASCII characters, without blanks or line breaks")
        self._token = token

    def __repr__(self) -> str:
        return "StaticToken(***)"

    async def token(self) -> str:
        """The token."""
        return self._token

    async def rejected(self, token: str) -> None:
        """Nothing can be done: the same token again, which means `Unauthorized`."""


async def current_token(source: TokenSource) -> Secret:
    """The token of `source`, hidden; `AuthError` if it cannot stand in a header."""
    token = await source.token()
    token = Secret(token) if isinstance(token, str) else token  # before a traceback can show it
    if not isinstance(token, Secret) or not _TOKEN.fullmatch(token):  # `str` would make a token of None too
        raise AuthError(
            "the token source returned something that is not an access token: no text, empty, or with blanks or line"
            " breaks"
        )
    return token

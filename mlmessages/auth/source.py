"""Who asks: where access tokens come from, and a text that does not show itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final, Protocol, runtime_checkable

from attrs import define

from ..api.calls import Response
from ..errors import AuthError

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)

answers_awaited: Final[set[asyncio.Task[object]]] = set()
"""Token requests that have left, until what they were answered is kept: to end the program now would lose the tokens.

Each ends by itself within the timeout of its request."""


class Secret(str):
    """A text that a ``repr`` hides, alone and inside containers, log records and tracebacks with locals; `str` gives
    it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


@runtime_checkable
class TokenSource(Protocol):
    """Where the client gets its access token, before every request.

    One that has a method ``bind(http)`` too, plain or a coroutine, is given the client's `Http` when the client is
    entered, and to its ``unbind(http)``, if there is one, again before it closes: what is under way may end there.
    """

    async def token(self) -> str:
        """The current access token."""
        ...

    async def rejected(self, token: str) -> None:
        """The server answered 401 to `token`: forget it, if it is still the current one. `token` is asked again."""
        ...


class Http(Protocol):
    """A client's way to the token endpoint: its session, base URL and timeout; outside of the budget, not repeated."""

    async def post_form(self, path: str, form: Mapping[str, str], base_url: str | None = None) -> Response:
        """The answer, whatever its status, without anything of `form` in it; `base_url` instead of the client's.

        Raises `NotSent` or `AnswerLost`.
        """
        ...

    @property
    def record(self) -> TokenHistory:
        """What the server made of the access tokens."""
        ...


class TokenHistory:
    """What the server made of the last few access tokens: whether a 401 can be the fault of one."""

    _MOST: Final = 8
    _RECENT: Final = 600.0

    def __init__(self) -> None:
        self._known: dict[str, _Standing] = {}

    def doubted(self, token: str) -> bool:
        """True if it was answered 401 before."""
        standing = self._known.get(token)
        return standing is not None and standing.refused

    def worked(self, token: str) -> bool:
        """True if it was answered 2xx before."""
        standing = self._known.get(token)
        return standing is not None and standing.worked

    def is_fine(self, token: str, now: float) -> bool:
        """True if lately it was still taken in a request that left after a 401: that had another reason than it."""
        standing = self._known.get(token)
        return standing is not None and now - standing.taken_again < self._RECENT

    def answered(self, token: str, status: int, *, doubted: bool, now: float) -> None:
        """A request was answered at `now`, in seconds; `doubted`: what `doubted` said when it left."""
        standing = self._known.get(token)
        if standing is None:
            if len(self._known) == self._MOST:
                del self._known[next(iter(self._known))]
            standing = self._known[token] = _Standing()
        if status == 401:
            standing.refused = True
        elif 200 <= status < 300:
            standing.worked = True
            if doubted:
                standing.taken_again = now


@define
class _Standing:
    """What became of the requests with one token. `taken_again`: when one that left after a 401 was answered 2xx."""

    worked: bool = False
    refused: bool = False
    taken_again: float = float("-inf")


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
    if token.__class__ is not Secret:
        token = Secret(token) if isinstance(token, str) else token  # before a traceback can show it
    if not isinstance(token, Secret) or not _TOKEN.fullmatch(token):  # `str` would make a token of None too
        raise AuthError(
            "the token source returned something that is not an access token: no text, empty, or with blanks or line"
            " breaks"
        )
    return token

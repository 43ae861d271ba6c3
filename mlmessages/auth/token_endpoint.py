"""The token endpoint: one POST, and which error each of its refusals is.

The codes are those of the page "Authentication and authorization", and of what integrators have seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol, TypeVar

from ..api.calls import Response
from ..api.refusals import check
from ..errors import AnswerLost, APIError, AuthError, MessagesError, RateLimited, ReauthorizationRequired, ServerError
from . import grants
from .history import TokenHistory

E = TypeVar("E", bound=MessagesError)

AUTHORISE: Final = "Let the seller authorise the application again: `mlmessages auth url`."
_TOO_OFTEN: Final = "The token endpoint is asked too often: do other programs refresh for this application?"
_SECRET: Final = "Check the client id and the client secret: was the secret renewed?"  # noqa: S105
_CLIENT_ID: Final = "Check the client id: the tokens or the code were granted to another application."
_BLOCKED: Final = (
    "Mercado Libre has blocked the application: its page in the developers' site says why. The seller cannot help,"
    " and a new token does not either."
)
_REDIRECT: Final = (
    "The redirect URI must be, letter by letter, the one in the application's settings and the one of `mlmessages auth"
    " url`."
)
_OPERATOR: Final = (
    "Only the administrator of the seller's account may authorise an application: open the address as the"
    " administrator, not as an operator."
)

_BY_CODE: Final = {
    "invalid_client": _SECRET,
    "unauthorized_client": _SECRET,
    "unauthorized_application": _BLOCKED,
    "unauthorized_scopes": _BLOCKED,
    "redirect_uri_mismatch": _REDIRECT,
    "invalid_operator_user_id": _OPERATOR,
}
# Of an `invalid_grant`, whose text says what does not fit.
_BY_TEXT: Final = (
    (re.compile(r"client[_ ]?id", re.ASCII | re.IGNORECASE), _CLIENT_ID),
    (re.compile(r"redirect[_ ]?uri", re.ASCII | re.IGNORECASE), _REDIRECT),
)


class Http(Protocol):
    """A client's way to the token endpoint: its session, base URL and timeout; outside of the budget, not repeated."""

    async def post_form(self, path: str, form: Mapping[str, str], base_url: str | None = None) -> Response:
        """Return the answer, whatever its status, without anything of `form` in it.

        `base_url` is taken instead of the client's. Raises `NotSent` or `AnswerLost`.
        """
        ...

    @property
    def record(self) -> TokenHistory:
        """What the server made of the access tokens."""
        ...


class InvalidGrant(Exception):
    """The server does not know the code or the refresh token, or not any more. `said` are its words."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(said)


class GrantLost(Exception):
    """The request may have been executed, and there is no usable answer. `said`: what happened to it."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(said)


async def request_grant(http: Http, form: Mapping[str, str], base_url: str | None = None) -> grants.Grant:
    """Send `form` once, and return what the token endpoint grants.

    Raises `NotSent`, `RateLimited`, `AuthError`, `InvalidGrant` or `GrantLost`; none of them carries a secret.
    """
    refusal: Exception
    try:
        response = await http.post_form(grants.PATH, form, base_url)
        check(response)
    except (AnswerLost, ServerError) as error:
        refusal = GrantLost(str(error))
    except RateLimited as error:
        said = {"request_id": error.request_id, "hint": _TOO_OFTEN}
        refusal = RateLimited(error.status, error.code, error.message, **said, retry_after=error.retry_after)
    except APIError as error:
        refusal = _refusal(error)
    else:
        grant = grants.read_grant(response.body) if response.fault is None else None
        if grant is not None:
            return grant
        refusal = GrantLost("it cannot be read")
    # Raised here, where no other exception with its frames is its context.
    raise refusal.with_traceback(None)


def hint_for(code: str | None, text: str | None) -> str | None:
    """Return what to do about a refusal that the seller's new consent alone does not mend; None if it may."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    return next((hint for pattern, hint in _BY_TEXT if pattern.search(text or "")), None)


def _refusal(error: APIError) -> Exception:
    """Return the error that a refusal is: `InvalidGrant` only where a new consent would help."""
    hint = hint_for(error.code, error.message)
    if error.code == "invalid_grant" and hint is None:
        return InvalidGrant(error.message or "invalid_grant")
    said = ": ".join(dict.fromkeys(part for part in (error.code, error.message) if part)) or "no reason given"
    refusal = AuthError(f"the token endpoint refused ({error.status}): {said}")
    refusal.hint = _SECRET if hint is None and error.status == 401 else hint
    return refusal


def reauthorization(why: str) -> ReauthorizationRequired:
    """Return the error that says that only the seller can help."""
    return explained(ReauthorizationRequired(f"the seller must authorise again: {why}"), AUTHORISE)


def explained(error: E, hint: str) -> E:
    """Return `error` with its `hint`."""
    error.hint = hint
    return error

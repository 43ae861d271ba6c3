"""What is said to the token endpoint, what it answers, and when a token is due, as values: no clock, no socket.

The flow is OAuth 2.0 with an authorization code and refresh tokens for one use ("Authentication and authorization").
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen

from ..api.arguments import check_id
from ..api.json import parse_json
from ..models import Token
from .source import Secret, as_secret, is_token

PATH: Final = "/oauth/token"

# Without `issued_at` or `expires_in`: prose and captures say that an access token lives 6 hours, the samples 3.
_USUAL_LIFE: Final = timedelta(hours=6)
_SHORT_LIFE: Final = timedelta(hours=3)
_LONGEST_LIFE: Final = timedelta(days=366)
_SHORTEST_LIFE: Final = timedelta(minutes=1)  # a shorter one would make every call refresh

# A refresh token lives 6 months, and not longer than 4 months after the application was last used
# [documented: authorisation].
_LIFE_OF_REFRESH: Final = timedelta(days=180)
_IDLENESS: Final = timedelta(days=120)
NOTICE: Final = timedelta(days=30)

# Where the seller gives consent, by the site of the account. "CBT" is Global Selling. Argentina, Brazil and Global
# Selling are documented; the others follow the domains of their sites, and may be wrong: `auth url --host` names one.
HOSTS: Final = {
    "CBT": "global-selling.mercadolibre.com",
    "MLA": "auth.mercadolibre.com.ar",
    "MLB": "auth.mercadolivre.com.br",
    "MLM": "auth.mercadolibre.com.mx",
    "MLC": "auth.mercadolibre.cl",
    "MCO": "auth.mercadolibre.com.co",
    "MLU": "auth.mercadolibre.com.uy",
    "MPE": "auth.mercadolibre.com.pe",
    "MEC": "auth.mercadolibre.com.ec",
    "MLV": "auth.mercadolibre.com.ve",
    "MCR": "auth.mercadolibre.co.cr",
    "MPA": "auth.mercadolibre.com.pa",
    "MRD": "auth.mercadolibre.com.do",
    "MBO": "auth.mercadolibre.com.bo",
    "MPY": "auth.mercadolibre.com.py",
    "MGT": "auth.mercadolibre.com.gt",
    "MHN": "auth.mercadolibre.com.hn",
    "MNI": "auth.mercadolibre.com.ni",
    "MSV": "auth.mercadolibre.com.sv",
}


# -- asking ------------------------------------------------------------------------------------------------------------


def challenge(verifier: str) -> str:
    """Return the S256 challenge of a PKCE verifier (RFC 7636, 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def authorization_url(origin: str, client_id: str, redirect_uri: str, state: str, verifier: str) -> str:
    """Return the address where the seller gives consent; `origin`: such as ``https://auth.mercadolibre.com.ar``."""
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": challenge(verifier),
        "code_challenge_method": "S256",
    }
    return f"{origin}/authorization?{urlencode(query)}"


def code_form(client_id: str, client_secret: str, code: str, redirect_uri: str, verifier: str) -> dict[str, str]:
    """Return the form that turns an authorization code into tokens."""
    return {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "client_secret": Secret(client_secret),
        "code": Secret(code),
        "redirect_uri": redirect_uri,
        "code_verifier": Secret(verifier),
    }


def refresh_form(client_id: str, client_secret: str, refresh_token: str) -> dict[str, str]:
    """Return the form that turns a refresh token into the next tokens."""
    return {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "client_secret": Secret(client_secret),
        "refresh_token": Secret(refresh_token),
    }


@frozen
class Redirect:
    """What the browser brought back: a code and the state, or what the server says instead of a code.

    `error` is its word for it, such as ``access_denied``, and `explanation` the sentence beside it.
    """

    code: Secret | None = None
    state: Secret | None = None
    error: str | None = None
    explanation: str | None = None


def read_redirect(pasted: str) -> Redirect:
    """Return what a pasted address, or a bare code, holds."""
    pasted = Secret(pasted.strip())
    if "://" not in pasted and "=" not in pasted:
        return Redirect(code=as_secret(pasted) if is_token(pasted) else None)
    try:
        query = dict(parse_qsl(urlsplit(str(pasted)).query if "://" in pasted else pasted.lstrip("?")))
    except ValueError:
        return Redirect()
    code, state = as_secret(query.get("code")), as_secret(query.get("state"))
    return Redirect(code if is_token(code) else None, state, query.get("error"), query.get("error_description"))


# -- answers -----------------------------------------------------------------------------------------------------------


@frozen
class Grant:
    """Tokens as they were answered. `remarks` say what was odd about the answer, and quote nothing of it."""

    access_token: Secret
    refresh_token: Secret | None
    life: timedelta
    user_id: str | None
    remarks: tuple[str, ...] = ()


def read_grant(body: bytes) -> Grant | None:
    """Return the tokens of an answer; None where there is no access token that could be used."""
    try:
        value = parse_json(body)
    except ValueError:
        return None
    access_token = _token(value.get("access_token")) if isinstance(value, dict) else None
    if access_token is None:
        return None
    remarks = []
    refresh_token = _token(value.get("refresh_token"))
    if refresh_token is None:
        remarks.append("it has no refresh_token")
    life = _life(value.get("expires_in"))
    if life is None:
        life = _SHORT_LIFE
        remarks.append(f"its expires_in cannot be read: {_SHORT_LIFE / timedelta(hours=1):g} h are assumed")
    elif life < _SHORTEST_LIFE:
        life = _SHORTEST_LIFE
        remarks.append(f"its expires_in is very short: {_SHORTEST_LIFE.total_seconds():g} s are assumed")
    try:
        user_id = check_id("user_id", value.get("user_id"))
    except ValueError:
        user_id = None
    return Grant(access_token, refresh_token, life, user_id, tuple(remarks))


def _token(value: object) -> Secret | None:
    return Secret(value) if isinstance(value, str) and is_token(value) else None


def _life(value: object) -> timedelta | None:
    """Return how long, from a number of seconds or its text."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return None
    return timedelta(seconds=seconds) if 0 < seconds <= _LONGEST_LIFE.total_seconds() else None


def next_token(grant: Grant, asked: datetime, before: Token | None = None) -> Token:
    """Return the tokens to keep, whose life counts from when they were `asked` for.

    What the answer leaves out stays as it was `before`.
    """
    refresh_token, refresh_issued_at = grant.refresh_token, None
    if refresh_token is None and before is not None and before.refresh_token is not None:
        refresh_token, refresh_issued_at = Secret(before.refresh_token), _refresh_issued(before)
    user_id = grant.user_id or (before.user_id if before is not None else None)
    return Token(grant.access_token, refresh_token, asked + grant.life, asked, user_id, refresh_issued_at)


# -- when --------------------------------------------------------------------------------------------------------------


def issued(token: Token) -> datetime:
    """Return when the access token was issued, as far as is known."""
    return token.issued_at or token.expires_at - _USUAL_LIFE


def _refresh_issued(token: Token) -> datetime:
    return token.refresh_issued_at or issued(token)


def half_life(token: Token) -> datetime:
    """Return when a refresh is due: half of its life is left to repeat what fails, and for clocks that are wrong."""
    if token.issued_at is None or token.issued_at >= token.expires_at:
        return token.expires_at - _USUAL_LIFE / 2
    return token.issued_at + (token.expires_at - token.issued_at) / 2


def end_of_refresh(token: Token) -> datetime:
    """Return until when the refresh token can be used at most, if nothing is done."""
    return min(_refresh_issued(token) + _LIFE_OF_REFRESH, issued(token) + _IDLENESS)

"""The pure half: addresses, challenges, answers, and when a token is due."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmessages.auth import grants
from mlmessages.models import Token

PAYLOADS = Path(__file__).parents[1] / "payloads"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_the_challenge_is_that_of_the_rfc() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert grants.challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_address_carries_everything_encoded() -> None:
    """A redirect address with a query of its own comes back as it was."""
    uri = "https://seller.example/cb?a=1&b=ü"
    parts = urlsplit(grants.authorization_url(f"https://{grants.HOSTS['MLB']}", "5", uri, "s&t", "verifier"))
    query = parse_qs(parts.query)
    assert parts.netloc == "auth.mercadolivre.com.br"
    assert (query["redirect_uri"], query["state"]) == ([uri], ["s&t"])
    assert "verifier" not in parts.query


@pytest.mark.parametrize(("name", "hours"), [("oauth_token_ok", 6), ("oauth_token_docs_10800", 3)])
def test_each_payload_is_read(name: str, hours: int) -> None:
    """What the documentation prints and what was captured: all fields, and nothing to remark."""
    body = (PAYLOADS / f"{name}.json").read_bytes()
    raw = json.loads(body)
    grant = grants.read_grant(body)
    assert grant is not None
    assert (grant.access_token, grant.refresh_token) == (raw["access_token"], raw["refresh_token"])
    assert (grant.life, grant.user_id, grant.remarks) == (hours * HOUR, "700100200", ())
    assert raw["access_token"] not in repr(grant)
    assert raw["refresh_token"] not in repr(grant)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["access_token", "refresh_token", "expires_in", "user_id", "token_type"])


@given(st.dictionaries(KEYS, JSON) | JSON)
def test_no_answer_is_an_accident(value: Any) -> None:
    """Whatever JSON comes: None, or a grant whose tokens can stand in a header and whose life is positive."""
    grant = grants.read_grant(json.dumps(value).encode())
    if grant is not None:
        assert grant.access_token.isascii()
        assert grant.access_token.isprintable()
        assert timedelta(0) < grant.life <= timedelta(days=366)
        token = grants.next_token(grant, NOON, Token("a", "b", NOON, NOON, "9"))
        assert token.refresh_token
        assert token.user_id


def test_what_an_answer_leaves_out_stays_and_is_remarked() -> None:
    """A refresh token, a life, a seller: from before, where there was one; what was odd is said without quoting it."""
    whole = {"access_token": "new", "refresh_token": "TG-new", "expires_in": 7200, "user_id": 5}
    before = Token("a", "TG-old", NOON, NOON - HOUR, "9", refresh_issued_at=NOON - 9 * HOUR)
    grant = grants.read_grant(json.dumps(whole).encode())
    assert grant is not None
    assert grant.remarks == ()
    assert grants.next_token(grant, NOON, before) == Token("new", "TG-new", NOON + 2 * HOUR, NOON, "5")
    bare = grants.read_grant(b'{"access_token": "new"}')
    assert bare is not None
    assert [("refresh_token" in remark, "expires_in" in remark) for remark in bare.remarks] == [
        (True, False),
        (False, True),
    ]
    assert grants.next_token(bare, NOON, before) == Token(
        "new", "TG-old", NOON + 3 * HOUR, NOON, "9", refresh_issued_at=NOON - 9 * HOUR
    )
    for nothing in (None, Token("a", None, NOON)):
        assert grants.next_token(bare, NOON, nothing) == Token("new", None, NOON + 3 * HOUR, NOON)


def test_when_a_token_was_issued() -> None:
    """As it says, or six hours before its end."""
    assert grants.issued(Token("a", None, NOON, NOON - HOUR)) == NOON - HOUR
    assert grants.issued(Token("a", None, NOON)) == NOON - 6 * HOUR


@pytest.mark.parametrize("body", [b"", b"x", b"<html>", b"[]", b"null", b'"APP_USR-1"', b"\xff", b"[" * 100_000])
def test_what_is_no_answer_is_none(body: bytes) -> None:
    """No exception, which would have the body in its frames."""
    assert grants.read_grant(body) is None


@pytest.mark.parametrize(
    ("pasted", "code", "state"),
    [
        ("https://x.example/cb?code=TG-1&state=s", "TG-1", "s"),
        ("  https://x.example/cb?state=s&code=TG-1#fragment\n", "TG-1", "s"),
        ("?code=TG-1&state=s", "TG-1", "s"),
        ("code=TG-1", "TG-1", None),
        ("TG-1", "TG-1", None),
        ("", None, None),
        ("TG 1", None, None),
        ("https://x.example/cb", None, None),
        ("https://x.example/cb?code=", None, None),
        ("https://[x", None, None),
    ],
)
def test_what_people_paste(pasted: str, code: str | None, state: str | None) -> None:
    """An address, a query or a code."""
    found = grants.read_redirect(pasted)
    assert (found.code, found.state) == (code, state)
    assert "TG-1" not in repr(found)


@pytest.mark.parametrize(
    ("issued", "life", "half"),
    [
        (NOON, 6, NOON + 3 * HOUR),
        (NOON, 3, NOON + 1.5 * HOUR),
        (None, 6, NOON + 3 * HOUR),
        (NOON + 9 * HOUR, 6, NOON + 3 * HOUR),
    ],
)
def test_half_life(issued: datetime | None, life: int, half: datetime) -> None:
    """Halfway from its issue to its end; without a sensible issue, three hours before the end."""
    assert grants.half_life(Token("a", "b", NOON + life * HOUR, issued)) == half


def test_the_end_of_a_refresh_token() -> None:
    """Six months after its own issue, or four after the last use of the application: what comes first."""
    day = timedelta(days=1)
    assert grants.end_of_refresh(Token("a", "b", NOON + 6 * HOUR, NOON)) == NOON + 120 * day
    assert grants.end_of_refresh(Token("a", "b", NOON + 6 * HOUR)) == NOON + 120 * day
    old = Token("a", "b", NOON + 6 * HOUR, NOON, refresh_issued_at=NOON - 100 * day)
    assert grants.end_of_refresh(old) == NOON + 80 * day

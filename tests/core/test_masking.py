"""No error quotes a secret: sixteen characters of it in a row are masked, however a server spells them."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from itertools import cycle
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import case
from core.shapes import dump
from mlmessages.api.calls import Response
from mlmessages.api.masking import mask
from mlmessages.api.refusals import check
from mlmessages.errors import APIError

# As long as real ones are: the application, the date, what is random, the seller.
TOKEN = "APP_USR-1344270061100000-112613-9f8e7d6c5b4a39281706f5e4d3c2b1a0-700100200"
REFRESH = "TG-66f1e2d3c4b5a69788796a5b-700100200"
RUN = 16


def runs(secret: str) -> set[str]:
    """All that must not be shown: each run of 16 characters, in lower case and without punctuation."""
    return {plain(secret[i : i + RUN]) for i in range(len(secret) - RUN + 1)}


def plain(text: str) -> str:
    """The letters and digits of a text, in lower case."""
    return "".join(filter(str.isalnum, text)).lower()


def assert_hidden(shown: str, secret: str = TOKEN) -> None:
    """No run of 16 characters of `secret` can be read in `shown`."""
    assert not [run for run in runs(secret) if run in plain(shown)], shown


def percent(text: str) -> str:
    """Every character percent-encoded."""
    return "".join(f"%{ord(char):02X}" for char in text)


SPELLINGS = {
    "whole": TOKEN,
    "its beginning": TOKEN[:20] + "…",
    "its end": "…" + TOKEN[-17:],
    "its middle": f"token '{TOKEN[30:50]}' is wrong",
    "in capitals": TOKEN.upper(),
    "in capitals, cut": TOKEN[10:40].swapcase(),
    "by blanks": " ".join(TOKEN),
    "by lines": "\n".join(TOKEN[i : i + 10] for i in range(0, len(TOKEN), 10)),
    "by dots": TOKEN[:30] + "..." + TOKEN[30:],
    "by quotes": '", "'.join((TOKEN[:13], TOKEN[13:30], TOKEN[30:])),
    "slashes before its hyphens": TOKEN.replace("-", "\\/"),
    "as JSON in a text": json.dumps({"token": TOKEN}),
    "every character as JSON spells it": "".join(f"\\u{ord(char):04x}" for char in TOKEN),
    "every character as JSON spells it, twice": "".join(f"\\\\u{ord(char):04x}" for char in TOKEN),
    "every character as C spells it": "".join(f"\\x{ord(char):02x}" for char in TOKEN),
    "in a URL": quote(TOKEN, safe="").replace("-", "%2D").replace("_", "%5f"),
    "every character percent-encoded": percent(TOKEN),
    "percent-encoded twice": percent(percent(TOKEN)),
    "HTML": html.escape(f"<b>{TOKEN}</b>"),
    "every character as HTML spells it": "".join(f"&#{ord(char)};" for char in TOKEN),
    "every character as HTML spells it in hexadecimals": "".join(f"&#x{ord(char):x};" for char in TOKEN),
    "its hyphens as HTML names them": TOKEN.replace("-", "&hyphen;").replace("_", "&lowbar;"),
    "with tags in it": "<wbr/>".join(TOKEN[i : i + 10] for i in range(0, len(TOKEN), 10)),
    "with soft hyphens in it": "&shy;".join(TOKEN[i : i + 10] for i in range(0, len(TOKEN), 10)),
    "as JSON spells it, percent-encoded": percent("".join(f"\\u{ord(char):04x}" for char in TOKEN)),
}


@case("K25")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_masked_in_every_spelling(spelling: str) -> None:
    """Cut, in capitals, split, escaped once or twice: no 16 characters of it are left, and the words around it are."""
    shown = mask(f"no access for {SPELLINGS[spelling]}, he said", [TOKEN])
    assert "***" in shown
    assert shown.startswith("no access for ")
    assert shown.endswith(", he said")
    assert_hidden(shown.replace("no access for", "").replace(", he said", ""))


@case("K25")
@pytest.mark.parametrize(
    "said",
    [
        lambda quoted: {"message": f"no access for {quoted}", "error": quoted, "cause": [{"code": quoted}]},
        lambda quoted: {"message": "no", "code": quoted},
        lambda quoted: {"error_description": quoted, "error": "invalid_grant"},
        lambda quoted: {"blocked_by": quoted, "message": "no"},
        lambda quoted: quoted,
        lambda quoted: {"message": "x" * 290 + quoted},
        lambda quoted: {"message": "x" * 590 + quoted},
    ],
    ids=["everywhere", "code", "description", "blocked by", "text", "cut off", "cut off far behind"],
)
def test_no_refusal_quotes_a_secret(said: Any, parser: str) -> None:
    """Wherever in a refusal it stands, in a header too: the error has none of it, in no attribute."""
    for status, quoted in zip(cycle([400, 401, 403, 500]), SPELLINGS.values()):
        for body in (dump(said(quoted)), quoted.encode()):
            headers = {"x-request-id": quoted, "retry-after": quoted, "date": quoted}
            with pytest.raises(APIError) as caught:
                check(Response(status, body, headers, secrets=(REFRESH, TOKEN)))
            for shown in (str(caught.value), repr(caught.value), *map(str, vars(caught.value).values())):
                assert_hidden(shown)


def test_several_secrets_are_masked_and_nothing_else() -> None:
    """Each of them is hidden, twice where it stands twice; the words between them stay as they were."""
    shown = mask(f"{REFRESH} is of {TOKEN}, not of {REFRESH.lower()} (700100200)", [TOKEN, REFRESH])
    assert shown == "*** is of ***, not of *** (700100200)"
    assert mask("nothing to hide: 100% of &amp; \\u0041 <b>", [TOKEN]) == "nothing to hide: 100% of &amp; \\u0041 <b>"
    assert mask("", [TOKEN]) == ""
    assert mask(TOKEN, []) == TOKEN


def test_fifteen_characters_are_not_a_secret() -> None:
    """Less than a run may be anything: it stays readable."""
    assert mask(f"application {TOKEN[40:55]}", [TOKEN]) == f"application {TOKEN[40:55]}"


@pytest.mark.parametrize(
    ("text", "secret", "expected"),
    [
        ("the token abc-1 is wrong", "abc-1", "the token *** is wrong"),
        ("the token abc-12 is wrong", "abc-1", "the token abc-12 is wrong"),
        ("the token is wrong", "token", "the token is wrong"),
        ("the password1 is wrong", "password1", "the *** is wrong"),
        ("passwordless", "password", "passwordless"),
    ],
)
def test_a_short_secret_is_masked_as_a_word(text: str, secret: str, expected: str) -> None:
    """A token of a few characters, such as tests have, is masked where it stands alone; a common word is left."""
    assert mask(text, [secret]) == expected


@given(st.text(max_size=200), st.text(st.characters(codec="ascii"), min_size=16, max_size=80))
def test_any_text_is_masked_without_an_error(text: str, secret: str) -> None:
    """Whatever stands in both: a text comes out, and what was not hidden is as it was."""
    shown = mask(text, [secret])
    assert all(part in text for part in shown.split("***"))
    if any(char.isalnum() for char in secret):
        assert secret not in shown or len(plain(secret)) < RUN


@given(st.data())
def test_no_cut_and_no_escape_of_a_part_is_seen_through(data: st.DataObject) -> None:
    """Any part of 16 characters or more, each character escaped in its own way, is hidden."""
    start = data.draw(st.integers(0, len(TOKEN) - RUN))
    part = TOKEN[start : data.draw(st.integers(start + RUN, len(TOKEN)))]
    ways: list[Callable[[str], str]] = [
        str,
        str.upper,
        percent,
        lambda c: f"&#{ord(c)};",
        lambda c: f"\\u{ord(c):04x}",
        lambda c: f" {c}",
    ]
    quoted = "".join(data.draw(st.sampled_from(ways))(char) for char in part)
    shown = mask(f"({quoted})", [TOKEN])
    assert "***" in shown
    assert_hidden(shown)

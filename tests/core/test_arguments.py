"""What callers may pass, and what they are told: nothing else ever reaches a URL."""

from __future__ import annotations

import enum
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmessages.api.arguments import (
    check_base_url,
    check_id,
    check_int,
    check_message_id,
    check_proxy_url,
    check_seconds,
    describe,
)


class Pack(enum.IntEnum):
    """Ids as an enumeration, which is an int."""

    ONE = 1


NO_IDS: list[Any] = [
    "",
    " ",
    "abc",
    "../../oauth/token",
    "..",
    "1/../2",
    "1?x=",
    "1#",
    "1/sellers/2",
    "1&tag=x",
    "1%2f2",
    "%31",
    "１２３",
    "١٢٣",
    "1²",
    "1\r\nHost: elsewhere.example",
    "1\n",
    "\n1",
    "1 ",
    " 1",
    "1\x00",
    "+1",
    "-1",
    "1.0",
    "1e3",
    "0x1",
    "1_000",
    "9" * 21,
    "9" * 1_000_000,
    b"1",
    True,
    False,
    1.0,
    float("nan"),
    float("inf"),
    None,
    -1,
    10**20,
    10**5_000,
    -(10**5_000),
    [1],
    (1,),
    {1: 1},
    object(),
    int,
]


@pytest.mark.parametrize("value", NO_IDS, ids=describe)
def test_what_is_no_id_is_refused(value: Any) -> None:
    """Anything but 1 to 20 ASCII digits is a short `ValueError` that names the argument and what is expected."""
    with pytest.raises(
        ValueError, match=r"^pack_id must be an int or a string of 1 to 20 ASCII digits, not "
    ) as caught:
        check_id("pack_id", value)
    assert len(str(caught.value)) < 120
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        ("7", "7"),
        (Pack.ONE, "1"),
        ("2000099900011122", "2000099900011122"),
        ("9" * 20, "9" * 20),
        (10**20 - 1, "9" * 20),
    ],
)
def test_an_id_comes_out_as_text(value: Any, text: str) -> None:
    """An int or a digit string of up to 20 digits is an id."""
    assert check_id("pack_id", value) == text
    assert type(check_id("pack_id", value)) is str


@given(st.text() | st.integers() | st.floats() | st.binary() | st.booleans() | st.none())
def test_no_other_character_than_a_digit_ever_gets_through(value: Any) -> None:
    """Whatever is passed: ASCII digits come out, or a `ValueError`."""
    try:
        assert re.fullmatch("[0-9]{1,20}", check_id("pack_id", value))
    except ValueError as error:
        assert len(str(error)) < 120


@pytest.mark.parametrize("value", ["aa11bb22cc33dd44ee55ff6677889900", "a", "A-b_9", "0", 5, "x" * 128])
def test_a_message_id_is_letters_digits_underscore_and_hyphen(value: Any) -> None:
    """A message id is an opaque word of ASCII letters, digits, _ and -."""
    assert check_message_id(value) == str(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a/b",
        "../a",
        "a.b",
        "a?b",
        "a#b",
        "a b",
        "a\n",
        "a\r\nb",
        "é",
        "ａ",
        "a%2e",
        "x" * 129,
        "x" * 10**6,
        None,
        True,
        1.5,
        b"a",
        -5,
        10**5_000,
        [],
    ],
    ids=describe,
)
def test_what_is_no_message_id_is_refused(value: Any) -> None:
    """Anything else is a `ValueError` that says what a message id consists of."""
    with pytest.raises(ValueError, match="^message_id must be 1 to 128 ASCII letters, digits, _ and -, not ") as caught:
        check_message_id(value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(("value", "least"), [(1, 1), (0, 0), (50, 1), (10**9, 1), (10**30, 0), (Pack.ONE, 1)])
def test_a_whole_number_has_no_upper_bound(value: int, least: int) -> None:
    """The largest limit is unknown: any int from the least one on is taken."""
    assert check_int("limit", value, least) == value


@pytest.mark.parametrize(
    ("value", "least"),
    [
        (0, 1),
        (-1, 1),
        (-1, 0),
        (True, 1),
        (False, 0),
        (1.0, 1),
        ("1", 1),
        (None, 1),
        (float("nan"), 0),
        ([], 0),
        (-(10**5_000), 0),
    ],
    ids=describe,
)
def test_what_is_no_whole_number_is_refused(value: Any, least: int) -> None:
    """Bools, floats, texts and what is below the least are a `ValueError` that says the least."""
    with pytest.raises(ValueError, match=f"^limit must be an int of at least {least}, not ") as caught:
        check_int("limit", value, least)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [1, 0.5, 1e-9, 1e9])
def test_seconds_are_a_positive_number(value: float) -> None:
    """An int or a float above zero is a number of seconds; zero only where it makes sense."""
    assert check_seconds("timeout", value) == value
    assert type(check_seconds("timeout", value)) is float
    assert check_seconds("settle_time", 0, zero=True) == 0


@pytest.mark.parametrize(
    "value",
    [-1, -0.5, float("nan"), float("inf"), float("-inf"), True, False, "1", None, [], 10**400, -(10**400)],
    ids=describe,
)
@pytest.mark.parametrize(("zero", "word"), [(False, "positive"), (True, "non-negative")])
def test_what_is_no_time_is_refused(value: Any, zero: bool, word: str) -> None:
    """What cannot be slept is a `ValueError`."""
    with pytest.raises(ValueError, match=f"^timeout must be a {word} number of seconds, not ") as caught:
        check_seconds("timeout", value, zero=zero)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_zero_seconds_only_where_allowed(value: float) -> None:
    """Zero is refused where something must take time."""
    with pytest.raises(ValueError, match="positive"):
        check_seconds("timeout", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://api.mercadolibre.com", "https://api.mercadolibre.com"),
        ("https://api.mercadolibre.com/", "https://api.mercadolibre.com"),
        ("https://api.mercadolibre.com:8443/prefix/", "https://api.mercadolibre.com:8443/prefix"),
        ("HTTPS://API.example", "HTTPS://API.example"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_a_base_url_is_https_or_loopback(value: str, expected: str) -> None:
    """Any https host is taken, plain http for loopback alone; a slash at the end makes no difference."""
    assert check_base_url(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "api.mercadolibre.com",
        "//api.mercadolibre.com",
        "https://",
        "https:///path",
        "https:api.example",
        "http://api.mercadolibre.com",
        "http://192.168.0.1",
        "http://0.0.0.0",
        "http://[::]",
        "http://169.254.169.254",
        "http://2130706433",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://127.0.0.1@evil.example",
        "https://user@host.example",
        "https://user:word@host.example",
        "https://@host.example",
        "https://host.example?x=1",
        "https://host.example?",
        "https://host.example/?",
        "https://host.example/#",
        "https://host.example#x",
        "https://host.example/../x",
        "https://host.example/a b",
        "https://host.example\r\nx: y",
        "\thttps://host.example",
        "\x00https://host.example",
        "https://host.example\x00",
        "https://host.example\x7f",
        "https:\\\\host.example",
        "https://host.example\\@evil.example",
        "https://hóst.example",
        "https://host.example:99999",
        "https://host.example:x",
        "https://[::1",
        "http://[::1].evil.example",
        "http://[::1]evil.example:80",
        "http://[::1]:80@evil.example",
        "https://[::1].evil.example",
        "https://a[::1]",
        "http://[::1%25evil]",
        "https://host.example:",
        "https://host,evil.example",
        "https://host%2eevil.example",
        "ftp://host.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://" + "a" * 100_000 + "?",
        b"https://host.example",
        None,
        5,
    ],
    ids=describe,
)
def test_what_is_no_base_url_is_refused(value: Any) -> None:
    """Anything else, also what a URL parser would quietly repair, is a `ValueError` that does not repeat it."""
    with pytest.raises(ValueError, match="^base_url ") as caught:
        check_base_url(value)
    assert len(str(caught.value)) < 120
    assert "user:word" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["http://proxy.example:3128", "https://user:word@proxy.example", "http://[::1]:3128", "http://127.0.0.1"]
)
def test_a_proxy_is_an_http_url_with_a_password_perhaps(value: str) -> None:
    """http and https, any host, with user and password or without: it comes back as it is."""
    assert check_proxy_url(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "proxy.example:3128",
        "socks5://proxy.example",
        "http://",
        "http://user:canary@",
        "http://user:canary@[::1].evil.example",
        "http://proxy.example:port",
        "http://próxy.example",
        "http://proxy.example\n",
        None,
        5,
    ],
    ids=repr,
)
def test_what_is_no_proxy_is_refused_without_its_password(value: Any) -> None:
    """Anything else is a `ValueError` that quotes nothing of it."""
    with pytest.raises(ValueError, match="^proxy must be ") as caught:
        check_proxy_url(value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("abc", "'abc'"),
        ("a" * 25, "a text of 25 characters"),
        ("a\nb", "a text of 3 characters"),
        (5, "5"),
        (-5, "-5"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        (True, "True"),
        (None, "None"),
        (10**20, "a number of more than 20 digits"),
        (10**5_000, "a number of more than 20 digits"),
        ([1], "a value of type list"),
    ],
    ids=describe,
)
def test_a_value_is_shown_short_or_not_at_all(value: Any, shown: str) -> None:
    """A short id is quoted; a long text, which may be a token or a message, and an object are only described."""
    assert describe(value) == shown

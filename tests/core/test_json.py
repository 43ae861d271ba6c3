"""JSON: the same value with and without orjson, and `ValueError` for all that is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.shapes import anything
from mlmessages.api import json as json_home
from mlmessages.api.json import parse_json

HALF = "\\ud800"

READ = {
    "escaped half pair": (b'"a' + HALF.encode() + b'b"', "a\ufffdb"),
    "escaped half pair in a key": (b'{"' + HALF.encode() + b'": 1}', {"\ufffd": 1}),
    "escaped half pair, deep inside": (b'[[{"a": ["\\udfff"]}]]', [[{"a": ["\ufffd"]}]]),
    "escaped whole pair": (b'"\\ud83d\\ude00"', "\U0001f600"),
    "half pair as bytes": (b'"a\xed\xa0\x80b"', "a\ufffdb"),
    "a letter that begins with the same byte": ('"\ud55c\ud7a3"'.encode(), "\ud55c\ud7a3"),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    "duplicate keys": (b'{"a": 1, "a": 2}', {"a": 2}),
    "the largest 64 bits": (
        b"[9223372036854775807, -9223372036854775808, 18446744073709551615]",
        [2**63 - 1, -(2**63), 2**64 - 1],
    ),
    "beyond 64 bits": (b"[18446744073709551616, -9223372036854775809]", [float(2**64), float(-(2**63))]),
    "depth 900": (b"[" * 900 + b"]" * 900, None),
    "escaped NUL": (b'"\\u0000"', "\0"),
    "blanks around": (b" \r\n\t7 ", 7),
}
REFUSED = {
    "depth 100,000": b"[" * 100_000 + b"]" * 100_000,
    "depth 100,000, never closed": b'{"a":' * 100_000,
    "a number of 5,000 digits": b"[" + b"1" * 5_000 + b"]",
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "invalid UTF-8": b'"\xff"',
    "UTF-8 cut in the middle": '"é"'.encode()[:-2] + b'"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nothing": b"",
    "blanks": b"  ",
    "cut off": b'{"a": [1, 2',
    "two values": b"{} {}",
    "a trailing comma": b"[1,]",
    "HTML": b"<html><body>502</body></html>",
    "a raw line break in a text": b'"a\nb"',
    "single quotes": b"{'a': 1}",
}


@pytest.mark.parametrize("name", READ)
def test_reads_the_same_value_with_either_parser(name: str, parser: str) -> None:
    """What is JSON is read to the same value, whichever parser is installed; half a surrogate pair becomes U+FFFD."""
    text, expected = READ[name]
    value = parse_json(text)
    if expected is None:
        value, expected = str(json.dumps(value)).replace(" ", ""), text.decode()
    assert value == expected
    assert repr(type(value)) == repr(type(expected))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_json_is_a_value_error(name: str, parser: str) -> None:
    """What is not JSON, or too deep or too long to be read, is a `ValueError` with either parser: never a crash."""
    with pytest.raises(ValueError, match="."):
        parse_json(REFUSED[name])


def _parsed(text: bytes) -> str:
    try:
        return repr(parse_json(text))
    except ValueError:
        return "refused"


def _both(text: bytes) -> tuple[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        first = _parsed(text)
        patch.setattr(json_home, "orjson", None)
        return first, _parsed(text)


@given(anything, st.booleans())
def test_any_value_is_read_the_same_with_and_without_orjson(value: object, ascii_only: bool) -> None:
    """Any JSON value comes out the same, type by type, with and without orjson."""
    first, second = _both(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    assert first == second != "refused"


@given(
    st.lists(
        st.sampled_from(
            [
                b'"',
                b"\\",
                b"u",
                b"d8",
                b"00",
                b"\xed\xa0\x80",
                b"\xc3",
                b"{",
                b"}",
                b"[",
                b"]",
                b":",
                b",",
                b"1",
                b"-",
                b".",
            ]
        )
    )
)
def test_any_bytes_are_read_or_refused_the_same_with_and_without_orjson(parts: list[bytes]) -> None:
    """Spoilt bytes are read or refused, and the same way with and without orjson."""
    first, second = _both(b"".join(parts))
    assert first == second

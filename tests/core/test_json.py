"""JSON: the same value with and without orjson, and `ValueError` for all that is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import case
from core.shapes import anything
from mlmessages.api import json as json_home
from mlmessages.api.json import dump_json, parse_json

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
    "a number beyond all floats": (b"[1e999, -1e999, 1e308]", [None, None, 1e308]),
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


# -- what was read can be written --------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """JSON of so many arrays and objects, one in the other."""
    pairs = depth // 2
    return b'{"a":[' * pairs + b"7" + b"]}" * pairs


@case("K16")
@pytest.mark.parametrize("depth", [2, 254, 256, 300, 900])
def test_what_was_read_can_be_written_and_read_again(depth: int, parser: str) -> None:
    """orjson reads 1,024 levels and writes 254: what is deeper is written too, as it was."""
    assert dump_json(parse_json(nested(depth))) == nested(depth)


@case("K16")
@pytest.mark.parametrize("depth", [1_000, 1_024])
def test_what_is_too_deep_to_be_written_is_a_value_error(depth: int, parser: str) -> None:
    """At the end of what can be read, writing works or is a `ValueError`: never a `TypeError` or `RecursionError`."""
    value: object = 7
    for _ in range(depth // 2):
        value = {"a": [value]}
    try:
        assert dump_json(value) == nested(depth)
    except ValueError as error:
        assert str(error) == "nested too deeply"


@pytest.mark.parametrize("value", [{"a": {1: {2}}}, [object()], {1j: 1}, "half \ud800"], ids=range(4))
def test_what_json_cannot_express_is_a_value_error(value: object, parser: str) -> None:
    """What no JSON can hold is a `ValueError` that quotes nothing of it."""
    with pytest.raises(ValueError, match="^it cannot be written as JSON$"):
        dump_json(value)


@case("P3")
@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1e309", b"1" + b"0" * 400])
def test_no_number_becomes_infinity(number: bytes, parser: str) -> None:
    """A number beyond all floats is null: infinity could be written into no journal and read back from none."""
    value = parse_json(b'{"a": [' + number + b"]}")
    assert value == {"a": [None]}
    assert parse_json(dump_json(value)) == value


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")], ids=str)
def test_what_is_no_number_is_never_written_as_one(number: float, parser: str) -> None:
    """Infinity is null or a `ValueError`: it would be JSON that cannot be read again."""
    try:
        assert dump_json([number]) == b"[null]"
    except ValueError as error:
        assert str(error) == "it cannot be written as JSON"


@given(anything)
def test_any_value_that_was_read_is_written_the_same_with_and_without_orjson(value: object) -> None:
    """Whatever was read is read again from what was written, with either parser at either end."""
    read = parse_json(json.dumps(value).encode())
    written = dump_json(read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_home, "orjson", None)
        assert parse_json(written) == read
        written = dump_json(read)
    assert parse_json(written) == read

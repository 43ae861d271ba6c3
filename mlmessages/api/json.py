"""Bytes to JSON and back: orjson where it is installed, else the standard library, with the same results."""

from __future__ import annotations

import json
import re
from typing import Any, Final

try:
    import orjson
except ImportError:  # the `speed` extra is not installed
    orjson = None  # type: ignore[assignment] # a module, for type checkers

_LONE: Final = re.compile("[\ud800-\udfff]")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float | None:
    """A number, or None where it is beyond all floats: no journal could keep infinity."""
    value = float(digits)
    return value if abs(value) < float("inf") else None


def _integer(digits: str) -> int | float | None:
    """An integer as orjson reads it: beyond 64 bits it is a float, which nothing takes for an id."""
    value = int(digits)
    if len(digits) < 19:
        return value
    return value if -(2**63) <= value < 2**64 else _finite(digits)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
# A function for each integer costs a quarter of the time of a page: only where one of 19 digits or more may stand.
_CAREFUL: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer)
_SHAPE: Final = bytes(48 if c in b"0123456789" else 32 if c in b" \t\r\n:,[-" else 120 for c in range(256))
_LONG_INTEGER: Final = b" " + b"0" * 19
_HALF_OF_A_PAIR: Final = re.compile(rb"\\u[dD]")


def parse_json(body: bytes) -> Any:
    """Return the JSON value of `body`. Raises `ValueError` where it is no JSON, or nested too deeply.

    The value is the same with and without orjson, but for nesting of about 1,000 levels, where each has a limit of its
    own. Half of a surrogate pair, which no file could store, becomes U+FFFD: one broken character costs no message.
    """
    if orjson is not None:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass  # it is stricter than the standard library about surrogates and depth: let that decide
    try:
        try:
            text, broken = body.decode("utf-8-sig"), b"\\" in body and _HALF_OF_A_PAIR.search(body) is not None
        except UnicodeDecodeError:
            text, broken = body.decode("utf-8-sig", "surrogatepass"), True
        long = _LONG_INTEGER in b" " + body.translate(_SHAPE)
        value = (_CAREFUL if long else _DECODER).decode(text)
        return _without_lone_surrogates(value) if broken else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump_json(value: object) -> bytes:
    """Return `value` as JSON; what `parse_json` has read can be written, but for the last levels of a very deep value.

    Raises `ValueError` where it is nested too deeply, or is no JSON.
    """
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except orjson.JSONEncodeError:
            pass  # it reads 1,024 levels and writes 254: the standard library writes nearly as many as it reads
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (TypeError, ValueError):  # from None: the writer's own words quote the value
        raise ValueError("it cannot be written as JSON") from None


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value

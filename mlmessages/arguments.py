"""What callers may pass: checked before anything is sent, refused with a `ValueError` that says what is expected."""

from __future__ import annotations

import re
import sys
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_DIGITS: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_MESSAGE_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,128}", re.ASCII)
_LONG_INT: Final = 10**20


def digits(name: str, value: object) -> str:
    """The id `value` as text; `ValueError` for anything but ASCII digits: it becomes part of a URL."""
    if _is_id(value) and _DIGITS.fullmatch(text := str(value)):
        return text
    raise ValueError(f"{name} must be an int or a string of 1 to 20 ASCII digits, not {show(value)}")


def message_id(value: object) -> str:
    """The id of a message; `ValueError` for anything but ASCII letters, digits, ``_`` and ``-``."""
    if _is_id(value) and _MESSAGE_ID.fullmatch(text := str(value)):
        return text
    raise ValueError(f"message_id must be 1 to 128 ASCII letters, digits, _ and -, not {show(value)}")


def _is_id(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and 0 <= value < _LONG_INT  # Python refuses to print very long ones
    return isinstance(value, str)


def whole(name: str, value: object, least: int) -> int:
    """`value` if it is an int of at least `least`; else `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ValueError(f"{name} must be an int of at least {least}, not {show(value)}")


def seconds(name: str, value: object, *, zero: bool = False) -> float:
    """`value` if it is a finite, positive number of seconds (or zero); else `ValueError`."""
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value <= sys.float_info.max
        and (value or zero)
    ):
        return float(value)
    raise ValueError(f"{name} must be a {'non-negative' if zero else 'positive'} number of seconds, not {show(value)}")


def base_url(value: object) -> str:
    """The URL that paths are added to; `ValueError` unless it is https, or plain http to this machine."""
    if not isinstance(value, str):
        raise ValueError(f"base_url must be a string, not {show(value)}")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("base_url is not a URL") from None
    # Looked for in the whole text: `urlsplit` takes an empty query or fragment, and control characters, for nothing.
    if "@" in parts.netloc or not value.isascii() or not value.isprintable() or re.search(r"[\s\\?#]|\.\.", value):
        raise ValueError("base_url must be plain ASCII and have no user, query, fragment, blank or '..'")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("base_url must be an https:// URL (plain http:// is taken for loopback addresses alone)")
    if not host:
        raise ValueError("base_url has no host")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def show(value: object) -> str:
    """`value` for a message, short; a text of another kind than an id may be anything, so only its length is told."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 24 and value.isprintable() else f"a text of {len(value)} characters"
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < _LONG_INT):
        return repr(value)
    return "a number of more than 20 digits" if isinstance(value, int) else f"a value of type {type(value).__name__}"

"""What callers may pass, checked before anything is sent.

Each check returns the value as it is sent, or raises a `ValueError` that names the argument and says what is expected.
A value that may be a token or a seller's text is never quoted in it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from .redacted import RedactedText

PACK_ID: Final = re.compile(r"[0-9]{1,20}", re.ASCII)  # of users and applications, too
MESSAGE_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,128}", re.ASCII)
ATTACHMENT_ID: Final = re.compile(r"(?!.*\.\.)[0-9A-Za-z][0-9A-Za-z._-]{0,255}", re.ASCII)
_WORD: Final = re.compile(r"[0-9a-z_]{1,64}", re.ASCII)
_SITE_ID: Final = re.compile(r"M[A-Z]{2}", re.ASCII)
_AUTHORITY: Final = re.compile(r"([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_LONG_INT: Final = 10**20
MOST_ATTACHMENTS: Final = 25  # of one message [documented: attachments]


def check_id(name: str, value: object) -> str:
    """Return the id of a pack, user or application as text: 1 to 20 ASCII digits, because it becomes part of a URL."""
    if _is_id(value) and PACK_ID.fullmatch(text := str(value)):
        return text
    raise ValueError(f"{name} must be an int or a string of 1 to 20 ASCII digits, not {describe(value)}")


def check_message_id(value: object) -> str:
    """Return the id of a message as text: ASCII letters, digits, ``_`` and ``-``."""
    if _is_id(value) and MESSAGE_ID.fullmatch(text := str(value)):
        return text
    raise ValueError(f"message_id must be 1 to 128 ASCII letters, digits, _ and -, not {describe(value)}")


def check_topic(name: str, value: object) -> str:
    """Return a word that can stand in a query as it is: lower-case ASCII letters, digits and ``_``."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    raise ValueError(f"{name} must be 1 to 64 lower-case ASCII letters, digits and _, not {describe(value)}")


def _is_id(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and 0 <= value < _LONG_INT  # Python refuses to print very long ones
    return isinstance(value, str)


def check_int(name: str, value: object, least: int) -> int:
    """Return an int of at least `least`. A bool is none."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ValueError(f"{name} must be an int of at least {least}, not {describe(value)}")


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Return a finite, positive number of seconds; `zero`: zero is one, too."""
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value <= sys.float_info.max
        and (value or zero)
    ):
        return float(value)
    raise ValueError(
        f"{name} must be a {'non-negative' if zero else 'positive'} number of seconds, not {describe(value)}"
    )


def check_base_url(value: object) -> str:
    """Return the URL that paths are added to: https to any host, or plain http to this machine."""
    if not isinstance(value, str):
        raise ValueError(f"base_url must be a string, not {describe(value)}")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("base_url is not a URL") from None
    # Looked for in the whole text: `urlsplit` takes an empty query or fragment, and control characters, for nothing.
    if "@" in parts.netloc or not value.isascii() or not value.isprintable() or re.search(r"[\s\\?#]|\.\.", value):
        raise ValueError("base_url must be plain ASCII and have no user, query, fragment, blank or '..'")
    # `urlsplit` takes what follows a bracket for nothing: ``[::1].evil.com`` has the host ``::1`` for it.
    if parts.netloc and not _AUTHORITY.fullmatch(parts.netloc):
        raise ValueError("base_url has a host that cannot be one")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("base_url must be an https:// URL (plain http:// is taken for loopback addresses alone)")
    if not host:
        raise ValueError("base_url has no host")
    return value.rstrip("/")


def check_proxy_url(value: object) -> str:
    """Return the URL of an HTTP proxy, which may have a user and a password in it."""
    if not isinstance(value, str):
        raise ValueError(f"proxy must be a string, not {type(value).__name__}")
    try:
        parts = urlsplit(value)
        host, _ = parts.netloc.rpartition("@")[2], parts.port
    except ValueError:
        host = ""
    if (
        not _AUTHORITY.fullmatch(host)
        or parts.scheme not in ("http", "https")
        or not value.isascii()
        or not value.isprintable()
    ):
        raise ValueError("proxy must be a URL such as http://proxy.example:3128")
    return value


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_text(name: str, value: object) -> RedactedText:
    """Return a text that can be sent, hidden from tracebacks."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, not {describe(value)}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"{name} has half of a surrogate pair in it, which no encoding can send")
    return RedactedText(value)


# Domestic sites take ISO-8859-1 and some emoji [documented: messages]. Which emoji is a picture in every copy of that
# page: they go out, and the server decides.
_PERHAPS_EMOJI: Final = re.compile(
    "[\u200d\u203c\u2049\u20e3\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b55"
    "\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]"
)
_MOST_NAMED: Final = 10


def check_latin(name: str, value: RedactedText) -> RedactedText:
    """Return a text that domestic sites may take. The `ValueError` names the characters, and nothing around them."""
    bad = dict.fromkeys(char for char in value if char > "\xff" and not _PERHAPS_EMOJI.match(char))
    if not bad:
        return value
    named = [f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}" for char in bad]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    raise ValueError(
        f"{name} has characters that domestic sites refuse (they take ISO-8859-1 and some emoji): "
        + ", ".join(named[:_MOST_NAMED])
        + more
    )


def check_site_id(value: object) -> str:
    """Return the id of a site, such as ``MLM``. ``CBT`` is none: it is no sale's site [documented: attachments]."""
    if isinstance(value, str) and _SITE_ID.fullmatch(value):
        return value
    raise ValueError(f"site_id must be the site of the sale, such as 'MLM' or 'MLB', not {describe(value)}")


def check_attachment_id(value: object) -> str:
    """Return the id of an attachment: ASCII letters, digits, ``.``, ``_`` and ``-``, without ``..``."""
    if isinstance(value, str) and ATTACHMENT_ID.fullmatch(value):
        return value
    raise ValueError(
        "an attachment's id must be 1 to 256 ASCII letters, digits, '.', '_' and '-', without '..' and beginning with"
        f" a letter or digit, not {describe(value)}"
    )


def check_attachment_ids(values: object) -> list[str]:
    """Return the ids of a message's attachments, at most 25 [documented: attachments]."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ValueError(f"attachments must be a list of ids, not {describe(values)}")
    ids = [check_attachment_id(value) for value in values]
    if len(ids) > MOST_ATTACHMENTS:
        raise ValueError(f"a message has at most {MOST_ATTACHMENTS} attachments, not {len(ids)}")
    return ids


def check_name(name: str, value: object) -> str:
    """Return a name that the action guide may know: printable, of 1 to 256 characters."""
    if isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable():
        return value
    raise ValueError(f"{name} must be a printable string of 1 to 256 characters, not {describe(value)}")


def describe(value: object) -> str:
    """Return a short description of a value for an error: of a long text its length, of an object its type."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 24 and value.isprintable() else f"a text of {len(value)} characters"
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < _LONG_INT):
        return repr(value)
    return "a number of more than 20 digits" if isinstance(value, int) else f"a value of type {type(value).__name__}"

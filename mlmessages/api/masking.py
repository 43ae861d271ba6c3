"""What a server says, without the secrets that it quotes: whole, cut, split, in capitals or escaped.

An error, and a log line after it, repeats the server's words. A proxy or a careless server quotes the request in them,
and with it the token. Masking looks at the text as it will be shown, after JSON was decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "***"
_RUN: Final = 16  # characters of a secret in a row: so many are never shown
_SHORTEST_RUN: Final = 8  # letters and digits of them: less would be found in any text
_COMMON: Final = 8  # letters of a secret that may be a word of the language, such as tests have
_MOST_LAYERS: Final = 4  # of escapes within escapes

# What stands for one character in JSON, URLs and HTML. A named entity and a tag stand for no letter and no digit.
_ESCAPE: Final = re.compile(
    r"\\u(?P<json>[0-9a-fA-F]{4})|\\x(?P<hex>[0-9a-fA-F]{2})|\\(?P<plain>[nrtbf/\\\"'])|%(?P<url>[0-9a-fA-F]{2})"
    r"|&#[xX](?P<entity>[0-9a-fA-F]{1,6});?|&#(?P<decimal>[0-9]{1,7});?|&[A-Za-z]{2,8};|</?[A-Za-z][^<>]{0,40}>"
)


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every run of 16 characters of one of the `secrets` replaced by ``***``.

    Case, escapes and all that is neither a letter nor a digit are looked through. A secret of less than 16 characters
    is masked as a word of its own, unless it is a common word: the rest of what the server says must stay readable.
    """
    hidden = bytearray(len(text))
    for secret in secrets:
        places = [found.span() for found in _whole(secret).finditer(text)]
        if len(secret) >= _RUN:
            places += _runs(text, _parts(secret))
        for start, end in places:
            hidden[start:end] = b"\1" * (end - start)
    for found in reversed(list(re.finditer(b"\1+", hidden))):
        text = text[: found.start()] + HIDDEN + text[found.end() :]
    return text


def _whole(secret: str) -> re.Pattern[str]:
    """What finds a secret as it is; a short one as a word of its own, and not if it may be a word of the language."""
    if len(secret) >= _RUN:
        return re.compile(re.escape(secret))
    if secret.isalpha() and len(secret) < _COMMON:
        return re.compile("(?!)")
    return re.compile(rf"(?<![\w-]){re.escape(secret)}(?![\w-])")


def _parts(secret: str) -> set[str]:
    """The letters and digits of each run of 16 characters of `secret`."""
    runs = (_canonical(secret[i : i + _RUN]) for i in range(len(secret) - _RUN + 1))
    return {run for run in runs if len(run) >= _SHORTEST_RUN}


def _canonical(text: str) -> str:
    return "".join(char for char in text.lower() if char.isascii() and char.isalnum())


def _runs(text: str, parts: set[str]) -> Iterable[tuple[int, int]]:
    """Where one of the `parts` stands in `text`, as its beginning and end, in any layer of escapes."""
    shown = text
    places = [(i, i + 1) for i in range(len(text))]  # of each shown character in `text`
    for _ in range(_MOST_LAYERS):
        kept = [i for i, char in enumerate(shown) if char.isascii() and char.isalnum()]
        letters = "".join([shown[i] for i in kept]).lower()
        for part in parts:
            at = letters.find(part)
            while at >= 0:
                yield places[kept[at]][0], places[kept[at + len(part) - 1]][1]
                at = letters.find(part, at + 1)
        decoded, where = _decoded(shown, places)
        if decoded == shown:
            return
        shown, places = decoded, where


def _decoded(shown: str, places: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """One layer of escapes less, and where each character of the result stands in the original text."""
    chars: list[str] = []
    where: list[tuple[int, int]] = []
    at = 0
    for escape in _ESCAPE.finditer(shown):
        chars += shown[at : escape.start()]
        where += places[at : escape.start()]
        at = escape.end()
        chars.append(_meant(escape))
        where.append((places[escape.start()][0], places[at - 1][1]))
    chars += shown[at:]
    where += places[at:]
    return "".join(chars), where


def _meant(escape: re.Match[str]) -> str:
    """The one character that an escape stands for; a blank for what is no letter and no digit."""
    said = escape.groupdict()
    if said["plain"]:
        return "\\" if said["plain"] == "\\" else " "
    code = next((int(said[name], 16) for name in ("json", "hex", "url", "entity") if said[name]), None)
    if code is None and said["decimal"]:
        code = int(said["decimal"])
    return chr(code) if code is not None and code < 0x110000 else " "

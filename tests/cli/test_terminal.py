"""Texts made harmless, and streams that know few characters."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from mlmessages.cli.terminal import counted
from mlmessages.escaping import escape_controls, one_line


def test_no_character_acts_on_a_terminal():
    """Of all characters none comes through that controls, hides or reorders, but line breaks, tabs and joiners."""
    text = escape_controls("".join(map(chr, range(sys.maxunicode + 1))))
    left = {char for char in set(text) if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}}
    assert left == {"\n", "\t", "\u200c", "\u200d"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Olá, señor — 中文 \U0001f600", "Olá, señor — 中文 \U0001f600"),
        (
            "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e",
            "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e",
        ),
        ("a\u00a0b", "a\u00a0b"),
        ("a\r\nb\rc\nd\te", "a\nb\nc\nd\te"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x08\x7f\x9b", r"\x08\x7f\x9b"),
        ("\u202e\u2066\ufeff\u00ad", r"\u202e\u2066\ufeff\xad"),
        ("\ud83d", r"\ud83d"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_a_text_stays_readable(text: str, seen: str):
    """What people write stays as it is; what would act is shown as an escape."""
    assert escape_controls(text) == seen


def test_one_line_is_one_line():
    """No character that begins a new line is left."""
    assert one_line(" a\r\nb\u2028c\x0bd\x85e \t f ") == r"a b\u2028c\x0bd\x85e f"


def test_counting():
    """One is singular, and thousands are grouped."""
    assert [counted(n, "message") for n in (0, 1, 2500)] == ["0 messages", "1 message", "2,500 messages"]

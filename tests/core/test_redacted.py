"""What a seller writes does not show itself in a traceback: repr, slices, characters and formatting are hidden."""

from __future__ import annotations

import copy
import io
import pickle
import reprlib
import traceback

import pytest
from rich.console import Console
from rich.traceback import Traceback

from cases import case
from mlmessages.api.calls import Body, Request
from mlmessages.api.json import dump_json
from mlmessages.api.redacted import RedactedText, redact

WORDS = "canary words that a seller of seven years and eleven months has written to a buyer, twice as long as a line"
HIDDEN = RedactedText(WORDS)


def assert_hidden(shown: str) -> None:
    """No eight characters of the text in a row can be read."""
    assert not [WORDS[i : i + 8] for i in range(len(WORDS) - 7) if WORDS[i : i + 8] in shown], shown


@case("K24")
@pytest.mark.parametrize(
    "part",
    [
        HIDDEN,
        HIDDEN[:80],
        HIDDEN[80:],
        HIDDEN[::2],
        HIDDEN[:80][:40],
        HIDDEN[3],
        HIDDEN[:10] + "…",
        [*HIDDEN],
        list(HIDDEN)[:40],
        next(iter(HIDDEN)),
        {"text": HIDDEN[:80]},
        (HIDDEN[-5:],),
    ],
    ids=range(12),
)
def test_no_part_of_it_shows_itself(part: object) -> None:
    """Slices, single characters, lists of them and what is added behind it have a repr that says how long they are."""
    assert "characters>" in repr(part)
    assert_hidden(repr(part))


@case("K24")
def test_formatting_and_shortening_show_nothing() -> None:
    """f-strings, `format` and the standard library's short repr give no word of it."""
    for shown in (f"{HIDDEN}", f"{HIDDEN:>200}", f"{HIDDEN!r}", format(HIDDEN, ".80"), reprlib.repr(HIDDEN)):
        assert_hidden(shown)
    assert_hidden(f"{HIDDEN} {HIDDEN:.5}")


@case("K24")
def test_what_shortens_locals_shows_nothing() -> None:
    """As tracebacks with locals do it: a slice, then its repr, and how much was left out."""

    def failing(text: str) -> None:
        first = next(iter(text))
        beginning = text[:80]
        raise ValueError(len(first + beginning))

    with pytest.raises(ValueError, match="81") as caught:
        failing(redact(WORDS))
    report = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    frame = report[report.index("in failing") :]
    assert "beginning = <80 characters>" in frame
    assert_hidden(frame)


@case("K24")
@pytest.mark.parametrize("width", [40, 80, 400])
def test_rich_shows_nothing_of_it_in_its_locals(width: int) -> None:
    """Locals as rich prints them, shortened or not, alone and inside of containers and requests."""

    def failing(text: str) -> None:
        held = {"texts": [text], "request": Request("/x", body=Body("application/json", dump_json({"text": text})))}
        raise ValueError(len(held))

    with pytest.raises(ValueError, match="2") as caught:
        failing(redact(WORDS))
    console = Console(file=io.StringIO(), width=width)
    for longest in (10, 80, 10_000):
        console.print(
            Traceback.from_exception(
                caught.type,
                caught.value,
                caught.tb.tb_next,  # type: ignore[union-attr]  # the frame below holds the words in plain
                show_locals=True,
                locals_max_string=longest,
            )
        )
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "characters>" in shown
    assert_hidden(shown)


def test_it_is_the_text_wherever_it_has_to_be() -> None:
    """Comparing, hashing, `str`, joining, encoding, JSON and copies give what was written."""
    assert (HIDDEN, hash(HIDDEN), len(HIDDEN)) == (WORDS, hash(WORDS), len(WORDS))
    assert type(str(HIDDEN)) is str
    assert str(HIDDEN) == "".join(HIDDEN) == HIDDEN.encode().decode() == WORDS
    assert HIDDEN[:6] == "canary"
    assert HIDDEN + "!" == WORDS + "!"
    assert dump_json({"text": HIDDEN}) == dump_json({"text": WORDS})
    for again in (copy.copy(HIDDEN), copy.deepcopy(HIDDEN), pickle.loads(pickle.dumps(HIDDEN))):
        assert (again, type(again)) == (WORDS, RedactedText)


def test_what_is_no_text_is_left_as_it_is() -> None:
    """A number, None or bytes pass through: what is wrong with them is told later."""
    assert redact(5) == 5
    assert redact(None) is None
    assert redact(b"x") == b"x"

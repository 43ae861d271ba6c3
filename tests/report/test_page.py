"""The page: other people's words are words, nothing is loaded, the same figures give the same bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmessages.report.figures import Figures
from mlmessages.report.page import MARKER, Source, page
from report.written import BUYER, SELLER, START, by_message, fetched, figures_of, message

HERE = Source("o.jsonl", written=True, torn=False)


class Seen(HTMLParser):
    """What is in a page: its tags with their attributes, its text, the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[str] = []
        self.by_id: dict[str, str] = {}
        self._id: str | None = None
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id")
        if tag in ("td", "th"):
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._id = None
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.cells[-1] += data
        if self._id:
            self.by_id[self._id] = data


def seen(found: Figures, source: Source = HERE) -> Seen:
    return Seen(page(found, source))


def a_conversation(text: str) -> Figures:
    return figures_of(fetched("11", message("a"), message("b", SELLER, 5), message("c", BUYER, 9, text)))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("\"'`></td></table><b>", "\"'`></td></table><b>"),
        ("&lt;b&gt; &amp; &#x3c;", "&lt;b&gt; &amp; &#x3c;"),
        ("{{ 7 * 7 }} {% raw %}", "{{ 7 * 7 }} {% raw %}"),
        ("a\x00b\x1b[31m\x7f", "a\\x00b\\x1b[31m\\x7f"),
        ("abc\u202edcba\u2066\u200b", "abc\\u202edcba\\u2066\\u200b"),
        ("one\r\ntwo\n\n\tthree\u2028four", "one two three\\u2028four"),
        ("\ud83d", "\ufffd"),
        ("Olá, señor — 中文 😀", "Olá, señor — 中文 😀"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_a_buyers_text_is_shown_as_it_is_and_does_nothing(text: str, shown: str):
    """Mark-up, quotes, templates, control and bidirectional characters and NUL: seen, on one line, and never acting."""
    found, harmless = seen(a_conversation(text)), seen(a_conversation("Test"))
    assert found.cells[-1] == shown
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in harmless.tags]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.text(max_size=60).map(lambda text: f"x{text}"), min_size=100, max_size=100))
def test_no_text_becomes_a_tag(texts: list[str]):
    """Whatever buyers write, the page has the same tags, and encodes."""

    def written(texts: list[str]) -> str:
        rows = [fetched(str(n), message(f"m{n}", BUYER, n, text)) for n, text in enumerate(texts)]
        return page(figures_of(*rows), HERE)

    found = written(texts)
    assert found.encode()
    assert "\0" not in found
    assert found.count("<") == written(["x"] * 100).count("<")


def test_a_long_text_is_cut_and_says_so():
    """140 characters and an ellipsis; a text that fits has none."""
    assert seen(a_conversation("x" * 140)).cells[-1] == "x" * 140
    assert seen(a_conversation("x" * 141)).cells[-1] == "x" * 140 + "…"
    assert seen(a_conversation(" " * 170 + "x")).cells[-1] == "…"


def test_a_message_without_text_says_what_it_has():
    """How many attachments, or that there is no text."""
    files = message("c", BUYER, 9, "", message_attachments=[{"filename": "a"}, {"filename": "b"}])
    assert seen(figures_of(fetched("11", files))).cells[-1] == "2 attachments, no text"
    assert seen(a_conversation("")).cells[-1] == "no text"


def test_the_servers_word_for_a_block_and_the_name_of_the_file_are_escaped_too():
    """Nothing that comes from outside is mark-up."""
    figures = figures_of(fetched("11", message("a"), blocked="blocked_by_<b>\u202e"))
    found = seen(figures, Source("<i>.jsonl", written=False, torn=False))
    assert not {"b", "i"} & {tag for tag, _ in found.tags}
    assert "blocked_by_<b>\\u202e" in found.text
    assert "<i>.jsonl" in found.text


BUSY = figures_of(
    *[
        fetched(str(pack), message(f"{pack}a", minutes=-1440 * pack), message(f"{pack}b", SELLER, 7 - 1440 * pack))
        for pack in range(40)
    ],
    *[fetched(str(pack), message(f"{pack}a", minutes=pack), blocked="blocked_by_claim") for pack in range(50, 60)],
)


def test_a_page_asks_for_nothing_and_runs_nothing():
    """No script, no handler, no address of anything elsewhere, and a policy under which none would work."""
    found = seen(BUSY)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "a"} & {
        tag for tag, _ in found.tags
    }
    policies = [a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    written = page(BUSY, HERE)
    assert not re.search(r"https?:|//|@import|url\((?!#)", written)
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "action")]
        assert str(attributes.get("href", "#")).startswith("#")


def test_a_page_is_well_made():
    """Language, title, viewport; one heading of each section; captions and scopes; charts with a name; ids once."""
    found = seen(BUSY)
    tags = [tag for tag, _ in found.tags]
    assert tags[0] == "html"
    assert dict(found.tags)["html"] == {"lang": "en"}
    assert {"title", "main", "header", "footer"} <= set(tags)
    assert [a["content"] for _, a in found.tags if a.get("name") == "viewport"] == [
        "width=device-width, initial-scale=1"
    ]
    assert tags.count("h1") == 1
    assert tags.count("h2") == tags.count("section") == 5
    assert tags.count("caption") == tags.count("table") == 3
    assert all(a.get("scope") in ("col", "row") for tag, a in found.tags if tag == "th")
    charts = [a for tag, a in found.tags if tag == "svg"]
    assert len(charts) == 4
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    refers = re.findall(r'(?:href="|url\()#([\w-]+)', page(BUSY, HERE))
    assert refers
    assert set(refers) <= set(ids)


def test_texts_of_charts_are_text_and_in_the_font_of_the_page():
    """One can select and translate them; no font is named or embedded."""
    written = page(BUSY, HERE)
    charts = "".join(re.findall(r"<svg.*?</svg>", written, re.DOTALL))
    assert "Messages a day" in re.sub("<[^>]*>", "", charts)
    assert "font-family" not in charts
    assert not re.search("<style|<metadata|<dc:|<cc:", charts)


def test_the_headline_figures_are_those_that_were_counted():
    """Conversations, messages of each side, median, percentile, unanswered, blocked."""
    numbers = seen(BUSY).by_id
    assert numbers["conversations"] == "50"
    assert (numbers["from-buyers"], numbers["from-seller"]) == ("50", "40")
    assert (numbers["median"], numbers["ninetieth"]) == ("7 min", "7 min")
    assert (numbers["unanswered"], numbers["blocked"]) == ("10", "10")


def test_the_page_says_how_it_was_counted():
    """The zone, the moment, the definition of median and percentile, what has no date, what came again, what is torn."""
    figures = figures_of(
        fetched("11", message("a"), message("b", SELLER, 5), message("b", SELLER, 5), message("n", minutes=None)),
        *by_message("12"),
        zone=ZoneInfo("America/Sao_Paulo"),
        zone_name="America/Sao_Paulo",
        minutes=60,
    )
    text = words(seen(figures, Source("o.jsonl", written=True, torn=True)).text)
    for said in (
        f"Seller {SELLER}",
        "days in America/Sao_Paulo",
        "as of 2026-03-02 10:00, when the file was last written",
        "half took no longer than 5 min (the median)",
        "nine in ten no longer than 5 min (the 90th percentile)",
        "nearest rank",
        "1 message without a date",
        "1 message stood in the file again",
        "The last line of the file is torn",
        "For 1 conversation the file does not say whether the seller can write",
    ):
        assert said in text
    quiet = words(seen(BUSY, Source("o.jsonl", written=False, torn=False)).text)
    for word in ("torn", "without a date", "again:", "last written", "does not say"):
        assert word not in quiet


def test_the_rest_of_a_long_list_is_counted():
    """500 are listed, and the page says how many are not."""
    rows = [fetched(str(pack), message(f"m{pack}", minutes=pack)) for pack in range(512)]
    found = seen(figures_of(*rows))
    assert sum(a.get("scope") == "row" for tag, a in found.tags if tag == "th") == 500 + 1
    assert "The 500 oldest are listed; 12 more are not." in words(found.text)


def test_without_a_status_the_page_says_so():
    """The lines of `fetch --messages` do not tell who is blocked: that is not the same as none."""
    without = seen(figures_of(*by_message("11", message("a"))))
    assert "The file does not say whether the seller can write" in words(without.text)
    assert (without.by_id["blocked"], without.cells[-2]) == ("–", "not known")
    assert "None of 1 conversation is blocked." in words(seen(figures_of(fetched("11"))).text)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], "There is no conversation in o.jsonl."),
        ([fetched("11")], "No buyer waits for an answer."),
        ([fetched("11", message("a", minutes=None))], "No message has a date."),
        ([fetched("11", message("a", SELLER))], "There is no answer of the seller to a buyer's message."),
        ([fetched("11", message("a"), message("b", SELLER, 5))], "Of 1 such wait"),
    ],
)
def test_a_page_of_little_says_so(written: list[bytes], said: str):
    """No conversation, no message, no date, no answer, one answer: a page that says it in words."""
    assert said in words(seen(figures_of(*written)).text)


@pytest.mark.parametrize("days", [0, 1, 2, 6, 13, 14, 45, 91, 92, 400, 731, 732, 1200, 3700, 20_000])
def test_any_length_of_history_can_be_drawn(days: int):
    """From one day to decades: at most 11 labels under the days of a wide chart, 5 of a narrow one, the year with them."""
    rows = [message("a"), message("b", SELLER, days * 1440)]
    written = page(figures_of(fetched("11", *rows), minutes=days * 1440), HERE)
    for size, most in (("wide", 11), ("narrow", 5)):
        [chart] = re.findall(rf'<svg[^>]*id="activity-{size}".*?</svg>', written, re.DOTALL)
        texts = re.findall(r"<text[^>]*>([^<]+)</text>|<tspan[^>]*>([^<]+)</tspan>", chart)
        said = ["".join(text) for text in texts]
        labels = [text for text in said if re.fullmatch(r"(\d+ )?[A-Z][a-z]{2}|20\d\d", text)]
        assert [text for text in labels if text.startswith("20")]
        assert 1 <= sum(not text.startswith("20") for text in labels) <= most or all(map(str.isdigit, labels))
        assert len(labels) <= 2 * most


def test_the_same_figures_give_the_same_bytes():
    """Also in another process, with another hash seed and another locale, and whatever a `matplotlibrc` says."""
    code = (
        "import sys; from report.test_page import BUSY, HERE, page; sys.stdout.buffer.write(page(BUSY, HERE).encode())"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert other.stdout == page(BUSY, HERE).encode()
    with mpl.rc_context({"font.size": 40.0, "svg.fonttype": "path", "axes.linewidth": 9.0}):
        assert page(BUSY, HERE).encode() == other.stdout
        assert mpl.rcParams["font.size"] == 40.0


def test_a_page_begins_with_the_marker():
    """By which one sees, without reading on, that it is a report of ours."""
    assert page(BUSY, HERE).startswith(MARKER)
    assert START - timedelta(days=1) < START < BUSY.as_of

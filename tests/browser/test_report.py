"""A report in a real browser: what a person sees of it, on a wide and on a narrow screen, and on paper.

`.ci/run` runs this; `.venv/bin/pytest` alone does not, because it needs Chromium and the extra `browser`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cases import case
from cli.conftest import piped
from mlmessages.report.figures import Figures
from mlmessages.report.wording import ENGLISH
from report.written import BUYER, SELLER, START, facts_of, fetched, figures_of, message

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

NUMBERS = ["conversations", "from-buyers", "from-seller", "median", "ninetieth", "unanswered", "blocked"]

HOSTILE = [
    "<script>document.title = 'pwned'; window.pwned = 1</script>",
    '<img src=x onerror="window.pwned = 1">',
    "</td></tr></table></main><h1>pwned</h1>",
    "<svg onload='window.pwned = 1'><style>*{display:none}</style>",
    "\"'`><iframe src='https://example.com/'></iframe>",
    "<a href='javascript:window.pwned=1'>here</a> {{ 7*7 }} &lt;b&gt;",
    "x" * 139,
]


def minutes_of(days: float) -> float:
    return days * 1440


def conversations(days: float, number: int) -> list[bytes]:
    """Conversations spread over so many days: half of them unanswered, some of them blocked, with hostile texts."""
    lines = []
    for n in range(number):
        begun = minutes_of(days) * n / number
        rows = [message(f"{n}a", BUYER, begun, HOSTILE[n % len(HOSTILE)], site_id="MLB")]
        if n % 2:
            rows.append(message(f"{n}b", SELLER, begun + min(3 ** (n % 10), minutes_of(days) - begun)))
        blocked = ["blocked_by_claim", "blocked_by_time", "blocked_by_<b>new</b>"][n % 3] if n % 4 == 0 else None
        lines.append(fetched(str(2000000000000000 + n), *rows, blocked=blocked))
    return lines


FILES = {
    "a day": conversations(0.4, 9),
    "a month": conversations(31, 150),
    "a year": conversations(400, 300),
    "three years": conversations(1200, 700),
    "without a date": [fetched("11", message("a", minutes=None))],
    "empty": [],
}
LANGUAGE_OF = {"in Spanish": "es", "in Portuguese": "pt"}
FILES |= dict.fromkeys(LANGUAGE_OF, FILES["a month"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    assert found, "there is no Chromium: run `.ci/run`, which installs it"
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=found[0], args=FLAGS) as launched:
        yield launched


class Opened:
    """A page that is open, and everything it complained of or asked for."""

    def __init__(self, browser: Browser, file: Path, viewport: dict[str, int], scheme: str = "light") -> None:
        self.page: Page = browser.new_page(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type] # its types want literals
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(file.as_uri())

    def texts(self, selector: str) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def boxes(self, selector: str) -> list[dict[str, float]]:
        """Where the elements are that one can see, and how large."""
        found: list[dict[str, Any]] = self.page.locator(selector).evaluate_all(
            "all => all.filter(e => e.checkVisibility()).map(e => {"
            " const b = e.getBoundingClientRect();"
            " return {left: b.left, top: b.top, right: b.right, bottom: b.bottom} })"
        )
        return found

    def overflow(self) -> int:
        """How many pixels one would have to scroll to the right."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages that the command makes of `FILES`."""
    folder = tmp_path_factory.mktemp("reports")
    made = {}
    for name, lines in FILES.items():
        source, made[name] = folder / f"{name}.jsonl", folder / f"{name}.html"
        source.write_bytes(b"".join(line + b"\n" for line in lines))
        os.utime(source, (0, START.timestamp() + 1300 * 86_400))
        # As a process: Playwright has the event loop of this one.
        language = ["--language", LANGUAGE_OF.get(name, "en")]
        assert piped("report", str(source), "--out", str(made[name]), *language).returncode == 0
    return made


def figures(lines: list[bytes]) -> Figures:
    seller = SELLER if facts_of(lines).messages else None
    return figures_of(*lines, seller_id=seller, minutes=minutes_of(1300))


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", FILES)
def test_it_is_quiet_complete_and_fits(browser: Browser, pages: dict[str, Path], name: str, viewport: dict[str, int]):
    """No complaint, no request but for the file itself, no scrolling to the right; its charts are there and whole."""
    file = pages[name]
    opened = Opened(browser, file, viewport)
    found = figures(FILES[name])
    assert opened.complaints == []
    assert opened.asked == [file.as_uri()]
    assert opened.overflow() <= 0
    charts = opened.boxes("svg")
    assert len(charts) == bool(found.activity.periods) + bool(found.answers.count)
    for box in charts:
        assert box["right"] - box["left"] > 250
        assert box["bottom"] - box["top"] > 150
        assert box["left"] >= 0
        assert box["right"] <= viewport["width"]
    if charts:
        paths = opened.boxes("svg path[clip-path]")
        bars = [bar for bar in paths if bar["bottom"] - bar["top"] > 1 and bar["right"] - bar["left"] > 1]
        expected = sum(bool(p.from_buyers) + bool(p.from_seller) + 1 for p in found.activity.periods if p.conversations)
        assert len(bars) >= expected + sum(map(bool, found.answers.bins))
    opened.page.close()


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", ["a day", "a month", "a year", "three years", *LANGUAGE_OF])
def test_the_words_in_a_chart_can_be_read(
    browser: Browser, pages: dict[str, Path], name: str, viewport: dict[str, int]
):
    """They are large enough, do not run into each other, and are not cut off."""
    opened = Opened(browser, pages[name], viewport)
    texts, charts = opened.boxes("svg text"), opened.boxes("svg")
    assert len(texts) > 15
    for n, one in enumerate(texts):
        assert one["bottom"] - one["top"] > 9
        assert any(
            box["left"] - 1 <= one["left"] and one["right"] <= box["right"] + 1 and one["bottom"] <= box["bottom"] + 1
            for box in charts
        )
        for other in texts[:n]:
            apart_across = one["right"] <= other["left"] + 1 or other["right"] <= one["left"] + 1
            apart_down = one["bottom"] <= other["top"] + 4 or other["bottom"] <= one["top"] + 4
            assert apart_across or apart_down
    opened.page.close()


CONTRASTS = """all => all.filter(e => e.checkVisibility()).map(e => {
  const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  let ground = e;
  while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
  const [high, low] = [light(ink), light(getComputedStyle(ground).backgroundColor)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05) })"""


@case("R12")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_day_and_by_night(browser: Browser, pages: dict[str, Path], scheme: str):
    """Every text, also of charts and links, has a contrast of 4.5 to 1 with its ground (WCAG AA), and the two differ."""
    opened = Opened(browser, pages["a month"], WIDE, scheme)
    for selector in ("h1", "p", "dt", "dd", "td", "th", "a", "li", "summary", "caption", "svg text", "footer"):
        contrasts = opened.page.locator(selector).evaluate_all(CONTRASTS)
        assert contrasts, selector
        assert min(contrasts) >= 4.5, selector
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(244, 246, 249)") is (scheme == "light")
    opened.page.close()


@case("R13")
def test_a_link_leads_to_the_sale(browser: Browser, pages: dict[str, Path]):
    """One for each conversation that waits, and none is followed by itself."""
    opened = Opened(browser, pages["a month"], WIDE)
    links = opened.page.locator(".waiting a").evaluate_all("all => all.map(a => a.href)")
    packs = opened.texts(".waiting tbody th")
    assert links == [f"https://www.mercadolivre.com.br/vendas/{pack}/detalhe" for pack in packs]
    assert opened.asked == [pages["a month"].as_uri()]
    opened.page.close()


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_other_peoples_words_are_words(browser: Browser, pages: dict[str, Path], viewport: dict[str, int]):
    """Mark-up, scripts and handlers in texts and reasons: shown as they were written, and nothing of them happened."""
    opened = Opened(browser, pages["a month"], viewport)
    shown = opened.texts(".waiting td:last-child")
    assert {" ".join(text.split()) for text in HOSTILE} == set(shown)
    assert "blocked_by_<b>new</b>" in opened.texts(".bars th")
    assert opened.page.title() == f"Messages of seller {SELLER} · mlmessages report"
    assert opened.page.evaluate("typeof window.pwned") == "undefined"
    assert opened.page.locator("h1").count() == 1
    assert opened.page.locator("script, img, iframe, main b, a:not(.waiting tbody th a)").count() == 0
    opened.page.close()


def test_a_script_would_not_run_if_there_were_one(browser: Browser, pages: dict[str, Path]):
    """The page's own policy forbids scripts, handlers, and pictures from anywhere."""
    file = pages["a month"]
    attack = "<script>window.pwned = 1</script><img src='other.png' onerror='window.pwned = 1'>"
    content = file.read_text(encoding="utf-8").replace("<main>", f"<main>{attack}")
    attacked = file.with_name("attacked.html")
    attacked.write_text(content, encoding="utf-8")
    opened = Opened(browser, attacked, WIDE)
    assert opened.page.evaluate("typeof window.pwned") == "undefined"
    assert all("Content Security Policy" in said for said in opened.complaints)
    assert len(opened.complaints) >= 2
    opened.page.close()


def test_the_numbers_on_the_page_are_those_that_were_counted(browser: Browser, pages: dict[str, Path]):
    """On top, in the table of days, in the list of those that wait, by reason."""
    lines = FILES["a month"]
    found, opened = figures(lines), Opened(browser, pages["a month"], WIDE)
    assert found.answers.median is not None
    assert found.answers.ninetieth is not None
    assert {name: opened.page.locator(f"#{name}").inner_text() for name in NUMBERS} == {
        "conversations": f"{found.conversations:,}",
        "from-buyers": f"{found.from_buyers:,}",
        "from-seller": f"{found.from_seller:,}",
        "median": ENGLISH.duration(found.answers.median),
        "ninetieth": ENGLISH.duration(found.answers.ninetieth),
        "unanswered": f"{found.unanswered:,}",
        "blocked": f"{found.blocked_conversations:,}",
    }
    assert opened.texts(".waiting tbody th") == [row.pack_id for row in found.waiting]
    assert opened.texts(".waiting td:nth-child(3)") == [ENGLISH.duration(row.seconds) for row in found.waiting]
    assert opened.texts(".bars td:nth-child(3)") == [str(row.conversations) for row in found.blocked]
    opened.page.locator("summary").click()
    days = opened.texts("details tbody tr")
    assert len(days) == len(found.activity.periods)
    assert [day.split()[-3:] for day in days] == [
        [str(p.from_buyers), str(p.from_seller), str(p.conversations)] for p in found.activity.periods
    ]
    opened.page.close()


def test_the_bars_of_the_reasons_are_as_long_as_their_numbers(browser: Browser, pages: dict[str, Path]):
    """The most frequent reason has the longest bar, and the others in proportion."""
    opened = Opened(browser, pages["three years"], WIDE)
    lengths = [box["right"] - box["left"] for box in opened.boxes(".bar div")]
    numbers = [row.conversations for row in figures(FILES["three years"]).blocked]
    assert [length / lengths[0] for length in lengths] == pytest.approx([n / numbers[0] for n in numbers], abs=0.02)
    opened.page.close()


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_bars_of_the_histogram_are_as_long_as_their_shares(
    browser: Browser, pages: dict[str, Path], viewport: dict[str, int]
):
    """Upright on a wide page, lying on a narrow one; the longest fits into the chart."""
    opened = Opened(browser, pages["three years"], viewport)
    along = ("top", "bottom") if viewport is WIDE else ("left", "right")
    [_, chart] = opened.boxes("svg")
    bars = opened.boxes("[id^=answers] path[clip-path]")
    lengths = [bar[along[1]] - bar[along[0]] for bar in bars]
    bins = figures(FILES["three years"]).answers.bins
    assert [length / max(lengths) for length in lengths] == pytest.approx([n / max(bins) for n in bins], abs=0.01)
    assert all(chart[along[0]] <= bar[along[0]] and bar[along[1]] <= chart[along[1]] for bar in bars)
    opened.page.close()


def test_the_list_of_those_that_wait_fits_or_scrolls_in_its_own_box(browser: Browser, pages: dict[str, Path]):
    """On a telephone nothing of it is out of sight; on a tablet the table is wider than its box, and the page is not."""
    for width, hidden in ((390, False), (760, True)):
        opened = Opened(browser, pages["a day"], {"width": width, "height": 900})
        beyond = opened.page.locator(".scroll:has(.waiting)").evaluate("e => e.scrollWidth - e.clientWidth")
        assert (beyond > 0) is hidden
        assert opened.overflow() <= 0
        opened.page.close()


def test_a_long_list_scrolls_in_its_own_box_and_is_whole_on_paper(browser: Browser, pages: dict[str, Path]):
    """On a screen it takes no more than a screen, and its headings stay; printed, every row is there."""
    opened = Opened(browser, pages["three years"], WIDE)
    [box] = opened.boxes(".long")
    assert box["bottom"] - box["top"] < 800
    opened.page.locator(".long").evaluate("e => e.scrollTo(0, 5000)")
    [head, *_] = opened.boxes(".waiting thead th")
    [box] = opened.boxes(".long")
    assert head["top"] == pytest.approx(box["top"], abs=2)
    opened.page.emulate_media(media="print")
    [box] = opened.boxes(".long")
    assert box["bottom"] - box["top"] > 5000
    assert len(opened.boxes("svg")) == 2
    opened.page.set_viewport_size({"width": 718, "height": 1000})  # A4, without its margins
    assert opened.overflow() <= 0
    opened.page.close()

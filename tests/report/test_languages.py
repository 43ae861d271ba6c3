"""The page in three languages, and its links."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from cases import case
from mlmessages import models
from mlmessages.report.figures import BINS, Figures
from mlmessages.report.languages import ENGLISH, LANGUAGES, PORTUGUESE, SPANISH
from mlmessages.report.page import Source, page
from mlmessages.report.wording import Wording
from report.test_page import BUSY, HERE, seen
from report.written import BUYER, SELLER, by_message, fetched, figures_of, message

TORN = Source("o.jsonl", written=False, torn=True)
ODD = figures_of(
    fetched("11", message("a"), message("b", SELLER, 5), message("b", SELLER, 5), message("n", minutes=None)),
    fetched("12", message("c", BUYER, 9, "", message_attachments=[{"filename": "a"}])),
    fetched("13", message("d", BUYER, 9, "")),
    *by_message("14", message("e")),
)
LONG = figures_of(*[fetched(str(pack), message(f"m{pack}", minutes=pack)) for pack in range(502)])
YEARS = [
    figures_of(fetched("11", message("a"), message("b", SELLER, days * 1440)), minutes=days * 1440)
    for days in (200, 900, 5000)
]
EMPTY = [
    figures_of(),
    figures_of(fetched("11")),
    figures_of(fetched("11", message("a", minutes=None))),
    figures_of(*by_message("11", message("a", SELLER))),
]
ALL: list[Figures] = [BUSY, ODD, LONG, *YEARS, *EMPTY]
ENGLISH_WORDS = re.compile(
    r"\b(the|seller|buyers?|unanswered|messages?|conversations?|blocked|since|nothing|oldest|answers?|without|file|day)\b",
    re.IGNORECASE,
)
OURS = re.compile(r":root.*?@media print.*?\n}\n|fetch --messages|mlmessages report|o\.jsonl", re.DOTALL)


@case("R12")
@pytest.mark.parametrize("words", [SPANISH, PORTUGUESE], ids=["es", "pt"])
def test_a_page_has_no_english_left(words: Wording):
    """Every sentence of every kind of page, of its charts and of its labels for screen readers."""
    for figures in ALL:
        written = page(figures, TORN, words)
        assert f'<html lang="{words.code}">' in written
        found = seen_in(written)
        text = re.sub(r"blocked_by_\w+|Test \w+", "", OURS.sub("", found))
        assert not ENGLISH_WORDS.findall(text), ENGLISH_WORDS.findall(text)


def seen_in(written: str) -> str:
    """The text of a page, and its attributes that are read out."""
    style = re.sub(r"<style>.*?</style>", "", written, flags=re.DOTALL)
    labels = " ".join(re.findall(r'(?:aria-label|data-label|title)="([^"]*)"', style))
    return labels + re.sub(r"<bdi>[^<]*</bdi>", "", re.sub(r"<[^b/][^>]*>|</(?!bdi)[^>]*>", " ", style))


@case("R12")
def test_the_languages_have_the_same_sentences_with_the_same_places():
    """Nothing that is put into a sentence is lost in a translation, and no translation is left over."""
    used = "".join(
        files("mlmessages.report").joinpath(name).read_text("utf-8")
        for name in ("page.html.jinja", "charts.py", "figures.py")
    )
    used = re.sub(r'"\s+"', "", used) + "".join(models._BLOCKED_BY.values()) + "the server gives no reason"
    for words in (SPANISH, PORTUGUESE):
        assert words.texts.keys() == SPANISH.texts.keys()
        for english, said in words.texts.items():
            assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", said)), english
            assert english in used or english.removesuffix("s") in used or english in ("week", "month", "year"), english
    assert set(models._BLOCKED_BY.values()) <= SPANISH.texts.keys()
    assert {name for name, _ in BINS} <= SPANISH.texts.keys()


@case("R12")
def test_numbers_and_days_are_written_as_the_language_does():
    """Grouped thousands, the decimal sign, the names of months, days before months."""
    assert [words.number(1234567) for words in LANGUAGES.values()] == ["1,234,567", "1\u202f234\u202f567", "1.234.567"]
    assert [words.average(17, 5) for words in LANGUAGES.values()] == ["3.4", "3,4", "3,4"]
    assert [words.counted(2500, "message") for words in LANGUAGES.values()] == [
        "2,500 messages",
        "2\u202f500 mensajes",
        "2.500 mensagens",
    ]
    assert [words.counted(1, "conversation") for words in LANGUAGES.values()] == [
        "1 conversation",
        "1 conversación",
        "1 conversa",
    ]
    assert [words.month(9) for words in LANGUAGES.values()] == ["Sep", "sep", "set"]
    assert [words.moment(BUSY.as_of) for words in LANGUAGES.values()] == [
        f"{BUSY.as_of:%Y-%m-%d %H:%M}",
        *[f"{BUSY.as_of:%d/%m/%Y %H:%M}"] * 2,
    ]


@case("R12")
@pytest.mark.parametrize(
    ("words", "said"),
    [(ENGLISH, "A claim is open"), (SPANISH, "Hay un reclamo abierto"), (PORTUGUESE, "Há uma reclamação aberta")],
    ids=["en", "es", "pt"],
)
def test_why_a_conversation_is_blocked_is_said_in_the_language(words: Wording, said: str):
    """And a reason that only the server knows stays as it spells it."""
    assert said in page(BUSY, HERE, words)
    assert "blocked_by_moonlight" in page(
        figures_of(fetched("11", message("a"), blocked="blocked_by_moonlight")), HERE, words
    )


# -- links -------------------------------------------------------------------------------------------------------------


def links(site: object, pack: str = "2000001234567890", *, wanted: bool = True) -> list[str]:
    figures = figures_of(fetched(pack, message("a", site_id=site)))
    found = re.findall(r"<a ([^>]*)>", page(figures, HERE, links=wanted))
    assert all('rel="noopener noreferrer" target="_blank"' in attributes for attributes in found)
    return [re.findall(r'href="([^"]*)"', attributes)[0] for attributes in found]


@case("R13")
@pytest.mark.parametrize(
    ("site", "address"),
    [
        ("MLB", "https://www.mercadolivre.com.br/vendas/2000001234567890/detalhe"),
        ("MLA", "https://www.mercadolibre.com.ar/ventas/2000001234567890/detalle"),
        ("MLM", "https://www.mercadolibre.com.mx/ventas/2000001234567890/detalle"),
        ("MLC", "https://www.mercadolibre.cl/ventas/2000001234567890/detalle"),
    ],
)
def test_a_conversation_that_waits_has_a_link_to_its_sale(site: str, address: str):
    """At the site of its messages; the browser tells that site nothing of the page."""
    assert links(site) == [address]


@case("R13")
@pytest.mark.parametrize("site", ["CBT", "XXX", "../..", '"><script>', None, 5], ids=range(6))
def test_a_site_that_is_not_known_has_no_link(site: object):
    """Nothing that a server writes becomes an address."""
    assert links(site) == []


@case("R13")
def test_links_can_be_left_out():
    """For Global Selling, whose sales are not on these pages."""
    assert links("MLB", wanted=False) == []


# -- light and dark ----------------------------------------------------------------------------------------------------


@case("R12")
def test_a_page_is_light_or_dark_as_the_reader_has_it():
    """The colours of the text, of the ground and of the charts' own texts and lines come from one place, in two sets."""
    written = page(BUSY, HERE)
    assert '<meta name="color-scheme" content="light dark">' in written
    assert "@media screen and (prefers-color-scheme: dark)" in written
    charts = "".join(re.findall(r"<svg.*?</svg>", written, re.DOTALL))
    assert "var(--ink)" in charts
    assert "var(--line)" in charts
    assert not re.search("#1d2733|#5b6877|#e4e8ee", charts)
    assert seen(BUSY).tags

"""The page of a report: one HTML file that asks for nothing, runs nothing, and shows other people's words as words."""

from __future__ import annotations

import re
from functools import cache, partial
from importlib.resources import files
from typing import Final

import attrs
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ..auth.grants import HOSTS
from ..escaping import one_line
from . import charts
from .facts import LONGEST_TEXT
from .figures import Figures, Waiting
from .wording import ENGLISH, Wording

MARKER: Final = "<!DOCTYPE html>\n<!-- mlmessages report -->\n"
"""How each page begins."""

_PACK: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_SHOWN: Final = 140  # characters of a text


@attrs.frozen
class Source:
    """The file that a report is made of: `name`; `written`: the report's moment is that of its last change; `torn`: its
    last line was.
    """

    name: str
    written: bool
    torn: bool


def page(figures: Figures, source: Source, words: Wording = ENGLISH, *, links: bool = True) -> str:
    """Return the page that shows `figures`; `links`: to the sales at Mercado Libre, where their site is known."""
    return MARKER + _template().render(
        figures=figures,
        source=source,
        words=words,
        t=partial(_sentence, words),
        link=sale if links else _no_link,
        activity=charts.activity(figures.activity, words),
        answers=charts.answers(figures.answers, words),
        colours={"buyers": charts.BUYERS, "seller": charts.SELLER, "conversations": charts.CONVERSATIONS},
    )


def sale(row: Waiting) -> str | None:
    """Return the address of a sale's page for the seller [observed: integrators]; None where the site has none."""
    host = HOSTS.get(row.site_id or "")
    if host is None or not host.startswith("auth.") or not _PACK.fullmatch(row.pack_id):
        return None
    path = "vendas/{}/detalhe" if row.site_id == "MLB" else "ventas/{}/detalle"
    return f"https://www.{host.removeprefix('auth.')}/{path.format(row.pack_id)}"


def _no_link(_: Waiting) -> None:
    return None


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(excerpt=_excerpt, reason=_reason, one_line=one_line, drawn=_drawn)
    return environment.from_string(files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8"))


def _sentence(words: Wording, english: str, **values: object) -> Markup:
    """Return a sentence in the language of the page; what is put into it is escaped, unless it is markup of ours."""
    return Markup(words.text(english)).format(**values)  # noqa: S704 - our own sentences


def _excerpt(row: Waiting) -> str:
    """Return the beginning of what waits, on one line, with nothing in it that acts."""
    text = one_line(row.text)
    if len(text) > _SHOWN or len(row.text) > LONGEST_TEXT:
        text = text[:_SHOWN].rstrip() + "…"
    return text


def _reason(text: str, words: Wording) -> str:
    text = one_line(words.reason(text))
    return text if "_" in text else text[:1].upper() + text[1:]  # the server's own word for it stays as it is


def _drawn(chart: charts.Chart) -> Markup:
    return Markup(chart.svg)  # noqa: S704 - matplotlib wrote it, from numbers and sentences of ours

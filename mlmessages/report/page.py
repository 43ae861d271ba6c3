"""The page of a report: one HTML file that asks for nothing, runs nothing, and shows other people's words as words."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

import attrs
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ..escaping import one_line
from . import charts, wording
from .facts import LONGEST_TEXT
from .figures import Figures, Waiting

MARKER: Final = "<!DOCTYPE html>\n<!-- mlmessages report -->\n"
"""How each page begins."""

_SHOWN: Final = 140  # characters of a text


@attrs.frozen
class Source:
    """The file that a report is made of: `name`; `written`: the report's moment is that of its last change; `torn`: its
    last line was.
    """

    name: str
    written: bool
    torn: bool


def page(figures: Figures, source: Source) -> str:
    """The page that shows `figures`."""
    return MARKER + _template().render(
        figures=figures,
        source=source,
        activity=charts.activity(figures.activity),
        answers=charts.answers(figures.answers),
        colours={"buyers": charts.BUYERS, "seller": charts.SELLER, "conversations": charts.CONVERSATIONS},
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=_number,
        counted=_counted,
        duration=wording.duration,
        moment=_moment,
        excerpt=_excerpt,
        reason=_reason,
        one_line=one_line,
        drawn=_drawn,
    )
    environment.globals.update(share=wording.share, average=wording.average, days=wording.days)
    return environment.from_string(files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8"))


def _number(value: int) -> str:
    return f"{value:,}"


def _counted(value: int, noun: str) -> str:
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def _moment(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M}"


def _excerpt(row: Waiting) -> str:
    """The beginning of what waits, on one line, with nothing in it that acts."""
    text = one_line(row.text)
    if len(text) > _SHOWN or len(row.text) > LONGEST_TEXT:
        text = text[:_SHOWN].rstrip() + "…"
    return text


def _reason(text: str) -> str:
    text = one_line(text)
    return text if "_" in text else text[:1].upper() + text[1:]  # the server's own word for it stays as it is


def _drawn(chart: charts.Chart) -> Markup:
    return Markup(chart.svg)  # noqa: S704 - nobody but us wrote anything in it

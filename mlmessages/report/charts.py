"""The charts of a report, drawn by matplotlib as SVG that stands in a page: its text is text, in the page's own font.

The same figures give the same bytes. Every text in a chart is this library's own, none a server's or a buyer's.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .figures import BINS, Activity, Answers, Period
from .wording import Wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUYERS: Final = "#2a78d6"
SELLER: Final = "#e8a33d"
CONVERSATIONS: Final = "#2f9e8f"
_INK: Final = "#1d2733"
_MUTED: Final = "#5b6877"
_GRID: Final = "#e4e8ee"

_STYLE: Final[dict[Any, Any]] = {  # its keys are a literal type of 300 words
    "svg.fonttype": "none",
    "svg.hashsalt": "mlmessages",
    "font.family": "sans-serif",
    "font.size": 12.0,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.unicode_minus": False,
}
_ON_THE_PAGE: Final = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)"}  # light or dark
_ACTIVITY: Final = (
    "Bar chart of messages and conversations a day, {days}: {buyers} messages from buyers, {seller} from the seller."
    " The table below has the numbers."
)
_XLINK: Final = "{http://www.w3.org/1999/xlink}"
_MARGIN: Final = 46  # to the left of the days
_HALF_A_LABEL: Final = 18  # the last one may stand under the last day
_POINTS: Final = 72  # in an inch: one of them is a pixel of the page


@attrs.frozen
class Size:
    """A chart for wide pages or for narrow ones; `name` tells the two apart in the page."""

    name: Literal["wide", "narrow"]
    width: int
    labels: int  # under the days: there is room for so many


SIZES: Final = (Size("wide", 900, 11), Size("narrow", 340, 5))


@attrs.frozen
class Chart:
    """One picture, as SVG to be put into HTML."""

    size: str
    svg: str


def activity(figures: Activity, words: Wording) -> tuple[Chart, ...]:
    """Return messages and conversations a day, once for each size; nothing if there are none."""
    if not figures.periods:
        return ()
    first, last = figures.periods[0].first, figures.periods[-1].last
    label = words.text(_ACTIVITY).format(
        days=words.days(first, last),
        buyers=words.number(sum(p.from_buyers for p in figures.periods)),
        seller=words.number(sum(p.from_seller for p in figures.periods)),
    )
    return tuple([_drawn("activity", label, size, lambda f, s: _draw_activity(f, s, figures, words)) for size in SIZES])


def answers(figures: Answers, words: Wording) -> tuple[Chart, ...]:
    """Return the histogram of answer times, once for each size; nothing if there are none."""
    if not figures.count:
        return ()
    shares = ", ".join(
        f"{words.text(name)}: {words.share(n, figures.count)}" for (name, _), n in zip(BINS, figures.bins, strict=True)
    )
    label = words.text("Histogram of {count} answer times. {shares}.").format(
        count=words.number(figures.count), shares=shares
    )
    return tuple([_drawn("answers", label, size, lambda f, s: _draw_answers(f, s, figures, words)) for size in SIZES])


def _drawn(name: str, label: str, size: Size, draw: Callable[[Figure, Size], None]) -> Chart:
    with mpl.rc_context():
        mpl.rcdefaults()  # a `matplotlibrc` must not change the page
        mpl.rcParams.update(_STYLE)
        figure = Figure(dpi=_POINTS)
        draw(figure, size)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True)
    return Chart(size.name, _for_a_page(written.getvalue(), f"{name}-{size.name}", label))


# -- what is drawn -----------------------------------------------------------------------------------------------------


def _draw_activity(figure: Figure, size: Size, activity: Activity, words: Wording) -> None:
    figure.set_size_inches(size.width / _POINTS, (310 if size.name == "wide" else 350) / _POINTS)
    messages, conversations = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    periods = activity.periods
    middles = [p.first.toordinal() + p.days / 2 for p in periods]
    widths = [p.days * (0.86 if len(periods) < 60 else 0.92) for p in periods]
    buyers = [p.from_buyers / p.days for p in periods]
    seller = [p.from_seller / p.days for p in periods]
    messages.bar(middles, buyers, widths, color=BUYERS)
    messages.bar(middles, seller, widths, bottom=buyers, color=SELLER)
    conversations.bar(middles, [p.conversations / p.days for p in periods], widths, color=CONVERSATIONS)
    edge = -_MARGIN / (size.width - _MARGIN - _HALF_A_LABEL)  # of the chart, as the axes count
    for axes, title in ((messages, "Messages a day"), (conversations, "Conversations a day")):
        _bare(axes)
        axes.set_title(words.text(title), loc="left", x=edge, fontsize=12, fontweight="semibold", pad=15)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.number(value, ",g")))
        axes.yaxis.grid(color=_GRID)
        heights = MaxNLocator(3, integer=activity.unit == "day", min_n_ticks=1).tick_values(0, axes.dataLim.ymax)
        axes.set_ylim(0, heights[-1])
        axes.set_yticks(heights)
    # A bar of a day or two that is as wide as the page looks like a mistake.
    left, right = periods[0].first.toordinal(), periods[-1].last.toordinal() + 1
    slack = max(0.0, size.labels - (right - left)) / 2
    conversations.set_xlim(left - slack - 0.2, right + slack + 0.2)
    ticks = _ticks(periods, size.labels, words)
    conversations.set_xticks([start.toordinal() + 0.5 for start, _ in ticks], [label for _, label in ticks])
    conversations.tick_params(axis="x", pad=10)
    figure.subplots_adjust(
        left=_MARGIN / size.width, right=1 - _HALF_A_LABEL / size.width, top=0.905, bottom=0.145, hspace=0.52
    )


def _draw_answers(figure: Figure, size: Size, answers: Answers, words: Wording) -> None:
    figure.set_size_inches(size.width / _POINTS, (240 if size.name == "wide" else 270) / _POINTS)
    axes = figure.subplots()
    _bare(axes)
    names = [words.text(name) for name, _ in BINS]
    shares = [100 * number / answers.count for number in answers.bins]
    said = [words.share(number, answers.count) if number else "" for number in answers.bins]
    if size.name == "wide":
        bars = axes.bar(names, shares, 0.86, color=BUYERS)
        axes.set_ylim(0, max(shares) * 1.12)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_yticks([])
        figure.subplots_adjust(left=0.004, right=0.996, top=0.98, bottom=0.11)
    else:
        bars = axes.barh(names, shares, 0.8, color=BUYERS)
        axes.invert_yaxis()
        axes.set_xlim(0, max(shares) * 1.2)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        figure.subplots_adjust(left=0.31, right=0.99, top=0.99, bottom=0.01)
    axes.bar_label(bars, said, padding=4, fontsize=12, color=_INK)


def _bare(axes: Axes) -> None:
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=6)
    axes.set_axisbelow(True)


def _ticks(periods: Sequence[Period], most: int, words: Wording) -> list[tuple[date, str]]:
    """Return at most `most` days with their labels; the year stands under the first one and where it changes."""
    first, last = periods[0].first, periods[-1].last
    length = (last - first).days + 1
    if length <= 92:
        step = next(step for step in (1, 2, 4, 7, 14, 28) if -(-length // step) <= most)
        marked = [first + timedelta(days=n) for n in range(0, length, step)]
        return _labelled(marked, lambda start: f"{start.day} {words.month(start.month)}")
    months = [(start.year, start.month) for start in (first, last)]
    (year, number), (last_year, last_number) = months
    if first.day > 1:
        year, number = (year, number + 1) if number < 12 else (year + 1, 1)
    starts = [date(at // 12, at % 12 + 1, 1) for at in range(12 * year + number - 1, 12 * last_year + last_number)]
    step = next(step for step in (1, 2, 3, 6, 12, 24, 60, 120, 240) if -(-len(starts) // step) <= most)
    marked = [start for start in starts if (12 * start.year + start.month - 1) % step == 0]
    if step >= 12:
        return [(start, str(start.year)) for start in marked]
    return _labelled(marked, lambda start: words.month(start.month))


def _labelled(marked: Sequence[date], name: Callable[[date], str]) -> list[tuple[date, str]]:
    years = [None, *[start.year for start in marked]]
    return [
        (start, f"{name(start)}\n{start.year}" if start.year != before else name(start))
        for start, before in zip(marked, years, strict=False)
    ]


# -- from a file of its own to a part of a page ------------------------------------------------------------------------


def _for_a_page(svg: str, name: str, label: str) -> str:
    """Return `svg` without what only a file needs, and with ids that no other chart of the page has."""
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib wrote it, this very moment
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        tag = element.tag.rpartition("}")[2]
        if tag in ("style", "metadata"):  # rules for the whole page, and when it was drawn
            parents[element].remove(element)
        element.tag = tag
        attributes = {key.replace(_XLINK, ""): _renamed(key, value, name) for key, value in element.attrib.items()}
        if tag == "g":
            attributes.pop("id", None)  # nothing refers to these
        if "style" in attributes:
            attributes["style"] = _coloured(attributes["style"])
        if tag == "text":
            attributes["style"] = _without_font(attributes.get("style", ""))
        element.attrib.clear()
        element.attrib.update(attributes)
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"class": "chart", "viewBox": box, "role": "img", "aria-label": label, "id": name})
    return ET.tostring(root, encoding="unicode")


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("clip-path", _XLINK + "href"):
        return value.replace("#", f"#{name}-")
    return value


def _coloured(style: str) -> str:
    for drawn, named in _ON_THE_PAGE.items():
        style = style.replace(drawn, named)
    return style


def _without_font(style: str) -> str:
    return ";".join(part for part in style.split(";") if not part.strip().startswith("font-family"))

"""How far a command is: a live view on a terminal, else a line every now and then."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import attrs

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..http.limits import Limits

_WINDOW: Final = 2.0  # seconds over which the rate is taken


@attrs.frozen
class Frame:
    """What is shown at one moment.

    `share`: how much of all is done, from 0 to 1; None where that is not known. `notice`: why it waits, where that is
    not normal.
    """

    label: str
    share: float | None
    figures: tuple[str, ...]
    notice: str = ""


@asynccontextmanager
async def shown(
    console: Console, count: Callable[[], int], frame: Callable[[float], Frame], *, every: float = 1.0
) -> AsyncIterator[None]:
    """Show on `console`, while the body runs and once at its end, what `frame` makes of the rate of `count` a second.

    `every`: seconds between two lines, where it is no terminal.
    """
    # Not `console.is_terminal`: FORCE_COLOR makes that true, and a bar in a build log is hundreds of lines.
    live = console.file.isatty() and not console.is_dumb_terminal
    view: _View = _Live(console) if live else _Lines(console, every)
    rate = _Rate(count())

    def show(*, last: bool = False) -> None:
        view.show(frame(rate.after(count())), last=last)

    with view:
        ticker = asyncio.create_task(_tick(show, view.interval))
        try:
            yield
        finally:
            ticker.cancel()
            show(last=True)


def budget(limits: Limits) -> str:
    """Say how much of the request budget is used up at this moment."""
    span = "a minute" if limits.period == 60 else f"{limits.period:g} s"
    return f"budget {limits.used:,} of {limits.reads:,} in {span}"


async def _tick(show: Callable[[], None], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        show()


class _Rate:
    """How many a second, over the last two seconds."""

    def __init__(self, count: int) -> None:
        self._seen = deque([(time.monotonic(), count)])

    def after(self, count: int) -> float:
        now = time.monotonic()
        while len(self._seen) > 1 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        self._seen.append((now, count))
        return (count - before) / max(now - since, 0.001)


class _View(AbstractContextManager["_View"], Protocol):
    interval: float

    def show(self, frame: Frame, *, last: bool) -> None: ...


class _Lines(AbstractContextManager["_Lines"]):
    interval = 0.25

    def __init__(self, console: Console, every: float) -> None:
        self._console = console
        self._every = every
        self._next = time.monotonic() + min(every, 0.5)
        self._notice = False

    def show(self, frame: Frame, *, last: bool) -> None:
        begins = bool(frame.notice) and not self._notice
        self._notice = bool(frame.notice)
        if last or begins or time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._console.print(" · ".join((frame.label, *frame.figures)), soft_wrap=True)
        if begins:
            self._console.print(frame.notice, soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        pass


class _Live(AbstractContextManager["_Live"]):
    interval = 0.1

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        # Refreshed by `show` alone: no thread could write into what comes after Ctrl-C. Notes appear above the bar.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def show(self, frame: Frame, *, last: bool) -> None:
        self._live.update(_drawn(self._console.width, frame), refresh=True)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def _drawn(width: int, frame: Frame) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows: list[RenderableType] = [Text(" · ".join(frame.figures), "dim")]
    if frame.notice:
        rows.append(Text(frame.notice, "yellow"))
    room = width - len(frame.label) - 2
    if frame.share is None or room < 8:  # too narrow for both
        return Group(Text(frame.label, "bold"), *rows)
    top = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(1.0, frame.share, width=min(room, 48), complete_style="cyan", finished_style="green")
    top.add_row(bar, Text(frame.label, "bold"))
    return Group(top, *rows)

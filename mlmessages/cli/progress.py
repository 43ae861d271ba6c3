"""How far a drain is: a live bar on a terminal, else a line every second."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from .terminal import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..models import DrainReport

_WINDOW: Final = 2.0  # seconds over which the rate is taken


@asynccontextmanager
async def shown(console: Console, report: Callable[[], DrainReport], total: int) -> AsyncIterator[None]:
    """Show on `console`, while the body runs and once at its end, what `report` says, of `total` conversations."""
    # Not `console.is_terminal`: FORCE_COLOR makes that true, and a bar in a build log is hundreds of lines.
    live = console.file.isatty() and not console.is_dumb_terminal
    view: _View = _Bar(console) if live else _Lines(console)
    rate = _Rate()

    def show() -> None:
        now = report()
        view.show(now, total, rate.after(now.requests))

    with view:
        ticker = asyncio.create_task(_tick(show, view.interval))
        try:
            yield
        finally:
            ticker.cancel()
            show()


async def _tick(show: Callable[[], None], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        show()


class _Rate:
    """Requests in a second, over the last seconds."""

    def __init__(self) -> None:
        self._seen = deque([(time.monotonic(), 0)])

    def after(self, requests: int) -> float:
        now = time.monotonic()
        while len(self._seen) > 1 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        self._seen.append((now, requests))
        return (requests - before) / max(now - since, 0.001)


class _View(AbstractContextManager["_View"], Protocol):
    interval: float

    def show(self, report: DrainReport, total: int, rate: float) -> None: ...


class _Lines(AbstractContextManager["_Lines"]):
    interval = 1.0

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, report: DrainReport, total: int, rate: float) -> None:
        done = f"{report.conversations:,} of {counted(total, 'conversation')}"
        self._console.print(f"{done} · {_figures(report, rate)}", soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        pass


class _Bar(AbstractContextManager["_Bar"]):
    interval = 0.1

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        # Refreshed by `show` alone: no thread could write into what comes after Ctrl-C. Notes appear above the bar.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def show(self, report: DrainReport, total: int, rate: float) -> None:
        self._live.update(_bar(self._console.width, report, total, rate), refresh=True)

    def __enter__(self) -> _Bar:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def _bar(width: int, report: DrainReport, total: int, rate: float) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    label = f"{report.conversations:,} of {counted(total, 'conversation')}"
    figures = Text(_figures(report, rate), "dim")
    room = width - len(label) - 2
    if room < 8:  # too narrow for both
        return Group(Text(label), figures)
    top = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total, report.conversations, width=min(room, 48), complete_style="cyan", finished_style="green")
    top.add_row(bar, Text(label, "bold"))
    return Group(top, figures)


def _figures(report: DrainReport, rate: float) -> str:
    figures = [
        counted(report.messages, "message"),
        counted(report.listings, "listing"),
        counted(report.requests, "request"),
        f"{rate:,.0f} a second",
    ]
    if report.waiting:
        figures.append(f"{report.waiting:,} waiting")
    if report.set_aside:
        figures.append(f"{len(report.set_aside):,} set aside")
    return " · ".join(figures)

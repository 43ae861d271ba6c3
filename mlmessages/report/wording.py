"""Numbers, spans of time and days in words."""

from __future__ import annotations

from datetime import date
from typing import Final

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in any locale


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2 h 05 min``, ``3 d 4 h``, ``40 d``: cut off, not rounded."""
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if whole < 60:
        return f"{whole} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60:02} min" if minutes % 60 else f"{hours} h"
    if days < 10 and hours % 24:
        return f"{days} d {hours % 24} h"
    return f"{days:,} d"


def share(part: int, whole: int) -> str:
    """``12 %``; what is nearly nothing or nearly all is called neither."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    if percent < 1:
        return "< 1 %"
    return "> 99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def average(total: int, days: int) -> str:
    """So many a day: ``12``, ``1,204``, ``3.4``, ``0.02``."""
    value = total / days
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}"


def month(number: int) -> str:
    """``Jan`` to ``Dec``."""
    return _MONTHS[number - 1]


def day(value: date) -> str:
    """``2 Mar 2026``."""
    return f"{value.day} {month(value.month)} {value.year}"


def days(first: date, last: date) -> str:
    """``2 Mar 2026``, ``2–8 Mar 2026``, ``30 Mar – 5 Apr 2026``, ``29 Dec 2025 – 4 Jan 2026``."""
    if first == last:
        return day(last)
    if first.year != last.year:
        return f"{day(first)} – {day(last)}"
    if first.month != last.month:
        return f"{first.day} {month(first.month)} – {day(last)}"
    return f"{first.day}–{day(last)}"

"""Numbers, spans of time, days and sentences in words, in the language of a page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Final

import attrs


@attrs.frozen
class Wording:
    """How one language writes.

    `texts`: the English sentences that the page has, and what stands for them. `months`: January first. `thousands`,
    `decimal`: the characters in numbers. `moment_form`: of `strftime`; month names never come from the system's locale.
    """

    code: str
    months: tuple[str, ...]
    thousands: str
    decimal: str
    moment_form: str
    texts: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    def text(self, english: str) -> str:
        """Return what stands for an English sentence."""
        return self.texts[english] if self.texts else english

    def reason(self, english: str) -> str:
        """Return why a conversation is blocked; a reason that only the server knows stays as the server spells it."""
        return self.texts.get(english, english)

    def number(self, value: float, form: str = ",.0f") -> str:
        """Return a number as it is grouped: ``1,204``."""
        written = f"{value:{form}}"
        return written.translate({ord(","): self.thousands, ord("."): self.decimal})

    def counted(self, value: int, noun: str) -> str:
        """Return ``1 message``, ``2,500 messages``; `noun`: the English singular."""
        return f"{self.number(value)} {self.text(noun if value == 1 else noun + 's')}"

    def duration(self, seconds: float) -> str:
        """Return ``45 s``, ``12 min``, ``2 h 05 min``, ``3 d 4 h``, ``40 d``: cut off, not rounded."""
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
        return f"{self.number(days)} d"

    def share(self, part: int, whole: int) -> str:
        """Return ``12 %``; what is nearly nothing or nearly all is called neither."""
        if not part or not whole:
            return "0 %"
        percent = 100 * part / whole
        if percent < 1:
            return "< 1 %"
        return "> 99 %" if 99 < percent < 100 else f"{percent:.0f} %"

    def average(self, total: int, days: int) -> str:
        """Return so many a day: ``12``, ``1,204``, ``3.4``, ``0.02``."""
        value = total / days
        if value == int(value) or value >= 100:
            return self.number(value)
        return self.number(value, ",.1f" if value >= 0.1 else ",.2g")

    def month(self, number: int) -> str:
        """Return the short name of a month, from 1 to 12."""
        return self.months[number - 1]

    def moment(self, value: datetime) -> str:
        """Return a day and a time of it, to the minute."""
        return value.strftime(self.moment_form)

    def day(self, value: date) -> str:
        """Return ``2 Mar 2026``."""
        return f"{value.day} {self.month(value.month)} {value.year}"

    def days(self, first: date, last: date) -> str:
        """Return ``2 Mar 2026``, ``2–8 Mar 2026``, ``30 Mar – 5 Apr 2026``, ``29 Dec 2025 – 4 Jan 2026``."""
        if first == last:
            return self.day(last)
        if first.year != last.year:
            return f"{self.day(first)} – {self.day(last)}"
        if first.month != last.month:
            return f"{first.day} {self.month(first.month)} – {self.day(last)}"
        return f"{first.day}–{self.day(last)}"


ENGLISH: Final = Wording(
    "en",
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    ",",
    ".",
    "%Y-%m-%d %H:%M",
)

"""Numbers, spans and days in words."""

from __future__ import annotations

from datetime import date

import pytest

from mlmessages.report.wording import ENGLISH


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 05 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (100_800, "1 d 4 h"),
        (9.5 * 86_400, "9 d 12 h"),
        (10.5 * 86_400, "10 d"),
        (1234 * 86_400, "1,234 d"),
    ],
)
def test_a_span_of_time(seconds: float, said: str):
    """In the units in which one thinks of it, cut off and not rounded up."""
    assert ENGLISH.duration(seconds) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "0 %"),
        (0, 5, "0 %"),
        (1, 201, "< 1 %"),
        (1, 101, "< 1 %"),
        (1, 100, "1 %"),
        (1, 3, "33 %"),
        (199, 200, "> 99 %"),
        (99, 100, "99 %"),
        (5, 5, "100 %"),
    ],
)
def test_a_share(part: int, whole: int, said: str):
    """Something is never called nothing, and what is not all, never all."""
    assert ENGLISH.share(part, whole) == said


@pytest.mark.parametrize(
    ("total", "number", "said"),
    [
        (12, 1, "12"),
        (1204, 1, "1,204"),
        (17, 5, "3.4"),
        (1, 31, "0.032"),
        (0, 7, "0"),
        (3001, 2, "1,500"),
        (14, 7, "2"),
    ],
)
def test_an_average(total: int, number: int, said: str):
    """With as many places as say something."""
    assert ENGLISH.average(total, number) == said


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (date(2026, 3, 2), date(2026, 3, 2), "2 Mar 2026"),
        (date(2026, 3, 2), date(2026, 3, 8), "2–8 Mar 2026"),
        (date(2026, 3, 30), date(2026, 4, 5), "30 Mar – 5 Apr 2026"),
        (date(2025, 12, 29), date(2026, 1, 4), "29 Dec 2025 – 4 Jan 2026"),
    ],
)
def test_days(first: date, last: date, said: str):
    """What both have in common is said once."""
    assert ENGLISH.days(first, last) == said

"""The figures: answers, days, who waits, who is blocked."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmessages.report.figures import BINS, MOST_LISTED, Waiting, answer_times
from report.written import AGENT, BUYER, SELLER, START, by_message, drained, fetched, figures_of, message

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def thread(pattern: str, **others: object) -> list[dict[str, object]]:
    """Messages ten minutes apart: b buyer, a agent, s seller, x seller but rejected, y buyer but rejected, . nothing."""
    who = {"b": BUYER, "a": AGENT, "s": SELLER, "x": SELLER, "y": BUYER}
    return [
        message(
            f"{n}{others.get('id', '')}",
            who[kind],
            10 * n,
            f"Test {n}",
            status="moderated" if kind in "xy" else "available",
        )
        for n, kind in enumerate(pattern)
        if kind != "."
    ]


@pytest.mark.parametrize(
    ("pattern", "waits", "waiting"),
    [
        ("", [], None),
        ("b", [], (0, 1)),
        ("s", [], None),
        ("bs", [10], None),
        ("bbs", [20], None),
        ("bss", [10], None),
        ("sbsbb", [10], (3, 2)),
        ("bs.b..s", [10, 30], None),
        ("as", [10], None),
        ("bas", [20], None),
        ("bsa", [10], (2, 1)),
        ("bx", [], (0, 1)),
        ("bxs", [20], None),
        ("bxb", [], (0, 2)),
        ("bsx", [10], None),
        ("ys", [], None),
        ("ybs", [10], None),
        ("bsy", [10], None),
        ("x", [], None),
    ],
)
def test_each_run_of_the_counterpartys_messages_waits_from_its_first_one(
    pattern: str, waits: list[float], waiting: tuple[int, int] | None
):
    """A run waits for the next message of the seller that arrived; one without waits still. What moderation refused
    opens nothing and answers nothing."""
    found = figures_of(fetched("11", *thread(pattern)))
    assert found.answers == answer_times([10 * MINUTE * (wait / 10) for wait in waits])
    assert found.unanswered == (waiting is not None)
    if waiting is not None:
        position, number = waiting
        [row] = found.waiting
        assert (row.since, row.messages) == (START + timedelta(minutes=10 * position), number)
        assert (row.text, row.seconds) == (f"Test {position}", (10_000 - 10 * position) * MINUTE)


def test_the_order_is_that_of_the_dates_and_else_that_of_the_file():
    """Whatever the order of the lines, the older one comes first; of two of the same moment, the one that stood first."""
    question, answer = message("a", BUYER, 0), message("b", SELLER, 7)
    assert figures_of(drained("11", answer), drained("11", question)).answers.median == 7 * MINUTE
    together = message("b", SELLER, 0)
    assert figures_of(fetched("11", question, together)).unanswered == 0
    assert figures_of(fetched("11", together, question)).unanswered == 1


@pytest.mark.parametrize(
    ("waits", "median", "ninetieth"),
    [
        ([], None, None),
        ([5], 5, 5),
        ([1, 2], 1, 2),
        ([3, 1, 2], 2, 3),
        ([*range(1, 11)], 5, 9),
        ([*range(1, 12)], 6, 10),
        ([*range(1, 101)], 50, 90),
        ([7] * 9 + [1000], 7, 7),
    ],
)
def test_median_and_percentile_are_measured_waits(waits: list[float], median: float, ninetieth: float):
    """The shortest wait that half, or nine tenths, of all were no longer than."""
    found = answer_times(waits)
    assert (found.count, found.median, found.ninetieth) == (len(waits), median, ninetieth)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10**8), min_size=1, max_size=60))
def test_half_and_nine_tenths_are_within_what_is_said(waits: list[float]):
    """At least that share of the waits is no longer than the figure, and of those before it, less."""
    found = answer_times(waits)
    for figure, tenths in ((found.median, 5), (found.ninetieth, 9)):
        assert figure in waits
        assert 10 * sum(wait <= figure for wait in waits) >= tenths * len(waits)
        assert 10 * sum(wait < figure for wait in waits) < tenths * len(waits)
    assert sum(found.bins) == len(waits)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        (0, "under 5 min"),
        (5 * MINUTE - 0.001, "under 5 min"),
        (5 * MINUTE, "5–15 min"),
        (15 * MINUTE, "15–60 min"),
        (HOUR, "1–3 h"),
        (3 * HOUR, "3–12 h"),
        (12 * HOUR, "12–24 h"),
        (DAY, "1–2 d"),
        (2 * DAY, "2–7 d"),
        (7 * DAY, "over 7 d"),
        (4000 * DAY, "over 7 d"),
    ],
)
def test_a_wait_falls_into_the_bar_that_begins_with_it(seconds: float, name: str):
    """A bar holds what is as long as its beginning and shorter than its end."""
    [found] = [i for i, number in enumerate(answer_times([seconds]).bins) if number]
    assert BINS[found][0] == name


# -- days --------------------------------------------------------------------------------------------------------------


def test_a_day_counts_its_messages_and_the_conversations_written_in():
    """Two sides apart; a conversation of two days counts on both; a day without a message is there too."""
    found = figures_of(
        fetched("11", message("a"), message("b", SELLER, 60), message("c", BUYER, 3 * 1440)),
        fetched("12", message("d", BUYER, 5)),
    )
    days = [(p.first, p.conversations, p.from_buyers, p.from_seller) for p in found.activity.periods]
    assert days == [
        (date(2026, 3, 2), 2, 2, 1),
        (date(2026, 3, 3), 0, 0, 0),
        (date(2026, 3, 4), 0, 0, 0),
        (date(2026, 3, 5), 1, 1, 0),
    ]
    assert (found.conversations, found.messages, found.from_buyers, found.from_seller) == (2, 4, 3, 1)


@pytest.mark.parametrize(
    ("zone", "day"),
    [("UTC", date(2026, 3, 3)), ("America/Sao_Paulo", date(2026, 3, 2)), ("Asia/Tokyo", date(2026, 3, 3))],
)
def test_the_days_are_those_of_the_time_zone(zone: str, day: date):
    """Half past midnight in UTC is still the day before in Sao Paulo, also for who waits since then."""
    found = figures_of(fetched("11", message("a", minutes=750)), zone=ZoneInfo(zone), zone_name=zone)
    assert [p.first for p in found.activity.periods] == [day]
    assert (found.waiting[0].since.date(), found.zone) == (day, zone)


def test_days_do_not_slip_where_the_clocks_change():
    """A message each hour over the change of the clocks in New York: a day of 23 hours has 23 messages."""
    rows = [message(str(n), minutes=60 * n) for n in range(24 * 14)]
    found = figures_of(fetched("11", *rows), zone=ZoneInfo("America/New_York"), minutes=10**6)
    by_day = {p.first: p.from_buyers for p in found.activity.periods}
    assert by_day[date(2026, 3, 8)] == 23
    assert {n for day, n in by_day.items() if day not in (date(2026, 3, 8), *(min(by_day), max(by_day)))} == {24}


@pytest.mark.parametrize(
    ("days", "unit", "periods"),
    [
        (0, "day", 1),
        (91, "day", 92),
        (92, "week", 14),
        (731, "week", 105),
        (732, "month", 25),
        (1200, "month", 40),
        (3659, "month", 121),
        (3660, "year", 11),
    ],
)
def test_a_long_history_is_shown_in_longer_units(days: int, unit: str, periods: int):
    """There are never more bars than fit, and each day is in exactly one of them."""
    found = figures_of(fetched("11", message("a"), message("b", SELLER, days * 1440)), minutes=days * 1440).activity
    assert (found.unit, len(found.periods)) == (unit, periods)
    assert found.periods[0].first == date(2026, 3, 2)
    assert found.periods[-1].last == date(2026, 3, 2) + timedelta(days=days)
    for before, after in zip(found.periods, found.periods[1:]):
        assert after.first == before.last + timedelta(days=1)
    assert sum(p.days for p in found.periods) == days + 1


def test_weeks_begin_on_monday_and_months_on_their_first():
    """But for the first one, which begins with the first message."""
    weeks = figures_of(fetched("11", message("a", minutes=1440), message("b", minutes=200 * 1440)), minutes=10**6)
    assert {p.first.weekday() for p in weeks.activity.periods[1:]} == {0}
    months = figures_of(fetched("11", message("a"), message("b", minutes=900 * 1440)), minutes=10**7)
    assert {p.first.day for p in months.activity.periods[1:]} == {1}


def test_messages_without_a_date_are_counted_and_said():
    """They are in the totals, and in no day, no answer and no wait."""
    found = figures_of(
        fetched("11", message("a", minutes=None), message("b", SELLER, None)), fetched("12", message("c"))
    )
    assert (found.messages, found.undated, found.unanswered, found.answers.count) == (3, 2, 1, 0)
    assert sum(p.from_buyers + p.from_seller for p in found.activity.periods) == 1
    assert figures_of(fetched("11", message("a", minutes=None))).activity.periods == ()


# -- who waits ---------------------------------------------------------------------------------------------------------


def test_who_waits_longest_comes_first_with_what_is_known_of_the_conversation():
    """Oldest first; whether one can reply, why not, or that it is not known."""
    found = figures_of(
        fetched("13", message("c", minutes=9)),
        fetched("11", message("a", minutes=3, message_attachments=[{"filename": "x"}]), blocked="blocked_by_refund"),
        *by_message("12", message("b", minutes=5)),
    )
    assert [row.pack_id for row in found.waiting] == ["11", "12", "13"]
    blocked, unknown, can = [row.standing for row in found.waiting]
    assert blocked is not None
    assert (blocked.blocked, blocked.reason) == (True, "the purchase was refunded; the buyer may reopen it")
    assert unknown is None
    assert can is not None
    assert (can.blocked, can.reason) == (False, None)
    assert (found.waiting[0].files, found.answerable, found.unanswered) == (1, 1, 3)


def test_only_so_many_are_listed_and_all_are_counted():
    """The oldest are listed; the number is that of all."""
    rows = [fetched(str(1000 + n), message(f"m{n}", minutes=-n)) for n in range(MOST_LISTED + 7)]
    found = figures_of(*rows)
    assert (found.unanswered, len(found.waiting)) == (MOST_LISTED + 7, MOST_LISTED)
    assert found.waiting[0].pack_id == str(1000 + MOST_LISTED + 6)


def test_no_wait_is_negative():
    """Where a message is younger than the moment of the report, that moment is the message's."""
    found = figures_of(fetched("11", message("a", minutes=50)), minutes=20)
    assert found.as_of == START + timedelta(minutes=50)
    assert [row.seconds for row in found.waiting] == [0]


# -- blocked -----------------------------------------------------------------------------------------------------------


def test_blocked_conversations_are_counted_by_reason_the_most_frequent_first():
    """In words, where we have them; conversations of which nothing is known are not among those that are counted."""
    found = figures_of(
        fetched("11", blocked="blocked_by_claim"),
        fetched("12", blocked="blocked_by_refund"),
        fetched("13", blocked="blocked_by_refund"),
        fetched("14", blocked="blocked_by_something_new"),
        fetched("15"),
        *by_message("16"),
    )
    assert [(row.reason, row.conversations) for row in found.blocked] == [
        ("the purchase was refunded; the buyer may reopen it", 2),
        ("a claim is open", 1),
        ("blocked_by_something_new", 1),
    ]
    assert (found.blocked_conversations, found.standings, found.conversations) == (4, 5, 6)


def test_nothing_at_all_has_figures_too():
    """No conversation: noughts, and no median."""
    found = figures_of(seller_id=None)
    assert (found.conversations, found.messages, found.unanswered, found.blocked, found.waiting) == (0, 0, 0, (), ())
    assert (found.answers.median, found.activity.periods) == (None, ())


# -- whatever it is ----------------------------------------------------------------------------------------------------

senders = st.sampled_from([BUYER, SELLER, AGENT])
messages = st.lists(
    st.tuples(senders, st.integers(0, 60 * 24 * 40), st.booleans()), max_size=12, unique_by=lambda row: row[1]
)


def by_the_book(rows: list[tuple[str, int, bool]]) -> tuple[list[float], int | None]:
    """The waits of a conversation, and since when one is unanswered, found out the slow way."""
    seen = sorted((minutes, sender) for sender, minutes, arrived in rows if arrived)
    waits, since = [], None
    for minutes, sender in seen:
        if sender == SELLER:
            continue
        previous = max((m for m, s in seen if s == SELLER and m < minutes), default=-1)
        if any(s != SELLER and previous < m < minutes for m, s in seen):
            continue  # it is not the first of its run
        answer = min((m for m, s in seen if s == SELLER and m > minutes), default=None)
        if answer is None:
            since = minutes
        else:
            waits.append((answer - minutes) * MINUTE)
    return waits, since


def made(pack: int, rows: list[tuple[str, int, bool]]) -> list[dict[str, object]]:
    return [
        message(f"{pack}-{n}", sender, minutes, status="available" if arrived else "moderated")
        for n, (sender, minutes, arrived) in enumerate(rows)
    ]


@settings(deadline=None)
@given(st.lists(messages, max_size=4))
def test_every_run_is_answered_or_waits(threads: list[list[tuple[str, int, bool]]]):
    """Waits and waiting conversations are those that one finds message by message; no message is in two days."""
    found = figures_of(*[fetched(str(n), *made(n, rows)) for n, rows in enumerate(threads)], minutes=60 * 24 * 50)
    expected = [by_the_book(rows) for rows in threads]
    assert found.answers == answer_times([wait for waits, _ in expected for wait in waits])
    since = sorted(START + timedelta(minutes=at) for _, at in expected if at is not None)
    assert [row.since for row in found.waiting] == since
    days: Counter[date] = Counter()
    for rows in threads:
        days.update((START + timedelta(minutes=minutes)).date() for _, minutes, _ in rows)
    assert {p.first: p.from_buyers + p.from_seller for p in found.activity.periods if p.conversations} == days


@settings(deadline=None)
@given(messages, st.data())
def test_it_does_not_matter_how_a_conversation_is_spread_over_lines(
    rows: list[tuple[str, int, bool]], data: st.DataObject
):
    """In one line, a line a message, or in overlapping deliveries: the same answers, days and waits."""
    raws = made(1, rows)
    whole = figures_of(fetched("1", *raws))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raws)), max_size=4)))
    pieces = [raws[max(start - 1, 0) : end] for start, end in zip([0, *cuts], [*cuts, len(raws)])]
    deliveries = figures_of(*[drained("1", *piece) for piece in pieces])
    one_by_one = figures_of(*by_message("1", *raws))

    def same(row: Waiting) -> tuple[object, ...]:
        return row.pack_id, row.since, row.seconds, row.messages, row.text

    for other in (deliveries, one_by_one):
        assert (other.answers, other.activity) == (whole.answers, whole.activity)
        assert [*map(same, other.waiting)] == [*map(same, whole.waiting)]
        assert (other.conversations, other.messages) == (1, len(raws))


def test_the_figures_know_no_library_and_no_clock():
    """They can be had without matplotlib and Jinja: only charts and page need those."""
    import subprocess
    import sys

    code = "import sys; sys.modules['matplotlib'] = sys.modules['jinja2'] = None; import mlmessages.report.figures"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_the_moment_is_in_the_zone_of_the_days():
    """`as_of` is the moment that was given, on the clocks of the zone."""
    found = figures_of(zone=ZoneInfo("America/Sao_Paulo"), minutes=0)
    assert (found.as_of, found.as_of.hour) == (START, 9)
    assert figures_of(minutes=0).as_of.tzinfo is UTC

"""The figures of a report: facts in, frozen values out. No clock, no file, no picture."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from operator import attrgetter
from typing import Final, Literal

import attrs

from .facts import Fact, Facts, Standing

MOST_LISTED: Final = 500  # conversations in the list of those that wait

Unit = Literal["day", "week", "month", "year"]
_LONGEST: Final[tuple[tuple[int, Unit], ...]] = ((92, "day"), (2 * 366, "week"), (10 * 366, "month"))  # days

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
BINS: Final = (
    ("under 5 min", 5 * _MINUTE),
    ("5–15 min", 15 * _MINUTE),
    ("15–60 min", _HOUR),
    ("1–3 h", 3 * _HOUR),
    ("3–12 h", 12 * _HOUR),
    ("12–24 h", _DAY),
    ("1–2 d", 2 * _DAY),
    ("2–7 d", 7 * _DAY),
    ("over 7 d", None),
)
"""The bars of the histogram, and where each of them ends: that moment belongs to the next one."""
_EDGES: Final = [end for _, end in BINS if end is not None]


@attrs.frozen
class Period:
    """What was written in the days from `first` to `last`.

    `conversations`: a conversation counts on each day on which a message was written in it.
    """

    first: date
    last: date
    conversations: int
    from_buyers: int
    from_seller: int

    @property
    def days(self) -> int:
        """How many days the period has, the first and the last included."""
        return (self.last - self.first).days + 1


@attrs.frozen
class Activity:
    """The messages over time: `periods` without a gap, each of them one `unit`, but for the first and the last."""

    unit: Unit
    periods: tuple[Period, ...]


@attrs.frozen
class Answers:
    """How long buyers waited for an answer, in seconds: `median` and `ninetieth` are times that were measured.

    `bins`: how many waits each of `BINS` holds.
    """

    count: int
    median: float | None
    ninetieth: float | None
    bins: tuple[int, ...]


@attrs.frozen
class Waiting:
    """A conversation whose last word is the counterparty's.

    `since` and `text` are of the first of the `messages` that wait; `seconds`: how long it has waited; `site_id`: the
    site of the sale.
    """

    pack_id: str
    site_id: str | None
    since: datetime
    seconds: float
    messages: int
    text: str
    files: int
    standing: Standing | None


@attrs.frozen
class Blocked:
    """How many conversations are blocked for one reason."""

    reason: str
    conversations: int


@attrs.frozen
class Figures:
    """All that a report says.

    `as_of`: the moment up to which unanswered conversations wait. `zone`: whose days are counted. `undated`: messages
    that no day and no wait knows. `rejected`: the same of those that moderation did not let through, which count in
    the days. `repeated`: how often a message came again. `standings`: conversations of which it is known whether one
    can write. `waiting` names the first `MOST_LISTED` of `unanswered`, oldest first.
    """

    seller_id: str | None
    zone: str
    as_of: datetime
    conversations: int
    from_buyers: int
    from_seller: int
    undated: int
    rejected: int
    repeated: int
    activity: Activity
    answers: Answers
    unanswered: int
    answerable: int
    waiting: tuple[Waiting, ...]
    standings: int
    blocked: tuple[Blocked, ...]

    @property
    def messages(self) -> int:
        """How many messages there are of both sides together."""
        return self.from_buyers + self.from_seller

    @property
    def blocked_conversations(self) -> int:
        """How many conversations are blocked, for whatever reason."""
        return sum(row.conversations for row in self.blocked)


def figures(facts: Facts, seller_id: str | None, *, zone: tzinfo, zone_name: str, as_of: datetime) -> Figures:
    """Return what `facts` come to for the seller `seller_id`, in days of `zone`.

    If a message is younger than `as_of`, that moment counts instead, so that no wait is negative.
    """
    conversations = _conversations(facts)
    everything = facts.messages.values()
    ours = sum(fact.sender_id == seller_id for fact in everything) if seller_id is not None else 0
    newest = max((fact.at for fact in everything if fact.at is not None), default=0.0)
    if newest > as_of.timestamp():
        as_of = datetime.fromtimestamp(newest, UTC)
    now = as_of.timestamp()
    waits: list[float] = []
    waiting: list[Waiting] = []
    for pack_id, thread in conversations.items():
        answered, run = _waits(thread, seller_id)
        waits += answered
        if run:
            waiting.append(_still_waiting(run, facts.packs.get(pack_id), facts.sites.get(pack_id), now, zone))
    waiting.sort(key=lambda row: (row.since, row.pack_id))
    standings = [standing for standing in facts.packs.values() if standing is not None]
    return Figures(
        seller_id=seller_id,
        zone=zone_name,
        as_of=as_of.astimezone(zone),
        conversations=len(facts.packs),
        from_buyers=len(everything) - ours,
        from_seller=ours,
        undated=sum(fact.at is None for fact in everything),
        rejected=sum(not fact.arrived for fact in everything),
        repeated=facts.repeated,
        activity=_activity(conversations.values(), seller_id, zone),
        answers=answer_times(waits),
        unanswered=len(waiting),
        answerable=sum(row.standing is not None and not row.standing.blocked for row in waiting),
        waiting=tuple(waiting[:MOST_LISTED]),
        standings=len(standings),
        blocked=_blocked(standings),
    )


def _conversations(facts: Facts) -> dict[str, list[Fact]]:
    """Return the dated messages of each pack, oldest first; those of one moment in the order of the file."""
    threads: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts.messages.values():
        if fact.at is not None:
            threads[fact.pack_id].append(fact)
    for thread in threads.values():
        thread.sort(key=attrgetter("at"))
    return threads


# -- answers -----------------------------------------------------------------------------------------------------------


def _waits(thread: Sequence[Fact], seller_id: str | None) -> tuple[list[float], list[Fact]]:
    """Return how long each run of the counterparty's messages waited for an answer, and the run that still waits.

    What moderation did not let through opens no wait and ends none: the other side has never seen it.
    """
    waits: list[float] = []
    run: list[Fact] = []
    for fact in thread:
        if not fact.arrived:
            continue
        if fact.sender_id != seller_id:
            run.append(fact)
        elif run:
            waits.append(_at(fact) - _at(run[0]))
            run = []
    return waits, run


def _at(fact: Fact) -> float:
    assert fact.at is not None
    return fact.at


def _still_waiting(
    run: Sequence[Fact], standing: Standing | None, site_id: str | None, now: float, zone: tzinfo
) -> Waiting:
    first = run[0]
    since = datetime.fromtimestamp(_at(first), zone)
    return Waiting(first.pack_id, site_id, since, now - _at(first), len(run), first.text, first.files, standing)


def answer_times(waits: Iterable[float]) -> Answers:
    """Median and 90th percentile by nearest rank: the shortest wait that as many of all were no longer than."""
    ordered = sorted(waits)
    bins = Counter(bisect_right(_EDGES, wait) for wait in ordered)
    return Answers(
        len(ordered), _nearest_rank(ordered, 50), _nearest_rank(ordered, 90), tuple([bins[i] for i in range(len(BINS))])
    )


def _nearest_rank(ordered: Sequence[float], percent: int) -> float | None:
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None


# -- days --------------------------------------------------------------------------------------------------------------


def _activity(threads: Iterable[Sequence[Fact]], seller_id: str | None, zone: tzinfo) -> Activity:
    buyers: Counter[date] = Counter()
    seller: Counter[date] = Counter()
    conversations: Counter[date] = Counter()
    for thread in threads:
        days = [datetime.fromtimestamp(_at(fact), zone).date() for fact in thread]
        for fact, day in zip(thread, days, strict=True):
            (seller if fact.sender_id == seller_id else buyers)[day] += 1
        conversations.update(set(days))
    if not conversations:
        return Activity("day", ())
    first, last = min(conversations), max(conversations)
    unit = _unit((last - first).days + 1)
    starts = [first]
    while (following := _next_start(starts[-1], unit)) <= last:
        starts.append(following)
    ends = [start - timedelta(days=1) for start in starts[1:]] + [last]
    sums = [_summed(counted, starts) for counted in (conversations, buyers, seller)]
    return Activity(unit, tuple([Period(*row) for row in zip(starts, ends, *sums, strict=True)]))


def _summed(counted: Counter[date], starts: Sequence[date]) -> list[int]:
    """Return what was counted from each of `starts` to the next one."""
    sums = [0] * len(starts)
    for day, number in counted.items():
        sums[bisect_right(starts, day) - 1] += number
    return sums


def _unit(days: int) -> Unit:
    return next((unit for longest, unit in _LONGEST if days <= longest), "year")


def _next_start(day: date, unit: Unit) -> date:
    """Return the first day of the unit after that of `day`; weeks begin on Monday."""
    if unit == "day":
        return day + timedelta(days=1)
    if unit == "week":
        return day + timedelta(days=7 - day.weekday())
    if unit == "month" and day.month < 12:
        return date(day.year, day.month + 1, 1)
    return date(day.year + 1, 1, 1)


# -- blocked -----------------------------------------------------------------------------------------------------------


def _blocked(standings: Iterable[Standing]) -> tuple[Blocked, ...]:
    reasons = Counter(standing.reason or "" for standing in standings if standing.blocked)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return tuple([Blocked(reason, number) for reason, number in ordered])

"""Walk the pages of a conversation, as a pure object: where to ask next, what is new, when it is over."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from operator import ge
from typing import Final

from ..errors import DecodeError
from ..models import Message, MessagePage

_MOST_RESTARTS: Final = 3
_MOST_FRUITLESS: Final = 20
_MOST_MESSAGES: Final = 100_000  # a server that invents messages without end is stopped here
_CATCHING_UP: Final = (2.0, 4.0, 8.0)  # seconds before a page that contradicts an earlier one is asked for again


class PageWalk:
    """The way through one conversation: `offset` is where to ask next, until `done`.

    It advances by the rows that were returned, never by those that were asked for, and asks for the furthest row again,
    as an anchor: a page that shows nothing of the walk so far means that rows moved to the left unseen (a message was
    hidden) or that a whole page of them arrived, and the walk starts over. It is over when a page is short, both of
    what was asked and of its own `paging.limit`, *and* its `total` says so; ``total`` alone and shortness alone each
    lose rows on some server [observed: integrators]. Two pages in a row that show nothing behind the furthest row end
    it too.

    Where messages arrive, a page can show known rows alone, and says nothing of the end. If `total` has not grown by as
    many, it starts over, too: from the top, arrivals are seen, and a server that repeats itself is found out.

    A page whose `total` is below an earlier one, although not so many rows were shown yet, comes from a replica that is
    behind, or a message was hidden: it is asked for again after `wait` seconds, three times. No walk ends while the
    `total` of its page is beyond its reach; but a `total` that the rows contradict is not believed from then on.

    `marked`: the first page is the answer to a marking request, and as many messages as that counted must be shown, or
    where it counts none, those that it showed itself. Where they are not, the walk starts over, and in the end fails.
    """

    __slots__ = (
        "_agreed",
        "_anchored",
        "_believed",
        "_contradictions",
        "_doubted",
        "_endings",
        "_frontier",
        "_fruitless",
        "_furthest",
        "_leapt",
        "_marked",
        "_most",
        "_restarts",
        "_seen",
        "_top",
        "_total",
        "_visited",
        "done",
        "limit",
        "offset",
        "pages",
        "steady",
        "wait",
    )

    def __init__(self, limit: int, *, marked: bool = False) -> None:
        self.limit = limit
        self.done = False
        self.pages = 0  # taken, by all attempts
        self.steady = True  # nothing was seen to be hidden or moved: what was shown is still there
        self.wait = 0.0  # seconds to let pass before the next request
        self._marked = marked
        self._top: tuple[frozenset[str], int | None] | None = None  # what the first page showed and counted
        self._believed = True  # no row has contradicted a `total`
        self._most = 0  # the largest `total` that is believed, by all attempts
        self._contradictions = 0  # in a row
        self._seen: set[str] = set()  # by all attempts
        self._restarts = 0
        # Known rows in the place of others; how many were known, and counted, before it started over.
        self._doubted: tuple[list[str], int, int | None] | None = None
        self._agreed = 0  # attempts in a row
        self._reset()

    def _reset(self) -> None:
        self.offset = 0
        self._visited: set[str] = set()  # by this attempt
        self._furthest: str | None = None  # the last row, and where it stands
        self._frontier = -1
        self._anchored = False
        self._leapt = False  # the offset lies behind the furthest row, where arrivals should move it meanwhile
        self._total: int | None = None
        self._endings = 0  # pages in a row that show nothing behind the furthest row
        self._fruitless = 0  # pages in a row without anything new, for whatever reason

    @property
    def total(self) -> int | None:
        """How many messages were counted last; None: none were, or not so that it can be believed."""
        return self._total if self._believed else None

    def take(self, page: MessagePage) -> tuple[Message, ...]:
        """Take in the page asked for at `offset`, and return what it shows that no page before it did.

        Raises `DecodeError` where the conversation cannot be walked: it changes faster than it can be read, contradicts
        itself, or never ends.
        """
        rows = page.messages
        ids = [row.id for row in rows]
        self.pages += 1
        self.wait = 0.0
        fresh = rows
        if not self._seen.isdisjoint(ids) or len(set(ids)) < len(ids):
            fresh = tuple({row.id: row for row in rows if row.id not in self._seen}.values())
        self._seen.update(ids)
        if len(self._seen) > _MOST_MESSAGES:
            raise _unwalkable(page, f"it shows more than {_MOST_MESSAGES} messages")
        total = self._believable(page.paging.total, len(ids))
        if self._marked and self._top is None:
            self._top = frozenset(ids), total
        if self._contradicts(ids, total):
            self.wait = _CATCHING_UP[self._contradictions - 1]
        elif self._moved(ids, total):
            self._go_back(page)
        else:
            self._go_on(page, ids, total)
        if self.done and self._falls_short():
            self.done = False
            self._start_over(page, "it shows less than the answer to the mark did; try again later")
        return fresh

    def expect(self, page: MessagePage) -> None:
        """Take in the answer to a marking request that was sent before: the walk must show what it counted, or fail."""
        ids = frozenset(row.id for row in page.messages)
        shown, counted = self._top or (frozenset(), 0)
        total = page.paging.total
        self._top = shown | ids, None if total is None or counted is None else max(total, counted)
        self._marked = True
        self._seen |= ids
        self._most = max(self._most, total or 0)

    def _believable(self, total: int | None, rows: int) -> int | None:
        """Return `total`, until rows have stood where it says that there are none."""
        if total is not None and rows and self.offset + rows > total:
            self._believed = False
        return total if self._believed else None

    def _contradicts(self, ids: list[str], total: int | None) -> bool:
        """Return True, a few times, if fewer messages are counted than before, and not so many were shown.

        After a mark, by this attempt: what an earlier one showed may have come since, in the place of what was marked.
        """
        shown = self._visited.union(ids) if self._marked else self._seen
        fell = total is not None and total < self._most
        self.steady &= not fell
        if fell and len(shown) < self._most:
            self._contradictions += 1
            if self._contradictions <= len(_CATCHING_UP):
                return True
            self._most = 0  # it stays so: messages were hidden
        self._contradictions = 0
        self._most = max(self._most, total or 0)
        return False

    def _falls_short(self) -> bool:
        """Return True if less was shown than the marking answer counted or, without a count, than it showed itself.

        A count can be that of a page: where none of several rows is left, the others are not all that there is.
        """
        if self._top is None:  # nothing was marked
            return False
        shown, counted = self._top
        if counted is not None and self._believed:
            return len(self._seen) < counted or (len(shown) > 1 and shown.isdisjoint(self._visited))
        return not shown <= self._visited

    def _moved(self, ids: list[str], total: int | None) -> bool:
        """Return True if rows may have slipped past between the last page and this one."""
        if self._anchored and (ids or self._leapt):
            return self._visited.isdisjoint(ids)
        shrank = total is not None and self._total is not None and total < self._total
        # Nothing is counted behind a page of one row: that was all, and is hidden; or `total` is that of a page.
        return (shrank and self.offset > 0 and (total != 0 or self._anchored)) or (self._anchored and total is None)

    def _go_on(self, page: MessagePage, ids: list[str], total: int | None) -> None:
        reach = self.offset + len(ids) - 1
        arrived = max(total - self._total, 0) if total is not None and self._total is not None else 0
        self._total = total
        self._frontier += arrived  # they pushed it further
        full = len(ids) >= min(self.limit, page.paging.limit or self.limit)
        if not self._visited.issuperset(ids):
            self._visited.update(ids)
            self._endings = self._fruitless = 0
            if reach >= self._frontier:
                self._furthest, self._frontier = ids[-1], reach
        elif ids and reach > self._frontier and not self._has_grown():
            if self._repeats(ids, total, reach):
                self.done, self._believed = True, False
            else:
                self._go_back(page)
            return
        else:
            self._endings = self._endings + 1 if not ids or ids[-1] == self._furthest else 0
            self._count(page)
        finished = total is not None and reach + 1 >= total
        # The last of them has to look behind: a server may return fewer rows than there are at any time.
        self.done = (finished and not full) or (self._endings >= 2 and not ids)
        if self.done and not finished:
            self._believed = False  # twice there was nothing where it says that there is more
        self._advance(len(ids), reach, arrived)

    def _repeats(self, ids: list[str], total: int | None, reach: int) -> bool:
        """Return True if known rows stood here in each attempt, and nothing new at the top: it is one page everywhere.

        Where `total` says that there is more, all attempts must agree; where it does not, two.
        """
        if self._leapt:
            return False
        doubt = (ids, len(self._seen), total)
        self._agreed = self._agreed + 1 if doubt == self._doubted else 0
        self._doubted = doubt
        return self._agreed >= (_MOST_RESTARTS if total is not None and reach + 1 < total else 1)

    def _has_grown(self) -> bool:
        """Return True if it started over because known rows stood in the place of others, and others had arrived."""
        return self._doubted is not None and self._doubted[1] < len(self._seen)

    def _count(self, page: MessagePage) -> None:
        self._fruitless += 1
        if self._fruitless > _MOST_FRUITLESS:
            raise _unwalkable(page, "messages arrive faster than it is read; try again")

    def _advance(self, rows: int, reach: int, arrived: int) -> None:
        """Ask for the furthest row again, where it will stand; a page of one row has none to spare for that."""
        self._anchored = rows > 1
        self._leapt = self._anchored and self._fruitless > 0 and arrived > 0
        if self._anchored:
            self.offset = max(reach, self._frontier) + (arrived if self._leapt else 0)
        elif rows:
            self.offset += 1

    def _go_back(self, page: MessagePage) -> None:
        """Ask for the furthest row again, if the offset lies beyond it; else start over."""
        if self._leapt:  # fewer have arrived than before
            self._leapt = False
            self.offset = self._frontier
            return
        self._start_over(page, f"it changed {_MOST_RESTARTS + 1} times while it was read; try again")

    def _start_over(self, page: MessagePage, why: str) -> None:
        self._restarts += 1
        self.steady = False
        if self._restarts > _MOST_RESTARTS:
            raise _unwalkable(page, why)
        if self._marked:
            self.wait = _CATCHING_UP[self._restarts - 1]
        self._reset()


class UpToKnown:
    """Whether a page of a second reading leaves nothing new behind it, where the newest come first.

    `known`: the ids that were shown before; `total`: how many of them were counted then. A page that shows one of them
    ends the arrivals. But moderation may have released an older message, which stands behind it: then `total` has grown
    by more than what was shown. Where nothing is counted, or it has grown by less, which means that others were hidden,
    that cannot be excluded.
    """

    def __init__(self, known: Container[str], total: int | None) -> None:
        self._known = known
        self._total = total
        self._new: set[str] = set()

    def __call__(self, page: MessagePage) -> bool:
        """Return True if `page` is the last one that has to be read."""
        ids = [row.id for row in page.messages]
        new = {id_ for id_ in ids if id_ not in self._known}
        self._new |= new
        total = page.paging.total
        if total is None or self._total is None or total - self._total != len(self._new):
            return False
        # Where the oldest come first, or one row shows no order, what is new may stand on the last page.
        return len(new) < len(ids) and len(ids) > 1 and not ascending(page.messages)


def _unwalkable(page: MessagePage, why: str) -> DecodeError:
    return DecodeError(f"pack {page.pack_id} cannot be walked: {why}")


def _dated(messages: Iterable[Message]) -> list[tuple[datetime, Message]]:
    """Return each message with the moment to sort it by; one without any date stays beside the one before it."""
    moment = datetime.max.replace(tzinfo=UTC)
    dated = []
    for message in messages:
        moment = message.created or message.received or message.available or moment
        dated.append((moment, message))
    return dated


def ascending(messages: Iterable[Message]) -> bool:
    """Return True if the oldest are seen to come first, which the documentation neither promises nor excludes."""
    dated = _dated(messages)
    return len(dated) > 1 and dated[0][0] < dated[-1][0]


def descending(messages: Sequence[Message]) -> bool:
    """Return True if the newest are seen to come first: one message alone shows no order."""
    return ascending(messages[::-1])


def newest_first(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return `messages` with the newest first; the server's own order decides between equal dates."""
    rows = tuple(messages)
    dates = [row.created for row in rows if row.created is not None]
    if len(dates) == len(rows) and all(map(ge, dates, dates[1:])):  # as nearly always
        return rows
    dated = _dated(rows)
    if dated[0][0] < dated[-1][0]:
        dated.reverse()
    return tuple(message for _, message in sorted(dated, key=lambda pair: pair[0], reverse=True))

"""Walking the pages of a conversation, as a pure object: where to ask next, what is new, when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import ge
from typing import Final

from ..errors import DecodeError
from ..models import Message, MessagePage

_MOST_RESTARTS: Final = 3
_MOST_FRUITLESS: Final = 20
_MOST_MESSAGES: Final = 100_000  # a server that invents messages without end is stopped here


class PageWalk:
    """The way through one conversation: `offset` is where to ask next, until `done`.

    It advances by the rows that were returned, never by those that were asked for, and asks for the furthest row again,
    as an anchor: a page that shows nothing of the walk so far means that rows moved to the left unseen (a message was
    hidden) or that a whole page of them arrived, and the walk starts over. It is over when a page is short, both of
    what was asked and of its own `paging.limit`, *and* its `total` says so; ``total`` alone and shortness alone each
    lose rows on some server [observed]. Two pages in a row that show nothing behind the furthest row end it too.

    Where messages arrive, a page can show known rows alone, and says nothing of the end. If `total` has not grown by as
    many, it starts over, too: from the top, arrivals are seen, and a server that repeats itself is found out.
    """

    __slots__ = (
        "_anchored",
        "_doubted",
        "_endings",
        "_frontier",
        "_fruitless",
        "_furthest",
        "_leapt",
        "_restarts",
        "_seen",
        "_total",
        "_visited",
        "done",
        "limit",
        "offset",
        "pages",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.done = False
        self.pages = 0  # taken, by all attempts
        self._seen: set[str] = set()  # by all attempts
        self._restarts = 0
        self._doubted: tuple[list[str], int] | None = None  # known rows in the place of others; how many were known
        self._begin()

    def _begin(self) -> None:
        self.offset = 0
        self._visited: set[str] = set()  # by this attempt
        self._furthest: str | None = None  # the last row, and where it stands
        self._frontier = -1
        self._anchored = False
        self._leapt = False  # the offset lies behind the furthest row, where arrivals should move it meanwhile
        self._total: int | None = None
        self._endings = 0  # pages in a row that show nothing behind the furthest row
        self._fruitless = 0  # pages in a row without anything new, whyever

    def take(self, page: MessagePage) -> tuple[Message, ...]:
        """Take the page asked for at `offset` in; what it shows that no page before it did.

        Raises `DecodeError` where the conversation cannot be walked: it changes faster than it can be read, or never
        ends.
        """
        rows = page.messages
        ids = [row.id for row in rows]
        self.pages += 1
        fresh = rows
        if not self._seen.isdisjoint(ids) or len(set(ids)) < len(ids):
            fresh = tuple({row.id: row for row in rows if row.id not in self._seen}.values())
        self._seen.update(ids)
        if len(self._seen) > _MOST_MESSAGES:
            raise _unwalkable(page, f"it shows more than {_MOST_MESSAGES} messages")
        if self._moved(ids, page.paging.total):
            self._go_back(page)
        else:
            self._go_on(page, ids)
        return fresh

    def _moved(self, ids: list[str], total: int | None) -> bool:
        """True if rows may have slipped past between the last page and this one."""
        if self._anchored and (ids or self._leapt):
            return self._visited.isdisjoint(ids)
        shrank = total is not None and self._total is not None and total < self._total
        return (shrank and self.offset > 0) or (self._anchored and total is None)

    def _go_on(self, page: MessagePage, ids: list[str]) -> None:
        total, reach = page.paging.total, self.offset + len(ids) - 1
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
            doubted, self._doubted = self._doubted, (ids, len(self._seen))
            if doubted == self._doubted:  # and nothing new at the top: it is the same wherever one asks
                self.done = True
            else:
                self._go_back(page)
            return
        else:
            self._endings = self._endings + 1 if not ids or ids[-1] == self._furthest else 0
            self._count(page)
        finished = total is not None and reach + 1 >= total
        # The last of them has to look behind: a server may return fewer rows than there are at any time.
        self.done = (finished and not full) or (self._endings >= 2 and not ids)
        self._advance(len(ids), reach, arrived)

    def _has_grown(self) -> bool:
        """True if it started over because known rows stood in the place of others, and found that some had arrived."""
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
        """To the furthest row, if it leapt from there; else to the beginning."""
        if self._leapt:  # fewer have arrived than before
            self._leapt = False
            self._count(page)
            self.offset = self._frontier
            return
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise _unwalkable(page, f"it changed {self._restarts} times while it was read; try again")
        self._begin()


def _unwalkable(page: MessagePage, why: str) -> DecodeError:
    return DecodeError(f"pack {page.pack_id} cannot be walked: {why}")


def _dated(messages: Iterable[Message]) -> list[tuple[datetime, Message]]:
    """Each message with the moment to sort it by; one without any date stays beside the one before it."""
    moment = datetime.max.replace(tzinfo=UTC)
    dated = []
    for message in messages:
        moment = message.created or message.received or message.available or moment
        dated.append((moment, message))
    return dated


def ascending(messages: Iterable[Message]) -> bool:
    """True if the server sends the oldest first, which the documentation neither promises nor excludes."""
    dated = _dated(messages)
    return len(dated) > 1 and dated[0][0] < dated[-1][0]


def descending(messages: Sequence[Message]) -> bool:
    """True if the newest are seen to come first: one message alone shows no order."""
    return ascending(messages[::-1])


def newest_first(messages: Iterable[Message]) -> tuple[Message, ...]:
    """`messages` with the newest first; the server's own order decides between equal dates."""
    rows = tuple(messages)
    dates = [row.created for row in rows if row.created is not None]
    if len(dates) == len(rows) and all(map(ge, dates, dates[1:])):  # as nearly always
        return rows
    dated = _dated(rows)
    if dated[0][0] < dated[-1][0]:
        dated.reverse()
    return tuple(message for _, message in sorted(dated, key=lambda pair: pair[0], reverse=True))

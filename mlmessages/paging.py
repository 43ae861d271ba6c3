"""Walking the pages of a conversation, as a pure object: where to ask next, what is new, when it is over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from operator import ge
from typing import Final

from .errors import DecodeError
from .models import Message, MessagePage

_MOST_RESTARTS: Final = 3
_MOST_FRUITLESS: Final = 20
_MOST_MESSAGES: Final = 100_000  # a server that invents messages without end is stopped here


class Walk:
    """The way through one conversation: `offset` is where to ask next, until `done`.

    It advances by the rows that were returned, never by those that were asked for, and asks for one row again as an
    anchor: a page that shows nothing of the walk so far means that rows moved to the left unseen (a message was hidden)
    or that a whole page of them arrived, and the walk starts over. It is over when a page is short, both of what was
    asked and of its own `paging.limit`, *and* its `total` says so; ``total`` alone and shortness alone each lose rows
    on some server [observed]. Two pages without anything new end it too.
    """

    __slots__ = (
        "_anchored",
        "_exhausted",
        "_frontier",
        "_fruitless",
        "_idle",
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
        self.offset = 0
        self.done = False
        self.pages = 0  # taken, by all attempts
        self._seen: set[str] = set()  # by all attempts
        self._visited: set[str] = set()  # by this attempt
        self._anchored = False
        self._total: int | None = None
        self._idle = 0  # pages in a row that show nothing new where there might be
        self._exhausted = False  # two of them
        self._restarts = 0
        self._fruitless = 0  # pages in a row without anything new, whyever
        self._frontier = -1  # where the furthest known row stands

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
            raise DecodeError(f"pack {page.pack_id} cannot be walked: it shows more than {_MOST_MESSAGES} messages")
        total = page.paging.total
        if self._moved(ids, total):
            self._start_over(page.pack_id)
            return fresh
        idle = self._visited.issuperset(ids)
        self._visited.update(ids)
        full = len(rows) >= min(self.limit, page.paging.limit or self.limit)
        self._count(page, idle=idle, full=full)
        finished = total is not None and self.offset + len(rows) >= total
        self.done = (finished and not full) or self._exhausted
        # The last row is asked for again, as the anchor of the next page; a page of one row has none to spare.
        self._anchored = len(rows) > 1
        self.offset += max(len(rows) - 1, min(len(rows), 1))
        return fresh

    def _moved(self, ids: list[str], total: int | None) -> bool:
        """True if rows may have slipped past between the last page and this one."""
        shrank = total is not None and self._total is not None and total < self._total
        if not ids or not self._anchored:
            return (shrank and self.offset > 0) or (self._anchored and total is None)
        return self._visited.isdisjoint(ids)

    def _count(self, page: MessagePage, *, idle: bool, full: bool) -> None:
        """Count the pages in a row that show nothing new, where they reach beyond what is known."""
        rows, total = page.messages, page.paging.total
        reach = self.offset + len(rows) - 1
        arrived = max(total - self._total, 0) if total is not None and self._total is not None else 0
        self._frontier += arrived  # they pushed it further
        self._total = total
        if not idle:
            self._idle = self._fruitless = 0
            self._exhausted = False
            self._frontier = max(self._frontier, reach)
            return
        self._fruitless += 1
        if self._fruitless > _MOST_FRUITLESS:
            raise DecodeError(
                f"pack {page.pack_id} cannot be walked: messages arrive faster than it is read; try again"
            )
        # The last of them has to look beyond what is known: not only the last page of a conversation may be short.
        beyond = not rows or reach > self._frontier
        if beyond or (reach == self._frontier and not full and not arrived):
            self._idle += 1
        self._exhausted = self._idle >= 2 and (beyond or total is None)

    def _start_over(self, pack_id: str) -> None:
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise DecodeError(
                f"pack {pack_id} cannot be walked: it changed {self._restarts} times while it was read; try again"
            )
        self.offset = self._idle = self._fruitless = 0
        self._frontier = -1
        self._anchored = False
        self._total = None
        self._visited.clear()


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

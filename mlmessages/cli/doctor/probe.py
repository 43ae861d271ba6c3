"""What the documentation does not say, found out on one conversation, which is marked as read.

Nothing of the conversation is kept but numbers: the result can be pasted into an issue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import attrs

from ...api.endpoints import Endpoints
from ...errors import MessagesError
from ...models import Message, MessagePage
from .asker import Asker, Reply

_PAGE: Final = 50  # the largest page that is in general use
_LARGE: Final = 100
_MOST_PAGES: Final = 5  # that are marked, so that the listing can be seen without the conversation
_POLLS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between looks for a lag: a minute in all
_NOT_TOLD: Final = "not told"


@attrs.define
class Findings:
    """What was found out, in words that hold no id, name or text."""

    mark_scope: str = f"{_NOT_TOLD}: the conversation was not marked"
    mark_as_read_false: str = _NOT_TOLD
    limit_above_50: str = _NOT_TOLD
    order: str = _NOT_TOLD
    offset_at_the_end: str = _NOT_TOLD
    unread_of: str = _NOT_TOLD
    read_dates: str = _NOT_TOLD
    paging_total: str = _NOT_TOLD
    listing_lag: str = _NOT_TOLD

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield each question and its answer."""
        names = {
            "mark_scope": "a marking GET marks",
            "mark_as_read_false": "mark_as_read=false",
            "limit_above_50": f"limit={_LARGE}",
            "order": "order of a page",
            "offset_at_the_end": "offset at the end",
            "unread_of": "unread of one",
            "read_dates": "read dates",
            "paging_total": "paging.total",
            "listing_lag": "lag of the listing",
        }
        for field, question in names.items():
            yield question, getattr(self, field)


class Refused(Exception):
    """The conversation cannot be read at all; `error` says why."""

    def __init__(self, error: MessagesError) -> None:
        super().__init__(str(error))
        self.error = error


class Prober:
    """The probe of one conversation: some twenty requests, the last of which mark it."""

    def __init__(self, asker: Asker, endpoints: Endpoints, pack: str, seller: str) -> None:
        self._asker = asker
        self._endpoints = endpoints
        self._pack = pack
        self._seller = seller
        self.findings: Final = Findings()

    async def run(self) -> None:
        """Find out what can be found. Raises `Refused` if the conversation cannot be read."""
        found = self.findings
        listed = await self._listed()
        before, status = await self._unread_of()
        first = await self._peek(_PAGE, 0)
        if first.value is None:
            assert first.error is not None
            raise Refused(first.error)
        page = first.value
        after_peek, _ = await self._unread_of()
        found.mark_as_read_false = _held(before, after_peek)
        found.order = _order(page.messages)
        found.paging_total = _total(page)
        await self._look_at_limits(page)
        await self._mark(page, after_peek)
        left, _ = await self._unread_of()
        found.unread_of = f"{status}, {_count(before)} before the mark; {_count(left)} after it"
        if not listed:
            found.listing_lag = f"{_NOT_TOLD}: it was not listed before"
        elif left:
            found.listing_lag = f"{_NOT_TOLD}: {left} still count as unread"
        else:
            found.listing_lag = await self._lag()

    async def _peek(self, limit: int, offset: int) -> Reply[MessagePage]:
        return await self._asker.ask(self._endpoints.page(self._pack, limit, offset, mark=False))

    async def _listed(self) -> bool | None:
        """Return whether the conversation is in the listing; None if that cannot be seen."""
        reply = await self._asker.ask(self._endpoints.unread())
        if reply.value is None:
            return None
        return any(row.pack_id == self._pack for row in reply.value.packs)

    async def _unread_of(self) -> tuple[int | None, str]:
        """Return how many messages count as unread, and the status of the answer."""
        reply = await self._asker.ask(self._endpoints.unread_of(self._pack))
        if reply.value is None:
            return None, reply.brief()
        return sum(row.count for row in reply.value.packs if row.pack_id == self._pack), reply.brief()

    async def _look_at_limits(self, page: MessagePage) -> None:
        found, rows = self.findings, len(page.messages)
        large = await self._peek(_LARGE, 0)
        if large.value is None:
            found.limit_above_50 = f"refused: {large.brief()}"
        elif len(large.value.messages) > _PAGE:
            found.limit_above_50 = f"gives {len(large.value.messages)} rows"
        else:
            echoed = large.value.paging.limit
            more = page.paging.total is not None and page.paging.total > len(large.value.messages)
            said = f"gives {len(large.value.messages)} rows" if more else f"{_NOT_TOLD}: there are {rows} messages"
            found.limit_above_50 = f"{said}; paging.limit is {echoed if echoed is not None else 'absent'}"
        total = page.paging.total if page.paging.total is not None else rows
        last = await self._peek(_PAGE, total)
        if last.value is None:
            found.offset_at_the_end = last.brief()
        else:
            found.offset_at_the_end = f"{last.brief()}, {len(last.value.messages)} rows"

    async def _mark(self, page: MessagePage, before: int | None) -> None:
        """Mark as few rows as hold an unread one, see what else that marked, and then mark the rest."""
        found = self.findings
        unread = [row.read is None and not row.is_from(self._seller) for row in page.messages]
        limit = unread.index(True) + 1 if True in unread else 1
        marking = await self._asker.ask(self._endpoints.page(self._pack, limit, 0, mark=True))
        if marking.value is None:
            found.mark_scope = f"{_NOT_TOLD}: {marking.brief()}"
            return
        after, _ = await self._unread_of()
        found.mark_scope = _scope(before, after, limit, len(marking.value.messages))
        later = await self._peek(limit, 0)
        if True in unread and later.value is not None:
            found.read_dates = self._read_dates(marking.value.messages, later.value.messages)
        for number in range(_MOST_PAGES):
            if not (await self._unread_of())[0]:
                return
            await self._asker.ask(self._endpoints.page(self._pack, _PAGE, number * _PAGE, mark=True))

    def _read_dates(self, at_once: tuple[Message, ...], later: tuple[Message, ...]) -> str:
        if self._are_read(at_once):
            return "the marking answer shows them"
        soon = "the next read does" if self._are_read(later) else "nor does the next read"
        return f"the marking answer does not show them; {soon}"

    def _are_read(self, rows: tuple[Message, ...]) -> bool:
        return all(row.read is not None for row in rows if not row.is_from(self._seller))

    async def _lag(self) -> str:
        """Return how long the listing goes on to show the conversation."""
        began = time.monotonic()
        for wait in _POLLS:
            await asyncio.sleep(wait)
            listed = await self._listed()
            took = time.monotonic() - began
            if listed is None:
                return f"{_NOT_TOLD}: the listing was refused after {took:.1f} s"
            if not listed:
                return (
                    "none: the next listing is without it"
                    if not wait
                    else f"between {took - wait:.1f} and {took:.1f} s"
                )
        return f"more than {time.monotonic() - began:.0f} s, or it counts messages that no read shows"


def _count(number: int | None) -> str:
    return "no count" if number is None else f"count {number}"


def _held(before: int | None, after: int | None) -> str:
    if not before or after is None:
        return f"{_NOT_TOLD}: nothing was unread" if before == 0 else f"{_NOT_TOLD}: no count"
    if after == before:
        return "holds: the count stayed"
    return f"does NOT hold: the count went from {before} to {after} (unless it was read elsewhere at that moment)"


def _order(messages: tuple[Message, ...]) -> str:
    dates = [date for row in messages if (date := row.created or row.received) is not None]
    steps = [(earlier, later) for earlier, later in pairwise(dates) if earlier != later]
    if not steps:
        return f"{_NOT_TOLD}: fewer than two dates"
    if all(earlier > later for earlier, later in steps):
        return f"newest first ({len(dates)} dates)"
    if all(earlier < later for earlier, later in steps):
        return f"oldest first ({len(dates)} dates)"
    return f"mixed ({len(dates)} dates)"


def _total(page: MessagePage) -> str:
    rows, total = len(page.messages), page.paging.total
    if total is None:
        return "absent"
    if total > rows:
        return f"{total}, with {rows} rows on the first page"
    return f"{total}, as many as the rows" if total == rows else f"{total}, fewer than the {rows} rows"


def _scope(before: int | None, after: int | None, limit: int, rows: int) -> str:
    """Return what one marking GET that shows one unread message has marked."""
    if before is None or after is None:
        return f"{_NOT_TOLD}: no count"
    if before < 2:
        return f"{_NOT_TOLD}: {before} unread"
    if after == 0:
        return f"the whole conversation (limit={limit}, {before} unread)"
    if before - after <= rows:
        return f"what it returns: {before - after} of {before} with limit={limit}"
    return f"{before - after} of {before} with limit={limit}, and {rows} rows returned"

"""A seller's conversations on a server that misbehaves: the fuzzer's own model, which shares no code with the sandbox.

A message remembers when it appeared, when it was hidden and when it was read. So what a replica that is some seconds
behind shows is the same question asked of an earlier moment, and needs no copies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from attrs import define, field, frozen

BEGINNING = 1_764_158_400.0
"""What the server's calendar shows at the moment 0, in POSIX seconds."""

SELLER = "700100200"

Order = Literal["newest", "oldest"]
Total = Literal["true", "page"] | None


@define(eq=False)
class Row:
    """One message. `hidden`: from when to when moderation kept it back. `read`: when it was marked or read elsewhere."""

    id: str
    created: float
    by_seller: bool = False
    hidden: list[tuple[float, float]] = field(factory=list)
    read: float | None = None
    by_us: bool = False  # a marking request of the program under test made it read

    def visible(self, at: float) -> bool:
        """True if a read of the state of `at` returns it."""
        return not any(start <= at < end for start, end in self.hidden)


@frozen(kw_only=True)
class Habits:
    """What the documentation leaves open, for one server.

    `total`: what ``paging.total`` says: the truth, the rows of this page, or nothing. `size`: the most rows of a page.
    `told`: whether ``paging.limit`` is what was asked or what was given. `shows_read`: seconds until a read shows that a
    message was marked. `lag`: how far a replica is behind, and `stale`: the share of unmarked reads that one answers.
    """

    order: Order = "newest"
    marks: Literal["pack", "page"] = "pack"
    total: Total = "true"
    size: int = 1000
    told: Literal["asked", "given"] | None = "given"
    shows_read: float = 0.0
    lag: float = 0.0
    stale: float = 0.0
    cap: int = 1000
    listing_lag: float = 0.0
    spellings: bool = False


class Thread:
    """One conversation; its rows stand in the order of their dates."""

    def __init__(self, pack_id: str) -> None:
        self.pack_id = pack_id
        self.rows: list[Row] = []
        self._numbers = 0

    def write(
        self, now: float, *, created: float | None = None, by_seller: bool = False, appears: float = -float("inf")
    ) -> Row:
        """A message: created now, or before; `appears`: moderation holds it back until then."""
        self._numbers += 1
        row = Row(f"p{self.pack_id[-4:]}m{self._numbers}", now if created is None else created, by_seller)
        row.hidden.append((-float("inf"), max(now, appears)))
        self.rows.append(row)
        self.rows.sort(key=lambda row: row.created)
        return row

    def hide(self, row: Row, now: float, until: float = float("inf")) -> None:
        """Moderation takes a message away, for good or until it is released."""
        row.hidden.append((now, until))

    def visible(self, at: float) -> list[Row]:
        """What a read of the state of `at` can return, oldest first."""
        return [row for row in self.rows if row.visible(at)]

    def unread(self, at: float) -> int:
        """How many of the buyer's messages count as unread, those that moderation took away too."""
        return sum(
            not row.by_seller and (row.read is None or row.read > at) and row.hidden[0][1] <= at for row in self.rows
        )


class Server:
    """The conversations of one seller."""

    def __init__(self, habits: Habits, rng: random.Random) -> None:
        self.habits = habits
        self.threads: dict[str, Thread] = {}
        self.shown_of = 0.0  # the moment whose state the last page showed
        self._rng = rng
        self._turned = False

    def thread(self, pack_id: str) -> Thread:
        """The conversation, which is made where there is none."""
        return self.threads.setdefault(pack_id, Thread(pack_id))

    # -- what happens --

    def mark(self, pack_id: str, now: float, rows: Sequence[Row] | None = None) -> None:
        """Execute a mark: of the whole conversation, or of the `rows` of a page."""
        for row in self.thread(pack_id).visible(now) if rows is None else rows:
            if row.read is None and not row.by_seller:
                row.read, row.by_us = now, True

    # -- what is answered --

    def page(self, pack_id: str, limit: int, offset: int, now: float, *, mark: bool, current: bool = False) -> bytes:
        """Answer a read. A mark is executed on the state of now; what else is not `current` may be a replica's."""
        habits = self.habits
        at = self.shown_of = now - habits.lag if not (mark or current) and self._rng.random() < habits.stale else now
        thread = self.thread(pack_id)
        visible = thread.visible(at)
        ordered = visible[::-1] if habits.order == "newest" else visible
        rows = ordered[offset : offset + min(limit, habits.size)]
        body = self._page(pack_id, rows, at, limit, offset, len(visible))
        if mark:
            self.mark(pack_id, now, None if habits.marks == "pack" else rows)
        return body

    def _page(self, pack_id: str, rows: list[Row], at: float, limit: int, offset: int, total: int) -> bytes:
        habits = self.habits
        told = {"asked": limit, "given": min(limit, habits.size), None: None}[habits.told]
        counted = {"true": total, "page": len(rows), None: None}[habits.total]
        return json.dumps(
            {
                "paging": {"limit": told, "offset": offset, "total": counted},
                "conversation_status": {"path": f"/packs/{pack_id}/sellers/{SELLER}", "status": "active"},
                "messages": [self._message(row, at) for row in rows],
            }
        ).encode()

    def _message(self, row: Row, at: float) -> dict[str, object]:
        seen = row.read is not None and row.read + self.habits.shows_read < at
        created = _date(row.created)
        return {
            "id": row.id,
            "from": {"user_id": int(SELLER) if row.by_seller else 800300001},
            "to": {"user_id": 800300001 if row.by_seller else int(SELLER)},
            "text": "a text",
            "message_date": {"created": created, "received": created, "read": _date(row.read) if seen else None},
        }

    def listed(self, at: float) -> dict[str, int]:
        """The packs of a listing that shows the state of `at`, with their counts: up to the cap."""
        counts = {pack: count for pack, thread in self.threads.items() if (count := thread.unread(at))}
        return dict([*counts.items()][: self.habits.cap])

    def listing(self, now: float) -> bytes:
        """Answer the unread query."""
        counts = self.listed(now - self.habits.listing_lag)
        rows = [{"resource": f"/packs/{pack}", "count": count} for pack, count in counts.items()]
        if self.habits.spellings:
            rows += [{"resource": f"/packs/{row['resource'][7:]}/sellers/{SELLER}", "count": 9} for row in rows]  # type: ignore[index]
            self._turned = not self._turned
            rows = rows[::-1] if self._turned else rows
        return json.dumps({"user_id": int(SELLER), "results": rows}).encode()


def _date(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(BEGINNING + moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

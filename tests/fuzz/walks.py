"""Walks through one conversation that changes: the pure `PageWalk` against the simulated server, seed by seed."""

from __future__ import annotations

import random

from attrs import frozen

from mlmessages.api.decoding import message_page
from mlmessages.api.paging import PageWalk
from mlmessages.errors import DecodeError

from .server import Habits, Row, Server, Total

PACK = "2000000000000001"
CATCHES_UP = 14.0
"""Seconds for which a walk asks again where fewer are counted than before. Then it believes that messages were hidden."""


@frozen
class Walked:
    """What one walk came to. `missing`: what it owed and did not show, although it ended."""

    kind: str
    outcome: str
    requests: int
    missing: tuple[str, ...] = ()


def habits_of(rng: random.Random) -> Habits:
    """A server for walks: every second one has a replica that is some seconds behind."""
    lag = rng.choice([0.0, rng.choice([2.0, 5.0, 12.0, 60.0])])
    total: Total = rng.choice(["true", "true", "true", "page", None])
    return Habits(
        order=rng.choice(["newest", "oldest"] if lag else ["newest", "newest", "oldest"]),
        total=total,
        size=rng.choice([2, 3, 5] if lag else [1, 2, 3, 5, 8]),
        # A short page that counts itself, and says that as many rows as asked would fit, is a whole conversation.
        told="given" if total == "page" else rng.choice(["given", "asked", None]),
        lag=lag,
        stale=rng.choice([0.5, 1.0, 1.0]) if lag else 0.0,
    )


def walk(seed: int) -> Walked:
    """Walk once. What the first answer's state showed, and stayed, must be shown, or the walk must fail.

    Two of three walks follow marks, one of them page by page: they owe what was there at the last mark, unless
    moderation took it away before it could be shown.
    """
    rng = random.Random(seed)
    habits = habits_of(rng)
    server = Server(habits, rng)
    thread = server.thread(PACK)
    for i in range(rng.choice([1, 5, 12] if habits.lag else [1, 5, 12, 30])):
        thread.write(-1000.0 + i, by_seller=rng.random() < 0.4)
    how = rng.choice(["unmarked", "marked", "page by page"])
    limit = rng.choice([3, 5, 50] if habits.lag else [1, 3, 5, 50, 50])
    eager = rng.choice([0.0, 0.0, 0.6] if habits.lag else [0.0, 0.2, 0.6])  # how often something happens
    pace = rng.choice([0.02, 0.15])  # seconds for a request
    leads = rng.random() < 0.8  # the first page is not a replica's
    kind = f"{habits.order} total={habits.total} lag={habits.lag:g} {how}"
    now, requests = 0.0, 0
    if rng.random() < 0.9:  # a burst that no replica shows yet
        for _ in range(rng.choice([1, 3, 8])):
            thread.write(now - 0.5)
    there: list[Row] = []
    shown: set[str] = set()
    walking = PageWalk(limit, marked=how == "marked")
    changes = 0
    for offset in range(0, rng.choice([1, 10]), limit) if how == "page by page" else ():
        marked = message_page(server.page(PACK, limit, offset, now, mark=True), PACK)
        there = thread.visible(now)
        requests += 1
        walking.expect(marked)
        shown |= {row.id for row in marked.messages}
        now += pace * rng.uniform(0.5, 2.0)
    try:
        while not walking.done:
            now += walking.wait
            first = walking.pages == 0
            body = server.page(
                PACK, limit, walking.offset, now, mark=how == "marked" and first, current=first and leads
            )
            if not requests:
                there = thread.visible(server.shown_of)
            requests += 1
            assert requests < 3000, f"seed {seed}: it does not end"
            shown |= {row.id for row in walking.take(message_page(body, PACK))}
            now += pace * rng.uniform(0.5, 2.0)
            if rng.random() < eager:
                changes += 1
                _happen(rng, server, now)
    except DecodeError:
        return Walked(
            kind, "refused" if changes or habits.lag or habits.total == "page" else "refused, still", requests
        )
    told = can_tell(habits, limit, marked=how != "unmarked", still=not changes)
    missing = tuple(row.id for row in there if told and stays(row, now) and row.id not in shown)
    return Walked(kind, "ended", requests, missing)


def can_tell(habits: Habits, limit: int, *, marked: bool, still: bool) -> bool:
    """True if anything that this server shows could tell a walk that it missed something.

    Pages of one row have none to spare for an anchor: rows that move to the left do so unseen. Where nothing is
    counted, only the newest message, on top, gives away that a replica is behind; and pages of two rows, one of which
    the next page repeats, look like a server that repeats its first page when a message arrives.
    """
    rows = min(limit, habits.size)
    if habits.lag > CATCHES_UP and not marked:
        return False
    if habits.total != "true" and rows == 2 and not still:
        return False
    if habits.lag and habits.total != "true":
        return marked and habits.order == "newest" and rows > 1
    return still or rows > 1


def stays(row: Row, until: float) -> bool:
    """True if it was there all the time."""
    return row.visible(0.0) and all(start > until or end <= 0 for start, end in row.hidden)


def _happen(rng: random.Random, server: Server, now: float) -> None:
    thread = server.thread(PACK)
    for _ in range(rng.choice([1, 1, 2, 6])):
        if rng.random() < 0.5:
            thread.write(now, by_seller=rng.random() < 0.5)
        else:
            visible = thread.visible(now)
            if visible:
                thread.hide(rng.choice(visible), now)

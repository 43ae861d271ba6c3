"""Walks through one conversation that changes: the pure `PageWalk` against the simulated server, seed by seed."""

from __future__ import annotations

import random

from attrs import frozen

from mlmessages.api.decoding import message_page
from mlmessages.api.paging import PageWalk
from mlmessages.errors import DecodeError

from .server import Habits, Row, Server

PACK = "2000000000000001"


@frozen
class Walked:
    """What one walk came to. `missing`: what it owed and did not show, although it ended."""

    kind: str
    outcome: str
    requests: int
    missing: tuple[str, ...] = ()


def habits_of(rng: random.Random) -> Habits:
    """A server for walks."""
    lag = rng.choice([0.0, 2.0])
    return Habits(
        order=rng.choice(["newest", "newest", "oldest"]),
        total=rng.choice(["true", "true", "true", "page", None]),
        size=rng.choice([1, 2, 3, 5, 8]),
        told="given",
        lag=lag,
        stale=rng.choice([0.3, 1.0]) if lag else 0.0,
    )


def walk(seed: int) -> Walked:
    """Walk once. Whatever was visible from the first request to the last must be shown, or the walk must fail.

    A marking walk owes what its first request marked, unless moderation took it away before it could be shown.
    """
    rng = random.Random(seed)
    habits = habits_of(rng)
    server = Server(habits, rng)
    thread = server.thread(PACK)
    for i in range(rng.choice([1, 5, 12, 30])):
        thread.write(-1000.0 + i, by_seller=rng.random() < 0.4)
    marked = rng.random() < 0.5
    limit = rng.choice([1, 3, 5, 50, 50])
    eager = rng.choice([0.0, 0.2, 0.6])  # how often something happens between two requests
    kind = f"{habits.order} total={habits.total} lag={habits.lag:g} marked={marked}"
    now, requests = 0.0, 0
    if marked and rng.random() < 0.7:  # a burst that the mark is the first to show
        for _ in range(rng.choice([1, 3, 8])):
            thread.write(now - 0.5)
    there = thread.visible(now)
    shown: set[str] = set()
    walking = PageWalk(limit, marked=marked)
    changes = 0
    try:
        while not walking.done:
            now += walking.wait
            first = requests == 0
            body = server.page(PACK, limit, walking.offset, now, mark=marked and first)
            requests += 1
            assert requests < 3000, f"seed {seed}: it does not end"
            shown |= {row.id for row in walking.take(message_page(body, PACK))}
            now += rng.uniform(0.05, 0.3)
            if rng.random() < eager:
                changes += 1
                _happen(rng, server, now)
    except DecodeError:
        return Walked(
            kind, "refused" if changes or habits.lag or habits.total == "page" else "refused, still", requests
        )
    owed = (
        [row for row in there if stays(row, now)] if can_tell(habits, limit, marked=marked, still=not changes) else []
    )
    missing = tuple(row.id for row in owed if row.id not in shown)
    return Walked(kind, "ended", requests, missing)


def can_tell(habits: Habits, limit: int, *, marked: bool, still: bool) -> bool:
    """True if anything that this server shows could tell a walk that it missed something.

    Pages of one row have none to spare for an anchor: rows that move to the left do so unseen. And where nothing is
    counted, only the newest message, on top, gives away that a replica is behind.
    """
    one_a_page = min(limit, habits.size) == 1
    if habits.lag and habits.total != "true":
        return marked and habits.order == "newest" and not one_a_page
    if habits.total != "true" and min(limit, habits.size) == 2:  # it looks like a server that repeats its first page
        return still
    return still or not one_a_page


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

"""What the tests of stores share: a transaction, a message, a clock that is set."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlmessages.journal.store import Seat, SharedStore, Store, StoredMessage, Taken

SELLER = "700100200"
# Workers: an id for each process start.
ONE, TWO, THREE, DEAD = (str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in ("one", "two", "three", "dead"))
NAMES = {ONE: "host-one", TWO: "host-two", THREE: "host-three"}
SEAT = Seat(SELLER)


class Clock:
    """The clock of an engine, in seconds; `told` hears of every change."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0
        self.told: Callable[[float], object] = lambda _: None

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        self._now = now
        self.told(now)

    def __call__(self) -> float:
        return self.now


def entry(id_: str, *, unread: bool = True) -> StoredMessage:
    return StoredMessage(id_, f'{{"id":"{id_}"}}'.encode(), unread)


@contextmanager
def whole(store: Store, *seats: Seat) -> Iterator[frozenset[Seat]]:
    """One transaction of a store; which of the seats it holds."""
    held = store.begin(seats)
    try:
        yield held
    except BaseException:
        store.rollback()
        raise
    store.commit()


LEASE = 30.0
SETTLE, SECOND_LOOK = 120.0, 900.0


def taken(store: SharedStore, worker: str, *, lease: float = LEASE, seller_id: str = SELLER) -> Taken:
    """The seat of a seller, taken by a worker that begins now."""
    with whole(store):
        store.add_seller(seller_id)
        store.register(worker, NAMES[worker], lease)
        [found] = store.take(worker, 1, settle_time=SETTLE, second_look=SECOND_LOOK, seller_id=seller_id)
    return found

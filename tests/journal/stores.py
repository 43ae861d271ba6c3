"""What the tests of stores share: a transaction, a message, a clock that is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define

from mlmessages.journal.store import Seat, SharedStore, Store, StoredMessage, Taken

SELLER = "700100200"
SEAT = Seat(SELLER)


@define
class Clock:
    """The clock of an engine, in seconds."""

    now: float = 1_700_000_000.0

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
        store.register(worker, f"host-{worker}", lease)
        [found] = store.take(worker, 1, settle_time=SETTLE, second_look=SECOND_LOOK, seller_id=seller_id)
    return found

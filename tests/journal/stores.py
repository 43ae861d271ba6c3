"""What the tests of stores share: a transaction, a message, a clock that is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define

from mlmessages.journal.store import Seat, Store, StoredMessage

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
def whole(store: Store, seat: Seat = SEAT) -> Iterator[Store]:
    """One transaction of a store."""
    store.begin([seat])
    try:
        yield store
    except BaseException:
        store.rollback()
        raise
    store.commit()

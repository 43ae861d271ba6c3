"""What `memory` keeps: its rows, and what several stores share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from .store import DONE, StoredMessage

NEVER: Final = float("-inf")


@frozen
class PackRow:
    """A pack, as `store.Row` tells of it."""

    state: str = DONE
    count: int = 0
    resource: str | None = None
    listed_at: float | None = None
    not_before: float = NEVER
    again: float | None = None
    attempts: int = 0
    outcome_unknown: bool = False
    error: str | None = None
    status: bytes | None = None


@frozen
class BodyRow:
    """A message that was not acknowledged."""

    seq: int
    pack_id: str
    entry: StoredMessage


@frozen
class CheckRow:
    """A message that a notification named."""

    tries: int
    not_before: float
    parked: bool


@frozen
class FailedRow:
    """A delivery that the handler failed at."""

    tries: int
    not_before: float
    error: str


@frozen
class SeatRow:
    """The seat of a seller, and why it is stopped."""

    epoch: int = 0
    worker: str | None = None
    rings: int = 0
    listed_at: float = NEVER
    stopped_until: float = NEVER
    stopped: str | None = None
    stops: int = 0


@frozen
class WorkerRow:
    """The lease of a worker."""

    name: str
    until: float
    shares: bool = False


@define(eq=False)
class SellerRows:
    """What is kept of one seller."""

    no: int
    seat: dict[str, SeatRow]  # its one value is under ""
    packs: dict[str, PackRow] = field(factory=dict)
    known: dict[str, bool] = field(factory=dict)
    bodies: dict[str, BodyRow] = field(factory=dict)
    checks: dict[str, CheckRow] = field(factory=dict)
    failed: dict[str, FailedRow] = field(factory=dict)
    dead: dict[str, str] = field(factory=dict)
    once: dict[str, bool] = field(factory=dict)


class Memory:
    """What several `MemoryStore`s share: one transaction at a time. `clock`: seconds, of whatever origin."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock: Final = clock
        self.sellers: Final[dict[str, SellerRows]] = {}
        self.workers: Final[dict[str, WorkerRow]] = {}
        self.duties: Final[dict[str, float]] = {}
        self.lock: Final = threading.RLock()
        self.seq = self.last_no = 0

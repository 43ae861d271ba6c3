"""What a journal needs of an engine: the protocol `Store`, and the values that pass through it.

A store is told waits in seconds and never moments: "now" is its own clock's, which for a database is not this
machine's. Each method is one unit of a transaction. Some units are *facts*: they are true from any process, and may be
said twice. The others are *decisions*, which only the holder of a seat may write.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

from attrs import field, frozen

from ..errors import JournalError

# The states of a pack in a journal.
OPEN: Final = "open"  # owed
ISSUED: Final = "issued"  # claimed: a marking request may have left
DONE: Final = "done"  # every id of a walk is stored
PARKED: Final = "parked"  # given up until its wait is over

MOST_CHECKS: Final = 20_000  # messages that notifications named and that are not known yet
CHECKED_AFTER: Final = 60.0  # seconds in which a listing should have led to such a message
CHECKS_KEPT: Final = 7 * 24 * 3600.0  # seconds that the name of one that never appeared is remembered


class Unstorable(JournalError):
    """The engine cannot hold a value of one unit of work, such as half a surrogate pair. The others were committed."""


class TooManyChecks(JournalError):
    """There are `MOST_CHECKS` unknown messages that notifications named: no more are written down."""


class SerializationFailure(JournalError):
    """The engine could not order a transaction with another process's: nothing of it happened, and it is repeated."""


class Disconnected(JournalError):
    """The connection to the engine broke: whether the last commit was executed is unknown."""


@frozen(cache_hash=True)
class Seat:
    """The right to decide for one seller.

    `epoch` grows each time that it changes hands; a file has one, 1, for ever.
    """

    seller_id: str
    no: int = 0
    epoch: int = 1


@frozen
class Held:
    """A seat that a worker holds. `rings`: how often something was written that its holder has not written itself."""

    seat: Seat
    rings: int


@frozen
class Taken:
    """A seat that a worker has just taken, and how many claims of its last holder were found."""

    seat: Seat
    rings: int
    reopened: int


@frozen
class Seller:
    """A seller. `holder`: the live worker that holds it, or None. `stopped`: why no worker takes it now, or None."""

    seller_id: str
    holder: str | None
    stopped: str | None


@frozen
class Row:
    """A pack that is not done. `wait`: seconds until it may be read, 0 if it may be now.

    `second_look`: it was read since it was taken over from another worker, and waits for its second look alone.
    """

    pack_id: str
    state: str
    count: int
    resource: str | None
    listed_at: float | None  # by Mercado Libre's clock, in POSIX seconds
    wait: float
    attempts: int
    outcome_unknown: bool
    error: str | None
    second_look: bool = False


@frozen
class StoredMessage:
    """A message as the journal keeps it. `unread` is what `Delivery.unread` will say."""

    id: str
    raw: bytes = field(repr=False)
    unread: bool


@frozen
class Stored:
    """What storing a read came to: the ids that were not known before, in order.

    `again`: the seconds until the pack has to be read once more; None: the pack is done.
    """

    fresh: list[str]
    again: float | None = None


@frozen
class PendingCheck:
    """A message that a notification named and that is not known yet. `parked`: it was looked for in vain."""

    message_id: str
    tries: int
    wait: float
    parked: bool


@frozen
class FailedDelivery:
    """A pack whose new messages the handler failed at, to be handed over again after `wait` seconds."""

    pack_id: str
    tries: int
    wait: float
    error: str


class Store(Protocol):
    """One engine. Its methods are called from one thread, one after the other.

    Whatever happens between `begin` and `commit` happens whole or not at all. An engine's own exceptions pass through;
    `explain` says what they mean. A method that raises a `JournalError` itself has decided so before it wrote anything
    that counts: the transaction goes on without it.
    """

    patience: float | None  # seconds after which a call is cut off by `interrupt`, from another thread; None: never

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        """Begin a transaction; return those of `seats` that are held, and stay held until it ends."""

    def commit(self) -> None:
        """Make everything since `begin` durable."""

    def rollback(self) -> None:
        """Undo what was begun, if anything was."""

    def close(self) -> None:
        """Close the connection or the file of the engine."""

    def interrupt(self) -> None:
        """Make the call that is under way in the store's thread fail."""

    def explain(self, error: Exception) -> JournalError | None:
        """Translate what a method raised: `Unstorable`, `Disconnected`, another `JournalError`; None: it is a bug."""

    # -- decisions --

    def listed(self, seat: Seat, rows: Sequence[tuple[str, int, str | None]], listed_at: float | None) -> None:
        """Owe every pack of a listing; those that are parked stay parked."""

    def claim(self, seat: Seat, pack_id: str) -> None:
        """Allow one marking request of this pack to leave."""

    def reopen(self, seat: Seat, pack_id: str, wait: float, *, outcome_unknown: bool) -> None:
        """Owe the pack again, after `wait` seconds. `outcome_unknown`: it may have been marked meanwhile."""

    def park(
        self, seat: Seat, pack_id: str, wait: float, *, count: int, attempts: int, error: str, outcome_unknown: bool
    ) -> None:
        """Give the pack up for `wait` seconds."""

    def reopen_claims(self, seat: Seat, settle_time: float) -> int:
        """Owe the packs again that a dead process had claimed, of unknown outcome; return how many they are.

        They wait `settle_time` seconds from now. So does what waits for an unknown outcome already, if this clock may
        have been set since.
        """

    def postpone(self, seat: Seat, failed: FailedDelivery) -> None:
        """Note that the handler failed at what is new of a pack, to hand it over again."""

    def delivered(self, seat: Seat, pack_id: str) -> None:
        """Note that the handler has taken what it had failed at."""

    def dead_letter(self, seat: Seat, pack_id: str, ids: Sequence[str], error: str) -> None:
        """Keep messages that the handler failed at too often, and do not hand them over again."""

    def retry_dead_letters(self, seat: Seat) -> int:
        """Hand over all dead letters again, from now on; return how many messages they are."""

    def update_check(self, seat: Seat, check: PendingCheck) -> None:
        """Look for a notified message again later, or park it."""

    def forget_checks(self, seat: Seat, parked_for: float) -> None:
        """Forget the notified messages that were parked at least `parked_for` seconds ago."""

    # -- facts --

    def read(
        self,
        seat: Seat,
        pack_id: str,
        entries: Sequence[StoredMessage],
        status: bytes | None,
        *,
        held: bool,
        again: float | None = None,
    ) -> Stored:
        """Store all that a read showed. With the seat `held`, and only then, the pack is done too.

        With `again`, the pack stays owed, of unknown outcome, and is read once more after that many seconds. So it does
        until its second look, if it was taken over with a claim: that is a read which was claimed when it was due.
        """

    def acknowledge(self, seat: Seat, pack_id: str, ids: Sequence[str], *, held: bool) -> None:
        """Forget the bodies of messages that the consumer has. Their ids are kept for ever."""

    def found(self, seat: Seat, pack_id: str, entry: StoredMessage, named: str, *, held: bool) -> bool:
        """Store a message that was read by its id `named`, which changes nothing about what its pack owes.

        Return False if it was known.
        """

    def add_check(self, seat: Seat, message_id: str, wait: float, *, held: bool) -> bool:
        """Note that a notification named a message, to look for it after `wait` seconds if it is not known by then.

        Return False if it is known, as a message or from a notification before. Raises `TooManyChecks`.
        """

    def settle_checks(self, seat: Seat, message_ids: Sequence[str]) -> list[str]:
        """Forget the checks of those messages that are known by now; return which they are."""

    def once(self, seat: Seat, message_ids: Sequence[str], name: str) -> bool:
        """Note that what is called `name` happens for these messages; return False if it did for one of them before."""

    def undo_once(self, seat: Seat, message_ids: Sequence[str], name: str) -> None:
        """Note that what is called `name` did not happen for these messages after all."""

    # -- what there is --

    def rows(self, seat: Seat) -> list[Row]:
        """Return every pack that is not done."""

    def undelivered(self, seat: Seat) -> list[str]:
        """Return the packs with messages that were not acknowledged, in the order in which they were read."""

    def entries(self, seat: Seat, pack_id: str) -> tuple[list[StoredMessage], bytes | None]:
        """Return the messages of a pack that were not acknowledged, as they were read, and its status."""

    def pending_checks(self, seat: Seat) -> list[PendingCheck]:
        """Return the checks that are due first, first; parked ones too."""

    def failed_deliveries(self, seat: Seat) -> list[FailedDelivery]:
        """Return what is to be handed over again."""

    def dead_letters(self, seat: Seat) -> dict[str, tuple[str, str]]:
        """Return the pack and the error of each dead letter that was not acknowledged, by its message id."""

    def purge(self) -> bool:
        """Overwrite what was forgotten wherever the engine keeps copies; return False if a reader is in the way."""


class FileStore(Store, Protocol):
    """A store of one seller and one process at a time, which keeps for the next one what the budget has spent."""

    def keep_spent(self, spent: Sequence[tuple[str, float, int]]) -> None:
        """Keep how many permits of which kind come back within how many seconds, instead of what was kept before."""

    def spent(self) -> list[tuple[str, float, int]]:
        """Return what is left of what was kept."""


class SharedStore(Store, Protocol):
    """A store that several processes use at once, each as a *worker* that holds the seats of sellers.

    A worker has a lease, by the engine's clock. A seat is free if no worker holds it or its holder's lease has ended;
    taking it adds 1 to its epoch. A fact that is written without the seat rings: its holder polls for that.
    """

    def add_seller(self, seller_id: str) -> None:
        """Make a seat for a seller, if there is none."""

    def register(self, worker: str, name: str, lease: float) -> None:
        """Begin the lease of a worker: one process start. `name` is for people."""

    def renew(self, worker: str, lease: float) -> bool:
        """Make the lease end `lease` seconds from now; return False if the worker is not known any more."""

    def retire(self, worker: str) -> None:
        """End the lease of a worker at this moment."""

    def seats(self, worker: str) -> list[Held]:
        """Return the seats that a worker holds."""

    def share(self, worker: str, *, shares: bool) -> None:
        """Note whether a worker is one of those that share all sellers, as a fleet's is."""

    def count(self) -> tuple[int, int]:
        """Return how many sellers are not stopped, and how many live workers share them."""

    def take(
        self, worker: str, most: int, *, settle_time: float, second_look: float, seller_id: str | None = None
    ) -> list[Taken]:
        """Take up to `most` free seats, or that of one seller, also a stopped one; the longest not listed, first.

        What their last holder had claimed is owed again, of unknown outcome, `settle_time` seconds after the end of its
        lease; and however often it is read before, it is owed once more `second_look` seconds from now.
        """

    def release(self, worker: str, seat: Seat) -> None:
        """Give a seat back, if it is still held in this epoch."""

    def stop_seller(self, seat: Seat, reason: str) -> float:
        """Let no worker take the seat for a while, and say why; return for how many seconds.

        A decision. It is an hour, and twice as long each time, up to a day, until the seller is resumed.
        """

    def resume_seller(self, seller_id: str) -> None:
        """Let a stopped seller be taken again at once, as if it had never been stopped."""

    def sellers(self) -> list[Seller]:
        """Return every seller, in the order in which they came."""

    def remove_seller(self, seller_id: str) -> bool:
        """Forget a seller and all that is kept of it; return False if there was none."""

    def notice(self, seller_id: str, message_id: str, wait: float) -> bool:
        """As `add_check`, by a process that may hold no seat; return False if there is no such seller."""

    def ring(self, seller_id: str) -> bool:
        """Tell a seller's holder that there is news; return False if there is no such seller."""

    def claim_duty(self, name: str, every: float) -> bool:
        """Return True for one caller in `every` seconds."""

    def sweep(self) -> None:
        """Forget what is done and acknowledged, if no worker did so in the last hour."""

    def holder(self, seller_id: str) -> str | None:
        """Return the name of the live worker that holds a seller's seat; None: it is free."""

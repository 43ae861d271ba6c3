"""What a drain still owes, as a pure object: what to read next, what a listing changes, when it is over."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Final

from attrs import define

from ..errors import MessagesError, StillListed
from ..models import Message, PackFailure, UnreadListing, UnreadPack

LISTING_LAG: Final = 5.0  # seconds after which a listing that only lags has caught up [observed: integrators]
MOST_UNKNOWN_MARKS: Final = 5  # of one pack in a row, before it is parked
_MOST_REOPENINGS: Final = 10  # of a pack whose count keeps changing although nothing new is shown
_SEPARATOR: Final = "\0"


class Next(enum.Enum):
    """What follows from the new read of a pack that is listed again after its mark."""

    DELIVER = "an arrival: hand it over, then mark as always"
    MARK = "the last mark was perhaps never executed: mark again"
    MARK_PAGES = "the server marks what it returns: mark page by page"
    READ_AGAIN = "a listing that lags, or hidden messages: read once more after 5 s"
    PARK = "hidden messages, which cannot be marked"


def listed_again(*, unknown_ids: bool, outcome_unknown: bool, unread_beyond: bool, fruitless: int) -> Next:
    """Return what follows, by the decision table: the first line that fits.

    `unknown_ids`: the read showed an id that is not known. `outcome_unknown`: that of the last mark is not known.
    `unread_beyond`: a visible message of the counterparty that the mark did not reach still shows `read` null after it
    was answered. `fruitless`: how many reads before this one showed nothing of the kind.
    """
    if unknown_ids:
        return Next.DELIVER
    if outcome_unknown:
        return Next.MARK
    if unread_beyond:
        return Next.MARK_PAGES
    return Next.READ_AGAIN if fruitless == 0 else Next.PARK


class Step(enum.Enum):
    """What a drain does when there is no pack to read."""

    LIST = "ask for the unread listing"
    END = "nothing is left"
    STALLED = "parked packs fill the listing: more may be hidden behind them"


class State(enum.Enum):
    """Where a pack is on its way; the journal and the commands use the same words."""

    OPEN = "to be read, at once or when it is due"
    ISSUED = "being read, handed over or marked"
    DONE = "marked"
    PARKED = "it failed: set aside in `drain()`, tried again later in an `Inbox`"


@define(eq=False)
class Pack:
    """What a drain knows of one conversation.

    `due`: when an OPEN pack may be read; None: at once. `only_if_listed`: it is read then only if a listing shows it.
    `in_doubt`: its mark may have been executed, and it was not read since. `second_look`: when it is read once more
    although its mark was answered; before that, if a listing shows it. `total`: how many of its messages were counted
    and shown when it was last read.
    """

    pack_id: str
    count: int
    resource: str | None
    state: State = State.OPEN
    due: float | None = None
    only_if_listed: bool = False
    seen: bool = False  # it was handed over once
    outcome_unknown: bool = False  # that of its last mark
    in_doubt: bool = False
    second_look: float | None = None
    unknown_marks: int = 0
    total: int | None = None
    by_pages: bool = False  # its next read marks it page by page
    unread_offsets: tuple[int, ...] = ()
    still_unread: float = float("inf")  # messages that showed `read` null before it was marked page by page
    fruitless: int = 0  # reads that explained nothing
    reopenings: int = 0  # because its count changed, without anything new
    tries: int = 0  # that a refused pack has cost in this drain
    error: MessagesError | None = None
    _known: str = ""  # one text: a set for each of 20,000 packs would be megabytes

    @property
    def known(self) -> frozenset[str]:
        """The ids that were shown before."""
        return frozenset(self._known.split(_SEPARATOR)) if self._known else frozenset()

    def learn(self, messages: Iterable[Message]) -> tuple[Message, ...]:
        """Return those of `messages` that were not known, each once; they are known from now on."""
        known = self.known
        fresh = tuple({message.id: message for message in messages if message.id not in known}.values())
        if fresh:
            self._known = _SEPARATOR.join([*([self._known] if self._known else ()), *(message.id for message in fresh)])
        return fresh


def still_listed(pack: Pack) -> StillListed:
    """Return the error that a pack is parked with when nothing explains why it is still listed."""
    return StillListed(f"pack {pack.pack_id} was read and marked, and still counts {pack.count} unread")


def rows_by_pack(listing: UnreadListing) -> dict[str, UnreadPack]:
    """Return one row a pack, however often it is listed, and under whatever spellings: the one with the highest count.

    Which of them comes first may change from listing to listing; what a pack is known by must not.
    """
    rows: dict[str, UnreadPack] = {}
    for row in listing.packs:
        if row.pack_id not in rows or row.count > rows[row.pack_id].count:
            rows[row.pack_id] = row
    return rows


def _waits_for_second_look(pack: Pack) -> bool:
    return (
        pack.state is State.OPEN
        and not pack.only_if_listed
        and pack.second_look is not None
        and pack.due == pack.second_look
    )


def _explains_nothing(pack: Pack) -> bool:
    """Return True if nothing that it showed explained why it is listed: it is read again when its count changes."""
    return isinstance(pack.error, StillListed) or (pack.fruitless > 0 and _waits_for_second_look(pack))


class Backlog:
    """The conversations of one drain. Times are seconds of the caller's clock."""

    def __init__(self, settle_time: float) -> None:
        self._settle_time = settle_time
        self._packs: dict[str, Pack] = {}
        self._open: deque[Pack] = deque()  # those that can be read at once
        self._waiting: list[Pack] = []  # OPEN, and due later
        self._listed: frozenset[str] = frozenset()  # by the last listing
        self._length = 0  # of the last listing
        self._marked_since = False  # that listing
        self._cap = float("inf")  # the length at which listings were seen to be cut off
        self._fills = False  # the last listing may hide more than it shows
        self._idle = False  # the last listing showed nothing to do, and nothing has been done since
        self._weak = False  # the last listing came right after 429s
        self._confirmed = False  # and was asked for once more

    # -- what is to be done --

    def issue(self, now: float) -> Pack | None:
        """Return the next pack to read, which is the caller's until it says what became of it, or None."""
        for pack in self._waiting:
            if not pack.only_if_listed and pack.due is not None and pack.due <= now:
                if _waits_for_second_look(pack):
                    pack.fruitless = 0  # that it shows nothing is what is expected, and no reason to park it
                self._waiting.remove(pack)
                self.reopen(pack)
                break
        if not self._open:
            return None
        pack = self._open.popleft()
        pack.state = State.ISSUED
        self._idle = self._confirmed = False
        return pack

    def step(self, now: float) -> Step | float:
        """Return what to do when no pack is issued and none can be: a `Step`, or a moment to wait until."""
        if not self._idle:
            return Step.LIST
        if self._waiting:
            due = min(pack.due or 0.0 for pack in self._waiting)
            return due if due > now else Step.LIST
        if self._weak and not self._confirmed:
            self._confirmed = True
            return Step.LIST
        return Step.STALLED if self._fills else Step.END

    def next_read(self, now: float) -> float | None:
        """Return the first moment after `now` at which a pack can be issued that waits by then; None: there is none."""
        due = [pack.due for pack in self._waiting if not pack.only_if_listed and pack.due is not None]
        return min((moment for moment in due if moment > now), default=None)

    def start_drain(self) -> None:
        """Begin a drain: it asks for a listing of its own, and tries every pack anew."""
        self._idle = self._confirmed = False
        for pack in self._packs.values():
            pack.tries = pack.reopenings = 0

    def forget_done(self) -> None:
        """Forget the packs that are marked and not listed any more; called directly after `listed`.

        A service that drains for months must not keep them all. Where the listing may hide some, none is forgotten.
        """
        if not self._fills:
            self._packs = {id_: pack for id_, pack in self._packs.items() if pack.state is not State.DONE}

    def restore(self, pack: Pack, *, due: float | None = None) -> None:
        """Take in an open pack of a journal; `due`: when it may be read."""
        self._packs[pack.pack_id] = pack
        self.reopen(pack, due)

    def restore_parked(self, pack: Pack, error: MessagesError) -> None:
        """Take in a parked pack of a journal."""
        self._packs[pack.pack_id] = pack
        self.park(pack, error)

    # -- what is known --

    def state(self, pack_id: str) -> State | None:
        """Return where a pack is on its way; None: it was never listed."""
        pack = self._packs.get(pack_id)
        return None if pack is None else pack.state

    def only_if_listed(self, pack_id: str) -> bool:
        """Return True if a pack was read and marked, and is read once more only if a listing goes on showing it."""
        pack = self._packs.get(pack_id)
        return pack is not None and pack.state is State.OPEN and pack.only_if_listed

    @property
    def owed(self) -> int:
        """How many packs are still to be read or marked."""
        return sum(
            pack.state is State.ISSUED
            or (pack.state is State.OPEN and not (pack.only_if_listed and pack.second_look is None))
            for pack in self._packs.values()
        )

    @property
    def waits_until(self) -> float | None:
        """When the last of the `waiting` is due."""
        return max((pack.due or 0.0 for pack in self._waiting if pack.outcome_unknown), default=None)

    @property
    def waiting(self) -> int:
        """How many packs wait because the outcome of their mark is unknown."""
        return sum(pack.outcome_unknown for pack in self._waiting)

    @property
    def in_doubt(self) -> tuple[str, ...]:
        """The packs whose mark may have been executed, and which were not read since."""
        return tuple(pack.pack_id for pack in self._packs.values() if pack.in_doubt)

    @property
    def parked(self) -> tuple[PackFailure, ...]:
        """The packs that failed, and why."""
        return tuple(
            PackFailure(pack.pack_id, pack.error)
            for pack in self._packs.values()
            if pack.state is State.PARKED and pack.error is not None
        )

    # -- what a listing says --

    def listed(self, listing: UnreadListing, now: float, *, throttled: bool = False) -> None:
        """Take in a listing that was sent when no pack was issued.

        `throttled`: it came right after 429s. Such a server was seen to answer that there is nothing, so one more
        listing confirms it.
        """
        rows = rows_by_pack(listing)
        self._learn_cap(listing, rows)
        self._weak = throttled or (listing.capped and not rows)
        self._listed, self._length, self._marked_since = frozenset(rows), len(listing.packs), False
        for pack in [pack for pack in self._waiting if pack.only_if_listed]:
            if pack.pack_id not in rows:
                self._waiting.remove(pack)
                self._done(pack)
            elif pack.due is not None and pack.due <= now:
                self._waiting.remove(pack)
                self.reopen(pack)
        for row in rows.values():
            if row.pack_id in self._packs:
                self._listed_again(self._packs[row.pack_id], row.count)
            else:
                self.restore(Pack(row.pack_id, row.count, row.resource))
        if not self._fills:
            for pack in self._packs.values():
                if _explains_nothing(pack) and pack.pack_id not in rows:
                    pack.count = 0  # so that it opens again when it is listed again
        self._idle = not self._open

    def _learn_cap(self, listing: UnreadListing, rows: dict[str, UnreadPack]) -> None:
        if self._marked_since and len(listing.packs) == self._length and not rows.keys() <= self._listed:
            # As long as the one before although packs were marked and others took their places: it is cut off there.
            self._cap = len(listing.packs)
        elif len(listing.packs) > self._cap:
            self._cap = float("inf")  # it was a coincidence
        self._fills = listing.capped or len(listing.packs) >= self._cap

    def _listed_again(self, pack: Pack, count: int) -> None:
        if pack.state is State.DONE or (_waits_for_second_look(pack) and not pack.fruitless):
            self._reopen_at_once(pack)
        elif _explains_nothing(pack) and count != pack.count:
            pack.reopenings += 1
            if pack.reopenings <= _MOST_REOPENINGS:
                self._reopen_at_once(pack)
        pack.count = count

    def _reopen_at_once(self, pack: Pack) -> None:
        if pack in self._waiting:
            self._waiting.remove(pack)
        pack.fruitless = 0
        self.reopen(pack)

    # -- what became of a pack that was issued --

    def marked(self, pack: Pack, *, more: bool = False) -> None:
        """Note that its mark was answered. `more`: and showed what it did not mark, so that the pack stays issued."""
        pack.outcome_unknown = pack.in_doubt = False
        pack.unknown_marks = 0
        self._marked_since = True
        if more:
            pack.state = State.ISSUED
        else:
            self._done(pack)

    def wait_for_second_look(self, pack: Pack) -> None:
        """Have it read once more when its second look is due, and before that only if its count changes."""
        pack.fruitless += 1
        self._done(pack)

    def _done(self, pack: Pack) -> None:
        if pack.second_look is None:
            pack.state = State.DONE
        else:
            pack.outcome_unknown = True  # that of a request which another worker may still send
            self.reopen(pack, pack.second_look)

    def wait_for_outcome(self, pack: Pack, error: MessagesError, now: float) -> None:
        """Have it read again when its mark can no longer be executed; after the fifth time it is parked.

        The same where that read fails: while the mark may have been executed, the pack is not merely one that failed.
        """
        pack.outcome_unknown = pack.in_doubt = True
        pack.unknown_marks += 1
        if pack.unknown_marks > MOST_UNKNOWN_MARKS:
            self.park(pack, error)
        else:
            self.reopen(pack, now + self._settle_time)

    def reopen(self, pack: Pack, due: float | None = None) -> None:
        """Have it read again, at once or when it is `due`."""
        pack.state, pack.due, pack.only_if_listed, pack.error = State.OPEN, due, False, None
        if due is None:
            self._open.append(pack)
        else:
            self._waiting.append(pack)

    def reopen_if_listed(self, pack: Pack, now: float) -> None:
        """Have it read once more if it is still listed in 5 s: nothing that it showed explains why it is."""
        pack.fruitless += 1
        self.reopen(pack, now + LISTING_LAG)
        pack.only_if_listed = True

    def park(self, pack: Pack, error: MessagesError) -> None:
        """Give it up for now; the rest goes on."""
        pack.state = State.PARKED
        pack.error = error

"""What a drain still owes, as a pure object: what to look at next, what a listing changes, when it is over."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Final

from attrs import define

from ..errors import MessagesError, StillListed
from ..models import Message, PackFailure, UnreadListing, UnreadPack

LISTING_LAG: Final = 5.0  # seconds after which a listing that only lags has caught up [observed: up to 5]
_MOST_UNKNOWN_MARKS: Final = 5
_MOST_REOPENINGS: Final = 10  # of a pack whose count keeps changing although nothing new is shown
_SEPARATOR: Final = "\0"


class Next(enum.Enum):
    """What the new look at a pack that is listed again after its mark asks for."""

    DELIVER = "an arrival: hand it over, then mark as always"
    MARK = "the last mark was perhaps never executed: mark again"
    MARK_PAGES = "the server marks what it returns: mark page by page"
    LOOK_AGAIN = "a lagging listing, or hidden messages: look once more after 5 s"
    SET_ASIDE = "hidden messages, which nobody can clear"


def listed_again(*, unknown_ids: bool, mark_unknown: bool, unread_beyond: bool, fruitless: int) -> Next:
    """The decision table: the first line that fits.

    `unknown_ids`: the look showed an id that is not known. `mark_unknown`: the outcome of the last mark is not known.
    `unread_beyond`: a visible message of the counterparty that the mark did not reach still shows `read` null after it
    was answered. `fruitless`: how many looks before this one showed nothing of the kind.
    """
    if unknown_ids:
        return Next.DELIVER
    if mark_unknown:
        return Next.MARK
    if unread_beyond:
        return Next.MARK_PAGES
    return Next.LOOK_AGAIN if fruitless == 0 else Next.SET_ASIDE


class Step(enum.Enum):
    """What a drain does when there is no pack to look at."""

    LIST = "ask for the unread listing"
    END = "nothing is left"
    STALLED = "packs that were set aside fill the listing: more may be hidden behind them"


class State(enum.Enum):
    """Where a pack is on its way."""

    OPEN = "to be looked at"
    TAKEN = "being read, handed over or marked"
    WAITING = "a mark may still be executed: looked at again when that is over"
    LAGGING = "listed again without anything new: looked at again after 5 s, if it is still listed"
    DONE = "marked"
    SET_ASIDE = "failed"


@define(eq=False)
class Pack:
    """What a drain knows of one conversation.

    `due`: when it may be looked at again (WAITING, LAGGING). `in_doubt`: its mark may have been executed, and it was
    not read since.
    """

    pack_id: str
    count: int
    resource: str | None
    state: State = State.OPEN
    due: float = 0.0
    seen: bool = False  # it was handed over once
    mark_unknown: bool = False
    in_doubt: bool = False
    unknown_marks: int = 0
    total: int | None = None  # messages that it counted when it was last read
    reopenings: int = 0  # because its count changed, without anything new
    by_pages: bool = False  # its next look marks it page by page
    unread_offsets: tuple[int, ...] = ()
    still_unread: float = float("inf")  # messages that showed `read` null before it was marked page by page
    fruitless: int = 0
    tries: int = 0  # that a refused pack has cost in this drain
    error: MessagesError | None = None
    _known: str = ""  # one text: a set for each of 20,000 packs would be megabytes

    @property
    def known(self) -> frozenset[str]:
        """The ids that were handed over."""
        return frozenset(self._known.split(_SEPARATOR)) if self._known else frozenset()

    def learn(self, messages: Iterable[Message]) -> tuple[Message, ...]:
        """Those of `messages` that were not known, each once; they are known now."""
        known = self.known
        fresh = tuple({message.id: message for message in messages if message.id not in known}.values())
        if fresh:
            self._known = _SEPARATOR.join([*([self._known] if self._known else ()), *(message.id for message in fresh)])
        return fresh


def still_listed(pack: Pack) -> StillListed:
    """The error that a pack is set aside with when nothing explains why it is still listed."""
    return StillListed(f"pack {pack.pack_id} was read and marked, and still counts {pack.count} unread")


def rows_by_pack(listing: UnreadListing) -> dict[str, UnreadPack]:
    """One row a pack, however often it is listed, and under whatever spellings: the one with the highest count.

    Which of them comes first may change from listing to listing; what a pack is known by must not.
    """
    rows: dict[str, UnreadPack] = {}
    for row in listing.packs:
        if row.pack_id not in rows or row.count > rows[row.pack_id].count:
            rows[row.pack_id] = row
    return rows


class Backlog:
    """The conversations of one drain. Times are seconds of the caller's clock."""

    def __init__(self, settle_time: float) -> None:
        self._settle_time = settle_time
        self._packs: dict[str, Pack] = {}
        self._open: deque[Pack] = deque()
        self._delayed: list[Pack] = []  # WAITING or LAGGING
        self._listed: frozenset[str] = frozenset()  # by the last listing
        self._length = 0  # of the last listing
        self._marked_since = False  # that listing
        self._cap = float("inf")  # the length at which listings were seen to be cut off
        self._fills = False  # the last listing may hide more than it shows
        self._idle = False  # the last listing showed nothing to do, and nothing has been done since
        self._doubtful = False  # the last listing came right after 429s
        self._confirmed = False  # it was asked once more

    # -- what is to be done --

    def take(self, now: float) -> Pack | None:
        """The next pack to look at, which is the caller's until it says what became of it; None: there is none at this
        moment.
        """
        for pack in self._delayed:
            if pack.state is State.WAITING and pack.due <= now:
                self._delayed.remove(pack)
                self.reopen(pack)
                break
        if not self._open:
            return None
        pack = self._open.popleft()
        pack.state = State.TAKEN
        self._idle = self._confirmed = False
        return pack

    def step(self, now: float) -> Step | float:
        """What to do when no pack is taken and none can be: a `Step`, or a moment to sleep until."""
        if not self._idle:
            return Step.LIST
        if self._delayed:
            due = min(pack.due for pack in self._delayed)
            return due if due > now else Step.LIST
        if self._doubtful and not self._confirmed:
            self._confirmed = True
            return Step.LIST
        return Step.STALLED if self._fills else Step.END

    def begin(self) -> None:
        """A drain begins: it asks for a listing of its own, and tries every pack anew."""
        self._idle = self._confirmed = False
        for pack in self._packs.values():
            pack.tries = pack.reopenings = 0

    def forget_done(self) -> None:
        """Forget the packs that are marked, when `step` has said `Step.END`: none of them is listed any more, and
        whoever drains for months must not keep them all.
        """
        self._packs = {id_: pack for id_, pack in self._packs.items() if pack.state is not State.DONE}

    def restore(self, pack: Pack, state: State, due: float = 0.0, error: MessagesError | None = None) -> None:
        """Take a pack in that somebody has known before: OPEN, WAITING until `due`, or SET_ASIDE with an `error`."""
        self._packs[pack.pack_id] = pack
        if state is State.OPEN:
            self.reopen(pack)
        elif state is State.WAITING:
            self._delay(pack, state, due)
        else:
            pack.state, pack.error = state, error

    def state(self, pack_id: str) -> State | None:
        """Where a pack is on its way; None: it was never listed."""
        pack = self._packs.get(pack_id)
        return None if pack is None else pack.state

    @property
    def owed(self) -> int:
        """How many packs are still to be looked at or marked."""
        return sum(pack.state not in (State.DONE, State.LAGGING, State.SET_ASIDE) for pack in self._packs.values())

    @property
    def waits_until(self) -> float | None:
        """When the last of the `waiting` is due."""
        return max((pack.due for pack in self._delayed if pack.mark_unknown), default=None)

    @property
    def waiting(self) -> int:
        """How many packs wait for a mark of unknown outcome."""
        return sum(pack.mark_unknown for pack in self._delayed)

    @property
    def in_doubt(self) -> tuple[str, ...]:
        """The packs whose mark may have been executed, and which were not read since."""
        return tuple(pack.pack_id for pack in self._packs.values() if pack.in_doubt)

    @property
    def set_aside(self) -> tuple[PackFailure, ...]:
        """The packs that failed, and why."""
        return tuple(
            PackFailure(pack.pack_id, pack.error)
            for pack in self._packs.values()
            if pack.state is State.SET_ASIDE and pack.error is not None
        )

    # -- what became of it --

    def listed(self, listing: UnreadListing, now: float, *, doubtful: bool = False) -> None:
        """Take a listing in that was sent when no pack was taken.

        `doubtful`: it came right after 429s. A throttled server was seen to answer that there is nothing, so one more
        confirms it.
        """
        rows = rows_by_pack(listing)
        if self._marked_since and len(listing.packs) == self._length and not rows.keys() <= self._listed:
            # As long as the one before although packs were marked and others took their places: it is cut off there.
            self._cap = len(listing.packs)
        elif len(listing.packs) > self._cap:
            self._cap = float("inf")  # it was a coincidence
        self._fills = listing.capped or len(listing.packs) >= self._cap
        self._doubtful = doubtful or (listing.capped and not rows)
        self._listed, self._length, self._marked_since = frozenset(rows), len(listing.packs), False
        for pack in [pack for pack in self._delayed if pack.state is State.LAGGING]:
            if pack.pack_id not in rows:
                self._delayed.remove(pack)
                pack.state = State.DONE
            elif pack.due <= now:
                self._delayed.remove(pack)
                self.reopen(pack)
        for row in rows.values():
            if row.pack_id not in self._packs:
                self._packs[row.pack_id] = Pack(row.pack_id, row.count, row.resource)
                self._open.append(self._packs[row.pack_id])
                continue
            pack = self._packs[row.pack_id]
            if pack.state is State.DONE:
                pack.fruitless = 0
                self.reopen(pack)
            elif isinstance(pack.error, StillListed) and row.count != pack.count:
                pack.reopenings += 1
                if pack.reopenings <= _MOST_REOPENINGS:
                    pack.fruitless = 0
                    self.reopen(pack)
            pack.count = row.count
        if not self._fills:
            for pack in self._packs.values():
                if isinstance(pack.error, StillListed) and pack.pack_id not in rows:
                    pack.count = 0  # so that it opens again when it is listed again
        self._idle = not self._open

    def marked(self, pack: Pack, *, more: bool = False) -> None:
        """Its mark was answered. `more`: and showed what it did not mark, so that the pack stays taken."""
        pack.state = State.TAKEN if more else State.DONE
        pack.mark_unknown = pack.in_doubt = False
        pack.unknown_marks = 0
        self._marked_since = True

    def mark_unknown(self, pack: Pack, error: MessagesError, now: float) -> None:
        """Its mark may have been executed, or may yet be: it is looked at again when that is over, but not for ever.

        The same where that look fails: while the mark may have been executed, the pack is not merely one that failed.
        """
        pack.mark_unknown = pack.in_doubt = True
        pack.unknown_marks += 1
        if pack.unknown_marks > _MOST_UNKNOWN_MARKS:
            self.failed(pack, error)
        else:
            self._delay(pack, State.WAITING, now + self._settle_time)

    def again(self, pack: Pack, due: float) -> None:
        """It is looked at again, at `due`: it may be there by then."""
        self._delay(pack, State.WAITING, due)

    def lagging(self, pack: Pack, now: float) -> None:
        """A look showed nothing that explains why it is listed again."""
        pack.fruitless += 1
        self._delay(pack, State.LAGGING, now + LISTING_LAG)

    def failed(self, pack: Pack, error: MessagesError) -> None:
        """It is set aside; the rest goes on."""
        pack.state = State.SET_ASIDE
        pack.error = error

    def _delay(self, pack: Pack, state: State, due: float) -> None:
        pack.state = state
        pack.due = due
        self._delayed.append(pack)

    def reopen(self, pack: Pack) -> None:
        """It is looked at again, at once."""
        pack.state = State.OPEN
        pack.error = None
        self._open.append(pack)

"""One seller's conversations: who has written and read what, and what a listing knows of it. No I/O, no JSON."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, takewhile
from typing import Literal

import attrs

from .calendar import Calendar
from .packs import LIMITED, Guide, Pack, Sender

Action = Literal["created", "read"]
"""What a notification tells of a message."""

FIRST_PACK = 2000000000000001
_FIRST_BUYER = 800300001
_SECONDS_BETWEEN_SEEDED = 60.0
_REMEMBERED = 3600.0  # seconds for which a stale answer can still be given


@attrs.define(eq=False)
class Thread:
    """One conversation between the seller and a buyer."""

    pack_id: str
    buyer_id: int
    buyer_name: str
    site_id: str
    status: str
    substatus: str | None
    messages: list[StoredMessage] = attrs.field(factory=list)
    """Oldest first."""
    unread: int = 0
    """How many of the buyer's messages are unread, the hidden ones too."""
    hidden: int = 0
    """How many messages moderation hides."""
    agent_id: int | None = None
    """The agent that speaks for the buyer."""
    guide: Guide | None = None

    @property
    def visible(self) -> list[StoredMessage]:
        """The messages that a read can return, oldest first."""
        return [message for message in self.messages if not message.hidden] if self.hidden else self.messages


@attrs.define(eq=False)
class StoredMessage:
    """One message; its times are dates, in seconds since 1970."""

    id: str
    thread: Thread
    text: str
    from_buyer: bool
    created: float
    read: float | None
    hidden: bool = False
    overrides: Mapping[str, object] | None = None
    stored: float = 0.0
    """When the server stored it: later than `created` where it was held back."""


@attrs.frozen
class _Change:
    at: float
    thread: Thread
    count_before: int


@attrs.frozen
class _Hiding:
    at: float
    message: StoredMessage
    hidden_before: bool


class Conversations:
    """The conversations of one seller, changed by buyers, by the seller and by marking reads.

    `lag`: seconds by which the listing is behind. `numbers` counts messages, over all sellers of a sandbox, so that
    ids differ; `first_pack` is the id of the first conversation that names none.
    """

    def __init__(
        self,
        packs: Iterable[Pack],
        *,
        calendar: Calendar,
        lag: float = 0.0,
        numbers: Iterator[int] | None = None,
        first_pack: int = FIRST_PACK,
    ) -> None:
        self._lag = lag
        self._calendar = calendar
        self._numbers = itertools.count() if numbers is None else numbers
        self._first_pack = first_pack
        self._threads: dict[str, Thread] = {}
        self._messages: dict[str, StoredMessage] = {}
        self._unread: dict[Thread, None] = {}  # in the order of their latest arrival
        self._changes: deque[_Change] = deque()
        self._hidings: deque[_Hiding] = deque()
        self._marked: set[str] = set()
        self._shuffle = random.Random(0)
        self.listeners: list[Callable[[Action, StoredMessage], None]] = []
        """Called when a buyer's message arrives, and when one is read."""
        for pack in packs:
            self._open(pack, newest=calendar.begins - _SECONDS_BETWEEN_SEEDED)

    def begin(self, pack: Pack) -> Thread:
        """Let a conversation begin now; its unread messages are told. ValueError: its id is taken."""
        today = self._calendar.today
        thread = self._open(pack, newest=today)
        self._changes.append(_Change(self._calendar.now, thread, 0))
        for message in thread.messages:
            message.stored = today
            if message.from_buyer and message.read is None:
                self._tell("created", message)
        return thread

    def _open(self, pack: Pack, *, newest: float) -> Thread:
        number = len(self._threads)
        pack_id = str(self._first_pack + number if pack.pack_id is None else pack.pack_id)
        if pack_id in self._threads:
            raise ValueError(f"pack {pack_id} is there twice")
        buyer_id = _FIRST_BUYER + number if pack.buyer_id is None else pack.buyer_id
        name = f"Test Buyer {number + 1}" if pack.buyer_name is None else pack.buyer_name
        thread = Thread(pack_id, buyer_id, name, pack.site_id, pack.status, pack.substatus)
        thread.agent_id, thread.guide = pack.agent_id, pack.guide
        if thread.guide == "limited" and thread.status == "active":
            thread.status, thread.substatus = "blocked", LIMITED
        self._threads[pack_id] = thread
        written = pack.written()
        for age, message in zip(range(len(written) - 1, -1, -1), written, strict=True):
            created = newest - age * _SECONDS_BETWEEN_SEEDED
            if message.age is not None:
                created = self._calendar.today - message.age
            self._store(
                thread,
                message.text,
                message.sender,
                created,
                read=created + 1.0 if message.read else None,
                hidden=message.hidden,
                overrides=message.overrides,
            )
        return thread

    # -- what happens

    def send(
        self, pack_id: str, text: str, sender: Sender, overrides: Mapping[str, object], *, age: float = 0.0
    ) -> str:
        """Add a message that arrives now, with a date `age` seconds back; return its id."""
        return self.write(self.thread(pack_id), text, sender, overrides, age=age).id

    def write(
        self,
        thread: Thread,
        text: str,
        sender: Sender,
        overrides: Mapping[str, object],
        *,
        age: float = 0.0,
    ) -> StoredMessage:
        """Add a message that arrives now, with a date `age` seconds back."""
        self._remember(thread)
        created = self._calendar.today - age
        message = self._store(thread, text, sender, created, read=None, hidden=False, overrides=overrides)
        message.stored = self._calendar.today
        if message.from_buyer:
            self._tell("created", message)
        return message

    def _tell(self, action: Action, message: StoredMessage) -> None:
        for listener in self.listeners:
            listener(action, message)

    def hide(self, message_id: str) -> None:
        """Moderate a message away: no read returns or marks it, and `count` keeps counting it."""
        self._hide(message_id, hidden=True)

    def reveal(self, message_id: str) -> None:
        """Let a hidden message through, at its old place."""
        self._hide(message_id, hidden=False)

    def _hide(self, message_id: str, *, hidden: bool) -> None:
        message = self._messages.get(message_id)
        if message is None:
            raise LookupError(f"no message {message_id} in this sandbox")
        self._hidings.append(_Hiding(self._calendar.today, message, message.hidden))
        message.thread.hidden += hidden - message.hidden
        message.hidden = hidden

    def mark(self, messages: Iterable[StoredMessage]) -> list[str]:
        """Mark the visible ones of the buyer as read; return the ids of those that were unread."""
        now = self._calendar.today
        marked = []
        for message in messages:
            if message.from_buyer and message.read is None and not message.hidden:
                thread = message.thread
                self._remember(thread)
                message.read = now
                thread.unread -= 1
                if not thread.unread:
                    del self._unread[thread]
                marked.append(message.id)
                self._tell("read", message)
        return marked

    def mark_by_reading(self, messages: Iterable[StoredMessage]) -> None:
        """Mark them as the side effect of a GET, and remember them for `marked_ids`."""
        self._marked.update(self.mark(messages))

    # -- what is seen

    def thread(self, pack_id: str) -> Thread:
        """Return the conversation; LookupError where there is none."""
        try:
            return self._threads[pack_id]
        except KeyError:
            raise LookupError(f"no pack {pack_id} in this sandbox") from None

    def find_thread(self, pack_id: str) -> Thread | None:
        """Return the conversation, or None."""
        return self._threads.get(pack_id)

    def has_message(self, message_id: str) -> bool:
        """Whether the message is there, visible or hidden."""
        return message_id in self._messages

    def find_message(self, message_id: str, *, lag: float = 0.0) -> StoredMessage | None:
        """Return the message, or None where no read may show it, or could show it `lag` seconds ago."""
        message = self._messages.get(message_id)
        return message if message is not None and message in self.visible(message.thread, lag) else None

    def visible(self, thread: Thread, lag: float = 0.0) -> list[StoredMessage]:
        """Return the messages that a read can show, or could show `lag` seconds ago; oldest first."""
        if not lag:
            return thread.visible
        then = self._calendar.today - lag
        hidden_then: dict[str, bool] = {}
        for hiding in self._hidings:
            if hiding.at > then:
                hidden_then.setdefault(hiding.message.id, hiding.hidden_before)
        return [m for m in thread.messages if m.stored <= then and not hidden_then.get(m.id, m.hidden)]

    def listing(self, *, cap: int | None, order: str, lag: float | None = None) -> tuple[list[tuple[Thread, int]], int]:
        """Return the unread conversations with their counts, at most `cap` of them, and how many there are in all.

        They are as they were `lag` seconds ago; None: by the lag that listings always have.
        """
        lag = self._lag if lag is None else lag
        if not lag and order != "shuffled":
            threads = reversed(self._unread) if order == "newest" else iter(self._unread)
            return [(thread, thread.unread) for thread in islice(threads, cap)], len(self._unread)
        then = self._counts_before(self._calendar.now - lag)
        gone = [thread for thread in then if thread not in self._unread]
        rows = [(thread, then.get(thread, thread.unread)) for thread in [*gone, *self._unread]]
        rows = [(thread, count) for thread, count in rows if count]
        if order == "shuffled":
            self._shuffle.shuffle(rows)
        elif order == "newest":
            rows.reverse()
        return rows[:cap], len(rows)

    def unread_conversations(self) -> int:
        """Return how many conversations hold something unread, visible or hidden."""
        return len(self._unread)

    def unread_ids(self) -> set[str]:
        """Return the buyers' messages that are unread, visible or hidden."""
        return {m.id for thread in self._unread for m in thread.messages if m.from_buyer and m.read is None}

    def marked_ids(self) -> set[str]:
        """Return the buyers' messages that are read because of a marking GET."""
        return set(self._marked)

    def message_ids(self) -> set[str]:
        """Return the ids of every message."""
        return set(self._messages)

    def pack_ids(self) -> list[str]:
        """Return the ids of every conversation, in the order of creation."""
        return list(self._threads)

    # -- inside

    def _store(
        self,
        thread: Thread,
        text: str,
        sender: Sender,
        created: float,
        *,
        read: float | None,
        hidden: bool,
        overrides: Mapping[str, object],
    ) -> StoredMessage:
        message_id = overrides.get("id") if overrides else None
        if not isinstance(message_id, str):
            # like real ids: 12 hex digits of milliseconds, then a number that keeps them apart and in order
            message_id = f"{int(created * 1000):012x}7000{0x8000000000000000 + next(self._numbers):016x}"
        if message_id in self._messages:
            raise ValueError(f"message {message_id} is there twice")
        from_buyer = sender == "buyer"
        message = StoredMessage(message_id, thread, text, from_buyer, created, read, hidden, overrides or None)
        self._messages[message_id] = message
        thread.messages.insert(bisect_right(thread.messages, created, key=_created), message)
        thread.hidden += hidden
        if from_buyer and thread.guide == "limited":  # from here on it is a conversation like any other
            thread.guide = None
            if thread.substatus == LIMITED:
                thread.status, thread.substatus = "active", None
        if from_buyer and read is None:
            thread.unread += 1
            self._unread.pop(thread, None)
            self._unread[thread] = None
        return message

    def _remember(self, thread: Thread) -> None:
        now = self._calendar.now
        self._changes.append(_Change(now, thread, thread.unread))
        while self._changes[0].at < now - max(self._lag, _REMEMBERED):
            self._changes.popleft()

    def _counts_before(self, moment: float) -> dict[Thread, int]:
        since = list(takewhile(lambda change: change.at > moment, reversed(self._changes)))
        then: dict[Thread, int] = {}
        for change in reversed(since):
            then.setdefault(change.thread, change.count_before)
        return then


def _created(message: StoredMessage) -> float:
    return message.created

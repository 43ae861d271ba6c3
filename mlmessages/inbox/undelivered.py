"""Messages that are stored and not acknowledged: what is handed over next, in order, and nothing twice."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from attrs import evolve, frozen

from ..api import decoding
from ..api.paging import newest_first
from ..errors import DecodeError
from ..events import DeliveryEvent, Events
from ..failpoints import failpoint
from ..journal.journal import Journal
from ..journal.store import StoredMessage
from ..models import ConversationStatus, Message

T = TypeVar("T")
_log: Final = logging.getLogger("mlmessages")


@frozen
class NewMessages:
    """What is new of one pack, oldest first. `unread`: the ids that `Delivery.unread` names."""

    pack_id: str
    messages: tuple[Message, ...]
    unread: frozenset[str]
    status: ConversationStatus | None
    redelivered: bool = False

    @property
    def ids(self) -> list[str]:
        """The ids of the messages, oldest first."""
        return [message.id for message in self.messages]

    def only(self, wanted: Callable[[str], bool]) -> NewMessages | None:
        """Return this with the messages whose ids are wanted; None where there is none."""
        messages = tuple(message for message in self.messages if wanted(message.id))
        return evolve(self, messages=messages) if messages else None


def _never(_: str) -> bool:
    return False


class Undelivered:
    """The deliveries of one inbox, from storage to acknowledgement.

    They come from memory, as they were read just now (`just_read`), or are rebuilt from the journal: what an earlier
    process left (`left_over`), what waits behind a delivery of the same pack, and what a handler failed at. A rebuilt
    delivery takes everything along that is stored of its pack by then, so that what is in memory is checked against the
    journal before it is handed over as well.
    """

    def __init__(self, journal: Journal, seller_id: str, events: Events) -> None:
        self.seller_id: Final = seller_id
        self.events: Final = events
        self.conversations = self.messages = 0  # that were handed over so far
        self._journal = journal
        self._ready: deque[NewMessages] = deque()
        # Packs whose stored messages come from the journal; True: they may have been handed over before.
        self._left_over: dict[str, bool] = {}
        self._handed: set[str] = set()  # ids that were handed over in this process and are not acknowledged
        self._failed: set[str] = set()  # those of them that the handler of a service failed at
        self._rebuilt: set[str] = set()  # packs of which a delivery came from the journal

    # -- what is stored --

    async def recover(self) -> None:
        """Take up what earlier processes stored and did not get acknowledged. Raises `JournalError`."""
        self._left_over.update(dict.fromkeys(await self._journal.undelivered(), True))

    async def reload(self) -> None:
        """Take up what other processes have stored meanwhile. Raises `JournalError`."""
        for pack_id in await self._journal.undelivered():
            self._left_over.setdefault(pack_id, False)  # what is known here is left out when it is its turn

    def add(self, news: NewMessages) -> None:
        """Take in what was read and stored just now."""
        self._ready.append(news)

    @property
    def read_ahead(self) -> int:
        """How many deliveries are ready in memory."""
        return len(self._ready)

    # -- what is handed over --

    async def left_over(self, waits: Callable[[str], bool] = _never) -> NewMessages | None:
        """Return the next delivery that comes from the journal, or None. A pack for which `waits` is true stays."""
        while True:
            pack_id = next((pack_id for pack_id in self._left_over if not waits(pack_id)), None)
            if pack_id is None:
                return None
            news = await self.stored(pack_id)
            redelivered = self._left_over.pop(pack_id, False)  # not before: a caller may be cancelled at the await
            if news is not None:
                return evolve(news, redelivered=redelivered)

    async def just_read(self, waits: Callable[[str], bool] = _never) -> NewMessages | None:
        """Return the next delivery of what this process has read, or None.

        Where `waits` is true for its pack, it comes from the journal later, together with what came before it.
        """
        while self._ready:
            news = self._ready[0]
            owed = None if waits(news.pack_id) else await self._still_owed(news)
            self._ready.popleft()
            if owed is not None:
                return owed
            if waits(news.pack_id):
                self._left_over.setdefault(news.pack_id, False)
        return None

    async def _still_owed(self, news: NewMessages) -> NewMessages | None:
        """Leave out what a rebuilt delivery of the pack has taken along."""
        if news.pack_id not in self._rebuilt:
            return news
        entries, _ = await self._journal.entries(news.pack_id)
        owed = {entry.id for entry in entries} - self._handed
        return news.only(owed.__contains__)

    async def stored(self, pack_id: str, *, again: bool = False) -> NewMessages | None:
        """Rebuild a delivery from the journal: all of a pack that is to be handed over, oldest first; None: nothing is.

        What was handed over in this process and is not acknowledged is left out; with `again`, only as far as the
        handler has not failed at it. Raises `JournalError`.
        """
        entries, status = await self._journal.entries(pack_id)
        handed = self._handed - self._failed if again else self._handed
        owed = [entry for entry in entries if entry.id not in handed]
        if not owed:
            return None
        self._rebuilt.add(pack_id)
        # Several reads may have stored them, in another order than that of the messages.
        readable = [message for entry in reversed(owed) if (message := self._decoded(pack_id, entry)) is not None]
        messages = newest_first(readable)[::-1]
        if not messages:
            return None
        unread = frozenset(entry.id for entry in owed if entry.unread)
        return NewMessages(pack_id, messages, unread, decoding.load_status(status), redelivered=again)

    def _decoded(self, pack_id: str, entry: StoredMessage) -> Message | None:
        """Return the message that was stored; None, with a warning, where its bytes are damaged: the others go on."""
        try:
            return decoding.stored_message(entry.raw, pack_id)
        except DecodeError:
            _log.warning("a stored message of pack %s cannot be read, and stays in the journal: %s", pack_id, entry.id)
            self._handed.add(entry.id)
            return None

    # -- what became of it --

    def record(self, news: NewMessages, attempt: int = 1) -> None:
        """Count a delivery that is handed over now, for the `attempt`-th time."""
        if attempt == 1:
            self.conversations += 1
            self.messages += len(news.messages)
        self._handed.update(news.ids)
        failpoint("delivered")
        self.events.emit(DeliveryEvent(news.pack_id, len(news.messages), news.redelivered, attempt))

    async def acknowledge(self, news: NewMessages) -> None:
        """Forget what the consumer has: it is on the disk when this returns. Raises `JournalError`."""
        await self._journal.acknowledge(news.pack_id, news.ids)
        self._handed.difference_update(news.ids)
        self._failed.difference_update(news.ids)
        failpoint("acknowledged")

    async def once(self, news: NewMessages, name: str) -> bool:
        """Note that `name` happens for these messages; False: it did for one of them before. Raises `JournalError`."""
        return await self._journal.once(news.ids, name)

    async def undo_once(self, news: NewMessages, name: str) -> None:
        """Note that `name` did not happen for these messages after all. Raises `JournalError`."""
        await self._journal.undo_once(news.ids, name)

    def mark_failed(self, news: NewMessages) -> None:
        """Let the service hand over again what its handler failed at; a drain of this process does not."""
        self._failed.update(news.ids)

    def cut_off(self, news: NewMessages, *, begun: bool) -> None:
        """Hand over again what the handler was not given the time to finish; with `begun` false, not even to begin."""
        self._handed.difference_update(news.ids)
        self._left_over[news.pack_id] = begun or news.redelivered

    def forget_rebuilt(self) -> None:
        """Forget which deliveries were rebuilt, where no read is under way: a service goes on for months."""
        if not self._ready:
            self._rebuilt.clear()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, also where the caller is cancelled meanwhile: what is stored is delivered."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()

"""Hand over what is new, one delivery of a pack at a time, and again what the handler failed at."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import evolve, frozen

from ..api import convert
from ..events import ParkEvent, extra
from ..journal.journal import FailedDelivery, Journal
from .ingest import Ingest, NewMessages

_log: Final = logging.getLogger("mlmessages")
_FIRST_REPETITION: Final = 5.0  # seconds after a handler failed; doubled each time
_LONGEST_REPETITION: Final = 3600.0


@frozen
class Settings:
    """How a service runs; see `Inbox.run`."""

    concurrency: int
    interval: float
    attempts: int
    grace: float
    app_id: str | None


class Dispatcher:
    """Hands over what is new, several packs at a time and one delivery of a pack at a time; what the handler fails at
    comes again from the journal, later each time, and in the end no more.
    """

    def __init__(
        self,
        intake: Ingest,
        journal: Journal,
        hand_over: Callable[[NewMessages], Awaitable[None]],
        settings: Settings,
        changed: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._journal = journal
        self._hand_over = hand_over
        self._settings = settings
        self._changed = changed
        self._running: dict[str, tuple[asyncio.Task[None], NewMessages]] = {}
        self._again: dict[str, float] = {}  # packs to hand over from the journal, and when by the loop's clock
        self._more: set[str] = set()  # packs with news that came while one of them was being handed over
        self._letters: dict[str, FailedDelivery] = {}
        self._buried: set[str] = set()
        self._ending = False

    async def load(self) -> None:
        """What earlier runs failed at."""
        now, clock = asyncio.get_running_loop().time(), time.time()
        for letter in await self._journal.letters():
            self._letters[letter.pack_id] = letter
            wait = min(letter.not_before - clock, _LONGEST_REPETITION)
            self._again[letter.pack_id] = now + max(wait, 0)
        self._buried = set(await self._journal.buried())

    @property
    def next_repetition(self) -> float | None:
        """When the next one is due."""
        return min((due for pack, due in self._again.items() if pack not in self._running), default=None)

    async def fill(self) -> None:
        """Hand over what there is, as far as there is room. Raises `JournalError`."""
        for pack_id, (task, _) in [*self._running.items()]:
            if task.done():
                del self._running[pack_id]
                if pack_id in self._more:
                    self._more.discard(pack_id)
                    self._again.setdefault(pack_id, asyncio.get_running_loop().time())
                task.result()
        while len(self._running) < self._settings.concurrency:
            news = await self._next()
            if news is None:
                return
            task = asyncio.create_task(self._deliver(news))
            self._running[news.pack_id] = task, news
            task.add_done_callback(lambda _: self._changed())

    async def _next(self) -> NewMessages | None:
        now = asyncio.get_running_loop().time()
        for pack_id in [pack for pack, due in self._again.items() if due <= now and pack not in self._running]:
            if (again := await self._stored(pack_id)) is not None:
                return again
        while (left_over := await self._intake.left_over()) is not None:
            if (rest := self._unburied(left_over)) is not None and not self._waits(rest.pack_id):
                return rest
        while self._intake.ready:
            news = self._intake.ready.popleft()
            if not self._waits(news.pack_id):
                return news
        return None

    def _waits(self, pack_id: str) -> bool:
        """True if its news come from the journal, with what came before them."""
        if pack_id in self._running:
            self._more.add(pack_id)
            return True
        return pack_id in self._again

    async def _stored(self, pack_id: str) -> NewMessages | None:
        """All that the journal holds of a pack to hand over; None: somebody has acknowledged it."""
        entries, status = await self._journal.entries(pack_id)
        self._again.pop(pack_id, None)
        messages = tuple(convert.stored_message(entry.raw, pack_id) for entry in entries)
        unread = frozenset(entry.id for entry in entries if entry.unread)
        redelivered = pack_id in self._letters
        news = self._unburied(NewMessages(pack_id, messages, unread, convert.load_status(status), redelivered))
        if news is None and self._letters.pop(pack_id, None) is not None:
            await self._journal.delivered(pack_id)
        return news

    def _unburied(self, news: NewMessages) -> NewMessages | None:
        messages = tuple(row for row in news.messages if row.id not in self._buried)
        return evolve(news, messages=messages) if messages else None

    async def _deliver(self, news: NewMessages) -> None:
        letter = self._letters.get(news.pack_id)
        tries = 1 if letter is None else letter.tries + 1
        self._intake.hand_out(news, tries)
        try:
            await self._hand_over(news)
        except asyncio.CancelledError as error:
            if self._ending:
                raise
            await self._failed(news, tries, error)  # the handler's own affair
        except Exception as error:
            await self._failed(news, tries, error)
        else:
            await self._intake.acknowledge(news)
            if letter is not None:
                self._letters.pop(news.pack_id, None)
                await self._journal.delivered(news.pack_id)

    async def _failed(self, news: NewMessages, tries: int, error: BaseException) -> None:
        """Repeat it later, or bury it. What the exception says is told nobody: it may be what a buyer wrote."""
        name, pack_id = type(error).__name__, news.pack_id
        if tries < self._settings.attempts:
            wait = min(_FIRST_REPETITION * 2.0 ** (tries - 1), _LONGEST_REPETITION)
            letter = FailedDelivery(pack_id, tries, time.time() + wait, name)
            self._letters[pack_id] = letter
            self._again[pack_id] = asyncio.get_running_loop().time() + wait
            event = ParkEvent("letter", pack_id, name, wait)
            _log.warning(
                "the handler failed at pack %s: %s%s; again in %.0f s",
                pack_id,
                name,
                _where(error),
                wait,
                extra=extra(event),
            )
            await self._journal.postpone(letter)
        else:
            ids = [row.id for row in news.messages]
            self._buried.update(ids)
            self._letters.pop(pack_id, None)
            event = ParkEvent("letter", pack_id, name, None)
            _log.error(
                "the handler failed at pack %s %d times: %s%s; it is a dead letter now, kept in the journal",
                pack_id,
                tries,
                name,
                _where(error),
                extra=extra(event),
            )
            await self._journal.bury(pack_id, ids, name)
        self._intake.events.emit(event)

    async def end(self) -> None:
        """Let what is in the handler's hands be finished, for a while; what is not comes again."""
        self._ending = True
        tasks = dict(self._running.values())
        self._running.clear()
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._settings.grace)
        finally:
            left = [task for task in tasks if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=1.0)  # a handler that swallows it holds nobody up
            for task in left:
                self._intake.ready.appendleft(evolve(tasks[task], redelivered=True))
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # a journal that is broken says so to the next one who needs it


def _where(error: BaseException) -> str:
    """The place in the handler, in words: without what the exception says."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" (line {frames[-1].lineno} of {frames[-1].name})" if frames else ""

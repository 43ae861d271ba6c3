"""Hand over what is new, one delivery of a pack at a time, and again what the handler failed at."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import sysconfig
import traceback
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final

from attrs import define, evolve, frozen

from ..events import ParkEvent, extra
from ..journal.journal import Journal
from ..journal.store import FailedDelivery
from .drain import Delivery
from .ingest import Ingest, NewMessages
from .notified import CheckBudget

Handler = Callable[[Delivery], Awaitable[object]]
OnError = Callable[[BaseException, Delivery], object]

_log: Final = logging.getLogger("mlmessages")
_FIRST_REPETITION: Final = 5.0  # seconds after a handler failed; doubled each time
_LONGEST_REPETITION: Final = 3600.0
_HANGS: Final = 300.0  # seconds in the handler that are worth a warning
_FOREIGN: Final = tuple(
    {str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))}
)


@frozen
class Settings:
    """How a service runs; see `Inbox.run`.

    `interval` is asked before each listing. `slots`: held while the handler has a delivery, by all services that share
    them. `look_ups`: the share of the request budget for looking messages up; None: one of its own.
    """

    concurrency: int
    interval: Callable[[], float]
    attempts: int
    grace: float
    app_id: str | None = None
    slots: asyncio.Semaphore | None = None
    look_ups: CheckBudget | None = None
    stops_on_sigterm: bool = True


@define(eq=False)
class _InHand:
    """A delivery under way. `since`: when the handler got it, by the loop's clock; None: it waits for a slot."""

    news: NewMessages
    task: asyncio.Task[None] | None = None
    since: float | None = None
    warn_at: float = math.inf


class Dispatcher:
    """Hands over what is new, several packs at a time and one delivery of a pack at a time.

    What the handler fails at comes again from the journal, later each time, and in the end no more.
    """

    def __init__(
        self,
        intake: Ingest,
        journal: Journal,
        *,
        handler: Handler,
        on_error: OnError | None,
        settings: Settings,
        changed: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._journal = journal
        self._handler = handler
        self._on_error = on_error
        self._settings = settings
        self._changed = changed
        self._in_hand: dict[str, _InHand] = {}
        self._again: dict[str, float] = {}  # packs to hand over from the journal, and when by the loop's clock
        self._letters: dict[str, FailedDelivery] = {}
        self._buried: set[str] = set()
        self._ending = False

    async def load(self) -> None:
        """Take up what earlier runs failed at."""
        now = asyncio.get_running_loop().time()
        for letter in await self._journal.failed_deliveries():
            self._letters[letter.pack_id] = letter
            self._again[letter.pack_id] = now + min(letter.wait, _LONGEST_REPETITION)
        self._buried = set(await self._journal.dead_letters())

    @property
    def due(self) -> float | None:
        """When there is something to do although nothing has happened; None: never."""
        moments = [hand.warn_at for hand in self._in_hand.values() if hand.since is not None]
        if self._has_room:
            moments += [due for pack_id, due in self._again.items() if pack_id not in self._in_hand]
        return min(moments, default=None)

    @property
    def _has_room(self) -> bool:
        return len(self._in_hand) < self._settings.concurrency

    async def fill(self) -> None:
        """Hand over what there is, as far as there is room. Raises `JournalError`."""
        for pack_id, hand in [*self._in_hand.items()]:
            if hand.task is not None and hand.task.done():
                del self._in_hand[pack_id]
                hand.task.result()
        while self._has_room and (news := await self._next()) is not None:
            hand = self._in_hand[news.pack_id] = _InHand(news)
            hand.task = asyncio.create_task(self._hand_over(hand))
            hand.task.add_done_callback(lambda _: self._changed())
        self._warn_of_hanging()

    async def _next(self) -> NewMessages | None:
        now = asyncio.get_running_loop().time()
        for pack_id in [pack_id for pack_id, due in self._again.items() if due <= now and pack_id not in self._in_hand]:
            if (again := await self._repeated(pack_id)) is not None:
                return again
        while (left_over := await self._intake.left_over(self._waits)) is not None:
            if (rest := self._unburied(left_over)) is not None:
                return rest
        return await self._intake.just_read(self._waits)

    def _waits(self, pack_id: str) -> bool:
        """True if what is new of the pack comes after, or together with, what came before it."""
        return pack_id in self._in_hand or pack_id in self._again

    async def _repeated(self, pack_id: str) -> NewMessages | None:
        """What the handler has failed at, with what came since; None: it was acknowledged meanwhile."""
        stored = await self._intake.stored(pack_id, again=True)
        self._again.pop(pack_id, None)
        news = None if stored is None else self._unburied(stored)
        if news is None and self._letters.pop(pack_id, None) is not None:
            await self._journal.delivered(pack_id)
        return news

    def _unburied(self, news: NewMessages) -> NewMessages | None:
        messages = tuple(row for row in news.messages if row.id not in self._buried)
        return evolve(news, messages=messages) if messages else None

    async def _hand_over(self, hand: _InHand) -> None:
        async with self._settings.slots or nullcontext():
            hand.since = asyncio.get_running_loop().time()
            hand.warn_at = hand.since + _HANGS
            self._changed()  # there is a moment to warn at
            await self._deliver(hand.news)

    async def _deliver(self, news: NewMessages) -> None:
        letter = self._letters.get(news.pack_id)
        tries = 1 if letter is None else letter.tries + 1
        self._intake.record_delivery(news, tries)
        delivery = Delivery(self._intake, news)
        try:
            answer = self._handler(delivery)
            if inspect.isawaitable(answer):
                await answer
        except asyncio.CancelledError as error:
            if self._ending:
                raise
            await self._failed(news, delivery, tries, error)  # the handler's own affair
        except Exception as error:
            await self._failed(news, delivery, tries, error)
        else:
            await self._intake.acknowledge(news)
            if letter is not None:
                self._letters.pop(news.pack_id, None)
                await self._journal.delivered(news.pack_id)

    async def _failed(self, news: NewMessages, delivery: Delivery, tries: int, error: BaseException) -> None:
        """Repeat it later, or give it up. No log line quotes the exception: it may hold what a buyer wrote."""
        name, pack_id = type(error).__name__, news.pack_id
        self._intake.delivery_failed(news)
        if tries < self._settings.attempts:
            wait = min(_FIRST_REPETITION * 2.0 ** min(tries - 1, 20), _LONGEST_REPETITION)
            letter = FailedDelivery(pack_id, tries, wait, name)
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
            await self._journal.dead_letter(pack_id, ids, name)
        self._intake.events.emit(event)
        await self._tell(error, delivery)

    async def _tell(self, error: BaseException, delivery: Delivery) -> None:
        """Give `on_error` the exception; what it raises itself changes nothing."""
        if self._on_error is None:
            return
        try:
            answer = self._on_error(error, delivery)
            if inspect.isawaitable(answer):
                await answer
        except Exception as own:
            _log.error("on_error raised %s%s", type(own).__name__, _where(own))

    def _warn_of_hanging(self) -> None:
        """Say once which deliveries the handler does not return from, and again when twice the time has passed."""
        now = asyncio.get_running_loop().time()
        due = [(hand.since, hand) for hand in self._in_hand.values() if hand.since is not None and hand.warn_at <= now]
        if not due:
            return
        for since, hand in due:
            hand.warn_at = now + max(now - since, _HANGS)
        since, oldest = min(due, key=lambda pair: pair[0])
        _log.warning(
            "the handler has not returned from pack %s for %s; %d of %d deliveries at a time are under way, and the"
            " messages of these packs wait",
            oldest.news.pack_id,
            timedelta(seconds=round(now - since)),
            len(self._in_hand),
            self._settings.concurrency,
        )

    async def end(self, grace: float) -> None:
        """Give the handler `grace` seconds to finish what it has; what it does not finish comes again."""
        self._ending = True
        hands = {hand.task: hand for hand in self._in_hand.values() if hand.task is not None}
        self._in_hand.clear()
        for task, hand in hands.items():
            if hand.since is None:
                task.cancel()
        try:
            if hands:
                await asyncio.wait(hands, timeout=grace)
        finally:
            left = [task for task in hands if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=1.0)  # a handler that swallows the cancellation delays nothing
            for task, hand in hands.items():
                if task in left or task.cancelled():
                    self._intake.delivery_cut_off(hand.news, begun=hand.since is not None)
        for task in hands:
            if task.done() and not task.cancelled():
                task.exception()  # a broken journal raises again where it is needed next


def _where(error: BaseException) -> str:
    """The file, line and function where the handler failed, without what the exception says.

    It is the innermost frame that is neither this library's nor of an installed package: the user's own code.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is this module's
    own = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)]
    if not (own or frames):
        return ""
    frame = (own or frames)[-1]
    return f" (file {frame.filename}, line {frame.lineno}, in {frame.name})"

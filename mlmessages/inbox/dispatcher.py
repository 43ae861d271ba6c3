"""Hand over what is new, one delivery of a pack at a time, and again what the handler failed at."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import sysconfig
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final

from attrs import define, frozen

from ..events import HangEvent, ParkEvent, extra
from ..journal.journal import Journal
from ..journal.store import FailedDelivery
from .drain import Delivery
from .notified import CheckBudget
from .slots import HANGS, Slots
from .undelivered import NewMessages, Undelivered

Handler = Callable[[Delivery], object]  # a function, or a coroutine function
OnError = Callable[[BaseException, Delivery], object]

_log: Final = logging.getLogger("mlmessages")
_FIRST_REPETITION: Final = 5.0  # seconds after a handler failed; doubled each time
_LONGEST_REPETITION: Final = 3600.0
_FOREIGN: Final = tuple(
    {str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))}
)


@frozen
class Settings:
    """How a service runs; see `Inbox.run`.

    `interval` is asked before each listing. `slots`: held while the handler has a delivery, by all services that share
    them; they tell of calls that hang. `look_ups`: the share of the request budget for looking messages up; None: one
    of its own.
    """

    concurrency: int
    interval: Callable[[], float]
    attempts: int
    grace: float
    app_id: str | None = None
    slots: Slots | None = None
    look_ups: CheckBudget | None = None
    stops_on_sigterm: bool = True


@define(eq=False)
class _UnderWay:
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
        undelivered: Undelivered,
        journal: Journal,
        *,
        handler: Handler,
        on_error: OnError | None,
        settings: Settings,
        changed: Callable[[], None],
    ) -> None:
        self._undelivered = undelivered
        self._journal = journal
        self._handler = handler
        self._on_error = on_error
        self._settings = settings
        self._changed = changed
        self._under_way: dict[str, _UnderWay] = {}
        self._again: dict[str, float] = {}  # packs to hand over from the journal, and when by the loop's clock
        self._failures: dict[str, FailedDelivery] = {}
        self._dead: set[str] = set()
        self._ending = False

    async def load(self) -> None:
        """Take up what the handler of earlier runs failed at. Raises `JournalError`."""
        now = asyncio.get_running_loop().time()
        for failure in await self._journal.failed_deliveries():
            self._failures[failure.pack_id] = failure
            self._again[failure.pack_id] = now + min(failure.wait, _LONGEST_REPETITION)
        self._dead = set(await self._journal.dead_letters())

    @property
    def due(self) -> float | None:
        """The moment at which there is something to do although nothing happens before; None: there is none."""
        moments = [delivery.warn_at for delivery in self._under_way.values() if delivery.warn_at < math.inf]
        if self._has_room:
            moments += [due for pack_id, due in self._again.items() if pack_id not in self._under_way]
        return min(moments, default=None)

    @property
    def _has_room(self) -> bool:
        return len(self._under_way) < self._settings.concurrency

    async def fill(self) -> None:
        """Hand over what there is, as far as there is room. Raises `JournalError`."""
        for pack_id, delivery in [*self._under_way.items()]:
            if delivery.task is not None and delivery.task.done():
                del self._under_way[pack_id]
                delivery.task.result()
        while self._has_room and (news := await self._next()) is not None:
            delivery = self._under_way[news.pack_id] = _UnderWay(news)
            delivery.task = asyncio.create_task(self._hand_over(delivery))
            delivery.task.add_done_callback(lambda _: self._changed())
        self._warn_of_hanging()

    async def _next(self) -> NewMessages | None:
        now = asyncio.get_running_loop().time()
        due = [pack_id for pack_id, due in self._again.items() if due <= now and pack_id not in self._under_way]
        for pack_id in due:
            if (again := await self._repeated(pack_id)) is not None:
                return again
        while (left_over := await self._undelivered.left_over(self._waits)) is not None:
            if (rest := self._without_dead(left_over)) is not None:
                return rest
        return await self._undelivered.just_read(self._waits)

    def _waits(self, pack_id: str) -> bool:
        """True if what is new of the pack comes after, or together with, what came before it."""
        return pack_id in self._under_way or pack_id in self._again

    async def _repeated(self, pack_id: str) -> NewMessages | None:
        """Return what the handler has failed at, with what came since; None: it was acknowledged meanwhile."""
        stored = await self._undelivered.stored(pack_id, again=True)
        self._again.pop(pack_id, None)
        news = None if stored is None else self._without_dead(stored)
        if news is None and self._failures.pop(pack_id, None) is not None:
            await self._journal.delivered(pack_id)
        return news

    def _without_dead(self, news: NewMessages) -> NewMessages | None:
        return news.only(lambda id_: id_ not in self._dead)

    async def _hand_over(self, delivery: _UnderWay) -> None:
        slots = self._settings.slots
        async with nullcontext() if slots is None else slots.call(self._undelivered.seller_id):
            delivery.since = asyncio.get_running_loop().time()
            if slots is None:
                delivery.warn_at = delivery.since + HANGS
                self._changed()  # there is a moment to warn at
            await self._deliver(delivery.news)

    async def _deliver(self, news: NewMessages) -> None:
        failure = self._failures.get(news.pack_id)
        attempt = 1 if failure is None else failure.tries + 1
        self._undelivered.record(news, attempt)
        delivery = Delivery(self._undelivered, news)
        try:
            answer = self._handler(delivery)
            if inspect.isawaitable(answer):
                await answer
        except asyncio.CancelledError as error:
            if self._ending:
                raise
            await self._failed(news, attempt, error)  # the handler cancelled something of its own
            await self._tell(error, delivery)
        except Exception as error:
            await self._failed(news, attempt, error)
            await self._tell(error, delivery)
        else:
            await self._undelivered.acknowledge(news)
            if failure is not None:
                self._failures.pop(news.pack_id, None)
                await self._journal.delivered(news.pack_id)

    async def _failed(self, news: NewMessages, attempt: int, error: BaseException) -> None:
        """Repeat the delivery later, or make it a dead letter.

        No log line quotes the exception: it may hold what a buyer wrote.
        """
        self._undelivered.mark_failed(news)
        name, pack_id, where = type(error).__name__, news.pack_id, _where(error)
        if attempt < self._settings.attempts:
            wait = min(_FIRST_REPETITION * 2.0 ** min(attempt - 1, 20), _LONGEST_REPETITION)
            event = ParkEvent("letter", pack_id, name, wait)
            said = "the handler failed at pack %s: %s%s; again in %.0f s"
            _log.warning(said, pack_id, name, where, wait, extra=extra(event))
            failure = self._failures[pack_id] = FailedDelivery(pack_id, attempt, wait, name)
            self._again[pack_id] = asyncio.get_running_loop().time() + wait
            await self._journal.postpone(failure)
        else:
            event = ParkEvent("letter", pack_id, name, None)
            said = "the handler failed at pack %s %d times: %s%s; it is a dead letter now, kept in the journal"
            _log.error(said, pack_id, attempt, name, where, extra=extra(event))
            self._failures.pop(pack_id, None)
            self._dead.update(news.ids)
            await self._journal.dead_letter(pack_id, news.ids, name)
        self._undelivered.events.emit(event)

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
        """Warn of deliveries that the handler does not return from, and again when twice the time has passed."""
        now = asyncio.get_running_loop().time()
        hanging = [
            (delivery.since, delivery)
            for delivery in self._under_way.values()
            if delivery.since is not None and delivery.warn_at <= now
        ]
        if not hanging:
            return
        for since, delivery in hanging:
            delivery.warn_at = now + max(now - since, HANGS)
        since, oldest = min(hanging, key=lambda pair: pair[0])
        calls = sum(
            delivery.since is not None and now - delivery.since >= HANGS for delivery in self._under_way.values()
        )
        free = max(self._settings.concurrency - len(self._under_way), 0)
        event = HangEvent((self._undelivered.seller_id,), calls, now - since, free)
        self._undelivered.events.emit(event)
        _log.warning(
            "the handler has not returned from pack %s for %s; %d of %d deliveries at a time are under way, and the"
            " messages of these packs wait",
            oldest.news.pack_id,
            timedelta(seconds=round(now - since)),
            len(self._under_way),
            self._settings.concurrency,
            extra=extra(event),
        )

    async def end(self, grace: float) -> None:
        """Give the handler `grace` seconds to finish what it has; what it does not finish comes again."""
        self._ending = True
        deliveries = {delivery.task: delivery for delivery in self._under_way.values() if delivery.task is not None}
        self._under_way.clear()
        for task, delivery in deliveries.items():
            if delivery.since is None:
                task.cancel()
        try:
            if deliveries:
                await asyncio.wait(deliveries, timeout=grace)
        finally:
            left = [task for task in deliveries if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=1.0)  # a handler that swallows the cancellation delays nothing
            for task, delivery in deliveries.items():
                if task in left or task.cancelled():
                    self._undelivered.cut_off(delivery.news, begun=delivery.since is not None)
        for task in deliveries:
            if task.done() and not task.cancelled():
                task.exception()  # a broken journal raises again where it is needed next


def _where(error: BaseException) -> str:
    """Return the file, line and function where the handler failed, without what the exception says.

    It is the innermost frame that is neither this library's nor of an installed package: the user's own code.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is this module's
    own = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)]
    if not (own or frames):
        return ""
    frame = (own or frames)[-1]
    return f" (file {frame.filename}, line {frame.lineno}, in {frame.name})"

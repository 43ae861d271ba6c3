"""Calls of the handler over many sellers: so many at a time, in turns, and with room for sellers that have none."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

from ..events import Events, HangEvent, extra

HANGS: Final = 300.0  # seconds in the handler that are worth a warning
_LOOKS_EVERY: Final = 60.0
_LEAST_SILENCE: Final = 300.0  # seconds between two warnings while no call is free
_LONGEST_SILENCE: Final = 3600.0
_MOST_NAMED: Final = 10  # sellers in a warning

_log: Final = logging.getLogger("mlmessages")


class Slots:
    """At most `most` calls of a handler at a time, over all the sellers that share them.

    A seller that has a call under way gets a further one as long as such further calls take less than half of the
    slots. So the calls of one seller, or of a few, that never return leave room for the others. Sellers take turns.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()  # calls under way, by seller
        self._since: dict[object, tuple[str, float]] = {}  # of each call: the seller, and when it began
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the seller whose turn is first
        self._warn_at = float("-inf")
        self._silence = _LEAST_SILENCE

    @property
    def free(self) -> int:
        """How many more calls may begin, at the most."""
        return self._most - self._held.total()

    @asynccontextmanager
    async def call(self, seller_id: str) -> AsyncGenerator[None, None]:
        """Wait for the seller's turn, and hold a slot."""
        await self._acquire(seller_id)
        call = object()
        self._since[call] = (seller_id, asyncio.get_running_loop().time())
        try:
            yield
        finally:
            del self._since[call]
            self._release(seller_id)

    async def _acquire(self, seller_id: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(seller_id, deque()).append(turn)
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came and the cancellation with it
                self._release(seller_id)
            else:
                self._remove(seller_id, turn)
            raise

    def _release(self, seller_id: str) -> None:
        self._held[seller_id] -= 1
        if not self._held[seller_id]:
            del self._held[seller_id]
        self._grant()

    def _grant(self) -> None:
        """Give the free slots to those whose turn it is."""
        while self.free > 0 and (seller_id := self._next()) is not None:
            turn = self._waiting[seller_id][0]
            self._remove(seller_id, turn)
            if turn.done():  # given up a moment ago: no turn is lost for its seller
                continue
            if seller_id in self._waiting:
                self._waiting.move_to_end(seller_id)
            self._held[seller_id] += 1
            turn.set_result(None)

    def _remove(self, seller_id: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(seller_id, deque())
        with suppress(ValueError):
            turns.remove(turn)
        if not turns:
            self._waiting.pop(seller_id, None)

    def _next(self) -> str | None:
        further = self._held.total() - len(self._held)
        may_have_more = further < (self._most - 1) // 2
        return next((seller_id for seller_id in self._waiting if may_have_more or not self._held[seller_id]), None)

    # -- calls that do not return --

    async def watch(self, events: Events) -> None:
        """Warn of calls that do not return, again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOKS_EVERY)
            self._warn(asyncio.get_running_loop().time(), events)

    def _warn(self, now: float, events: Events) -> None:
        hanging = sorted((since, seller_id) for seller_id, since in self._since.values() if now - since >= HANGS)
        if not hanging:
            self._silence = _LEAST_SILENCE
            return
        if now < self._warn_at:
            return
        self._silence = _LEAST_SILENCE if self.free <= 0 else min(2 * self._silence, _LONGEST_SILENCE)
        self._warn_at = now + self._silence
        sellers = tuple(dict.fromkeys(seller_id for _, seller_id in hanging))
        event = HangEvent(sellers, len(hanging), now - hanging[0][0], max(self.free, 0))
        events.emit(event)
        longest = {seller_id: since for since, seller_id in reversed(hanging)}
        named = [f"{seller} for {timedelta(seconds=round(now - longest[seller]))}" for seller in sellers[:_MOST_NAMED]]
        more = [f"{len(sellers) - _MOST_NAMED} more"] if len(sellers) > _MOST_NAMED else []
        _log.warning(
            "the handler has not returned from %d of at most %d calls at a time: seller %s; %s",
            len(hanging),
            self._most,
            ", ".join(named + more),
            f"{_sellers(len(self._waiting))} for one to return" if self.free <= 0 else f"{self.free} are free",
            extra=extra(event),
        )


def _sellers(waiting: int) -> str:
    return "1 seller waits" if waiting == 1 else f"{waiting} sellers wait"

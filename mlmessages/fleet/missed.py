"""Notifications that no replica took: asked for in turns, by one process for the whole application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Final

from ..client import reader_of
from ..errors import JournalError, MessagesError
from ..http.pipeline import RequestCount
from ..journal.store import TooManyChecks
from .database import SellerDatabase
from .seller import SellerService

_log: Final = logging.getLogger("mlmessages")
_PACE: Final = 12.0  # seconds between two requests: five a minute, a hundredth of the budget
_EACH: Final = 3600.0  # seconds between two turns of one seller: repetitions of a notification end after an hour
_DUTY: Final = "missed notifications"


class MissedNotifications:
    """Asks with the token of one held seller after the other, and writes down what it is given for any seller.

    Whether the feed covers one seller or all of the application is unknown, so every seller has a turn.
    """

    def __init__(self, database: SellerDatabase, application_id: str, services: Mapping[str, SellerService]) -> None:
        self._database = database
        self._application_id = application_id
        self._services = services
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        """Ask for one page every 12 seconds where a turn is due, until it is cancelled."""
        while True:
            await asyncio.sleep(_PACE)
            try:
                service = self._next()
                if service is not None and await self._may_ask():
                    self._asked[service.seat.seller_id] = asyncio.get_running_loop().time()
                    await self._ask(service)
            except JournalError:
                pass  # the fleet says so
            except RuntimeError:
                pass  # the seller was given back meanwhile, and its client is closed
            except MessagesError as error:
                _log.warning("the missed notifications cannot be read: %s", error)

    async def _may_ask(self) -> bool:
        """Return True if no process has sent a request for some seconds; then this one may send one."""
        return await self._database.journals.claim_duty(_DUTY, _PACE)

    async def _wait_for_turn(self) -> None:
        while True:
            await asyncio.sleep(_PACE)
            if await self._may_ask():
                return

    def _next(self) -> SellerService | None:
        """Return the service of the seller whose turn came longest ago, an hour at least."""
        now = asyncio.get_running_loop().time()
        self._asked = {seller: at for seller, at in self._asked.items() if seller in self._services}
        due = {seller: self._asked.get(seller, float("-inf")) for seller in self._services}
        seller = min(due, key=due.__getitem__, default=None)
        if seller is None or now - due[seller] < _EACH:
            return None
        return self._services[seller]

    async def _ask(self, service: SellerService) -> None:
        reader, count, paused = reader_of(service.client), RequestCount(), 0
        async with aclosing(reader.missed(self._application_id, reader.topic, count)) as missed:
            async for notification in missed:
                with suppress(TooManyChecks):  # of that seller: its listing shows what there is
                    await self._database.notify(notification)
                if count.requests > paused:  # another page was read, and one more may follow
                    paused = count.requests
                    await self._wait_for_turn()

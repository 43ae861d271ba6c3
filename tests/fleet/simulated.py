"""Processes of a fleet in virtual time, over one store in memory, and what their handlers were given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from mlmessages import Delivery, Fleet, Limits
from mlmessages.fleet.memory import MemoryDatabase, SharedMemory
from mlmessages.models import Token
from mlmessages.testing import Marketplace


class Process:
    """One machine: a database of its own over what is shared, a fleet on it, and what its handler was given."""

    def __init__(self, database: MemoryDatabase, fleet: Fleet, running: asyncio.Task[None]) -> None:
        self.database, self.fleet, self.running = database, fleet, running

    def kill(self) -> None:
        """Cut it off from the store for good: it decides and renews nothing any more."""
        self.database.cut_off()


class World:
    """A marketplace, and the deliveries of all processes."""

    def __init__(self, marketplace: Marketplace, shared: SharedMemory) -> None:
        self.marketplace, self.shared = marketplace, shared
        self.deliveries: list[Delivery] = []
        self.changed = asyncio.Event()

    async def handler(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.changed.set()

    @property
    def delivered(self) -> set[str]:
        return {message.id for delivery in self.deliveries for message in delivery.messages}

    async def until(self, there: Callable[[], object], *, within: float = 3600.0) -> None:
        """Wait for a fact, for so many virtual seconds at most."""
        async with asyncio.timeout(within):
            while not there():
                await asyncio.sleep(0.25)

    @asynccontextmanager
    async def process(self, name: str, **options: Any) -> AsyncIterator[Process]:
        application = self.marketplace.application
        run = {key: options.pop(key) for key in ("attempts", "grace", "on_error") if key in options}
        handler = options.pop("handler", self.handler)
        async with MemoryDatabase(self.shared, name) as database, self.marketplace.session() as session:
            fleet = Fleet(
                database,
                application.client_id,
                application.client_secret,
                base_url=self.marketplace.base_url,
                session=session,
                **options,
            )
            running = asyncio.create_task(fleet.run(handler, **run))
            try:
                yield Process(database, fleet, running)
            finally:
                running.cancel()
                await asyncio.wait([running])


@asynccontextmanager
async def world_of(sellers: int, packs: int, *, limits: Limits | None = None, **options: Any) -> AsyncIterator[World]:
    marketplace = Marketplace(sellers=sellers, packs=packs, **options)
    shared = SharedMemory(limits or Limits(per_second=None))
    now = datetime.now(UTC)
    for seller in marketplace.sellers:
        oauth = seller.oauth
        tokens = Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller.seller_id)
        shared.add(tokens)
    yield World(marketplace, shared)

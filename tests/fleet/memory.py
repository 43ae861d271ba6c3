"""What a fleet needs of a database, in memory: for simulations on the virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from mlmessages import Limits, Notification
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.shared import SharedJournals
from mlmessages.journal.store import Disconnected, Held, Seat
from mlmessages.models import Token


class Shared:
    """What all processes have in common: the rows, the tokens, the budget."""

    def __init__(self, limits: Limits) -> None:
        self.memory = Memory(asyncio.get_running_loop().time)
        self.limits = limits
        self.tokens: dict[str, MemoryTokens] = {}

    async def add(self, token: Token) -> None:
        """Add a seller."""
        assert token.user_id is not None
        self.tokens[str(token.user_id)] = MemoryTokens(token)
        store = MemoryStore(self.memory)
        store.begin()
        store.add_seller(str(token.user_id))
        store.commit()


class MemoryTokens:
    """A `TokenStore` that all processes share."""

    def __init__(self, token: Token | None) -> None:
        self.token = token
        self._lock = asyncio.Lock()

    async def load(self) -> Token | None:
        return self.token

    async def save(self, token: Token) -> None:
        self.token = token

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with self._lock:
            yield


class CutOffStore(MemoryStore):
    """A store whose connection can be cut for good, as that of a process that was killed."""

    cut = False

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        if self.cut:
            raise Disconnected("the connection is cut")
        return super().begin(seats)

    def seats(self, worker: str) -> list[Held]:
        if self.cut:
            raise Disconnected("the connection is cut")
        return super().seats(worker)


class MemoryDatabase:
    """One process's way to what is shared."""

    def __init__(self, shared: Shared, name: str = "a", lease: float = 30.0) -> None:
        self.shared = shared
        self.store = CutOffStore(shared.memory)
        self.journals = SharedJournals(lambda: self.store, name=name, lease=lease)

    async def __aenter__(self) -> MemoryDatabase:
        await self.journals.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.journals.close()

    def limits(self, application_id: int | str) -> Limits:
        return self.shared.limits

    def tokens(self, seller_id: int | str) -> MemoryTokens:
        return self.shared.tokens.get(str(seller_id)) or MemoryTokens(None)

    async def notify(self, notification: Notification) -> bool:
        if notification.user_id is None:
            return False
        return not notification.is_news or await self.journals.notice(notification.user_id, notification.message_id)

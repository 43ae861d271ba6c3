"""A `Database` in memory, for simulations and tests on one machine: nothing of it outlives the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from types import TracebackType

from ..api.notifications import Notification
from ..http.limits import Limits
from ..journal.memory import Memory, MemoryStore
from ..journal.shared import SharedJournals
from ..journal.store import Disconnected, Held, Seat
from ..models import Token


class SharedMemory:
    """What the processes of a simulation have in common: the rows, the tokens, the budget.

    It is made in the event loop whose clock the leases follow.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.memory = Memory(asyncio.get_running_loop().time)
        self.limits = Limits() if limits is None else limits
        self.tokens: dict[str, MemoryTokens] = {}

    def add(self, token: Token) -> None:
        """Take a seller in, with the tokens of its consent. Raises `ValueError` if `token.user_id` is None."""
        if token.user_id is None:
            raise ValueError("token must have the user_id of its seller")
        seller_id = str(token.user_id)
        self.tokens[seller_id] = MemoryTokens(token)
        store = MemoryStore(self.memory)
        store.begin()
        store.add_seller(seller_id)
        store.commit()


class MemoryTokens:
    """A `TokenStore` that the processes of a simulation share."""

    def __init__(self, token: Token | None = None) -> None:
        self.token = token
        self._lock = asyncio.Lock()

    async def load(self) -> Token | None:
        return self.token

    async def save(self, token: Token) -> None:
        self.token = token

    @asynccontextmanager
    async def lock(self) -> AsyncGenerator[None, None]:
        async with self._lock:
            yield


class MemoryDatabase:
    """One process's way to what is shared: what a `Fleet` takes in the place of a `Database`.

    `name` and `lease` are those of `Database`.
    """

    def __init__(self, shared: SharedMemory, name: str = "memory", lease: float = 30.0) -> None:
        self.shared = shared
        self._store = _CutOffStore(shared.memory)
        self.journals = SharedJournals(lambda: self._store, name=name, lease=lease)

    async def __aenter__(self) -> MemoryDatabase:
        await self.journals.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.journals.close()

    def limits(self, application_id: int | str) -> Limits:
        return self.shared.limits

    def tokens(self, seller_id: int | str) -> MemoryTokens:
        return self.shared.tokens.get(str(seller_id)) or MemoryTokens()

    async def notify(self, notification: Notification) -> bool:
        if notification.user_id is None:
            return False
        return not notification.is_news or await self.journals.notice(notification.user_id, notification.message_id)

    def cut_off(self) -> None:
        """Lose the connection for good: as if the process were killed, it renews and decides nothing any more."""
        self._store.is_cut_off = True


class _CutOffStore(MemoryStore):
    """A store whose connection can be lost for good."""

    is_cut_off = False

    def begin(self, seats: Collection[Seat] = ()) -> frozenset[Seat]:
        self._check()
        return super().begin(seats)

    def seats(self, worker: str) -> list[Held]:
        self._check()
        return super().seats(worker)

    def _check(self) -> None:
        if self.is_cut_off:
            raise Disconnected("the connection is cut off")

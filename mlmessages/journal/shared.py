"""The journals of many sellers that several processes share, over any `SharedStore`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..errors import JournalError
from .engine import Engine
from .journal import Place
from .seats import Worker
from .store import CHECKED_AFTER, Seller, SharedStore

T = TypeVar("T")


class SharedJournals:
    """One process among those that share a store: an engine, a worker, and what needs no seat.

    `open_store` is called in the engine's thread. `name` and `lease` are the worker's.
    """

    def __init__(self, open_store: Callable[[], SharedStore], *, name: str, lease: float = 30.0) -> None:
        self.engine: Final = Engine(open_store)
        self.worker: Final = Worker(self.engine, name=name, lease=lease)

    async def open(self) -> None:
        """Open the store, begin the lease. Raises `JournalError`."""
        await self.engine.open()
        try:
            await self.worker.start()
        except BaseException:
            await self.engine.close()
            raise

    async def close(self) -> None:
        """Give back what is held, and close the store."""
        try:
            await self.worker.stop()
        finally:
            await self.engine.close()

    def place(self, seller_id: str, settle_time: float) -> Place:
        """Return where the journal of one seller is: entering takes its seat, leaving gives it back."""
        return self.worker.place_of(seller_id, settle_time)

    async def notice(self, seller_id: str, message_id: str | None) -> bool:
        """Take in that there is news, of a message or unnamed, in any process; return False for no seller of these.

        Its holder hears of it within a second. Raises `JournalError`.
        """
        if message_id is None:
            return await self.write(lambda store: store.ring(seller_id), order=seller_id)
        # Replicas are told the same in another order.
        order = f"{seller_id} {message_id}"
        return await self.write(lambda store: store.notice(seller_id, message_id, CHECKED_AFTER), order=order)

    async def sellers(self) -> tuple[Seller, ...]:
        """Return every seller: who holds it, and why it is stopped, if it is. Raises `JournalError`."""
        return tuple(await self.engine.ask(lambda store: store.sellers()))

    async def count(self) -> tuple[int, int]:
        """Return how many sellers are not stopped, and how many live workers share them. Raises `JournalError`."""
        return await self.write(lambda store: store.count())

    async def resume(self, seller_id: str) -> None:
        """Let a stopped seller be taken again. Raises `JournalError`."""
        await self.write(lambda store: store.resume_seller(seller_id))

    async def claim_duty(self, name: str, every: float) -> bool:
        """Return True for one process in `every` seconds. Raises `JournalError`."""
        return await self.engine.write(None, lambda store, _: store.claim_duty(name, every), decision=True)

    async def write(self, work: Callable[[Any], T], *, order: str = "") -> T:
        """Run a unit of work that needs no seat and may be repeated. Raises `JournalError`."""
        if not self.engine.is_open:
            raise JournalError("the database is not open: use `async with`")
        return await self.engine.write(None, lambda store, _: work(store), decision=False, order=order)

"""The engine of a drain: looks at packs, a few ahead, and repeats the unread query until nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from ..errors import DrainStalled, MessagesError
from ..models import UnreadListing
from .backlog import Backlog, Pack, Step
from .seller_check import SellerCheck

R = TypeVar("R")


class DrainLoop(Generic[R]):
    """Rounds of listing and looking, over a `Backlog`.

    `unread` asks for the listing. `look` looks at one pack, in a task of its own. `looked` is told what it showed, and
    `failed` the error it ended in; either says to the backlog what became of the pack. `refusals` counts the 429s so
    far.
    """

    def __init__(
        self,
        backlog: Backlog,
        *,
        unread: Callable[[], Awaitable[UnreadListing]],
        look: Callable[[Pack], Coroutine[Any, Any, R]],
        looked: Callable[[Pack, R], Awaitable[None]],
        failed: Callable[[Pack, MessagesError], Awaitable[None]],
        refusals: Callable[[], int],
        seller_id: str,
    ) -> None:
        self.backlog: Final = backlog
        self._seller = SellerCheck(seller_id)
        self._closed = asyncio.Event()
        self._unread = unread
        self._look = look
        self._looked = looked
        self._failed = failed
        self._refusals = refusals
        self._refusals_before = refusals()
        self._looks: dict[asyncio.Task[R], Pack] = {}

    @property
    def closed(self) -> bool:
        """True if nothing is begun any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Begin nothing more; `advance` returns."""
        self._closed.set()

    @property
    def looks(self) -> dict[asyncio.Task[R], Pack]:
        """The looks that are under way."""
        return self._looks

    def look_ahead(self, room: int) -> None:
        """Have up to `room` looks under way."""
        now = asyncio.get_running_loop().time()
        if self._seller.room is not None:
            room = min(room, self._seller.room)
        while len(self._looks) < room and not self.closed:
            pack = self.backlog.take(now)
            if pack is None:
                break
            self._looks[asyncio.create_task(self._look(pack))] = pack

    async def advance(self, room: int) -> bool:
        """Do the next thing there is to do; False: there is nothing left.

        Raises `DrainStalled`, the error of a listing that is refused, and what `looked` and `failed` raise.
        """
        self.look_ahead(room)
        if self._looks:
            done, _ = await asyncio.wait(self._looks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self.settle(task)
            return True
        now = asyncio.get_running_loop().time()
        step = self.backlog.step(now)
        if isinstance(step, float):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(step):
                    await self._closed.wait()
        elif step is Step.LIST:
            await self.ask()
        elif step is Step.STALLED:
            raise DrainStalled(self.backlog.set_aside)
        return step is not Step.END

    async def settle(self, task: asyncio.Task[R]) -> None:
        """Tell what became of a look that is over; once.

        Raises `Forbidden` where the first ones show that the seller id is another user's.
        """
        pack = self._looks.pop(task, None)
        if pack is None:
            return
        if task.cancelled():
            if self.closed:
                return
            self.backlog.reopen(pack)
            raise asyncio.CancelledError  # not by us: what it cut off must not look as if it had never been asked for
        if isinstance(error := task.exception(), MessagesError):
            await self._failed(pack, error)
        else:
            await self._looked(pack, task.result())
        self._seller.ended(error if isinstance(error, MessagesError) else None)

    async def cancel(self) -> None:
        """Cancel the looks that are under way; wait until they are over."""
        self.close()
        for task in self._looks:
            task.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        self._looks.clear()

    async def ask(self) -> None:
        """Ask for the listing, and take it in; when no look is under way."""
        listing = await self._unread()
        self._seller.listed(listing)
        refusals = self._refusals()
        self.backlog.listed(listing, asyncio.get_running_loop().time(), doubtful=refusals != self._refusals_before)
        self._refusals_before = refusals

"""The engine of a drain: reads packs, a few ahead, and repeats the unread query until nothing is left."""

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
    """Listings and reads by turns, over a `Backlog`.

    `list_unread` asks for the listing. `read` reads one pack, in a task of its own. `on_read` gets what it showed, and
    `on_failure` the error that it ended in; either says to the backlog what became of the pack. `refusals` counts the
    429s so far.
    """

    def __init__(
        self,
        backlog: Backlog,
        *,
        list_unread: Callable[[], Awaitable[UnreadListing]],
        read: Callable[[Pack], Coroutine[Any, Any, R]],
        on_read: Callable[[Pack, R], Awaitable[None]],
        on_failure: Callable[[Pack, MessagesError], Awaitable[None]],
        refusals: Callable[[], int],
        seller_id: str,
    ) -> None:
        self.backlog: Final = backlog
        self.reads_in_flight: Final[dict[asyncio.Task[R], Pack]] = {}
        self._list_unread = list_unread
        self._read = read
        self._on_read = on_read
        self._on_failure = on_failure
        self._refusals = refusals
        self._refusals_before = refusals()
        self._seller = SellerCheck(seller_id)
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """True if nothing is sent any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Send nothing more, and let `advance` return."""
        self._closed.set()

    async def cancel(self) -> None:
        """Close it, cancel the reads in flight, and wait until they are over."""
        self.close()
        for task in self.reads_in_flight:
            task.cancel()
        await asyncio.gather(*self.reads_in_flight, return_exceptions=True)
        self.reads_in_flight.clear()

    def read_ahead(self, room: int) -> None:
        """Have up to `room` reads in flight."""
        now = asyncio.get_running_loop().time()
        if self._seller.room is not None:
            room = min(room, self._seller.room)
        while len(self.reads_in_flight) < room and not self.closed:
            pack = self.backlog.issue(now)
            if pack is None:
                break
            task = asyncio.create_task(self._read(pack))
            task.add_done_callback(_noticed)
            self.reads_in_flight[task] = pack

    async def advance(self, room: int) -> bool:
        """Do the next thing there is to do; False: there is nothing left.

        Raises `DrainStalled`, the error of a listing that is refused, and what `on_read`, `on_failure` and `finish`
        raise.
        """
        self.read_ahead(room)
        if self.reads_in_flight:
            now = asyncio.get_running_loop().time()
            due = self.backlog.next_read(now)
            timeout = None if due is None else due - now
            done, _ = await asyncio.wait(self.reads_in_flight, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self.finish(task)
            return True
        step = self.backlog.step(asyncio.get_running_loop().time())
        if isinstance(step, float):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(step):
                    await self._closed.wait()
        elif step is Step.LIST:
            await self.refresh_listing()
        elif step is Step.STALLED:
            raise DrainStalled(self.backlog.parked)
        return step is not Step.END

    async def finish(self, task: asyncio.Task[R]) -> None:
        """Take in what became of a read that is over; once.

        Raises `Forbidden` where the first reads show that the seller id is another user's.
        """
        pack = self.reads_in_flight.pop(task, None)
        if pack is None:
            return
        if task.cancelled():
            if self.closed:
                return
            self.backlog.reopen(pack)
            raise asyncio.CancelledError  # not by us: what it cut off must not look as if it had never been asked for
        error = task.exception()
        if isinstance(error, MessagesError):
            await self._on_failure(pack, error)
            self._seller.ended(error)
        else:
            await self._on_read(pack, task.result())
            self._seller.ended(None)

    async def refresh_listing(self) -> None:
        """Ask for the listing and take it in, when no read is in flight."""
        listing = await self._list_unread()
        self._seller.listed(listing)
        refusals = self._refusals()
        self.backlog.listed(listing, asyncio.get_running_loop().time(), throttled=refusals != self._refusals_before)
        self._refusals_before = refusals


def _noticed(task: asyncio.Task[R]) -> None:
    if not task.cancelled():
        task.exception()  # a drain that was left and let go reads it no more: asyncio need not complain

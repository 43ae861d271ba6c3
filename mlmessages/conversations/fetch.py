"""`Fetch`: many conversations, a few at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterable
from typing import ClassVar, Final

from ..api.arguments import check_id, check_int
from ..errors import MessagesError
from ..models import Conversation, PackFailure
from .reader import ConversationRead, Reader
from .single_consumer import SingleConsumer

PackIds = Iterable[int | str] | AsyncIterable[int | str]
Fetched = Conversation | PackFailure


class _Ids:
    """The ids of an iterable or async iterable: checked, each once, pulled one at a time and no further ahead."""

    def __init__(self, pack_ids: PackIds) -> None:
        self._now = None if isinstance(pack_ids, AsyncIterable) else iter(pack_ids)
        self._later = aiter(pack_ids) if isinstance(pack_ids, AsyncIterable) else None
        self._seen: set[str] = set()

    @property
    def at_once(self) -> bool:
        """True if `pull` gives the next one; else `wait` does."""
        return self._now is not None

    def pull(self) -> str | None:
        """Return the next id; None: there is none."""
        assert self._now is not None
        return next((new for pack_id in self._now if (new := self._new(pack_id)) is not None), None)

    async def wait(self) -> str | None:
        """Wait for the next id of an async iterable; None: there is none."""
        assert self._later is not None
        async for pack_id in self._later:
            if (new := self._new(pack_id)) is not None:
                return new
        return None

    def _new(self, pack_id: int | str) -> str | None:
        checked = check_id("pack_id", pack_id)
        if checked in self._seen:
            return None
        self._seen.add(checked)
        return checked


class Fetch(SingleConsumer[Fetched]):
    """Many conversations, whole, each once, in completion order: an async iterator and async context manager.

    No more than `concurrency` conversations are in flight or ready, and no more ids are pulled than that; of what was
    read nothing is kept but the ids. Made by `MessagesClient.fetch`.
    """

    _NAME: ClassVar[str] = "a fetch"

    def __init__(
        self,
        reader: Reader,
        pack_ids: PackIds,
        *,
        concurrency: int,
        limit: int,
        mark: bool,
        check_open: Callable[[], None],
    ) -> None:
        super().__init__()
        if isinstance(pack_ids, (str, bytes)) or not isinstance(pack_ids, (Iterable, AsyncIterable)):
            raise ValueError("pack_ids must be an iterable or async iterable of pack ids")
        if isinstance(pack_ids, Collection):
            for pack_id in pack_ids:
                check_id("pack_id", pack_id)
        self._concurrency: Final = check_int("concurrency", concurrency, 1)
        self._limit: Final = check_int("limit", limit, 1)
        self._mark = mark
        self._reader = reader
        self._check_open = check_open
        self._ids = _Ids(pack_ids)
        self._more = True
        self._in_flight: set[asyncio.Task[None]] = set()
        self._pulling = False
        self._ready: deque[Fetched] = deque()
        self._failure: BaseException | None = None  # raised when all that was in flight before it has been yielded
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def _is_closed(self) -> bool:
        return self._closed

    def _check(self) -> None:
        self._check_open()

    async def _next(self) -> Fetched | None:
        try:
            while not self._closed:
                self._start()
                if self._ready:
                    return self._ready.popleft()
                if not self._in_flight:
                    break
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self._waiter = None
        if isinstance(self._failure, asyncio.CancelledError):
            await self.aclose()
        if self._failure is not None:
            raise self._failure
        return None

    async def aclose(self) -> None:
        """End it: cancel what is in flight."""
        self._closed = True
        in_flight = [*self._in_flight]
        for task in in_flight:
            task.cancel()
        self._wake()
        await asyncio.gather(*in_flight, return_exceptions=True)
        self._ready.clear()

    def _start(self) -> None:
        """Have as many reads in flight as there is room for."""
        while self._more and not self._pulling and len(self._in_flight) + len(self._ready) < self._concurrency:
            if self._ids.at_once:
                try:
                    self._pulled(self._ids.pull())
                except Exception as error:
                    self._fail(error)
            else:
                self._pulling = True
                self._spawn(self._pull())

    async def _pull(self) -> None:
        try:
            self._pulled(await self._ids.wait())
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error)
        finally:
            self._pulling = False
            self._over()

    def _pulled(self, pack_id: str | None) -> None:
        if pack_id is None:
            self._more = False
        else:
            self._spawn(self._read(pack_id))

    async def _read(self, pack_id: str) -> None:
        read = ConversationRead()
        try:
            await self._reader.walk(read, pack_id, self._limit, mark=self._mark)
            self._ready.append(self._reader.conversation(read, pack_id, marked=self._mark))
        except MessagesError as error:
            self._ready.append(PackFailure(pack_id, error))
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error)
        finally:
            self._over()

    def _fail(self, error: BaseException) -> None:
        """Send nothing more: `error` is not that of one pack.

        A cancellation that did not come from here is one: what it cut off must not look as if it had never been asked
        for.
        """
        if not self._closed:
            self._failure = self._failure or error
        self._more = False

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._in_flight.add(task)
        task.add_done_callback(self._ended)

    def _over(self) -> None:
        """Take the current task out. Its callback would wake the consumer a turn of the loop later."""
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.discard(task)
        self._wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._in_flight:  # cancelled before it began
            self._in_flight.discard(task)
            self._fail(asyncio.CancelledError())
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

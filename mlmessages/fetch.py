"""Many conversations, a few at a time: `MessagesClient.fetch`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable
from typing import Final

from .arguments import digits, whole
from .errors import MessagesError
from .models import Conversation, PackFailure
from .reader import Look, Reader

PackIds = Iterable[int | str] | AsyncIterable[int | str]
Fetched = Conversation | PackFailure


class _Ids:
    """The ids of an iterable or async iterable, checked, each once, pulled one at a time and no further ahead."""

    def __init__(self, pack_ids: PackIds) -> None:
        self._now = None if isinstance(pack_ids, AsyncIterable) else iter(pack_ids)
        self._later = aiter(pack_ids) if isinstance(pack_ids, AsyncIterable) else None
        self._seen: set[str] = set()

    def pull(self) -> str | asyncio.Task[str | None] | None:
        """The next id; or a task that gets it, None for the end; or None: there is none."""
        if self._later is not None:
            return asyncio.create_task(self._pull(self._later))
        assert self._now is not None
        return next((new for pack_id in self._now if (new := self._new(pack_id)) is not None), None)

    async def _pull(self, source: AsyncIterator[int | str]) -> str | None:
        async for pack_id in source:
            if (new := self._new(pack_id)) is not None:
                return new
        return None

    def _new(self, pack_id: int | str) -> str | None:
        checked = digits("pack_id", pack_id)
        if checked in self._seen:
            return None
        self._seen.add(checked)
        return checked


class Fetch:
    """Many conversations, whole, each once, in completion order: an async iterator, to be closed with `aclose`.

    No more than `concurrency` conversations are in flight or ready, and so many ids pulled; of what was read nothing is
    kept but the ids. Made by `MessagesClient.fetch`.
    """

    def __init__(
        self,
        reader: Reader,
        pack_ids: PackIds,
        *,
        concurrency: int,
        limit: int,
        mark: bool,
        on_close: Callable[[Fetch], None],
    ) -> None:
        if isinstance(pack_ids, (str, bytes)) or not isinstance(pack_ids, (Iterable, AsyncIterable)):
            raise ValueError("pack_ids must be an iterable or async iterable of pack ids")
        if isinstance(pack_ids, Collection):
            for pack_id in pack_ids:
                digits("pack_id", pack_id)
        self._concurrency: Final = whole("concurrency", concurrency, 1)
        self._limit: Final = whole("limit", limit, 1)
        self._mark = mark
        self._reader = reader
        self._on_close = on_close
        self._ids = _Ids(pack_ids)
        self._more = True
        self._pulling: asyncio.Task[str | None] | None = None
        self._reads: set[asyncio.Task[Fetched]] = set()
        self._ready: deque[Fetched] = deque()
        self._closed = self._busy = False

    def __aiter__(self) -> Fetch:
        return self

    async def __anext__(self) -> Fetched:
        if self._busy:
            raise RuntimeError("a fetch has one consumer at a time")
        if self._closed:
            raise StopAsyncIteration
        self._reader.session.check_open()
        self._busy = True
        try:
            while not self._closed:
                self._start()
                if self._ready:
                    return self._ready.popleft()
                if not self._reads and self._pulling is None:
                    break
                await self._wait()
        except Exception:
            await self.aclose()
            raise
        finally:
            self._busy = False
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it: what is in flight is cancelled."""
        self._closed = True
        unfinished: list[asyncio.Task[Fetched] | asyncio.Task[str | None]] = [*self._reads]
        if self._pulling is not None:
            unfinished.append(self._pulling)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        self._reads.clear()
        self._ready.clear()
        self._pulling = None
        self._on_close(self)

    def _start(self) -> None:
        """Have as many reads in flight as there is room for."""
        while self._more and self._pulling is None and len(self._reads) + len(self._ready) < self._concurrency:
            pulled = self._ids.pull()
            if isinstance(pulled, asyncio.Task):
                self._pulling = pulled
            else:
                self._pulled(pulled)

    def _pulled(self, pack_id: str | None) -> None:
        if pack_id is None:
            self._more = False
        else:
            self._reads.add(asyncio.create_task(self._read(pack_id)))

    async def _wait(self) -> None:
        """Wait until something is read, or the next id is there."""
        under_way = self._reads if self._pulling is None else {*self._reads, self._pulling}
        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        if self._closed:
            return
        if self._pulling is not None and self._pulling.done():
            pulled, self._pulling = self._pulling, None
            self._pulled(pulled.result())
        for read in [read for read in self._reads if read.done()]:
            self._reads.discard(read)
            self._ready.append(read.result())

    async def _read(self, pack_id: str) -> Fetched:
        look = Look()
        try:
            await self._reader.walk(look, pack_id, self._limit, mark=self._mark)
        except MessagesError as error:
            return PackFailure(pack_id, error)
        return self._reader.conversation(look, pack_id, marked=self._mark)

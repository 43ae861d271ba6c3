"""The thread in front of a store: what comes together is committed together, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from attrs import define

from ..errors import JournalError, LeaseLost
from ..failpoints import failpoint
from .store import Disconnected, Seat, Store, Unstorable

T = TypeVar("T")
_MOST_KEPT: Final = 64 << 20  # bytes of facts that wait for a connection
_FIRST_RETRY: Final = 0.25  # seconds until a broken connection is tried again; doubled each time
_LONGEST_RETRY: Final = 5.0


@define(eq=False)
class _Unit:
    """A unit of work that waits for the next transaction."""

    seat: Seat | None
    work: Callable[[Store, bool], Any]  # is told whether the seat is held
    decision: bool
    size: int
    done: asyncio.Future[Any]


class Engine:
    """A `Store` in a thread of its own, for all the seats of a process.

    `open_store` is called in that thread. A unit of work is a callable that gets the store, and whether its seat is
    held.
    """

    def __init__(self, open_store: Callable[[], Store], name: str = "mlmessages-journal") -> None:
        self._open_store = open_store
        self._name = name
        self._store: Store | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._queue: list[_Unit] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closing = False
        self.breaks = 0  # how often the connection broke: what was decided before is to be read again

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._thread is not None

    async def open(self) -> None:
        """Start the thread and open the store in it. Raises `JournalError`."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._make)
        except BaseException:
            thread.shutdown(wait=True)
            if self._store is not None:  # cancelled meanwhile
                self._store.close()
                self._store = None
            raise
        self._thread, self._closing = thread, False

    def _make(self) -> None:
        self._store = self._open_store()

    async def close(self) -> None:
        """Commit what was begun, overwrite what was forgotten, end the thread. Raises `JournalError`."""
        if self._thread is None or self._store is None:
            return
        self._closing = True
        try:
            if self._flushing is not None:
                await asyncio.shield(self._flushing)
            await self.ask(lambda store: store.purge())
        finally:
            thread, store = self._thread, self._store
            self._thread = self._store = None
            try:
                await asyncio.get_running_loop().run_in_executor(thread, store.close)
            finally:
                thread.shutdown(wait=True)

    async def ask(self, work: Callable[[Store], T]) -> T:
        """Run `work`, which writes nothing, outside of the transactions. Raises `JournalError`."""
        try:
            return await self._call(lambda store: _explained(store, work))
        except Disconnected:
            self.breaks += 1
            raise

    async def write(
        self,
        seat: Seat | None,
        work: Callable[[Store, bool], T],
        *,
        decision: bool,
        size: int = 0,
    ) -> T:
        """Run `work` in the next transaction; return its result when that is durable.

        A caller that is cancelled meanwhile changes nothing about it. A `decision` for a `seat` that is not held raises
        `LeaseLost`; without a seat it is not fenced. A fact, which is no decision, is said again where
        the connection broke, for as long as it takes; `size` is what it holds meanwhile, in bytes. Raises
        `JournalError`.
        """
        if self._thread is None:
            raise JournalError("the journal is closed")
        unit = _Unit(seat, work, decision, size, asyncio.get_running_loop().create_future())
        self._queue.append(unit)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        result: T = await asyncio.shield(unit.done)
        return result

    async def _flush(self) -> None:
        retry = _FIRST_RETRY
        try:
            while self._queue:
                units, self._queue = self._queue, []
                try:
                    results: Sequence[Any] = await self._call(lambda store, units=units: _commit(store, units))  # type: ignore[misc]
                except Exception as error:
                    results = [error] * len(units)
                again = self._keep_facts(units, results)
                for unit, result in zip(units, results, strict=True):
                    if unit not in again:
                        _tell(unit, result)
                if any(isinstance(result, Disconnected) for result in results):
                    self.breaks += 1
                    self._queue[:0] = again
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, _LONGEST_RETRY)
                else:
                    retry = _FIRST_RETRY
        finally:
            self._flushing = None

    def _keep_facts(self, units: Sequence[_Unit], results: Sequence[Any]) -> list[_Unit]:
        """Return the facts that a broken connection may have swallowed: they may be said twice, so they are."""
        kept: list[_Unit] = []
        room = _MOST_KEPT
        for unit, result in zip(units, results, strict=True):
            if isinstance(result, Disconnected) and not unit.decision and not self._closing and room > unit.size:
                room -= unit.size
                kept.append(unit)
        return kept

    async def _call(self, work: Callable[[Store], T]) -> T:
        if self._thread is None or self._store is None:
            raise JournalError("the journal is closed")
        loop = asyncio.get_running_loop()
        store = self._store
        call = loop.run_in_executor(self._thread, work, store)
        if store.patience is None:
            return await call
        watchdog = loop.call_later(store.patience, store.interrupt)
        call.add_done_callback(lambda _: watchdog.cancel())
        return await call


def _tell(unit: _Unit, result: Any) -> None:
    if unit.done.cancelled():
        return
    if isinstance(result, Exception):
        unit.done.set_exception(result)
        unit.done.exception()  # its caller may be gone
    else:
        unit.done.set_result(result)


def _commit(store: Store, units: Sequence[_Unit]) -> list[Any]:
    """Commit all `units` together; return the result of each.

    Where the engine cannot hold a value of one of them, each is committed alone, and that one has failed.
    """
    try:
        return _transaction(store, units)
    except Unstorable:
        if len(units) == 1:
            raise
    return [_alone(store, unit) for unit in units]


def _alone(store: Store, unit: _Unit) -> Any:
    try:
        [result] = _transaction(store, [unit])
    except Exception as error:
        return error
    return result


def _transaction(store: Store, units: Sequence[_Unit]) -> list[Any]:
    def work(store: Store) -> list[Any]:
        held = store.begin({unit.seat for unit in units if unit.seat is not None})
        results: dict[int, Any] = {}
        # In the order in which the seats are locked: two processes never wait for each other.
        for n in sorted(range(len(units)), key=lambda n: _order(units[n])):
            results[n] = _run(store, units[n], held=units[n].seat in held)
        failpoint("before commit")
        store.commit()
        return [results[n] for n in range(len(units))]

    try:
        done = _explained(store, work)
    except BaseException:
        store.rollback()
        raise
    failpoint("after commit")
    return done


def _order(unit: _Unit) -> int:
    return -1 if unit.seat is None else unit.seat.no


def _run(store: Store, unit: _Unit, *, held: bool) -> Any:
    if unit.decision and unit.seat is not None and not held:
        return LeaseLost(f"another worker has taken seller {unit.seat.seller_id} over: nothing more is decided here")
    try:
        return unit.work(store, held)
    except JournalError as error:  # the store's own refusal, which leaves nothing half written: the others go on
        return error


def _explained(store: Store, work: Callable[[Store], T]) -> T:
    try:
        return work(store)
    except JournalError:
        raise
    except Exception as error:
        explained = store.explain(error)
        if explained is None:
            raise
        raise explained from None

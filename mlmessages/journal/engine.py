"""Group commit: what comes together is committed together, in the store's own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from attrs import define

from ..errors import JournalError, LeaseLost
from ..failpoints import failpoint
from .store import Disconnected, Seat, SerializationFailure, Store, Unstorable
from .thread import EngineThread, explained

T = TypeVar("T")
_MOST_KEPT: Final = 64 << 20  # bytes of facts that wait for a connection
_FIRST_RETRY: Final = 0.25  # seconds until a broken connection is tried again; doubled each time
_LONGEST_RETRY: Final = 5.0
_CONFLICTS: Final = 3  # times that a transaction is repeated which the engine could not order with another's


@define(eq=False)
class _Unit:
    """A unit of work that waits for the next transaction."""

    seat: Seat | None
    work: Callable[[Any, bool], Any]  # is told whether the seat is held
    decision: bool
    size: int
    order: str
    done: asyncio.Future[Any]


class Engine:
    """A `Store` in a thread of its own, for all the seats of a process.

    `open_store` is called in that thread. A unit of work is a callable that gets the store, and whether its seat is
    held.
    """

    def __init__(self, open_store: Callable[[], Store], name: str = "mlmessages-journal") -> None:
        self._thread = EngineThread(open_store, name)
        self._queue: list[_Unit] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._thread.is_open

    @property
    def breaks(self) -> int:
        """How often the connection broke: what was decided just before is unknown, and to be read again."""
        return self._thread.breaks

    async def open(self) -> None:
        """Start the thread and open the store in it. Raises `JournalError`."""
        await self._thread.open()
        self._closing = False

    async def close(self) -> None:
        """Commit what was begun, overwrite what was forgotten, end the thread. Raises `JournalError`."""
        if not self._thread.is_open:
            return
        self._closing = True
        try:
            if self._flushing is not None:
                await asyncio.shield(self._flushing)
            await self.ask(lambda store: store.purge())
        finally:
            await self._thread.close()

    async def ask(self, work: Callable[[Any], T]) -> T:
        """Run `work`, which writes nothing, outside of the transactions. Raises `JournalError`."""
        return await self._thread.call(work)

    async def write(
        self, seat: Seat | None, work: Callable[[Any, bool], T], *, decision: bool, size: int = 0, order: str = ""
    ) -> T:
        """Run `work` in the next transaction; return its result when that is durable.

        A caller that is cancelled meanwhile changes nothing about it. A `decision` for a `seat` that is not held raises
        `LeaseLost`; without a seat it is not fenced. A fact, which is no decision, is said again where the connection
        broke, for as long as it takes; `size` is what it holds meanwhile, in bytes. Work without a seat is done in
        the order of its `order`: all processes lock rows in the same order then, and do not block each other. Raises
        `JournalError`.
        """
        if not self._thread.is_open:
            raise JournalError("the journal is closed")
        unit = _Unit(seat, work, decision, size, order, asyncio.get_running_loop().create_future())
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
                    results: Sequence[Any] = await self._thread.call(partial(_commit, units=units))
                except Exception as error:
                    results = [error] * len(units)
                else:
                    self._thread.breaks += any(isinstance(result, Disconnected) for result in results)
                again = self._said_again(units, results)
                for unit, result in zip(units, results, strict=True):
                    if unit not in again:
                        _tell(unit, result)
                self._queue[:0] = again
                if again:
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, _LONGEST_RETRY)
                else:
                    retry = _FIRST_RETRY
        finally:
            self._flushing = None

    def _said_again(self, units: Sequence[_Unit], results: Sequence[Any]) -> list[_Unit]:
        """Return the facts that a broken connection may have swallowed."""
        kept: list[_Unit] = []
        room = _MOST_KEPT
        for unit, result in zip(units, results, strict=True):
            if isinstance(result, Disconnected) and not unit.decision and not self._closing and room > unit.size:
                room -= unit.size
                kept.append(unit)
        return kept


def _tell(unit: _Unit, result: Any) -> None:
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
        return _ordered(store, units)
    except Unstorable:
        if len(units) == 1:
            raise
    return [_alone(store, unit) for unit in units]


def _alone(store: Store, unit: _Unit) -> Any:
    try:
        [result] = _ordered(store, [unit])
    except Exception as error:
        return error
    return result


def _ordered(store: Store, units: Sequence[_Unit]) -> list[Any]:
    for _ in range(_CONFLICTS):
        try:
            return _transaction(store, units)
        except SerializationFailure:
            continue
    return _transaction(store, units)


def _transaction(store: Store, units: Sequence[_Unit]) -> list[Any]:
    # In the order in which the seats are locked: two processes never wait for each other.
    order = sorted(range(len(units)), key=lambda n: _order(units[n])) if len(units) > 1 else [0]

    def work(store: Store) -> list[Any]:
        held = store.begin({unit.seat for unit in units if unit.seat is not None})
        results: list[Any] = [None] * len(units)
        for n in order:
            results[n] = _run(store, units[n], held=units[n].seat in held)
        failpoint("before commit")
        store.commit()
        return results

    try:
        done = explained(store, work)
    except BaseException:
        store.rollback()
        raise
    failpoint("after commit")
    return done


def _order(unit: _Unit) -> tuple[int, str]:
    return (-1 if unit.seat is None else unit.seat.no), unit.order


def _run(store: Store, unit: _Unit, *, held: bool) -> Any:
    if unit.decision and unit.seat is not None and not held:
        return LeaseLost(f"another worker has taken seller {unit.seat.seller_id} over: nothing more is decided here")
    try:
        return unit.work(store, held)
    except (SerializationFailure, Disconnected, Unstorable):
        raise
    except JournalError as error:  # the store's own refusal, which leaves nothing half written: the others go on
        return error

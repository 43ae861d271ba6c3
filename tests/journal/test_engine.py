"""The thread in front of a store: group commit, failures, closing."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from cases import case
from journal.stores import SELLER, entry
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Journal, SqlitePlace
from mlmessages.journal.sqlite import SqliteStore, contents
from mlmessages.journal.store import FileStore, SerializationFailure, Stored, StoredMessage, Unstorable
from mlmessages.journal.thread import EngineThread
from mlmessages.testing import Sandbox
from worlds import on_virtual_clock


class Wrapped:
    """A store around a store: counts the transactions, and fails or waits where it is told to."""

    def __init__(self, inner: FileStore) -> None:
        self.inner = inner
        self.transactions = 0
        self.writes = 0
        self.fail_at = float("inf")
        self.before_commit: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in ("listed", "claim", "read", "reopen", "park", "acknowledge", "reopen_claims"):
            return method

        def write(*args: Any, **named: Any) -> Any:
            self.writes += 1
            if self.writes >= self.fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return method(*args, **named)

        return write

    def commit(self) -> None:
        self.before_commit()
        self.inner.commit()
        self.transactions += 1


async def opened(path: Path, store: Wrapped | None = None) -> Journal:
    place = (
        SqlitePlace(path, SELLER) if store is None else SqlitePlace(path, SELLER, lambda _, __: cast(FileStore, store))
    )
    journal = Journal(place)
    await journal.open()
    return journal


@on_virtual_clock
async def test_what_comes_together_is_committed_together(journal: Path) -> None:
    """300 claims at once: two transactions, not 300; each returns its own result."""
    store = Wrapped(SqliteStore(journal, SELLER))
    open_journal = await opened(journal, store)
    await open_journal.listed([(str(p), 1, None) for p in range(300)], None)
    before = store.transactions
    await asyncio.gather(*(open_journal.claim(str(p)) for p in range(300)))
    assert store.transactions - before <= 2
    results = await asyncio.gather(
        *(open_journal.read(str(p), [entry(f"m{p}"), entry("shared")], None) for p in range(300))
    )
    assert store.transactions - before <= 4
    assert [r.fresh[0] for r in results] == [f"m{p}" for p in range(300)]
    assert sum("shared" in r.fresh for r in results) == 1
    await open_journal.close()


@on_virtual_clock
async def test_an_inbox_commits_many_claims_and_results_together(disk: Any, inbox_of: Any, consumer: Any) -> None:
    """32 conversations at a time: fewer than a quarter of the commits that one for each step would be."""
    sandbox = Sandbox(packs=320)
    async with inbox_of(sandbox, concurrency=32) as inbox:
        drain = inbox.drain()
        async for delivery in drain:
            consumer.deliveries.append(delivery)
    assert len(consumer.ids) == 320
    assert disk.commits < 2 * 320 / 2


@on_virtual_clock
async def test_a_write_that_fails_fails_its_whole_group_and_nothing_else(journal: Path) -> None:
    """Each of those who waited gets the `JournalError`, none of them is on the disk, and the next group goes on."""
    store = Wrapped(SqliteStore(journal, SELLER))
    open_journal = await opened(journal, store)
    await open_journal.listed([(str(p), 1, None) for p in range(6)], None)
    store.fail_at = store.writes + 3
    results = await asyncio.gather(*(open_journal.claim(str(p)) for p in range(6)), return_exceptions=True)
    assert all(isinstance(r, JournalError) for r in results)
    store.fail_at = float("inf")
    assert {row.state for row in await open_journal.rows()} == {"open"}
    await open_journal.claim("1")
    assert sum(row.state == "issued" for row in await open_journal.rows()) == 1
    await open_journal.close()


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), OSError(5, "I/O error"), ValueError("odd"), KeyError("odd")]
)
@on_virtual_clock
async def test_whatever_the_engine_raises_every_caller_hears_of_it(error: Exception, journal: Path) -> None:
    """Every caller of that group hears of it; the journal is usable afterwards, and can be closed."""
    store = Wrapped(SqliteStore(journal, SELLER))
    open_journal = await opened(journal, store)

    def fail() -> None:
        raise error

    store.before_commit = fail
    results = await asyncio.gather(
        open_journal.listed([("1", 1, None)], None), open_journal.reopen_claims(0), return_exceptions=True
    )
    assert all(isinstance(r, JournalError | KeyError) for r in results)
    store.before_commit = lambda: None
    await open_journal.listed([("1", 1, None)], None)
    assert len(await open_journal.rows()) == 1
    await open_journal.close()


@pytest.mark.parametrize("rows", [[("\ud800", 1, None)], [("1", 10**30, "\udfff")], [("1", -(10**30), None)]])
@on_virtual_clock
async def test_what_the_engine_cannot_hold_is_an_error_and_no_standstill(rows: Any, journal: Path) -> None:
    """Half a surrogate pair, an integer beyond 64 bits: `JournalError`."""
    open_journal = await opened(journal)
    with pytest.raises(JournalError):
        await open_journal.listed(rows, None)
    await open_journal.listed([("1", 1, None)], None)
    await open_journal.close()


@on_virtual_clock
async def test_a_transaction_that_meets_anothers_is_repeated(journal: Path) -> None:
    """Three times; then its callers hear of it, and nothing of it is there."""
    store = Wrapped(SqliteStore(journal, SELLER))
    open_journal = await opened(journal, store)
    meetings = 3

    def meet() -> None:
        nonlocal meetings
        if meetings:
            meetings -= 1
            raise SerializationFailure("another process was faster")

    store.before_commit = meet
    await open_journal.listed([("1", 1, None)], None)
    assert (meetings, store.transactions) == (0, 1)
    meetings = 4
    with pytest.raises(SerializationFailure):
        await open_journal.claim("1")
    assert [row.state for row in await open_journal.rows()] == ["open"]
    await open_journal.close()


@case("K16")
@on_virtual_clock
async def test_a_row_that_cannot_be_stored_fails_alone(journal: Path) -> None:
    """What came together with it is committed; the error is `Unstorable`, and quotes nothing of the row."""
    open_journal = await opened(journal)
    await open_journal.listed([(str(p), 1, None) for p in range(3)], None)
    canary = StoredMessage("canary\ud800", b"{}", True)
    results = await asyncio.gather(
        open_journal.claim("0"),
        open_journal.read("1", [entry("a"), canary], None),
        open_journal.read("2", [entry("b")], None),
        return_exceptions=True,
    )
    assert results[0] is None
    assert isinstance(results[1], Unstorable)
    assert "canary" not in str(results[1])
    assert results[2] == Stored(["b"])
    assert {row.pack_id: row.state for row in await open_journal.rows()} == {"0": "issued", "1": "open"}
    assert (await open_journal.read("1", [entry("a")], None)).fresh == ["a"]
    await open_journal.close()


@case("D2", "D15")
def test_the_loop_runs_while_a_commit_waits(journal: Path) -> None:
    """A commit that is stuck in its thread does not stop the loop; a writer that is cancelled meanwhile leaves no half state."""
    import threading

    gate = threading.Event()
    inside = threading.Event()

    async def main() -> tuple[bool, int, set[str]]:
        store = Wrapped(SqliteStore(journal, SELLER))
        open_journal = await opened(journal, store)
        await open_journal.listed([(str(p), 1, None) for p in range(3)], None)

        def stuck() -> None:
            inside.set()
            assert gate.wait(30)

        store.before_commit = stuck
        writing = asyncio.ensure_future(open_journal.claim("1"))
        while not inside.is_set():
            await asyncio.sleep(0)
        turns = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            turns += 1
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        cancelled = writing.cancelled()
        late = asyncio.ensure_future(open_journal.claim("2"))
        await asyncio.sleep(0)
        gate.set()
        await late
        states = {row.pack_id for row in await open_journal.rows() if row.state == "issued"}
        await open_journal.close()
        return cancelled, turns, states

    assert asyncio.run(main()) == (True, 1000, {"1", "2"})


@on_virtual_clock
async def test_closing_waits_for_the_writes_that_were_begun(journal: Path) -> None:
    """A write whose caller has given up is on the disk when `close` returns; afterwards the journal says it is closed."""
    open_journal = await opened(journal)
    writing = asyncio.ensure_future(open_journal.listed([("1", 1, None)], None))
    await asyncio.sleep(0)
    writing.cancel()
    await open_journal.close()
    await open_journal.close()
    assert [row.pack_id for row in contents(journal).rows] == ["1"]
    for call in (open_journal.claim("1"), open_journal.rows()):
        with pytest.raises(JournalError, match="closed"):
            await call


@on_virtual_clock
async def test_opening_that_is_cancelled_gives_everything_back(journal: Path) -> None:
    """Whenever the cancellation comes, the lock is free afterwards."""
    for steps in range(4):
        opening = asyncio.ensure_future(opened(journal))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        [result] = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(result, Journal):
            await result.close()
        again = await opened(journal)
        await again.close()


@case("D8")
@on_virtual_clock
async def test_one_journal_at_a_time(journal: Path) -> None:
    """The second is refused and changes nothing; closing any other descriptor of the file does not free the first's lock."""
    first = await opened(journal)
    with pytest.raises(JournalError, match="another inbox is using this journal"):
        await opened(journal)
    journal.read_bytes()  # opens and closes the file: SQLite's own locks of this process are gone now
    with pytest.raises(JournalError):
        await opened(journal)
    await first.listed([("1", 1, None)], None)
    await first.close()
    second = await opened(journal)
    await second.close()


@case("A13")
@on_virtual_clock
async def test_a_journal_that_another_program_locks_marks_nothing(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """Another program holds a write transaction: after SQLite's patience `JournalError`; no request has left, and then all goes on."""
    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox):
        pass
    with closing(sqlite3.connect(journal, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            async with inbox_of(sandbox) as inbox:
                await consumer.empty(inbox)
        assert sandbox.log == []
        other.execute("ROLLBACK")
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert len(consumer.ids) == 2


class Silent:
    """A connection to a peer that answers nothing: a call lasts until it is cut off."""

    def __init__(self, patience: float) -> None:
        self.patience: float | None = patience
        self.begun = threading.Event()
        self.cut = threading.Event()

    def close(self) -> None:
        pass

    def interrupt(self) -> None:
        self.cut.set()

    def explain(self, error: Exception) -> JournalError | None:
        return JournalError("cut off") if isinstance(error, TimeoutError) else None

    def ask(self) -> None:
        self.begun.set()
        self.cut.wait(20)
        raise TimeoutError


@case("T14")
def test_a_silent_call_is_cut_off_although_its_caller_has_gone() -> None:
    """Else closing would wait for it, for as long as the system tries to reach the peer: a quarter of an hour."""
    silent = Silent(0.05)

    async def main() -> None:
        thread = EngineThread(lambda: silent, "silent")
        await thread.open()
        call = asyncio.ensure_future(thread.call(Silent.ask))
        await asyncio.to_thread(silent.begun.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await thread.close()

    asyncio.run(main())
    assert silent.cut.is_set()


@case("T14")
def test_closing_that_is_cancelled_waits_for_no_silent_call() -> None:
    """As a second Ctrl-C does: the call is cut off at once; the event loop does not stand still until it ends."""
    silent = Silent(3600.0)

    async def main() -> None:
        thread = EngineThread(lambda: silent, "silent")
        await thread.open()
        call = asyncio.ensure_future(thread.call(Silent.ask))
        await asyncio.to_thread(silent.begun.wait)
        closing = asyncio.ensure_future(thread.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(JournalError, match="cut off"):
            await call

    asyncio.run(main())
    assert silent.cut.is_set()

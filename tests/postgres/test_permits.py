"""One budget over many processes: permits, pauses and storms as rows of a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cases import case
from edges.sockets import within
from mlmessages import Limits, MessagesClient, Retry
from mlmessages.errors import JournalError, NotSent
from mlmessages.http.limits import Permit
from mlmessages.postgres import schema
from mlmessages.postgres.address import Address
from mlmessages.postgres.connection import Connection, Statements
from mlmessages.postgres.permits import SharedLimits, Slot, limits
from mlmessages.testing import Behaviour, RateWindow, Sandbox
from policy.servers import busiest

WORKER = Path(__file__).with_name("permit_worker.py")
DELAY: Callable[[int], float] = Retry(base=0.01).delay


class Counted(Statements):
    """Statements that count their round trips."""

    trips = 0
    fail = False

    async def run(self, *some: Any) -> Any:
        if self.fail:
            raise JournalError("it is away")
        result = await super().run(*some)
        self.trips += 1
        return result


@pytest.fixture
def database(database_url: str) -> str:
    """The URL of a database with the schema."""
    connection = Connection(Address(database_url), "mlmessages")
    schema.migrate(connection, "mlmessages")
    connection.close()
    return database_url


@pytest.fixture
def sql(database: str) -> Iterator[Callable[..., Any]]:
    """The first value of the first row of a query."""
    with psycopg.connect(database, autocommit=True) as connection:

        def value(query: str) -> Any:
            row = connection.execute(query).fetchone()  # type: ignore[call-overload]
            return row[0] if row else None

        yield value


@asynccontextmanager
async def process(url: str, **options: Any) -> AsyncIterator[SharedLimits]:
    """The budget as one more process sees it."""
    statements = Counted(Address(url), "mlmessages")
    await statements.open()
    budget = limits(statements, 1, **{"per_second": None, "period": 0.5, **options})
    try:
        yield budget
    finally:
        await budget.close()
        await statements.close()


def trips(budget: SharedLimits) -> int:
    return budget._table._statements.trips  # type: ignore[attr-defined]


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact of the database."""
    while not fact():
        await asyncio.sleep(0.005)


USED = "SELECT count(*) FROM mlmessages.permit WHERE kind = 'read' AND free_at > mlmessages.clock()"


# -- never more than the budget ----------------------------------------------------------------------------------------


@case("Q7")
@pytest.mark.parametrize(("processes", "killed"), [(3, False), (3, True), (8, False)])
@within(60)
async def test_no_window_over_all_processes_sees_more_than_the_budget(
    database: str, processes: int, killed: bool
) -> None:
    """100 a second over three and eight processes: no 429 and never more on the wire, also when one is killed."""
    reads, period, each = 100, 1.0, 320 // processes
    rng, busy = random.Random(1), asyncio.Event()

    def latency() -> float:
        if len(sandbox.log) >= 60:
            busy.set()
        return min(0.012 * rng.lognormvariate(0, 0.9), 0.3)

    window = RateWindow(reads=reads, period=period, kind="sliding")
    sandbox = Sandbox(packs=1, behaviour=Behaviour(latency=latency, rate=window))
    async with sandbox.serve() as served:
        task = {
            "database": database,
            "requests": each,
            "reads": reads,
            "period": period,
            "token": served.token,
            "seller": served.seller_id,
            "url": served.base_url,
            "pack": sandbox.pack_ids()[0],
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        workers = [
            await asyncio.create_subprocess_exec(sys.executable, str(WORKER), json.dumps(task), env=environment)
            for _ in range(processes)
        ]
        if killed:
            await busy.wait()
            workers[0].send_signal(signal.SIGKILL)
        ended = [await worker.wait() for worker in workers]
    assert ended == [-signal.SIGKILL if killed and n == 0 else 0 for n in range(processes)]
    assert {entry.status for entry in sandbox.log} == {200}
    assert busiest([entry.at for entry in sandbox.log], period) <= reads
    answered = len(sandbox.log)
    assert answered == processes * each if not killed else answered >= (processes - 1) * each


@case("Q7")
@within(20)
async def test_permits_of_a_dead_process_come_back_by_themselves(database: str, sql: Callable[..., Any]) -> None:
    """A process dies with the whole budget in flight: another one waits, and goes on when the permits have run out."""
    async with process(database, reads=3, period=0.2) as other:
        dead = Statements(Address(database), "mlmessages")
        await dead.open()
        dying = limits(dead, 1, reads=3, period=0.2, per_second=None)
        for _ in range(3):
            await dying.acquire(None)
        taken = sql("SELECT min(free_at) FROM mlmessages.permit WHERE free_at > mlmessages.clock() AND kind = 'read'")
        assert sql(USED) == 3
        await dead.close()  # nothing is given back, nothing taken anew
        permit = await other.acquire(None)
        assert sql("SELECT mlmessages.clock()") >= taken
        other.release(permit, answered=True)


@case("Q7")
@within(20)
async def test_a_request_that_lasts_keeps_its_permit(database: str, sql: Callable[..., Any]) -> None:
    """It is taken anew every period: nobody else gets it before it is given back, and a period has passed."""
    async with process(database, reads=1, period=0.1) as slow, process(database, reads=1, period=0.1) as other:
        permit = await slow.acquire(None)
        first = sql("SELECT free_at FROM mlmessages.permit WHERE kind = 'read'")
        waiting = asyncio.create_task(other.acquire(None))
        await until(lambda: sql("SELECT mlmessages.clock()") > first)
        assert not waiting.done()
        slow.release(permit, answered=True)
        given_back = sql("SELECT mlmessages.clock()")
        other.release(await waiting, answered=True)
        assert (sql("SELECT mlmessages.clock()") - given_back).total_seconds() >= 0.1


@case("Q7")
@within(20)
async def test_a_late_give_frees_only_its_own_turn(database: str, sql: Callable[..., Any]) -> None:
    """A permit that came back by itself has another holder: the late end of the first request does not free it."""
    async with process(database, reads=1) as first, process(database, reads=1) as second:
        permit = await first.acquire(None)
        sql("UPDATE mlmessages.permit SET free_at = '-infinity' WHERE kind = 'read' RETURNING 1")
        held = await second.acquire(None)
        before = trips(first)
        first.release(permit, sent=False)
        await until(lambda: trips(first) > before)
        assert sql(USED) == 1
        second.release(held, answered=True)


@case("Q7")
@within(20)
async def test_what_was_not_sent_is_free_at_once(database: str) -> None:
    """A permit whose request did not leave is the next process's as soon as it is given back."""
    async with process(database, reads=1, period=30) as first, process(database, reads=1, period=30) as second:
        first.release(await first.acquire(None), sent=False)
        await first.close()
        await second.acquire(None)


@case("Q7")
@within(20)
async def test_permits_that_nothing_waits_for_are_given_back(database: str, sql: Callable[..., Any]) -> None:
    """Five wait and four give up: the permits that were fetched for them are free again."""
    async with process(database, reads=5, period=30, concurrency=5) as budget:
        tasks = [asyncio.create_task(budget.acquire(None)) for _ in range(5)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        got = [permit for permit in ended if isinstance(permit, Permit)]
        await budget._table.close()
        assert sql(USED) == len(got)
        for permit in got:
            budget.release(permit, sent=False)


@case("Q7")
@within(20)
async def test_a_permit_that_waits_after_it_was_fetched_is_still_this_process_s(
    database: str, sql: Callable[..., Any]
) -> None:
    """Two a second may start: the second one waits for longer than a permit is held, and is taken anew meanwhile."""
    async with process(database, reads=9, period=0.15, per_second=2) as budget:
        first, second = await asyncio.gather(budget.acquire(None), budget.acquire(None))
        slot = second.name
        assert isinstance(slot, Slot)
        assert budget.is_valid(second)
        assert sql(f"{USED} AND no = {slot.no} AND turn = {slot.turn}") == 1
        for permit in (first, second):
            budget.release(permit, answered=True)
    await until(lambda: sql(USED) == 0)


@case("Q7")
@within(20)
async def test_reads_and_writes_are_apart_and_used_counts_everyone(database: str) -> None:
    """Reads that are used up stop no write; `used` counts what the other process has taken."""
    async with process(database, reads=2, writes=1, period=30) as first, process(database, reads=2, period=30) as other:
        await first.acquire(None)
        await other.acquire(None)
        assert (first.used, other.used) == (1, 2)
        await first.acquire(None, write=True)
        assert "reads=2, writes=1" in repr(first)


# -- pauses ------------------------------------------------------------------------------------------------------------


@case("Q7")
@within(20)
async def test_a_pause_is_seen_by_all(database: str, sql: Callable[..., Any]) -> None:
    """One process meets a 429: no other one starts a request before the pause is over."""
    async with process(database) as first, process(database) as other:
        permit = await first.acquire(None)
        wait = first.refused(permit, 0.4, DELAY, 300)
        first.release(permit)
        assert wait == 0.4
        await until(lambda: sql("SELECT storm FROM mlmessages.budget WHERE kind = 'read'"))
        await other.acquire(None, write=True)
        assert sql("SELECT bool_and(paused_until <= mlmessages.clock()) FROM mlmessages.budget")


async def storm(budget: SharedLimits, sql: Callable[..., Any]) -> None:
    permit = await budget.acquire(None)
    budget.refused(permit, None, DELAY, 300)
    budget.release(permit)
    await until(lambda: sql("SELECT storm FROM mlmessages.budget WHERE kind = 'read'"))


@case("Q7")
@pytest.mark.parametrize("ends", ["answered", "given up", "refused"])
@within(20)
async def test_one_probe_goes_first_over_all_processes(database: str, sql: Callable[..., Any], ends: str) -> None:
    """After a pause one request of one process goes first; its answer lets the others follow, else another one goes."""
    async with process(database) as first, process(database) as one, process(database) as two:
        await storm(first, sql)
        tasks = {asyncio.create_task(budget.acquire(None)) for budget in (one, two) for _ in range(3)}
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        before = trips(one), trips(two)
        probe = done.pop().result()
        holder, other = (one, two) if probe.window is one._reading else (two, one)
        await until(lambda: trips(other) > before[other is two] + 1)  # it has asked in vain
        assert not done
        assert not any(task.done() for task in waiting)
        assert probe.probe
        if ends == "refused":
            assert holder.refused(probe, None, DELAY, 300) == DELAY(2)
        holder.release(probe, answered=ends == "answered")
        if ends != "answered":
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            [probe] = [task.result() for task in done]
            assert probe.probe
            (one if probe.window is one._reading else two).release(probe, answered=True)
        permits = [await task for task in waiting]
        assert not sql("SELECT bool_or(storm) FROM mlmessages.budget")
        for permit in permits:
            (one if permit.window is one._reading else two).release(permit, answered=True)


@case("Q7")
@within(20)
async def test_a_probe_that_is_given_up_before_it_starts_is_followed_by_another(
    database: str, sql: Callable[..., Any]
) -> None:
    """Its permit is fetched, its turn in the second has not come, and it is cancelled: another process goes first."""
    async with process(database, per_second=1) as one, process(database) as two:
        await storm(one, sql)
        probing = asyncio.create_task(one.acquire(None))
        await until(lambda: sql("SELECT probe_until > mlmessages.clock() FROM mlmessages.budget WHERE kind = 'read'"))
        await until(lambda: one._reading.ready)
        probing.cancel()
        permit = await two.acquire(None)
        assert permit.probe
        two.release(permit, answered=True)
        with pytest.raises(asyncio.CancelledError):
            await probing


# -- the database is away ----------------------------------------------------------------------------------------------


@case("Q7")
@within(30)
async def test_without_the_database_nothing_is_sent() -> None:
    """It is down: `NotSent` after the retries, with a hint, and not a byte leaves: a guess would spend others' budget."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://tester:hunter2@127.0.0.1:{closed.getsockname()[1]}/none"
        sandbox = Sandbox(packs=1)
        async with process(url) as budget, sandbox.session() as session:
            async with MessagesClient(
                sandbox.token,
                seller_id=sandbox.seller_id,
                base_url=sandbox.base_url,
                session=session,
                limits=budget,
                retry=Retry(attempts=3, base=0.01),
            ) as client:
                results = await asyncio.gather(*(client.unread() for _ in range(5)), return_exceptions=True)
    for error in results:
        assert isinstance(error, NotSent)
        assert "Is the database up?" in (error.hint or "")
        assert "hunter2" not in f"{error} {error.hint}"
    assert sandbox.log == []


@case("Q7")
@within(20)
async def test_a_connection_that_breaks_is_made_again(database: str, sql: Callable[..., Any]) -> None:
    """The server ends the connection: the call goes on with the next attempt, and what was held is given back."""
    sandbox = Sandbox(packs=1)
    async with process(database, reads=1, period=0.2) as budget, sandbox.session() as session:
        async with MessagesClient(
            sandbox.token,
            seller_id=sandbox.seller_id,
            base_url=sandbox.base_url,
            session=session,
            limits=budget,
            retry=Retry(base=0.01),
        ) as client:
            await client.unread()
            sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mlmessages'")
            await client.unread()
    assert len(sandbox.log) == 2
    await until(lambda: sql(USED) == 0)


@case("Q7")
@within(20)
async def test_what_was_given_back_while_the_database_was_away_is_given_back_later(
    database: str, sql: Callable[..., Any]
) -> None:
    """Permits and a pause that could not be told are told when it is there again; meanwhile others fail at once."""
    async with process(database, reads=2, period=30) as budget:
        statements = budget._table._statements
        assert isinstance(statements, Counted)
        permits = [await budget.acquire(None) for _ in range(2)]
        statements.fail = True
        budget.release(permits[0], answered=True)
        budget.refused(permits[1], 0.01, DELAY, 300)
        budget.release(permits[1])
        for _ in range(2):
            with pytest.raises(NotSent):
                await budget.acquire(None, write=True)
        statements.fail = False
        await until(lambda: sql("SELECT storm FROM mlmessages.budget WHERE kind = 'read'"))
        await until(lambda: sql("SELECT max(free_at) < mlmessages.clock() + interval '30.1 s' FROM mlmessages.permit"))


# -- the same budget for all -------------------------------------------------------------------------------------------


@case("Q7")
@within(20)
async def test_a_budget_that_another_process_had_otherwise_is_told(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The last one to begin decides for all, and a warning says so; the same budget again is not spoken of."""
    with caplog.at_level(logging.WARNING, "mlmessages"):
        for reads in (2, 2, 3):
            async with process(database, reads=reads) as budget:
                budget.release(await budget.acquire(None), sent=False)
    assert [record.getMessage() for record in caplog.records] == [
        "the read budget of application 1 was 2 in 0.5 s, and is 3 in 0.5 s from now on, for every process"
    ]


@case("Q7")
def test_shared_limits_are_limits(database_url: str) -> None:
    """A client takes them; values out of range are refused as those of `Limits` are."""
    statements = Statements(Address(database_url), "mlmessages")
    assert isinstance(limits(statements, "123"), Limits)
    for wrong in ({"reads": 0}, {"writes": True}, {"period": -1}, {"concurrency": 0}, {"per_second": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            limits(statements, 1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="application_id"):
        limits(statements, "x")


@case("Q7")
def test_another_event_loop_is_refused(database: str) -> None:
    """The database belongs to the loop in which it was entered, and its limits with it."""

    async def use(budget: list[SharedLimits]) -> None:
        async with process(database) as fresh:
            budget.append(fresh)
            await fresh.acquire(None)

    async def again(budget: SharedLimits) -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            await budget.acquire(None)

    made: list[SharedLimits] = []
    asyncio.run(use(made))
    asyncio.run(again(made[0]))

"""The connection breaks, the server dies, the network falls silent: a crash of the seats, and facts that are kept."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator

import psycopg
import pytest

from cases import case
from mlmessages.errors import JournalError, LeaseLost
from mlmessages.journal.journal import Journal
from mlmessages.journal.seats import SeatChange
from mlmessages.journal.store import Disconnected, StoredMessage
from mlmessages.postgres.database import Database
from postgres.proxy import Proxy
from postgres.server import Server

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that may be killed, and started again."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def schema() -> str:
    """A schema of the test's own."""
    return f"test_{next(_numbers)}"


@pytest.fixture
def proxy(own_server: Server) -> Iterator[Proxy]:
    """A network in front of it."""
    made = Proxy(own_server.port)
    yield made
    made.close()


def message(id_: str) -> StoredMessage:
    return StoredMessage(id_, b"{}", True)


@case("Q2")
@pytest.mark.parametrize("how", ["killed", "immediate", "fast"])
async def test_a_server_that_ends_is_a_crash_of_the_seats_and_facts_are_kept(
    how: str, own_server: Server, schema: str
) -> None:
    """SIGKILL, or shut down by an administrator: what was acknowledged is there after recovery; decisions of before
    fail; an acknowledgement that was under way is said again; the seat is given back, and can be taken anew.
    """
    told: list[SeatChange] = []
    async with Database(own_server.url("postgres"), key=None, schema=schema, lease=5.0) as database:
        database.worker.listen(told.append)
        journal = Journal(database.place("7", 120.0))
        await journal.open()
        await journal.listed([(p, 1, None) for p in "123"], None)
        await journal.claim("1")
        await journal.read("1", [message("a"), message("b")], None)
        await journal.claim("2")
        if how == "killed":
            own_server.kill()
        else:
            own_server.shut_down({"immediate": signal.SIGQUIT, "fast": signal.SIGINT}[how])
        with pytest.raises(JournalError):
            await journal.claim("3")
        with pytest.raises(LeaseLost):
            journal.check()
        late = [
            asyncio.create_task(journal.acknowledge("1", ["a"])),
            asyncio.create_task(journal.read("2", [message("c")], None)),
        ]
        with pytest.raises(JournalError, match="open the inbox again"):
            await journal.claim("3")
        own_server.start()
        await asyncio.gather(*late)
        with pytest.raises(JournalError, match="open the inbox again"):
            await journal.claim("3")
        await journal.close()
        again = Journal(database.place("7", 120.0))
        while True:
            try:
                await again.open()
                break
            except JournalError:
                await asyncio.sleep(0)
        # The heartbeat sees that the connection broke, or the journal is closed before that.
        assert {change.what for change in told} & {"lost", "released"}
        rows = {row.pack_id: (row.state, row.outcome_unknown) for row in await again.rows()}
        # Done, if its answer was stored before the seat was given back.
        assert rows.get("2", ("open", True)) == ("open", True)
        assert rows["3"][0] in ("open", "issued")
        assert await again.undelivered() == ["1", "2"]
        assert [entry.id for entry in (await again.entries("1"))[0]] == ["b"]
        await again.close()


@case("Q2")
@pytest.mark.parametrize("ways", [("up", "down"), ("up",), ("down",)], ids="+".join)
async def test_a_silent_network_is_cut(
    ways: tuple[str, ...], own_server: Server, proxy: Proxy, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing answers, and nothing says that the line is dead: the call is cut off after its patience, decisions fail,
    and when the network is back everything goes on.
    """
    monkeypatch.setattr("mlmessages.postgres.connection.Connection.patience", 0.5)
    url = f"postgresql://tester@127.0.0.1:{proxy.port}/postgres?connect_timeout=2"
    async with Database(url, key=None, schema=schema, lease=600.0) as database:
        journal = Journal(database.place("7", 120.0))
        await journal.open()
        await journal.listed([("1", 1, None)], None)
        proxy.silence(*ways)
        with pytest.raises(Disconnected, match="whether the last commit was executed is unknown"):
            await journal.claim("1")
        with pytest.raises(LeaseLost):
            journal.check()
        late = asyncio.create_task(journal.read("1", [message("a")], None))
        with pytest.raises(Disconnected):
            await database.statements.run(("SELECT 1", {}))
        proxy.heal()
        assert (await late).fresh in (["a"], [])
        await database.check()
        await journal.close()
        await database.worker.beat()
        again = Journal(database.place("7", 120.0))
        await again.open()
        assert await again.undelivered() == ["1"]
        await again.close()


@case("Q2")
async def test_a_line_that_is_cut_is_made_again(
    own_server: Server, proxy: Proxy, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next call; what was decided before is to be read anew. It is the same server: there is no warning."""
    url = f"postgresql://tester@127.0.0.1:{proxy.port}/postgres"
    async with Database(url, key=None, schema=schema, lease=600.0) as database:
        await database.check()
        proxy.cut()
        with pytest.raises(Disconnected):
            await database.check()
        await database.check()
        with pytest.raises(JournalError):
            await database.worker.beat()
        await database.worker.beat()
        assert await database.journals.claim_duty("any", 60.0)
    assert "since the connection broke" not in caplog.text


@case("Q3")
async def test_another_server_behind_the_same_address_is_warned_of(
    own_server: Server, server: Server, proxy: Proxy, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restore from a backup: what was written down since that is not there."""
    async with Database(f"postgresql://tester@127.0.0.1:{proxy.port}/postgres", key=None, schema=schema) as database:
        proxy.lead_to(server.port)
        proxy.cut()
        for _ in range(2):
            with pytest.raises(JournalError):
                await database.worker.beat()
    assert caplog.text.count("is another server since the connection broke") == 1


async def test_closing_does_not_wait_for_a_server_that_is_gone(own_server: Server, schema: str) -> None:
    """Facts that could not be written are told to those who wait for them."""
    async with Database(own_server.url("postgres"), key=None, schema=schema, lease=600.0) as database:
        journal = Journal(database.place("7", 120.0))
        await journal.open()
        own_server.kill()
        late = asyncio.create_task(journal.acknowledge("1", ["a"]))
        await asyncio.sleep(0)
    with pytest.raises(JournalError):
        await late
    own_server.start()


@case("Q2")
async def test_a_server_that_does_not_write_to_its_disk_is_refused(own_server: Server, schema: str) -> None:
    """`fsync=off`: what it acknowledges may be gone after a power cut. Nothing is created."""
    own_server.kill()
    own_server.start(fsync="off")
    try:
        with pytest.raises(JournalError, match="fsync=off"):
            async with Database(own_server.url("postgres"), key=None, schema=schema):
                pass
    finally:
        own_server.kill()
        own_server.start()
    with psycopg.connect(own_server.url("postgres")) as admin:
        assert admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchall() == []


@case("Q2")
async def test_a_statement_that_is_wrong_is_told_without_its_values(own_server: Server, schema: str) -> None:
    """The server's own words name the place; the connection is used on."""
    async with Database(own_server.url("postgres"), key=None, schema=schema) as database:
        with pytest.raises(JournalError, match="UndefinedTable") as caught:
            await database.statements.run(("SELECT %(x)s FROM mlmessages.nothing", {"x": "canary"}))
        assert "canary" not in str(caught.value)
        await database.check()

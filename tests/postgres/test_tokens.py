"""`Database.tokens`: one seller's tokens for all processes, encrypted; the promises of a `TokenStore` on a server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from cryptography.fernet import Fernet

from cases import case
from mlmessages import OAuthToken
from mlmessages.auth.store import TokenStore
from mlmessages.errors import AuthError, JournalError
from mlmessages.models import Token
from mlmessages.postgres.database import Database
from mlmessages.postgres.rekey import rekey
from mlmessages.testing import EXECUTE, Delay, Sandbox, Server, on, serve_in_thread, virtual_run
from needs import needs
from shown import assert_hidden
from tokens.conftest import HOUR, client_with, first_token, posts, source_of
from worlds import on_virtual_clock

PROGRAM = Path(__file__).parents[1] / "tokens" / "process.py"
KEY, NEWER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SELLER = "700100200"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ACCESS, REFRESH = "APP_USR-canary-" + "a1b2c3d4" * 8, "TG-canary-" + "e5f6a7b8" * 8
TOKEN = Token(ACCESS, REFRESH, NOON + timedelta(hours=6), NOON, SELLER, NOON, NOON)


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as admin:
        found = admin.execute(statement)  # type: ignore[arg-type]
        return found.fetchall() if found.description else []


def generation(url: str) -> int:
    [(number,)] = execute(url, "SELECT generation FROM mlmessages.token")
    return int(number)


async def loaded(database: Database, seller: str = SELLER) -> Token | None:
    return await database.tokens(seller).load()


# -- a store -------------------------------------------------------------------------------------------------------------


async def test_what_is_saved_is_loaded(database_url: str) -> None:
    """All fields come back; a seller without tokens has None, one that is not there too, and cannot be saved for."""
    async with Database(database_url, key=KEY) as database:
        store = database.tokens(SELLER)
        assert isinstance(store, TokenStore)
        assert await store.load() is None
        with pytest.raises(AuthError, match="not in the database") as refused:
            await store.save(TOKEN)
        assert "auth exchange" in (refused.value.hint or "")
        with pytest.raises(AuthError, match="not in the database"):
            async with store.lock():
                pass
        await database.add(TOKEN)
        for token in (
            attrs.evolve(TOKEN, refresh_refused_at=NOON),
            attrs.evolve(TOKEN, refresh_token=None, issued_at=None, refresh_sent_at=None),
        ):
            await store.save(token)
            assert await loaded(database) == token
        assert "canary" not in repr(store) + repr(await store.load())
    with pytest.raises(AuthError, match="closed"):
        await store.load()


async def test_the_lock_is_held_by_one_task_at_a_time(database_url: str) -> None:
    """In one process and on one connection too; a task that is cancelled while it waits leaves nothing behind."""
    inside: list[int] = []

    async def one(number: int, store: TokenStore) -> None:
        async with store.lock():
            inside.append(number)
            assert len(inside) == 1
            await asyncio.sleep(0)
            inside.remove(number)

    async with Database(database_url, key=KEY) as database, Database(database_url, key=KEY) as other:
        await database.add(TOKEN)
        shared = database.tokens(SELLER)
        async with shared.lock():
            waiting = asyncio.ensure_future(one(0, other.tokens(SELLER)))
            await asyncio.wait({waiting}, timeout=0.05)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait({waiting})
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(one(number, shared if number % 2 else other.tokens(SELLER)))


async def test_a_connection_that_breaks_is_made_again(database_url: str) -> None:
    """The server restarts, say: the next load and save are not refused."""
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        execute(database_url, kill)
        assert await loaded(database) == TOKEN
        execute(database_url, kill)
        await database.tokens(SELLER).save(attrs.evolve(TOKEN, refresh_token="TG-next"))
        assert (await loaded(database) or TOKEN).refresh_token == "TG-next"


# -- who may save --------------------------------------------------------------------------------------------------------


async def test_a_holder_that_lost_the_lock_replaces_nothing_newer(database_url: str) -> None:
    """It was stopped for a minute; another process has refreshed meanwhile: what it brings then is not kept."""
    async with Database(database_url, key=KEY) as database, Database(database_url, key=KEY) as other:
        await database.add(TOKEN)
        stopped, working = database.tokens(SELLER), other.tokens(SELLER)
        async with stopped.lock():
            await stopped.load()
            execute(database_url, "UPDATE mlmessages.token SET locked_until = '-infinity'")  # its lease has ended
            async with working.lock():
                await working.load()
                await working.save(attrs.evolve(TOKEN, refresh_token="TG-newer"))
            for late in (attrs.evolve(TOKEN, refresh_token="TG-late"), attrs.evolve(TOKEN, refresh_sent_at=None)):
                with pytest.raises(AuthError, match="another process has saved newer tokens"):
                    await stopped.save(late)
        assert (await loaded(database) or TOKEN).refresh_token == "TG-newer"


async def test_the_successor_of_what_is_there_is_kept_lock_or_not(database_url: str) -> None:
    """The other process has only noted that it is about to refresh: the new tokens were paid for with that very one."""
    async with Database(database_url, key=KEY) as database, Database(database_url, key=KEY) as other:
        await database.add(TOKEN)
        stopped, working = database.tokens(SELLER), other.tokens(SELLER)
        async with stopped.lock():
            await stopped.load()
            await stopped.save(attrs.evolve(TOKEN, refresh_sent_at=NOON + HOUR))
            execute(database_url, "UPDATE mlmessages.token SET locked_until = '-infinity'")
            async with working.lock():
                await working.load()
                await working.save(attrs.evolve(TOKEN, refresh_sent_at=NOON + 2 * HOUR))
                with pytest.raises(AuthError, match="newer"):  # a note of its own would hide the other one's
                    await stopped.save(attrs.evolve(TOKEN, refresh_sent_at=NOON + 3 * HOUR))
                await stopped.save(attrs.evolve(TOKEN, refresh_token="TG-paid-for", refresh_sent_at=None))
        assert (await loaded(database) or TOKEN).refresh_token == "TG-paid-for"


async def test_a_program_that_adds_its_first_tokens_at_each_start_undoes_no_refresh(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is newer stays, with a warning; a new consent, and any tokens in the place of refused ones, are taken."""
    newer = attrs.evolve(TOKEN, refresh_token="TG-newer", issued_at=NOON + HOUR, expires_at=NOON + 7 * HOUR)
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
        await database.add(newer)
        assert await loaded(database) == newer
        for stale in (TOKEN, attrs.evolve(TOKEN, issued_at=None)):
            await database.add(stale)
            assert await loaded(database) == newer
        assert "newer tokens" in caplog.text
        await database.tokens(SELLER).save(attrs.evolve(newer, refresh_refused_at=NOON))
        await database.add(TOKEN)
        assert await loaded(database) == TOKEN


async def test_a_look_of_another_task_does_not_change_what_the_holder_may_replace(database_url: str) -> None:
    """The holder lost its lock, and a task beside it reads what others have saved since: that is not the holder's."""
    async with Database(database_url, key=KEY) as database, Database(database_url, key=KEY) as other:
        await database.add(TOKEN)
        store = database.tokens(SELLER)
        async with store.lock():
            await store.load()
            await other.tokens(SELLER).save(attrs.evolve(TOKEN, refresh_token="TG-newer"))
            assert (await asyncio.ensure_future(store.load()) or TOKEN).refresh_token == "TG-newer"
            with pytest.raises(AuthError, match="newer"):
                await store.save(attrs.evolve(TOKEN, refresh_token="TG-late"))


async def test_a_row_of_a_newer_version_is_told(database_url: str) -> None:
    """It is not taken for none: that would ask the seller for nothing."""
    async with Database(database_url, key=None) as database:
        await database.add(TOKEN)
        execute(database_url, "UPDATE mlmessages.token SET data = '\\x007b7d'")
        with pytest.raises(AuthError, match="newer mlmessages"):
            await loaded(database)


async def test_a_save_that_is_repeated_is_one_generation(database_url: str) -> None:
    """As after a connection that broke in the middle of it."""
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
        store = database.tokens(SELLER)
        before = generation(database_url)
        for _ in range(3):
            await store.save(attrs.evolve(TOKEN, refresh_token="TG-next"))
        assert generation(database_url) == before + 1


# -- the lease ---------------------------------------------------------------------------------------------------------


def let_time_pass(url: str, seconds: float) -> None:
    """Set the database's clock forward, as the virtual clock of a test goes on."""
    execute(url, f"UPDATE mlmessages.passed SET seconds = seconds + {seconds}")


def with_clock(url: str) -> None:
    execute(url, "CREATE TABLE mlmessages.passed (seconds float8 NOT NULL)")
    execute(url, "INSERT INTO mlmessages.passed VALUES (0)")
    execute(
        url,
        "CREATE OR REPLACE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
        " $$SELECT clock_timestamp() + (SELECT seconds FROM mlmessages.passed) * interval '1 s'$$",
    )


@case("Q21")
@on_virtual_clock
async def test_a_lock_is_held_as_long_as_its_holder_works(database_url: str) -> None:
    """Two minutes, as a refresh of unknown outcome takes: its end is put off every ten seconds."""
    async with Database(database_url, key=KEY) as database, Database(database_url, key=KEY) as other:
        await database.add(TOKEN)
        with_clock(database_url)
        async with database.tokens(SELLER).lock():
            for _ in range(12):
                await asyncio.sleep(10.5)
                let_time_pass(database_url, 10.5)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1), other.tokens(SELLER).lock():
                    pass
        async with asyncio.timeout(1), other.tokens(SELLER).lock():
            pass


@case("Q21")
@on_virtual_clock
async def test_a_lock_that_was_lost_is_told(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The process was stopped for longer than the lease, and another one has the lock now."""
    async with Database(database_url, key=KEY) as database, Database(database_url, key=KEY) as other:
        await database.add(TOKEN)
        with_clock(database_url)
        async with database.tokens(SELLER).lock():
            let_time_pass(database_url, 31)
            async with other.tokens(SELLER).lock():
                await asyncio.sleep(11)
        assert f"the lock of seller {SELLER}'s tokens was lost" in caplog.text


# -- at rest -------------------------------------------------------------------------------------------------------------


async def test_nothing_can_be_read_without_the_key(database_url: str) -> None:
    """Neither in the row, nor with another key or none; no error and no frame shows anything."""
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
    [(data,)] = execute(database_url, "SELECT data FROM mlmessages.token")
    assert b"canary" not in bytes(data)
    for key in (NEWER_KEY, None):
        async with Database(database_url, key=key) as database:
            with pytest.raises(AuthError, match="key") as refused:
                await loaded(database)
            assert_hidden(refused.value, ACCESS, REFRESH)


async def test_a_key_is_rotated(database_url: str) -> None:
    """The first key encrypts, all of them decrypt: with the newer one in front, what is saved needs the old no more."""
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
    async with Database(database_url, key=[NEWER_KEY, KEY]) as database:
        assert await loaded(database) == TOKEN
        await database.tokens(SELLER).save(attrs.evolve(TOKEN, user_id="5"))
    async with Database(database_url, key=NEWER_KEY) as database:
        assert await loaded(database) == attrs.evolve(TOKEN, user_id="5")


async def test_rows_that_were_swapped_are_refused(database_url: str) -> None:
    """Whoever can write to the table cannot give one seller's tokens to another: the seller is inside of them."""
    other = "700100201"
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
        await database.add(attrs.evolve(TOKEN, user_id=other))
        execute(
            database_url,
            "UPDATE mlmessages.token a SET data = b.data FROM mlmessages.token b WHERE a.seller <> b.seller",
        )
        for seller in (SELLER, other):
            with pytest.raises(AuthError, match="encrypted for another seller") as refused:
                await loaded(database, seller)
            assert_hidden(refused.value, ACCESS, REFRESH)


async def test_in_clear_text_no_frame_shows_a_token(database_url: str) -> None:
    """`key=None` is a decision about the disk, not about tracebacks."""
    async with Database(database_url, key=None) as database:
        await database.add(TOKEN)
        execute(database_url, "UPDATE mlmessages.token SET data = data || 'x'")
        with pytest.raises(AuthError) as refused:
            await loaded(database)
        assert_hidden(refused.value, ACCESS, REFRESH)


# -- processes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sandbox_server() -> Iterator[Server]:
    """A sandbox behind HTTP whose token endpoint takes its time."""
    sandbox = Sandbox(packs=0, clock=time.monotonic, rules=[on("token").do(Delay(0.1), EXECUTE)])
    with serve_in_thread(sandbox) as served:
        yield served


@contextmanager
def process(url: str, server: Server, step: str = "0") -> Iterator[subprocess.Popen[str]]:
    oauth = server.sandbox.oauth
    arguments = [url, server.base_url, oauth.client_id, oauth.client_secret, step]
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MLMESSAGES_KEY": KEY},
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


async def add(url: str, token: Token) -> None:
    async with Database(url, key=KEY) as database:
        await database.add(token)


async def kept(url: str) -> Token:
    async with Database(url, key=KEY) as database:
        token = await loaded(database)
        assert token is not None
        return token


@case("Q20")
def test_four_processes_that_need_a_refresh_send_one(database_url: str, sandbox_server: Server) -> None:
    """They begin at once, on one database: one POST, and all of them have the same new token."""
    asyncio.run(add(database_url, first_token(sandbox_server.sandbox, age=7 * HOUR)))
    with ExitStack() as stack:
        running = [stack.enter_context(process(database_url, sandbox_server)) for _ in range(4)]
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        found = {one.communicate(timeout=60)[0].strip() for one in running}
    assert found == {sandbox_server.token}
    assert len(posts(sandbox_server.sandbox)) == 1
    assert asyncio.run(kept(database_url)).refresh_token == sandbox_server.sandbox.oauth.refresh_token


@case("Q21")
@needs("signals")
def test_the_lock_of_a_killed_process_is_free_half_a_minute_later(database_url: str, sandbox_server: Server) -> None:
    """SIGKILL after its note, before its POST: the next one waits for the lease by the database's clock, and goes on."""
    asyncio.run(add(database_url, first_token(sandbox_server.sandbox, age=7 * HOUR)))
    with process(database_url, sandbox_server, "refresh noted") as running:
        assert running.communicate("go\n", timeout=60)[0].strip() == "refresh noted"
        assert running.wait() == -signal.SIGKILL
    note = asyncio.run(kept(database_url)).refresh_sent_at
    assert note is not None
    asyncio.run(_taken_over(database_url))


async def _taken_over(url: str) -> None:
    async with Database(url, key=KEY) as database:
        store = database.tokens(SELLER)
        waiting = asyncio.ensure_future(_locked(store))
        await asyncio.wait({waiting}, timeout=0.3)
        assert not waiting.done()
        execute(
            url,
            "CREATE OR REPLACE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " $$SELECT clock_timestamp() + interval '31 s'$$",
        )
        assert await asyncio.wait_for(waiting, 20)


async def _locked(store: TokenStore) -> bool:
    async with store.lock():
        return True


@case("Q21")
@needs("signals")
@pytest.mark.parametrize(
    ("place", "recovers"),
    [("refresh noted", True), ("refresh answered", False), ("refresh saved", True)],
    ids=["before it is sent", "before it is saved", "afterwards"],
)
def test_killed_in_the_middle_of_a_refresh(
    database_url: str, sandbox_server: Server, place: str, recovers: bool
) -> None:
    """The next process goes on: with new tokens, or, where the answer died with the process, the seller is asked.

    Two POSTs at most, and the access token that is there serves meanwhile.
    """
    sandbox = sandbox_server.sandbox
    asyncio.run(add(database_url, first_token(sandbox, age=3.1 * HOUR)))
    with process(database_url, sandbox_server, place) as running:
        assert running.communicate("go\n", timeout=60)[0].splitlines()[0] == place
        assert running.wait() == -signal.SIGKILL
    assert virtual_run(_recovered(database_url, sandbox)) is recovers
    assert len(posts(sandbox)) <= 2


async def _recovered(url: str, sandbox: Sandbox) -> bool:
    async with Database(url, key=KEY) as database:
        with_clock(url)
        let_time_pass(url, 31)
        source = source_of(sandbox, database.tokens(SELLER))
        async with client_with(sandbox, source) as client:
            await client.unread()
            await asyncio.sleep(180)
            await client.unread()
        token = await loaded(database)
    assert token is not None
    assert {entry.status for entry in sandbox.log if entry.kind == "listing"} == {200}
    if token.refresh_token == sandbox.oauth.refresh_token:
        return True
    assert token.refresh_refused_at is not None
    return False


async def test_a_client_refreshes_through_the_database(database_url: str) -> None:
    """`OAuthToken(client_id, client_secret, database.tokens(seller_id))`, as with a file."""
    sandbox = Sandbox(packs=0)
    async with Database(database_url, key=KEY) as database:
        await database.add(first_token(sandbox, age=7 * HOUR))
        source: OAuthToken = source_of(sandbox, database.tokens(SELLER))
        async with client_with(sandbox, source) as client:
            await client.unread()
        token = await loaded(database)
    assert token is not None
    assert token.access_token == sandbox.token
    assert len(posts(sandbox)) == 1


async def test_a_database_that_cannot_be_reached_is_an_auth_error_of_the_seller(database_url: str) -> None:
    """The error names the seller; no POST leaves, because the store is written first."""
    sandbox = Sandbox(packs=0)
    async with Database(database_url, key=KEY) as database:
        await database.add(first_token(sandbox, age=7 * HOUR))
        store = database.tokens(SELLER)
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises((AuthError, JournalError), match=SELLER):
            await client.unread()
    assert sandbox.log == []


# -- another key ---------------------------------------------------------------------------------------------------------


@case("Q22")
@pytest.mark.parametrize("before", [KEY, None], ids=["a key", "clear text"])
async def test_everything_is_encrypted_again_by_the_first_key(database_url: str, before: str | None) -> None:
    """Tokens and messages of all sellers; repeated it goes on; afterwards the old key is not needed."""
    async with Database(database_url, key=before) as database:
        for seller in (SELLER, "5"):
            await database.add(attrs.evolve(TOKEN, user_id=seller))
        sealed = [database.keys.seal(SELLER, f'{{"id": "{number}"}}'.encode()) for number in range(450)]
    [(no,)] = execute(database_url, f"SELECT no FROM mlmessages.seller WHERE id = '{SELLER}'")
    with psycopg.connect(database_url, autocommit=True) as admin, admin.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO mlmessages.body (seller, pack, id, raw, unread) VALUES (%s, '1', %s, %s, true)",
            [(no, str(number), raw) for number, raw in enumerate(sealed)],
        )
    keys = NEWER_KEY if before is None else [NEWER_KEY, before]
    async with Database(database_url, key=keys) as database:
        assert await rekey(database.statements, database.keys) == 452
        assert await rekey(database.statements, database.keys) == 452
    async with Database(database_url, key=NEWER_KEY) as database:
        assert await loaded(database) == TOKEN
        raws = execute(database_url, "SELECT raw FROM mlmessages.body ORDER BY seq")
        assert database.keys.unseal(SELLER, bytes(raws[449][0])) == b'{"id": "449"}'


@case("Q22")
async def test_a_row_that_no_key_reads_ends_it(database_url: str) -> None:
    """And nothing of it is lost."""
    async with Database(database_url, key=KEY) as database:
        await database.add(TOKEN)
    async with Database(database_url, key=NEWER_KEY) as database:
        with pytest.raises(JournalError, match="cannot be decrypted"):
            await rekey(database.statements, database.keys)
    async with Database(database_url, key=KEY) as database:
        assert await loaded(database) == TOKEN


# -- what a traceback shows of a `Database` -------------------------------------------------------------------------------


@case("K24")
@pytest.mark.parametrize(
    "misuse",
    [
        lambda key: Database("postgresql://h/d", key=key + "!"),
        lambda key: Database("postgresql://h/d", key=(key + "!").encode()),
        lambda key: Database("postgresql://h/d", key=[key, key[:-9]]),
        lambda key: Database("postgresql://localhost/d", key=key, schema="A B"),
        lambda key: Database("postgresql://localhost/d", key=key, lease=-1),
        lambda key: Database(f"postgresql://u:{key.rstrip('=')}@far.example/d", key=None),
        lambda key: Database(f"postgresql://u:{key.rstrip('=')}@far.example:x/d", key=None),
    ],
    ids=range(7),
)
def test_no_frame_shows_a_key_or_the_password_of_the_url(misuse: Any) -> None:
    """`ValueError` for what cannot be used: it and its locals quote neither."""
    with pytest.raises(ValueError) as refused:
        misuse(KEY)
    assert_hidden(refused.value, KEY)


@pytest.mark.parametrize("key", [5, [5], [None], "", [], b"\xff"], ids=repr)
def test_what_is_no_key_is_a_value_error(key: Any) -> None:
    """Whatever it is."""
    with pytest.raises(ValueError, match="Fernet"):
        Database("postgresql://localhost/d", key=key)

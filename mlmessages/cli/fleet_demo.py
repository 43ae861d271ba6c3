"""``mlmessages demo --fleet``: three workers on a database, one of them killed in the middle, and nothing lost."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs

from .terminal import counted, stderr

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..postgres.database import Database
    from ..testing import Marketplace

SELLERS: Final = 60
WORKERS: Final = ("worker 1", "worker 2", "worker 3")
READS: Final = 500  # a minute, as the documentation has it
PERIOD: Final = 3.0  # seconds in the place of a minute
_LEASE: Final = 3.0  # seconds; 30 in a real one
SETTLE_TIME: Final = 1.0  # seconds; 120 in a real one
_REFRESH: Final = 0.25


@attrs.define
class Worker:
    """One process of the demonstration, and what its handler was given."""

    name: str
    process: asyncio.subprocess.Process
    killed: bool = False
    sellers: int = 0
    deliveries: int = 0


@attrs.define
class Show:
    """What is known while it runs."""

    conversations: int
    workers: list[Worker] = attrs.field(factory=list)
    packs: set[str] = attrs.field(factory=set)
    messages: set[str] = attrs.field(factory=set)
    twice: int = 0
    notice: str = ""
    seconds: float = 0.0


async def run_show(marketplace: Marketplace, url: str | None) -> Show:
    """Serve the sellers by three workers until everything is delivered; `url`: None starts a database for it."""
    from cryptography.fernet import Fernet

    from ..postgres.database import Database
    from .local_postgres import LocalPostgres

    show = Show(len(marketplace.pack_ids()))
    console = stderr()
    key, schema = Fernet.generate_key().decode(), f"mlmessages_demo_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        if url is None:
            console.print("Starting PostgreSQL in a temporary folder …")
            url = stack.enter_context(LocalPostgres()).url
        async with (
            marketplace.serve() as served,
            Database(url, key=key, schema=schema, name="demo", lease=_LEASE) as database,
        ):
            try:
                await _add_sellers(database, marketplace)
                environment = {
                    **os.environ,
                    "MLMESSAGES_DATABASE": url,
                    "MLMESSAGES_KEY": key,
                    "MLMESSAGES_CLIENT_ID": marketplace.application.client_id,
                    "MLMESSAGES_CLIENT_SECRET": marketplace.application.client_secret,
                    "MLMESSAGES_BASE_URL": served.base_url,
                }
                _introduce(console, show)
                await _serve(show, database, schema, environment, console)
            finally:
                await database.journals.close()
                await database.statements.run((f"DROP SCHEMA {schema} CASCADE", {}))
    return show


async def _add_sellers(database: Database, marketplace: Marketplace) -> None:
    from ..models import Token

    now = datetime.now(UTC)
    for seller in marketplace.sellers:
        oauth = seller.oauth
        await database.add(
            Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller.seller_id)
        )


def _introduce(console: Console, show: Show) -> None:
    from rich.text import Text

    console.print(
        Text("Three workers serve sixty sellers on one database and one budget; one of them is killed.", "bold")
    )
    console.print(
        Text(f"{counted(show.conversations, 'unread conversation')}; {READS} reads in {PERIOD:g} s, not in 60.")
    )
    console.print()


async def _serve(show: Show, database: Database, schema: str, environment: dict[str, str], console: Console) -> None:
    from rich.live import Live

    started = time.monotonic()
    async with AsyncExitStack() as stack:
        readers = []
        for name in WORKERS:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mlmessages.cli.fleet_worker", name, schema, env=environment,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            worker = Worker(name, process)
            stack.push_async_callback(_end, process)
            show.workers.append(worker)
            readers.append(asyncio.create_task(_read(show, worker)))
            stack.callback(readers[-1].cancel)
        live = stack.enter_context(Live(console=console, auto_refresh=False, transient=not console.is_terminal))
        while len(show.packs) < show.conversations:
            await _look(show, database)
            live.update(_table(show), refresh=True)
            if not show.notice and len(show.packs) >= show.conversations // 3:
                victim = max(show.workers, key=lambda worker: worker.sellers)
                victim.process.kill()
                victim.killed = True
                show.notice = f"{victim.name} was killed with {counted(victim.sellers, 'seller')} in its hands"
            await asyncio.sleep(_REFRESH)
            if all(worker.process.returncode is not None for worker in show.workers):
                break
        await _look(show, database)
        live.update(_table(show), refresh=True)
    show.seconds = time.monotonic() - started


async def _look(show: Show, database: Database) -> None:
    """Ask the database which worker holds how many sellers."""
    held: dict[str, int] = {}
    for row in await database.overview():
        if row.alive and row.holder is not None:
            held[row.holder] = held.get(row.holder, 0) + 1
    for worker in show.workers:
        worker.sellers = held.get(worker.name, 0)


async def _read(show: Show, worker: Worker) -> None:
    assert worker.process.stdout is not None
    async for line in worker.process.stdout:
        pack_id, *messages = line.decode().split()
        worker.deliveries += 1
        show.packs.add(pack_id)
        for message in messages:
            show.twice += message in show.messages
            show.messages.add(message)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


def _table(show: Show) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for worker in show.workers:
        sellers = Text(f"{worker.sellers:>3} sellers", "red" if worker.killed else "")
        table.add_row(
            Text(worker.name, "bold red" if worker.killed else "bold"),
            sellers,
            ProgressBar(total=SELLERS, completed=worker.sellers, width=30),
            Text("killed" if worker.killed else f"{worker.deliveries:,} deliveries", "dim"),
        )
    table.add_row(
        Text("delivered", "bold green"),
        f"{len(show.packs):,}",
        ProgressBar(total=show.conversations, completed=len(show.packs), width=30),
        Text(show.notice, "red"),
    )
    return table


def figures(show: Show, marketplace: Marketplace) -> Iterator[tuple[str, str]]:
    """Yield what it took, as the server counted it."""
    requests = len(marketplace.log)
    listings = sum(entry.kind == "listing" for entry in marketplace.log)
    refused = sum(entry.status == 429 for entry in marketplace.log)
    throttled = f"{refused:,} of them 429" if refused else "no 429"
    kinds = f"{counted(listings, 'listing')}, {counted(requests - listings, 'read')}"
    yield "requests", f"{requests:,}: {kinds}; {throttled}"
    if show.notice:
        yield "killed", show.notice
    yield (
        "twice",
        f"{counted(show.twice, 'message')}: the killed worker had not acknowledged them" if show.twice else "none",
    )
    yield "time", f"{show.seconds:.1f} s"

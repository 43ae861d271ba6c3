"""What the journal of the Inbox costs: durable commits, loop lag, recovery, and a drain of 20,000 packs.

    python benchmarks/journal.py                       # everything; some four minutes
    python benchmarks/journal.py --only commits        # or recovery, lag, drain
    python benchmarks/journal.py --only postgres       # commits and permits in PostgreSQL: only if asked for

It measures the disk under `--directory`, by default that of temporary files: on a file system in memory nothing costs
anything. The bare loop appends the same bytes to a file and fsyncs it; in PostgreSQL, it inserts them, one commit each.
PostgreSQL is what `--database URL` names, else one that the tests' fixture starts. Medians of rounds by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from database import empty_database, server_version
from page import SELLER, page

if TYPE_CHECKING:
    from mlmessages.journal.journal import Journal

BODY = json.dumps(json.loads(page(1))["messages"][0], ensure_ascii=False).encode()  # of one message
BATCH = 50
FIRST_PACK = 2000000000000001


# -- durable commits a second ------------------------------------------------------------------------------------------


async def commits(directory: Path, rounds: int) -> None:
    """Each kind of commit one after the other, and 50 that come together, against a bare append and fsync."""
    from mlmessages.journal.journal import Journal, SqlitePlace

    with (directory / "bare").open("ab", buffering=0) as file:

        async def bare(_: str) -> None:
            file.write(BODY + b"\n")
            os.fsync(file.fileno())

        await compare(Journal(SqlitePlace(directory / "journal", str(SELLER))), "bare append + fsync", bare, rounds)


async def commits_in_postgres(url: str, rounds: int) -> None:
    """The same in PostgreSQL, against a loop that inserts; and permits a second, one after the other."""
    import psycopg

    from mlmessages import Database
    from mlmessages.journal.journal import Journal

    print(server_version(url))
    async with Database(url, key=None) as database:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE bare (body bytea)")

            async def bare(_: str) -> None:
                connection.execute("INSERT INTO bare VALUES (%s)", (BODY,))

            place = database.journals.place(str(SELLER), 120.0)
            await compare(Journal(place), "bare INSERT loop, one commit each", bare, rounds)
        limits, calls, found = database.limits(1, per_second=None), 200, []
        for _ in range(rounds):
            begun = time.perf_counter()
            for _ in range(calls):
                limits.release(await limits.acquire(None), sent=False)
            found.append(calls / (time.perf_counter() - begun))
        median = statistics.median(found)
        print(f"\npermits, one call each: {median:,.0f} a second, {median / 8.33:.0f} times the budget of 500 a minute")


async def compare(journal: Journal, bare_name: str, bare: Callable[[str], Awaitable[None]], rounds: int) -> None:
    """Print how many commits of each kind a journal makes in a second, and how many of the bare loop that is."""
    from mlmessages.journal.store import StoredMessage

    singles, batches = 100, 10  # in a round
    each = singles + batches * BATCH
    # Listed before, as they are in life: a commit that changed nothing would be none, and would cost nothing.
    packs = [str(FIRST_PACK + n) for n in range(rounds * each)]
    ids = {name: f"{int(name):032x}" for name in packs}
    await journal.open()
    await journal.listed([(name, 1, f"/packs/{name}/sellers/{SELLER}") for name in packs], None)

    async def read(name: str) -> None:
        await journal.read(name, [StoredMessage(ids[name], BODY, True)], None)

    async def acknowledge(name: str) -> None:
        await journal.acknowledge(name, [ids[name]])

    sides: dict[str, Callable[[str], Awaitable[None]]] = {
        bare_name: bare,
        "claim": journal.claim,
        "read, one message": read,
        "acknowledge, one message": acknowledge,
    }
    alone: dict[str, list[float]] = {name: [] for name in sides}
    together: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds):
        some = packs[round_ * each : (round_ + 1) * each]
        for name, commit in sides.items():
            begun, used = time.perf_counter(), time.process_time()
            for pack in some[:singles]:
                await commit(pack)
            alone[name].append(singles / (time.perf_counter() - begun))
            cpu[name].append((time.process_time() - used) / singles * 1e6)
            begun = time.perf_counter()
            for start in range(singles, each, BATCH):
                await asyncio.gather(*map(commit, some[start : start + BATCH]))
            together[name].append((each - singles) / (time.perf_counter() - begun))
    await journal.close()
    base = statistics.median(alone[bare_name])
    print(f"medians of {rounds} rounds; a second, and of the bare loop\n")
    print(f"| durable on return | one by one | | CPU of one, µs | {BATCH} at a time | |\n|---|--:|--:|--:|--:|--:|")
    for name in sides:
        one, many = statistics.median(alone[name]), statistics.median(together[name])
        cells = f"{one:,.0f} | {one / base:.2f} | {statistics.median(cpu[name]):.0f}"
        print(f"| {name} | {cells} | {many:,.0f} | {many / base:.2f} |")


# -- recovery ----------------------------------------------------------------------------------------------------------


def fill(path: Path, packs: int, owed: int, ids: int) -> None:
    """A journal of `packs` packs, the first `owed` of them open and the rest done, with `ids` known messages."""
    from mlmessages.journal.sqlite import SqliteStore
    from mlmessages.journal.store import Seat, StoredMessage

    store, seat = SqliteStore(path, str(SELLER)), Seat(str(SELLER))
    each, rest = divmod(ids, packs - owed)
    for start in range(0, packs, 1000):
        names = [str(FIRST_PACK + n) for n in range(start, min(start + 1000, packs))]
        store.begin()
        store.listed(seat, [(name, 1, f"/packs/{name}/sellers/{SELLER}") for name in names], None)
        for n, name in enumerate(names, start):
            if n >= owed:
                found = [
                    # in the order of time, as the real ones: 12 hex digits of milliseconds, then what keeps them apart
                    StoredMessage(
                        f"{0x19C000000000 + n * 60000 + i:012x}7000{hash((n, i)) & (2**64 - 1):016x}", b"{}", True
                    )
                    for i in range(each + (n - owed < rest))
                ]
                store.read(seat, name, found, None, held=True)
                store.acknowledge(seat, name, [entry.id for entry in found], held=True)
        store.commit()
    store.purge()
    store.close()


async def first_request(path: Path, owed: int) -> tuple[float, float]:
    """Seconds from entering until the inbox is entered, and until a request arrives at the server."""
    from mlmessages import Inbox, Limits, MessagesClient
    from mlmessages.testing import Sandbox

    sandbox = Sandbox(owed or 1, seller_id=SELLER, clock=time.perf_counter)
    limits = Limits(reads=10**6, per_second=None)
    async with (
        sandbox.session() as session,
        MessagesClient(
            sandbox.token, seller_id=SELLER, base_url=sandbox.base_url, session=session, limits=limits
        ) as client,
    ):
        begun = time.perf_counter()
        async with Inbox(client, path, settle_time=0) as inbox:
            entered = time.perf_counter() - begun
            async for delivery in inbox.drain():
                await delivery.ack()
                break
    await sandbox.aclose()
    return entered, sandbox.log[0].at - begun


def forget(path: Path) -> bool:
    """Have the system drop the file from its memory, where it can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return True


def recovery(directory: Path, rounds: int) -> None:
    packs, ids = 100_000, 1_000_000
    print("| journal | MB | the file is | until entered, s | until the first request, s |\n|---|--:|---|--:|--:|")
    for owed in (0, 1000):
        made, path = directory / f"made-{owed}", directory / f"journal-{owed}"
        fill(made, packs, owed, ids)
        for cold in (False, True):
            if cold and not forget(made):
                continue
            found = []
            for _ in range(rounds):
                shutil.copyfile(made, path)  # a run changes it
                if cold:
                    forget(path)
                command = [sys.executable, str(Path(__file__).resolve()), "--first-request", str(path), str(owed)]
                ran = subprocess.run(command, check=True, capture_output=True, text=True)
                found.append(tuple(map(float, ran.stdout.split())))
            entered, asked = (statistics.median(times) for times in zip(*found, strict=True))
            name = f"{packs:,} packs, {owed:,} of them owed; {ids:,} ids"
            where = "on the disk" if cold else "in memory"
            size = path.stat().st_size / 1e6
            print(f"| {name} | {size:.0f} | {where} | {entered:.2f} | {asked:.2f} |", flush=True)


# -- loop lag, and a drain of 20,000 packs -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lag_of_the_loop(into: array[float]) -> Iterator[None]:  # type: ignore[misc]
    """How much later than asked for the loop comes back, in ms, again and again."""

    async def probe() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            into.append((time.perf_counter() - begun - 0.001) * 1e3)

    task = asyncio.create_task(probe())
    try:
        yield
    finally:
        task.cancel()


def percentile(found: array[float], share: float) -> float:
    return sorted(found)[min(int(len(found) * share), len(found) - 1)]


async def lag(directory: Path) -> None:
    """While 32 writers commit pages of 50 messages for three seconds."""
    from mlmessages.journal.journal import Journal, SqlitePlace
    from mlmessages.journal.store import StoredMessage

    made = pages = 0
    lags = array("d")
    journal = Journal(SqlitePlace(directory / "lag", str(SELLER)))
    await journal.open()
    end = time.perf_counter() + 3.0

    async def writer() -> None:
        nonlocal made, pages
        while time.perf_counter() < end:
            made += 1
            name = str(FIRST_PACK + made)
            entries = [StoredMessage(f"{made:016x}{i:016x}", BODY, True) for i in range(50)]
            await journal.listed([(name, 1, None)], None)
            await journal.read(name, entries, None)
            await journal.acknowledge(name, [entry.id for entry in entries])
            pages += 1

    async with lag_of_the_loop(lags):
        await asyncio.gather(*(writer() for _ in range(32)))
    await journal.close()
    print(
        f"loop lag while {pages:,} pages of 50 messages are committed in 3 s: median {statistics.median(lags):.1f} ms,"
        f" p99 {percentile(lags, 0.99):.1f} ms, most {max(lags):.1f} ms",
        flush=True,
    )


def resident() -> float:
    """In MB, at this moment; the peak where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1e3
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


async def drain(base_url: str, token: str, path: str) -> None:
    """A consumer that keeps nothing and acknowledges at once."""
    from mlmessages import Inbox, Limits, MessagesClient

    limits = Limits(reads=10**6, per_second=None)
    delivered, held = 0, []
    lags = array("d")
    begun = time.perf_counter()
    async with (
        MessagesClient(token, seller_id=SELLER, base_url=base_url, limits=limits) as client,
        Inbox(client, path) as inbox,
        lag_of_the_loop(lags),
    ):
        async for delivery in inbox.drain():
            await delivery.ack()
            delivered += 1
            if delivered % 1000 == 0:
                held.append(resident())
        listings = inbox.report.listings
    seconds = time.perf_counter() - begun
    counts = {"delivered": delivered, "listings": listings, "seconds": seconds, "held": held}
    print(json.dumps(counts | {"p99": percentile(lags, 0.99), "lag": max(lags)}))


async def drained(directory: Path, packs: int) -> None:
    from mlmessages.testing import Sandbox

    sandbox = Sandbox(packs, seller_id=SELLER)
    path = directory / "drained"
    async with sandbox.serve() as server:
        arguments = ["--drain", server.base_url, server.token, str(path)]
        process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
    found = json.loads(out)
    assert found["delivered"] == packs
    assert not sandbox.unread
    held = found["held"]
    print(
        f"{packs:,} packs through the Inbox: {found['seconds']:.0f} s,"
        f" {sandbox.count('mark') / packs:.3f} GETs of a pack, {found['listings']} listings; resident {held[0]:.1f} MB"
        f" after 1,000, {held[len(held) // 2]:.1f} MB half way, at most {max(held):.1f} MB:"
        f" {max(held) - held[0]:.1f} MB more; loop lag p99 {found['p99']:.1f} ms, most {found['lag']:.1f} ms;"
        f" journal {path.stat().st_size / 1e6:.1f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("commits", "recovery", "lag", "drain", "postgres"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--packs", type=int, default=20_000, help="of the drain")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="whose disk is measured")
    parser.add_argument("--database", metavar="URL", help="an empty database, for `--only postgres`")
    parser.add_argument("--first-request", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--drain", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_request:
        path, owed = options.first_request
        print(*asyncio.run(first_request(Path(path), int(owed))))
        return
    if options.drain:
        asyncio.run(drain(*options.drain))
        return
    if options.only == "postgres":
        asyncio.run(commits_in_postgres(options.database or empty_database(), options.rounds))
        return
    parts: dict[str, Callable[[Path], None]] = {
        "commits": lambda directory: asyncio.run(commits(directory, options.rounds)),
        "lag": lambda directory: asyncio.run(lag(directory)),
        "recovery": lambda directory: recovery(directory, options.rounds),
        "drain": lambda directory: asyncio.run(drained(directory, options.packs)),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(dir=options.directory) as directory:
                part(Path(directory))
            print()


if __name__ == "__main__":
    main()

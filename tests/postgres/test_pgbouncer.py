"""Behind PgBouncer in transaction mode: more processes than connections, no state that outlives a transaction."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cases import case
from journal.stores import entry
from mlmessages.errors import JournalError
from mlmessages.journal.journal import Journal
from mlmessages.postgres.database import Database
from needs import needs
from postgres.server import free_port

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture
def bouncer(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the same database through a pool of three connections."""
    assert PROGRAM is not None
    told = psycopg.conninfo.conninfo_to_dict(database_url)
    folder = Path(tmp_path_factory.mktemp("pgbouncer", numbered=True))
    port = free_port()
    (folder / "users").write_text(f'"{told["user"]}" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n{told['dbname']} = host={told['host']} port={told['port']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder / 'users'}\npool_mode = transaction\ndefault_pool_size = 3\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    for parent in folder.parents[:3]:  # one more under xdist
        parent.chmod(0o755)
    user = "nobody" if os.getuid() == 0 else None
    with subprocess.Popen(
        [PROGRAM, folder / "ini"], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as ran:
        url = f"postgresql://{told['user']}@127.0.0.1:{port}/{told['dbname']}"
        while True:
            try:
                psycopg.connect(url, connect_timeout=5, prepare_threshold=None).close()
                break
            except psycopg.OperationalError:
                if ran.poll() is not None:
                    assert ran.stderr is not None
                    raise RuntimeError(ran.stderr.read().decode()) from None
        yield url
        ran.terminate()


@case("Q2")
@needs("pgbouncer")
async def test_eight_processes_share_three_connections(bouncer: str) -> None:
    """Journals, seats, permits of statements: everything that is done needs its transaction alone."""

    async def work(number: int) -> list[str]:
        async with Database(bouncer, key=None, name=f"worker {number}", lease=600.0) as database:
            journal = Journal(database.place(str(number), 120.0))
            await journal.open()
            packs = [str(pack) for pack in range(20)]
            await journal.listed([(pack, 1, None) for pack in packs], None)

            async def one(pack: str) -> list[str]:
                await journal.claim(pack)
                stored = await journal.read(pack, [entry(f"{pack}-{n}") for n in range(3)], b"{}")
                await journal.acknowledge(pack, [f"{pack}-0"])
                await database.statements.run(("SELECT pg_sleep(0)", {}), ("SELECT 1", {}))
                return stored.fresh

            fresh = await asyncio.gather(*(one(pack) for pack in packs))
            assert all(len(ids) == 3 for ids in fresh)
            with pytest.raises(JournalError, match="is held by worker"):
                await database.worker.take(str(number), settle_time=1.0)
            await database.worker.beat()
            undelivered = await journal.undelivered()
            await journal.close()
            return undelivered

    found = await asyncio.gather(*(work(number) for number in range(8)))
    assert all(len(undelivered) == 20 for undelivered in found)
    async with Database(bouncer, key=None) as database:
        sellers = await database.overview()
        assert [(seller.undelivered, seller.owed) for seller in sellers] == [(40, 0)] * 8

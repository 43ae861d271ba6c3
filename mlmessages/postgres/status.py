"""Whether a database keeps what it promises: `mlmessages database check`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from .database import Database

_STATUS: Final = """
SELECT current_setting('server_version'), current_setting('fsync') = 'on', current_setting('synchronous_standby_names'),
 extract(epoch FROM mlmessages.clock())::float8, m.version, m.oldest,
 (SELECT count(*) FROM pg_catalog.pg_stat_replication), pg_catalog.pg_is_in_recovery()
 FROM mlmessages.meta m"""
_WORKERS: Final = """
SELECT w.name, w.version, w.since, w.shares, (SELECT count(*) FROM mlmessages.seller s WHERE s.worker = w.id)
 FROM mlmessages.worker w WHERE w.until > mlmessages.clock() ORDER BY w.since, w.name"""


@frozen
class LiveWorker:
    """A process that has not ended: `shares`, a fleet runs on it; `sellers`, how many it holds."""

    name: str
    version: str
    since: datetime
    shares: bool
    sellers: int


@frozen
class Status:
    """What a database says of itself.

    `clock`: seconds that its clock is ahead of this machine's. `schema`, `oldest`: the version of the schema, and the
    oldest program that may use it. `standbys`: servers that follow it; `synchronous`: a commit waits for one of them.
    """

    server: str
    is_durable: bool
    clock: float
    schema: int
    oldest: int
    standbys: int
    synchronous: bool
    is_standby: bool
    workers: tuple[LiveWorker, ...]


async def status(database: Database) -> Status:
    """Ask an open database. Raises `JournalError`."""
    sent = time.time()
    [row], workers = await database.statements.run((_STATUS, {}), (_WORKERS, {}))
    server, durable, names, clock, schema, oldest, standbys, is_standby = row
    return Status(
        server=server,
        is_durable=durable,
        clock=clock - (sent + time.time()) / 2,
        schema=schema,
        oldest=oldest,
        standbys=standbys,
        synchronous=bool(names),
        is_standby=is_standby,
        workers=tuple(LiveWorker(*each) for each in workers),
    )

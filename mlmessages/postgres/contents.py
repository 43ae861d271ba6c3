"""What the database holds of one seller, as `mlmessages journal` shows it of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import JournalError
from ..journal.sqlite import Contents
from ..journal.store import Row
from . import statements as sql

if TYPE_CHECKING:
    from .database import Database

_DONE: Final = "SELECT count(*) FROM mlmessages.pack WHERE seller = %(s)s::int AND state = 'done'"
_DUE: Final = """
SELECT id, extract(epoch FROM nullif(not_before, '-infinity'))::float8
 FROM mlmessages.pack WHERE seller = %(s)s::int AND state <> 'done'"""
_UNDELIVERED: Final = """
SELECT pack, count(*) FROM mlmessages.body WHERE seller = %(s)s::int GROUP BY pack ORDER BY min(seq)"""
_DEAD: Final = """
SELECT b.pack, count(*) FROM mlmessages.buried d JOIN mlmessages.body b USING (seller, id)
 WHERE seller = %(s)s::int GROUP BY b.pack ORDER BY min(b.seq)"""


async def contents(database: Database, seller_id: str) -> Contents:
    """Return what is owed, waits, is parked and is not acknowledged of one seller. Raises `JournalError`."""
    [found] = await database.statements.run((sql.NUMBER, {"seller": seller_id}))
    if not found:
        raise JournalError(f"seller {seller_id} is not in this database")
    given = {"s": found[0][0]}
    asked = (_DONE, sql.ROWS, _DUE, _UNDELIVERED, _DEAD)
    [[(done,)], rows, due, undelivered, dead] = await database.statements.run(*((each, given) for each in asked))
    return Contents(
        seller_id,
        done,
        [Row(*row) for row in rows],
        {pack_id: moment or 0.0 for pack_id, moment in due},
        dict(undelivered),
        dict(dead),
    )

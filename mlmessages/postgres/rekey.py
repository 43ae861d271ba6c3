"""Encrypting what is in the database again, by another key: `mlmessages database rekey`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..files import PrivateBytes

if TYPE_CHECKING:
    from .connection import Statements
    from .keys import Keys

_BATCH: Final = 200  # rows of one transaction

# Each table in the order of its primary key, from behind the row that was looked at last. What others change or delete
# meanwhile stays as they left it: they have encrypted it by their own first key.
_READ_TOKENS: Final = """
SELECT t.seller, '', s.id, t.data FROM mlmessages.token t JOIN mlmessages.seller s ON s.no = t.seller
 WHERE t.seller > %(no)s::int AND t.data <> '' ORDER BY t.seller LIMIT %(batch)s::int"""
_WRITE_TOKENS: Final = """
UPDATE mlmessages.token SET data = %(sealed)s::bytea WHERE seller = %(no)s::int AND data = %(stored)s::bytea
 RETURNING 1"""
_READ_BODIES: Final = """
SELECT b.seller, b.id, s.id, b.raw FROM mlmessages.body b JOIN mlmessages.seller s ON s.no = b.seller
 WHERE (b.seller, b.id) > (%(no)s::int, %(id)s::text COLLATE "C") ORDER BY b.seller, b.id LIMIT %(batch)s::int"""
_WRITE_BODIES: Final = """
UPDATE mlmessages.body SET raw = %(sealed)s::bytea
 WHERE seller = %(no)s::int AND id = %(id)s AND raw = %(stored)s::bytea RETURNING 1"""


async def rekey(statements: Statements, keys: Keys) -> int:
    """Encrypt all tokens and messages by the first key, whatever they are encrypted by; return how many rows changed.

    Every process that uses the database must know the first key before. It may be repeated, and while they work.
    Raises `JournalError`, also for a row that none of the keys can read.
    """
    tokens = await _rewritten(statements, keys, _READ_TOKENS, _WRITE_TOKENS)
    return tokens + await _rewritten(statements, keys, _READ_BODIES, _WRITE_BODIES)


async def _rewritten(statements: Statements, keys: Keys, read: str, write: str) -> int:
    changed, no, id_ = 0, 0, ""
    while True:
        rows = [
            (row[0], row[1], row[2], PrivateBytes(row[3]))
            for row in (await statements.run((read, {"no": no, "id": id_, "batch": _BATCH})))[0]
        ]
        if not rows:
            return changed
        no, id_, *_ = rows[-1]
        updates = [
            (write, {"no": row[0], "id": row[1], "stored": row[3], "sealed": keys.reseal(row[2], row[3])})
            for row in rows
        ]
        changed += sum(map(len, await statements.run(*updates)))

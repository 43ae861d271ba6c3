"""A seller's tokens as a row: for all processes on one database, encrypted, and locked while one of them refreshes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from attrs import frozen

from ..auth.grants import issued
from ..auth.source import concealed, revealed
from ..auth.store import dump_token, load_token
from ..errors import AuthError, JournalError
from ..files import PrivateBytes
from ..journal.store import Disconnected
from ..models import Token
from . import statements as sql

if TYPE_CHECKING:
    from .connection import Statement, Statements
    from .keys import Keys

_log: Final = logging.getLogger("mlmessages")

_LEASE: Final = 30.0  # seconds after which the lock of a dead process is free
_EXTEND_EVERY: Final = 10.0
_FIRST_WAIT: Final = 0.005  # seconds before the lock is asked for again; half as much more each time up to the longest
_LONGEST_WAIT: Final = 0.25
_RECONNECT_WAITS: Final = (0.0, 0.5, 1.0)  # seconds before what a broken connection left open is repeated
_MOST_ATTEMPTS: Final = 5  # to save beside other processes that save

_READ: Final = """
SELECT coalesce(t.generation, 0), t.data FROM mlmessages.seller s LEFT JOIN mlmessages.token t ON t.seller = s.no
 WHERE s.id = %(seller)s"""
_MAKE_ROW: Final = """
INSERT INTO mlmessages.token (seller, generation, data) SELECT no, 0, '' FROM mlmessages.seller WHERE id = %(seller)s
 ON CONFLICT DO NOTHING"""
_LOCK: Final = """
UPDATE mlmessages.token SET locked_by = %(me)s::uuid,
  locked_until = mlmessages.clock() + %(lease)s::float8 * interval '1 s'
 WHERE seller = (SELECT no FROM mlmessages.seller WHERE id = %(seller)s)
  AND (locked_until <= mlmessages.clock() OR locked_by = %(me)s::uuid) RETURNING generation"""
_UNLOCK: Final = """
UPDATE mlmessages.token SET locked_by = NULL, locked_until = '-infinity'
 WHERE seller = (SELECT no FROM mlmessages.seller WHERE id = %(seller)s) AND locked_by = %(me)s::uuid"""
_SAVE: Final = """
UPDATE mlmessages.token SET data = %(data)s, generation = generation + 1
 WHERE seller = (SELECT no FROM mlmessages.seller WHERE id = %(seller)s) AND generation = %(generation)s::bigint
 RETURNING generation"""


@frozen
class _Stored:
    """What is in the row: `generation` counts what was saved there. `token` is None where nothing was yet."""

    generation: int
    token: Token | None

    @property
    def refresh_token(self) -> str | None:
        return None if self.token is None else self.token.refresh_token


class PostgresTokenStore:
    """A `TokenStore` in a database: one seller's tokens, for processes on any number of machines.

    The lock is a row with an end, which is put off while it is held: what a dead process held is free 30 seconds later.
    A process that was stopped and has lost the lock meanwhile can save nothing over what others have saved since, with
    one exception: the successor of the tokens that are still there, because it is the only copy of what they were spent
    for.

    Every error is an `AuthError`. A seller that the database does not have: `load` returns None.
    """

    def __init__(self, statements: Statements, keys: Keys, seller_id: str) -> None:
        self._statements = statements
        self._keys = keys
        self._seller_id = seller_id
        self._known: _Stored | None = None  # what the holder of the lock has read or saved last
        self._holder: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        return f"PostgresTokenStore({self._seller_id})"

    async def load(self) -> Token | None:
        """Return the tokens as they were saved last; None if there are none."""
        found = await self._read()
        if found is None:
            return None
        if self._holder in (None, asyncio.current_task()):
            self._known = found
        return None if found.token is None else revealed(found.token)

    async def save(self, token: Token) -> None:
        """Keep `token`: when this returns it is durable. Raises `AuthError` where others have saved newer tokens."""
        token = concealed(token)
        sealed = self._sealed(token)
        for _ in range(_MOST_ATTEMPTS):
            found = await self._read()
            if found is None:
                raise self._no_such_seller()
            if found.token == token:  # also by a save whose answer was lost with the connection
                self._known = found
                return
            if not self._may_replace(found, token):
                raise AuthError(
                    f"another process has saved newer tokens of seller {self._seller_id}: these are not kept"
                )
            values = {"seller": self._seller_id, "generation": found.generation, "data": sealed}
            _, saved = await self._run((_MAKE_ROW, {"seller": self._seller_id}), (_SAVE, values))
            if saved:
                self._known = _Stored(saved[0][0], token)
                return
        raise AuthError(f"the tokens of seller {self._seller_id} cannot be kept: too many processes save them")

    async def add(self, token: Token) -> None:
        """Keep the tokens of a new consent; those that are there stay if they are newer.

        A program that adds the same tokens whenever it starts would otherwise undo each refresh.
        """
        async with self.lock():
            there = await self.load()
            if there is not None and issued(there) > issued(token) and there.refresh_refused_at is None:
                _log.warning("newer tokens of seller %s are in the database already: those stay", self._seller_id)
                return
            await self.save(token)

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Hold the tokens alone, across tasks, processes and machines."""
        return self._lock()

    @asynccontextmanager
    async def _lock(self) -> AsyncGenerator[None, None]:
        me, wait, extending = str(uuid4()), _FIRST_WAIT, None
        try:
            while not await self._acquired(me):
                await asyncio.sleep(wait)
                wait = min(wait * 1.5, _LONGEST_WAIT)
            self._holder = asyncio.current_task()
            extending = asyncio.ensure_future(self._extend(me))
            yield
        finally:
            if extending is not None:
                self._holder = None
                extending.cancel()
            with suppress(AuthError):  # it ends by itself
                await self._run((_UNLOCK, {"seller": self._seller_id, "me": me}))

    async def _acquired(self, me: str) -> bool:
        """Ask for the lock, or put its end off; return True if it is held now."""
        values = {"seller": self._seller_id, "me": me, "lease": _LEASE}
        _, locked, known = await self._run((_MAKE_ROW, values), (_LOCK, values), (sql.NUMBER, values))
        if not known:
            raise self._no_such_seller()
        return bool(locked)

    async def _extend(self, me: str) -> None:
        """Put the end of the lock off as long as it is held."""
        held = True
        while held:
            await asyncio.sleep(_EXTEND_EVERY)
            with suppress(AuthError):  # tried again, within the 30 seconds
                held = await self._acquired(me)
        _log.warning("the lock of seller %s's tokens was lost: this process was stopped for too long", self._seller_id)

    def _may_replace(self, found: _Stored, token: Token) -> bool:
        """Return True if `token` can be put in the place of what is there."""
        known = self._known
        if known is None or found.token is None or found.generation == known.generation:
            return True
        # Others have saved since: only the successor of tokens that they have not replaced.
        return found.refresh_token == known.refresh_token != token.refresh_token

    # -- the row --

    async def _read(self) -> _Stored | None:
        """Return what is in the row; None if there is no such seller."""
        found = [
            (generation, PrivateBytes(data or b""))
            for [generation, data] in (await self._run((_READ, {"seller": self._seller_id})))[0]
        ]
        if not found:
            return None
        generation, sealed = found[0]
        if not sealed:
            return _Stored(generation, None)
        try:
            token = load_token(PrivateBytes(self._keys.unseal(self._seller_id, sealed)))
        except JournalError as error:
            raise AuthError(f"the tokens of seller {self._seller_id} cannot be read: {error}") from None
        if token is None:
            raise AuthError(f"the tokens of seller {self._seller_id} were written by a newer mlmessages: update it")
        return _Stored(generation, concealed(token))

    def _sealed(self, token: Token) -> PrivateBytes:
        return PrivateBytes(self._keys.seal(self._seller_id, dump_token(token)))

    async def _run(self, *some: Statement) -> list[list[tuple[Any, ...]]]:
        """Execute statements in one transaction; all of them can be repeated."""
        for wait in _RECONNECT_WAITS:
            await asyncio.sleep(wait)
            try:
                return await self._statements.run(*some)
            except Disconnected as error:
                broken: JournalError = error
            except JournalError as error:
                broken = error
                break
        raise AuthError(f"the tokens of seller {self._seller_id} cannot be reached: {broken}") from None

    def _no_such_seller(self) -> AuthError:
        error = AuthError(f"seller {self._seller_id} is not in the database")
        error.hint = "Take the seller in: `mlmessages auth url`, then `mlmessages auth exchange`."
        return error

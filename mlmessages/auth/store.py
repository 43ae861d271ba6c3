"""Where a seller's tokens are kept for all processes: `TokenStore`, and `FileTokenStore`, one private file."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from ..errors import AuthError
from ..files import FileLock, NotPrivate, PrivateBytes, read_private, reason, remove_abandoned, replace_private
from ..models import Token
from .source import concealed

T = TypeVar("T")

_VERSION: Final = 1
_MOMENTS: Final = ("expires_at", "issued_at", "refresh_issued_at", "refresh_sent_at", "refresh_refused_at")


@runtime_checkable
class TokenStore(Protocol):
    """Where the tokens of one seller are kept, for all processes that use them."""

    async def load(self) -> Token | None:
        """Return the tokens that were saved last, or None; it may be called without the lock."""
        ...

    async def save(self, token: Token) -> None:
        """Keep `token` with all its fields; when this returns it is durable. What it raises means: nothing changed."""
        ...

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Hold the store alone, across tasks and processes; what a dead process held is free."""
        ...


class FileTokenStore:
    """A `TokenStore` in one file, of one seller: readable by its owner alone (0600), replaced as a whole.

    Every error is an `AuthError` that names the file and says what to do: it cannot be read or written, others may read
    it, it is a symbolic link (which is not followed), or it is something else than such a file. No file is no token:
    `load` returns None. Beside it lies a lock file, ``….lock``, which stays.

    On Windows 0600 means nothing: all who may read the folder may read the file. Keep it in the user's profile, or take
    the rights of others away from its folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.fsdecode(path))
        if not self._path.name:
            raise ValueError("path must name a file")

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._path)!r})"

    async def load(self) -> Token | None:
        """Return the tokens as they were saved last; None if there is no file."""
        return await _in_thread(self._load)

    async def save(self, token: Token) -> None:
        """Replace the file: when this returns, it survives a power cut. Until then the old one does."""
        data = dump_token(concealed(token))
        await _in_thread(lambda: self._save(data))

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Hold the store alone, across tasks and processes; the system frees what a dead process held."""
        return self._lock()

    def _load(self) -> Token | None:
        try:
            body = read_private(self._path)
        except FileNotFoundError:
            return None
        except NotPrivate as error:
            raise AuthError(
                f"the token file {self._path.name} is not private: {reason(error)}. Run `chmod 600 {self._path.name}`,"
                " and authorise again if another person may have read it"
            ) from None
        except OSError as error:
            raise AuthError(f"the token file {self._path.name} cannot be read: {reason(error)}") from None
        token = load_token(body)
        if token is None:
            raise AuthError(
                f"{self._path.name} is not a token file of mlmessages: name another one, or restore a copy of it"
            )
        return token

    def _save(self, data: PrivateBytes) -> None:
        try:
            replace_private(self._path, data)
        except OSError as error:
            failure = AuthError(f"the token file {self._path.name} cannot be written: {reason(error)}")
            if error.errno == errno.EBUSY:
                failure.hint = "A file that is mounted by itself cannot be replaced: mount its folder instead."
            raise failure from None

    @asynccontextmanager
    async def _lock(self) -> AsyncGenerator[None, None]:
        path = self._path.with_name(self._path.name + ".lock")
        lock = FileLock(path)
        wait = 0.005
        try:
            while not lock.try_acquire():
                await asyncio.sleep(wait)  # asked again and again: a thread that waits could not be cancelled
                wait = min(wait * 1.5, 0.25)
        except OSError as error:
            raise AuthError(f"the lock file {path.name} cannot be used: {reason(error)}") from None
        try:
            remove_abandoned(self._path)
            yield
        finally:
            lock.release()


async def _in_thread(work: Callable[[], T]) -> T:
    """Do `work` off the event loop. Cancelled, it is finished all the same: the lock is given back only then."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if not working.cancelled():
            await asyncio.wait({working})
            working.exception()
        raise


# -- what is in the file -----------------------------------------------------------------------------------------------


def dump_token(token: Token) -> PrivateBytes:
    """Return `token` as the JSON of a token file; a `Secret` stays one until it is part of it."""
    moments = {name: getattr(token, name) for name in _MOMENTS}
    value = {
        "version": _VERSION,
        "user_id": token.user_id,
        "access_token": token.access_token,
        "refresh_token": token.refresh_token,
        **{name: moment.isoformat() if moment is not None else None for name, moment in moments.items()},
    }
    return PrivateBytes(json.dumps(value, indent=1).encode() + b"\n")


def load_token(body: PrivateBytes) -> Token | None:
    """Return what `dump_token` was given; None where `body` is something else, or of a newer version."""
    try:
        value: Any = json.loads(body)
        if value["version"] > _VERSION:
            return None
        refresh_token = value["refresh_token"]
        if not isinstance(value["access_token"], str) or not isinstance(refresh_token, (str, type(None))):
            return None
        moments = {name: datetime.fromisoformat(value[name]) for name in _MOMENTS[1:] if value.get(name)}
        return Token(
            value["access_token"],
            refresh_token,
            datetime.fromisoformat(value["expires_at"]),
            user_id=value.get("user_id"),
            **moments,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None

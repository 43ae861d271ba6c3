"""`FileTokenStore`: a seller's tokens in a file that nobody else can read, and that is never half written."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import AuthError
from ..failpoints import failpoint
from ..models import Token
from .source import Secret

T = TypeVar("T")

_VERSION: Final = 1
_MOST_BYTES: Final = 64 * 1024
_LEFT_OVER: Final = 600.0  # seconds after which a temporary file is one of a process that was killed
_WINDOWS: Final = sys.platform == "win32"
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NEVER_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # somebody may have put a pipe there
_BINARY: Final = getattr(os, "O_BINARY", 0)
_MOMENTS: Final = ("expires_at", "issued_at", "refresh_issued_at", "refresh_sent_at")


class FileTokenStore:
    """A `TokenStore` in one file, of one seller: readable by its owner alone (0600), replaced as a whole.

    Every error is an `AuthError` that names the file and says what to do: it cannot be read or written, others may read
    it, it is a symbolic link (which is not followed), or it is something else than such a file. No file is no token:
    `load` returns None. Beside it lies a lock file, ``….lock``, which stays.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.fsdecode(path))
        if not self._path.name:
            raise ValueError("path must name a file")

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._path)!r})"

    async def load(self) -> Token | None:
        """The tokens as they were saved last; None if there is no file."""
        return await _in_thread(self._load)

    async def save(self, token: Token) -> None:
        """Replace the file: when this returns, it survives a power cut. Until then the old one does."""
        data = _written(token)
        await _in_thread(lambda: self._save(data))

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Hold the store alone, across tasks and processes; the system frees what a dead process held."""
        return self._lock()

    def _load(self) -> Token | None:
        try:
            body = read_privately(self._path)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise AuthError(error.strerror) from None
        except OSError as error:
            raise AuthError(f"the token file {self._path.name} cannot be read: {reason(error)}") from None
        token = _read(body)
        if token is None:
            raise AuthError(
                f"{self._path.name} is not a token file of mlmessages: name another one, or restore a copy of it"
            )
        return token

    def _save(self, data: bytes) -> None:
        try:
            replace_privately(self._path, data)
        except OSError as error:
            raise AuthError(f"the token file {self._path.name} cannot be written: {reason(error)}") from None

    @asynccontextmanager
    async def _lock(self) -> AsyncGenerator[None, None]:
        path = self._path.with_name(self._path.name + ".lock")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW | _BINARY, 0o600)
        except OSError as error:
            raise AuthError(f"the lock file {path.name} cannot be opened: {reason(error)}") from None
        try:
            wait = 0.005
            while not _locked(fd, path.name):
                await asyncio.sleep(wait)  # asked again and again: a thread that waits could not be cancelled
                wait = min(wait * 1.5, 0.25)
            _remove_left_overs(self._path)
            yield
        finally:
            os.close(fd)


async def _in_thread(work: Callable[[], T]) -> T:
    """`work` off the event loop. Cancelled, it is finished all the same: whoever holds the lock gives it back then."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if not working.cancelled():
            await asyncio.wait({working})
            working.exception()
        raise


# -- what is in the file -----------------------------------------------------------------------------------------------


def _written(token: Token) -> bytes:
    moments = {name: getattr(token, name) for name in _MOMENTS}
    value = {
        "version": _VERSION,
        "user_id": token.user_id,
        "access_token": token.access_token,
        "refresh_token": token.refresh_token,
        **{name: moment.isoformat() if moment is not None else None for name, moment in moments.items()},
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def _read(body: bytes) -> Token | None:
    """The token in the file; None where there is none. Nothing of it is quoted."""
    try:
        value: Any = json.loads(body)
        if value["version"] > _VERSION:
            return None
        refresh_token = value["refresh_token"]
        if not isinstance(value["access_token"], str) or not isinstance(refresh_token, (str, type(None))):
            return None
        moments = {name: datetime.fromisoformat(value[name]) for name in _MOMENTS[1:] if value.get(name)}
        return Token(
            Secret(value["access_token"]),
            None if refresh_token is None else Secret(refresh_token),
            datetime.fromisoformat(value["expires_at"]),
            user_id=value.get("user_id"),
            **moments,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


# -- files of one's own ------------------------------------------------------------------------------------------------


def read_privately(path: Path) -> bytes:
    """What is in `path`; an `OSError` if it is no file, a symbolic link, or readable by anybody but its owner."""
    if _WINDOWS and path.is_symlink():
        raise OSError(0, "it is a symbolic link, which is not followed")
    try:
        fd = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NEVER_WAIT | _BINARY)
    except OSError:
        if path.is_symlink():
            raise OSError(0, "it is a symbolic link, which is not followed") from None
        raise
    with open(fd, "rb") as file:  # noqa: PTH123 -- from a descriptor
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(0, "it is not a regular file")
        if not _WINDOWS and state.st_mode & 0o077:
            raise PermissionError(
                0,
                f"{path.name} may be read or written by others (mode {state.st_mode & 0o777:04o}): run `chmod 600"
                f" {path.name}`, and authorise again if somebody may have read it",
            )
        body = file.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise OSError(0, "it is too large")
    return body


def replace_privately(path: Path, data: bytes) -> None:
    """Put `data` in the place of `path`, 0600 whatever the umask says, whole or not at all, and on the disk.

    A symbolic link is an `OSError`: the file it points to would stay as it was.
    """
    if path.is_symlink():
        raise OSError(0, "it is a symbolic link, which is not followed")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, 0o600)
    try:
        with open(fd, "wb", buffering=0) as file:  # noqa: PTH123 -- from a descriptor
            if not _WINDOWS:
                os.fchmod(fd, 0o600)  # a umask may have taken bits away
            failpoint("token file made")
            _write_all(file.fileno(), data)
            failpoint("token file written")
            os.fsync(fd)
        failpoint("token file synced")
        _rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    failpoint("token file renamed")
    if not _WINDOWS:  # there a directory cannot be opened
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    failpoint("token file durable")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _rename(source: Path, target: Path) -> None:
    for attempt in range(10):
        try:
            source.replace(target)
            return
        except PermissionError:
            if not _WINDOWS or attempt == 9:
                raise
            time.sleep(0.02)  # there a file cannot be replaced in the moment in which it is read


def _remove_left_overs(path: Path) -> None:
    """What killed processes left: nobody knows what stands in it."""
    for left in path.parent.glob(f".{_literally(path.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _LEFT_OVER:
                left.unlink()


def _literally(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _locked(fd: int, name: str) -> bool:
    """Take the lock of an open file; False: somebody has it."""
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 -- exists there alone

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 -- exists there alone

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise AuthError(f"the lock file {name} cannot be locked: {reason(error)}") from None
    return True


def reason(error: OSError) -> str:
    """Why, in the system's words."""
    return error.strerror or type(error).__name__

"""Private files: readable by their owner alone, replaced as a whole, durable, and locked across processes.

Everything that this library keeps on a disk (tokens, journals, downloads, the files of the commands) goes through here.
All of it blocks: where a disk may be slow, call it in a thread. What goes wrong is an `OSError`, and `reason` puts it
into words.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, SupportsIndex, TypeVar, overload

from .failpoints import failpoint

T = TypeVar("T")

_log: Final = logging.getLogger("mlmessages")

# No symbolic link is followed, no pipe is waited for, no child inherits it, no newline is translated.
_FLAGS: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOINHERIT", 0)
)
_LINK: Final = "it is a symbolic link, which is not followed"
_ABANDONED: Final = 600.0  # seconds after which a temporary file belongs to a process that was killed
_LONGEST_STEM: Final = 50  # characters of a name in the name of its temporary file: a name has 255 bytes at most

# Of the systems' headers.
_RENAME_EXCL: Final = 4
_RENAME_NOREPLACE: Final = 1
_AT_FDCWD: Final = -100

# Windows: seconds between the tries. Virus scanners hold a fresh file for some seconds; some 5 s in all.
_SHARING_WAITS: Final = (0.02, 0.04, 0.08, 0.16, 0.3, *(0.5,) * 9)
# Windows frees the locks of a process that was killed a moment after its end; 2 s in all.
_KILLED_WAITS: Final = (0.05,) * 40


class PrivateBytes(bytes):
    """What is in a private file: neither its repr nor a slice of it, and so no traceback with locals, shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> PrivateBytes: ...

    def __getitem__(self, key: SupportsIndex | slice) -> int | PrivateBytes:
        found = super().__getitem__(key)
        return PrivateBytes(found) if isinstance(found, bytes) else found


class NotPrivate(PermissionError):
    """Others than the owner may read or write the file."""


def reason(error: OSError) -> str:
    """Return why `error` happened, in the system's words or ours; they name no content."""
    return error.strerror or type(error).__name__


# -- opening -----------------------------------------------------------------------------------------------------------


def open_private(path: Path, flags: int) -> int:
    """Open the regular file `path` and return its descriptor; `flags` are those of `os.open`.

    A file that this call creates has mode 0600, whatever the umask. A symbolic link is refused, and so is everything
    else that is no regular file, without waiting for it.
    """
    while True:
        try:
            return _open(path, flags)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
        with suppress(FileNotFoundError):  # it was there a moment ago
            return _open(path, flags & ~os.O_CREAT)


def _open(path: Path, flags: int) -> int:
    """Open what exists, or with O_CREAT what does not."""
    created = flags & os.O_CREAT
    if sys.platform == "win32" and path.is_symlink():  # it has no O_NOFOLLOW
        raise OSError(errno.ELOOP, _LINK)
    try:
        fd = os.open(path, flags | _FLAGS | (os.O_EXCL if created else 0), 0o600)
    except FileExistsError:
        raise
    except OSError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, _LINK) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if created:
            make_private(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_private(fd: int, path: Path) -> None:
    """Give the open file `path` mode 0600.

    Where the file system keeps no modes (FAT, some network and container mounts) the log says so, once a folder. On
    Windows nothing is done: there the folder's access list decides.
    """
    if sys.platform == "win32" or stat.S_IMODE(os.fstat(fd).st_mode) == 0o600:
        return
    with suppress(OSError):  # such a file system refuses it, or does nothing
        os.fchmod(fd, 0o600)
    if os.fstat(fd).st_mode & 0o077:
        _warn_that_modes_are_not_kept(path)


def read_private(path: Path, most_bytes: int = 64 * 1024) -> PrivateBytes:
    """Return what is in `path`; `NotPrivate` if others may read or write it.

    On Windows a file that is being replaced, or looked at by a virus scanner, is tried again for some 5 s.
    """
    with os.fdopen(_patiently(lambda: open_private(path, os.O_RDONLY)), "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if sys.platform != "win32" and mode & 0o077:
            if _keeps_modes(path):
                raise NotPrivate(errno.EACCES, f"others may read or write it (mode {mode:04o})")
            _warn_that_modes_are_not_kept(path)
        body = PrivateBytes(file.read(most_bytes + 1))
    if len(body) > most_bytes:
        raise OSError(errno.EFBIG, "it is too large")
    return body


def _keeps_modes(path: Path) -> bool:
    """Return False where a new file beside `path` gets other modes than asked for; True where that cannot be tried."""
    probe = _temporary(path)
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    except OSError:
        return True
    try:
        return not os.fstat(fd).st_mode & 0o077
    finally:
        os.close(fd)
        with suppress(OSError):
            probe.unlink()


_warned_of: Final[set[Path]] = set()


def _warn_that_modes_are_not_kept(path: Path) -> None:
    if path.parent not in _warned_of:
        _warned_of.add(path.parent)
        _log.warning(
            "the file system of %s keeps no permissions: everyone who can reach that folder can read %s",
            path.parent,
            path.name,
        )


# -- replacing ---------------------------------------------------------------------------------------------------------


class PendingFile:
    """A new file that is written beside `path`, mode 0600, until `replace` or `publish` gives it that name.

    A context manager: at its end the temporary file is gone. `file` is open for writing, in binary. A `path` that is a
    symbolic link is refused: the file that it points to would stay as it was.
    """

    def __init__(self, path: Path) -> None:
        if path.is_symlink():
            raise OSError(errno.ELOOP, _LINK)
        self._path = path
        self._temporary = _temporary(path)
        self.file: Final = os.fdopen(open_private(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL), "wb")

    def replace(self) -> None:
        """Put the file in the place of `path`, as a whole; when this returns, that survives a power cut.

        On Windows a `path` that another program has open is tried again for some 5 s.
        """
        with _Folder(self._path) as folder:
            self.finish()
            _patiently(lambda: self._temporary.replace(self._path))
            failpoint("file replaced")
            folder.sync()
            failpoint("folder synced")

    def publish(self) -> None:
        """Give the file the name `path`; `FileExistsError`, with the path as its file name, if something has it."""
        with _Folder(self._path) as folder:
            self.finish()
            try:
                self._take_name()
            except FileExistsError:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._path)) from None
            folder.sync()

    def _take_name(self) -> None:
        """Give the finished file its name. Raises `FileExistsError` where something has it."""
        for in_one_step in (os.link, _rename_new):  # which file systems have which differs
            try:
                in_one_step(self._temporary, self._path)
            except FileExistsError:
                raise
            except (OSError, NotImplementedError):
                continue
            return
        # In two: take the name, and then put the file there. A kill between them leaves an empty file.
        os.close(open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            _patiently(lambda: self._temporary.replace(self._path))
        except OSError:
            self._path.unlink()  # empty, and made here: the next attempt finds the name free
            raise

    def finish(self) -> None:
        """Close the file when all that was written is on the disk; `replace` and `publish` do it too."""
        if not self.file.closed:
            self.file.flush()
            failpoint("file written")
            sync(self.file.fileno())
            failpoint("file synced")
            self.file.close()

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._temporary.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


def _rename_new(source: Path, target: Path) -> None:
    """Rename `source`; `FileExistsError` where something has the name `target`. Not every system or disk can do it."""
    if sys.platform == "win32":
        _patiently(lambda: source.rename(target))
        return
    old, new = os.fsencode(source), os.fsencode(target)
    try:
        import ctypes  # noqa: PLC0415 -- some Pythons are built without it

        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = libc.renamex_np(old, new, _RENAME_EXCL)
        else:
            failed = libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE)
    except (AttributeError, ImportError):
        raise NotImplementedError from None
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def replace_private(path: Path, data: bytes) -> None:
    """Put `data` in the place of `path`: mode 0600, as a whole or not at all, on the disk when this returns."""
    data = PrivateBytes(data)
    with PendingFile(path) as pending:
        failpoint("file created")
        pending.file.write(data)
        pending.replace()


def remove_abandoned(path: Path) -> None:
    """Remove the temporary files for `path` of processes that were killed: those that are older than ten minutes."""
    stem = "".join(f"[{char}]" if char in "*?[" else char for char in path.name[:_LONGEST_STEM])
    for left in path.parent.glob(f".{stem}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _ABANDONED:
                left.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:_LONGEST_STEM]}.{secrets.token_hex(8)}.tmp")


def _patiently(action: Callable[[], T]) -> T:
    """Return the result of `action`; on Windows, repeat it where another program has the file open."""
    for wait in _SHARING_WAITS if sys.platform == "win32" else ():
        try:
            return action()
        except PermissionError:
            time.sleep(wait)
    return action()


# -- on the disk -------------------------------------------------------------------------------------------------------


def sync(fd: int) -> None:
    """Return when what was written to the open file is on the disk."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 -- Windows has none

        with suppress(OSError):  # not every file system has it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # where `fsync` stops at the cache of the drive
            return
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on the disk; on Windows the system sees to that by itself."""
    with _Folder(folder / "any") as opened:
        opened.sync()


class _Folder:
    """The folder of `path`, opened before anything in it is changed: what raises has then changed nothing."""

    def __init__(self, path: Path) -> None:
        self._fd = None if sys.platform == "win32" else os.open(path.parent, os.O_RDONLY)

    def sync(self) -> None:
        if self._fd is None:
            return
        try:
            sync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # CIFS and VirtualBox shares cannot do it with a folder
                raise

    def __enter__(self) -> _Folder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)


# -- locks -------------------------------------------------------------------------------------------------------------


def try_lock(fd: int, place: int = 0) -> bool:
    """Lock an open file for this descriptor alone; return False if another one has the lock.

    The system frees it when the descriptor is closed, also by the death of its process. `place`: the byte that stands
    for the file on Windows, where a locked byte cannot be read. A file system that cannot lock is an `OSError`.
    """
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 -- exists there alone

            os.lseek(fd, place, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 -- Windows has none

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise OSError(error.errno, f"its file system cannot lock files ({reason(error)}): use a local disk") from None
    return True


class FileLock:
    """A lock across processes: a file that stays, locked as long as its holder lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock; return False if it is held, in this process or in another one."""
        while True:
            fd = self._opened()
            try:
                if not try_lock(fd):
                    return False
                if self._is_named(fd):  # it was not deleted meanwhile: another one would make a new file, and lock that
                    self._fd = fd
                    return True
            finally:
                if self._fd != fd:
                    os.close(fd)

    def acquire(self) -> bool:
        """As `try_acquire`, but on Windows it tries for 2 s: there a lock outlives a process that was killed."""
        for wait in _KILLED_WAITS if sys.platform == "win32" else ():
            if self.try_acquire():
                return True
            time.sleep(wait)
        return self.try_acquire()

    @property
    def is_effective(self) -> bool:
        """True while the lock is held and its file still has its name: without it others would lock another file."""
        return self._fd is not None and self._is_named(self._fd)

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _opened(self) -> int:
        try:
            return open_private(self._path, os.O_RDWR | os.O_CREAT)
        except PermissionError:
            if not self._is_without_mode():
                raise
            self._path.chmod(0o600)
            return open_private(self._path, os.O_RDWR | os.O_CREAT)

    def _is_without_mode(self) -> bool:
        """Return True for a file of ours that its umask has taken from us: for a moment, or by an older version."""
        if sys.platform == "win32":
            return False
        try:
            state = self._path.lstat()
        except OSError:
            return False
        return stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and state.st_mode & 0o600 != 0o600

    def _is_named(self, fd: int) -> bool:
        if sys.platform == "win32":  # there a file that is open is not deleted
            return True
        try:
            return os.path.samestat(os.fstat(fd), self._path.lstat())
        except FileNotFoundError:
            return False

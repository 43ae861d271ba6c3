"""Files that grow line by line: readable by their owner alone, one writer at a time, and no torn line stays in them."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import click

from ..escaping import one_line

_BLOCK: Final = 1 << 16
_START: Final = b'{"pack_id": "'  # of every line that the commands write
_KIND: Final = re.compile(rb'\{"pack_id": ?"[0-9]{1,20}", ?"([a-z]+)":')
_WRITERS: Final = {  # by the second key of their lines
    "redelivered": "drain",
    "status": "fetch",
    "last": "fetch --messages",
    "error": "fetch --failed",
}
_FAR: Final = 1 << 40  # a place beyond the end, to be locked where a locked place cannot be read


class LineFile:
    """A file that is open for adding lines: a context manager.

    `kind`: what the second key of its lines is. It tells the files of the commands apart, and keeps a file that none of
    them wrote from being changed. What is wrong with the file is a `click.UsageError`; what goes wrong while it is
    written, a `click.ClickException`.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self.name: Final = one_line(click.format_filename(path))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NONBLOCK"):  # the last one: a pipe would wait for ever
            flags |= getattr(os, flag, 0)
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise click.UsageError(f"{self.name} cannot be opened for writing: {reason}") from None
        try:
            self._prepare(kind)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                raise self._failed(error) from None
            raise

    def _prepare(self, kind: str) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise click.UsageError(f"{self.name} is not a regular file")
        try:
            self._lock()
        except OSError:
            raise click.ClickException(f"{self.name} is being written by another mlmessages") from None
        first = self._read(0, _BLOCK)
        found = _KIND.match(first)
        writer = _WRITERS.get(found[1].decode()) if found else None
        if writer is None and (b"\n" in first or not _may_be_torn(first)):
            raise click.UsageError(f"{self.name} was not written by mlmessages: name another file")
        if writer not in (None, _WRITERS[kind]):
            raise click.UsageError(f"{self.name} was written by `mlmessages {writer}`: name another file")
        if sys.platform != "win32":
            os.fchmod(self._fd, 0o600)

    def _lock(self) -> None:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(self._fd, _FAR, os.SEEK_SET)
            msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return os.fstat(self._fd).st_size

    def lines(self) -> Iterator[bytes]:
        """The lines from the beginning; a torn last one comes without its newline."""
        with open(self._fd, "rb", buffering=_BLOCK, closefd=False) as file:
            file.seek(0)
            yield from file

    def cut_torn_line(self) -> None:
        """Forget the last line, if whoever wrote it was ended before its end."""
        end = size = self.size
        while end:
            start = max(end - _BLOCK, 0)
            newline = self._read(start, end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            self.cut(end)

    def cut(self, end: int) -> None:
        """Forget what comes after the first `end` bytes; a `click.UsageError` if it does not look like ours."""
        tail = self._read(end, _BLOCK)
        if not (tail.startswith(_START) or _may_be_torn(tail)):
            raise click.UsageError(f"{self.name} ends in something that this command did not write: name another file")
        os.ftruncate(self._fd, end)

    def append(self, data: bytes) -> None:
        """Add whole lines; the system has them, but the disk perhaps not yet."""
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._failed(error) from None

    def sync(self) -> None:
        """Return when what was added is on the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from None

    def sync_name(self) -> None:
        """Return when a file that was just created will also be found after a power failure."""
        if sys.platform != "win32":
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _failed(self, error: OSError) -> click.ClickException:
        return click.ClickException(f"{self.name} cannot be written: {error.strerror}")

    def _read(self, start: int, length: int) -> bytes:
        os.lseek(self._fd, start, os.SEEK_SET)
        return os.read(self._fd, length)

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _may_be_torn(tail: bytes) -> bool:
    """True if `tail` may be the beginning of a line of ours: a power failure may also have left NUL bytes."""
    return _START.startswith(tail[: len(_START)]) or not tail.strip(b"\0")

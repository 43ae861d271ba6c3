"""Files that grow line by line: readable by their owner alone, one writer at a time, and no torn line stays in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import click

from .. import files

_BLOCK: Final = 1 << 16
_START: Final = b'{"pack_id": "'  # of every line that the commands write
_KIND: Final = re.compile(rb'\{"pack_id": ?"[0-9]{1,20}", ?"([a-z]+)":')
_WRITERS: Final = {  # by the second key of their lines
    "redelivered": "drain",
    "status": "fetch",
    "last": "fetch --messages",
    "error": "fetch --failed",
}
_LOCKED: Final = 1 << 40  # the byte that stands for the file on Windows: beyond its end, where no data are


class LineFile:
    """A file that is open for adding lines: a context manager.

    `kind`: the second key of its lines. It tells the files of the commands apart, and keeps a file that none of them
    wrote from being changed. What is wrong with the file is a `click.UsageError`; what goes wrong while it is written,
    a `click.ClickException`.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self.name: Final = click.format_filename(path)
        try:
            self._fd = files.open_private(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise click.UsageError(f"{self.name} cannot be opened for writing: {files.reason(error)}") from None
        try:
            self._prepare(kind)
        except OSError as error:
            os.close(self._fd)
            raise self._failed(error) from None
        except BaseException:
            os.close(self._fd)
            raise

    def _prepare(self, kind: str) -> None:
        if not files.try_lock(self._fd, _LOCKED):
            raise click.ClickException(f"{self.name} is being written by another mlmessages")
        first = self._read(0, _BLOCK)
        found = _KIND.match(first)
        writer = _WRITERS.get(found[1].decode()) if found else None
        if writer is None and (b"\n" in first or not _may_be_torn(first)):
            raise click.UsageError(f"{self.name} was not written by mlmessages: name another file")
        if writer not in (None, _WRITERS[kind]):
            raise click.UsageError(f"{self.name} was written by `mlmessages {writer}`: name another file")
        files.make_private(self._fd, self._path)

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return os.fstat(self._fd).st_size

    def lines(self) -> Iterator[bytes]:
        """Yield the lines from the beginning; a torn last one comes without its newline."""
        with open(self._fd, "rb", buffering=_BLOCK, closefd=False) as file:
            file.seek(0)
            yield from file

    def cut_torn_line(self) -> None:
        """Remove the last line, if the process that wrote it was ended before its end."""
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
        """Remove what comes after the first `end` bytes; a `click.UsageError` if it does not look like ours."""
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
            files.sync(self._fd)
        except OSError as error:
            raise self._failed(error) from None

    def sync_name(self) -> None:
        """Return when a file that was just created will also be found after a power failure."""
        try:
            files.sync_folder(self._path.parent)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> click.ClickException:
        return click.ClickException(f"{self.name} cannot be written: {files.reason(error)}")

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
    """Return whether `tail` may be the beginning of a line of ours: a power failure may have left NUL bytes."""
    return _START.startswith(tail[: len(_START)]) or not tail.strip(b"\0")

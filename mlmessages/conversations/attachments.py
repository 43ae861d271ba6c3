"""Attachments: files up and down, in pieces, with the documented limits checked before anything is sent."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

from ..api.arguments import check_attachment_id, check_site_id
from ..api.calls import MOST_FILE_BYTES, Body
from ..api.endpoints import Endpoints
from ..errors import AnswerLost, MessagesError
from ..files import PendingFile, remove_abandoned
from ..http.pipeline import Pipeline
from ..models import Attachment

_LONGEST_NAME: Final = 200  # [documented: attachments]
_CHUNK: Final = 128 * 1024

# By the end of the name. Domestic sites document four types, Global Selling the rest too.
_DOMESTIC: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".pdf": "application/pdf"} | {
    ".txt": "text/plain"
}
_GLOBAL: Final = _DOMESTIC | {
    ".heif": "image/heif",
    ".heic": "image/heic",
    ".doc": "application/msword",
    ".xls": "application/vnd.ms-excel",
    ".xml": "application/xml",
    ".jfif": "image/jpeg",
}
_ANY: Final = "application/octet-stream"

File = str | os.PathLike[str] | BinaryIO


class Attachments:
    """Uploads and downloads the files of one seller."""

    def __init__(self, pipeline: Pipeline, endpoints: Endpoints) -> None:
        self._pipeline = pipeline
        self._endpoints = endpoints

    async def upload(self, file: File, *, filename: str | None, site: str, check_type: bool) -> str:
        """Upload a file; see `MessagesClient.upload`."""
        site = check_site_id(site)
        name = _checked_name(_own_name(file) if filename is None else filename)
        content_type = self._type_of(name, checked=check_type)
        self._pipeline.check_open()
        source = _opened(file)  # at once: what a thread opened for a call that was cancelled would stay open
        try:
            size = _size_of(source)
            if size > MOST_FILE_BYTES:
                raise ValueError(f"the file has {size:,} bytes; an attachment has at most {MOST_FILE_BYTES:,} (25 MB)")
            form = _Form(source, size, name, content_type)
            try:
                return await self._pipeline.execute(
                    self._endpoints.upload(site, Body(f"multipart/form-data; boundary={form.boundary}", form))
                )
            except MessagesError as error:
                if form.failure is not None:
                    raise form.failure.with_traceback(None) from None
                if isinstance(error, AnswerLost):
                    error.hint = "Upload it again: what is not sent with a message is deleted after 48 hours."
                raise
        finally:
            if source is not file:
                source.close()

    def _type_of(self, name: str, *, checked: bool) -> str:
        ending = Path(name).suffix.lower()
        if not (checked and self._endpoints.domestic):
            return _GLOBAL.get(ending, _ANY)
        if ending not in _DOMESTIC:
            raise ValueError(
                f"domestic sites document {', '.join(_DOMESTIC)} files as attachments, and the file's name must end so;"
                " `check_type=False` leaves it to the server"
            )
        return _DOMESTIC[ending]

    async def download(
        self, attachment: Attachment | str, destination: str | os.PathLike[str], *, site: str | None, threat: bool
    ) -> Path:
        """Download an attachment; see `MessagesClient.download`."""
        if isinstance(attachment, Attachment):
            if attachment.potential_security_threat and not threat:
                raise ValueError("the server warns that this file may be dangerous: `allow_threat=True` downloads it")
            attachment = attachment.filename or ""
        wanted = check_attachment_id(attachment)
        site = None if site is None else check_site_id(site)
        target = Path(destination)
        self._pipeline.check_open()
        _refuse_existing(target)
        await asyncio.to_thread(remove_abandoned, target)
        with _Destination(target) as sink:
            await self._pipeline.execute(self._endpoints.download(wanted, site, sink))
            await asyncio.to_thread(sink.finish)
            sink.publish()  # not in a thread: a download that was cancelled leaves nothing behind
        return target


# -- up ----------------------------------------------------------------------------------------------------------------


def _own_name(file: File) -> str:
    """Return the name that a file has of its own; `ValueError` if it has none."""
    if isinstance(file, (str, os.PathLike)):
        return Path(file).name
    name = getattr(file, "name", None)
    if isinstance(name, str):
        return Path(name).name
    raise ValueError("filename is needed: the file has no name of its own")


def _checked_name(name: object) -> str:
    # A path could lead a receiver astray, and control characters could end a header.
    if (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST_NAME
        and name.isprintable()
        and not {"/", "\\"} & set(name)
        and name.strip(". ")
    ):
        return name
    raise ValueError(
        f"filename must be a printable text of 1 to {_LONGEST_NAME} characters without / and \\, and not of dots alone"
    )


def _opened(file: File) -> BinaryIO:
    if isinstance(file, (str, os.PathLike)):
        # Looked at first: to open a pipe or a device may wait for ever.
        path = Path(file)
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("file is not a regular file")
        return path.open("rb")
    if isinstance(file, io.TextIOBase):
        raise ValueError("file must be open in binary mode")
    needed = ("read", "seek", "tell", "seekable")
    if not all(callable(getattr(file, name, None)) for name in needed) or not file.seekable():
        raise ValueError("file must be a path, bytes or a binary file that can seek")
    return file


def _size_of(file: BinaryIO) -> int:
    """Return how many bytes `file` has from where it stands."""
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    return end - start


class _Form:
    """A form with one field, the file, as a browser would send it, in pieces."""

    def __init__(self, file: BinaryIO, size: int, name: str, content_type: str) -> None:
        self.boundary: Final = secrets.token_hex(16)
        self.failure: Exception | None = None
        self._file = file
        self._start = file.tell()
        self._file_size = size
        # As HTML's algorithm quotes it; the rest of the name goes out in UTF-8.
        quoted = name.replace('"', "%22")
        self._head = (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()
        self.size: Final = len(self._head) + size + len(self._tail)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the form from its beginning."""
        yield self._head
        left = self._file_size
        try:
            await asyncio.to_thread(self._file.seek, self._start)
            while left:
                chunk = await asyncio.to_thread(self._file.read, min(left, _CHUNK))
                if not chunk:
                    raise OSError("the file became shorter while it was uploaded")
                left -= len(chunk)
                yield chunk
        except (OSError, ValueError) as error:
            self.failure = error  # the server gets half a form, which it cannot take for a file
            raise
        yield self._tail


# -- down --------------------------------------------------------------------------------------------------------------


class _Destination(PendingFile):
    """Where a download goes: what an attempt wrote is forgotten when the next one begins."""

    async def begin(self) -> None:
        """Drop what an earlier attempt wrote."""
        await asyncio.to_thread(self._forget)

    async def write(self, chunk: bytes) -> None:
        """Append `chunk` to the file."""
        await asyncio.to_thread(self.file.write, chunk)

    def _forget(self) -> None:
        self.file.seek(0)
        self.file.truncate()


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):  # also a link that leads nowhere
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))

"""Files: what is uploaded waits for its message, what is attached can be downloaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from .answers import JSON, Answer, Refused
from .behaviour import FileProblem
from .calendar import Calendar
from .requests import ParsedRequest

_MOST_BYTES = 25 * 1024 * 1024  # of one file [documented: attachments]
_KEPT = 48 * 3600.0  # seconds that an upload waits for its message [documented: attachments]
_SITES = frozenset(
    "MLA MLB MLM MLC MCO MLU MPE MEC MLV MCR MRD MBO MPA MPY MGT MHN MSV MNI MCU".split()  # noqa: SIM905
)
_TYPES = {
    "domestic": {"image/jpeg", "image/png", "application/pdf", "text/plain"},
    "marketplace": {
        *("text/plain", "image/png", "image/jpeg", "image/heif", "image/heic", "application/pdf", "application/msword"),
        *("application/vnd.ms-excel", "text/xml", "application/xml", "application/octet-stream"),
    },
}


@attrs.define
class _File:
    content: bytes
    name: str
    content_type: str
    at: float
    used: bool


class Attachments:
    """The files of one seller's conversations."""

    def __init__(self, seller_id: str, calendar: Calendar) -> None:
        self._seller_id = seller_id
        self._calendar = calendar
        self._files: dict[str, _File] = {}

    def add(self, content: bytes, name: str, content_type: str, *, used: bool) -> str:
        """Add a file; return its id. `used`: a message has it already, so that it does not expire."""
        ending = name.rpartition(".")[2] if "." in name else "bin"
        file_id = f"{self._seller_id}_{len(self._files):08x}-0000-4000-8000-000000000000.{ending}"
        self._files[file_id] = _File(content, name, content_type, self._calendar.now, used)
        return file_id

    def content_of(self, file_id: str) -> bytes:
        """Return a file's bytes; LookupError where there is none."""
        try:
            return self._files[file_id].content
        except KeyError:
            raise LookupError(f"no file {file_id} in this sandbox") from None

    def attach(
        self, ids: Iterable[object], refuses: Callable[[str], FileProblem | None]
    ) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        """Use uploads for a message: return its `message_attachments`, and by reason the files that are left out.

        A refusal where one is unknown or expired.
        """
        rows = []
        refused: dict[str, list[str]] = {}
        for file_id in ids:
            file = self._files.get(file_id) if isinstance(file_id, str) else None
            if file is None or (not file.used and self._calendar.now - file.at > _KEPT):
                raise Refused(422, "Attachment key is invalid or not found", "unprocessable_entity")
            problem = refuses(file.name)
            if problem is not None:
                refused.setdefault(problem, []).append(str(file_id))
                continue
            file.used = True
            rows.append(
                {
                    "filename": file_id,
                    "original_filename": file.name,
                    "type": file.content_type,
                    "size": len(file.content),
                    "potential_security_threat": False,
                    "creation_date": None,
                }
            )
        return rows, refused

    def download(self, file_id: str) -> Answer:
        """Return a file as an answer; a missing one is a 500 [documented: attachments]."""
        file = self._files.get(file_id)
        if file is None:
            raise Refused(500, "File can not be accessed, try it later", None)
        return Answer(200, file.content, {"Content-Type": file.content_type})


def answer(attachments: Attachments, request: ParsedRequest) -> Answer:
    """Answer an upload or a download."""
    site = request.query.get("site_id")
    if site is None and (request.kind == "upload" or request.family == "marketplace"):
        raise _bad("The queryparam 'site_id' is required")
    if site is not None and site not in _SITES:
        raise _bad(f"Invalid site_id: '{site}' is not a recognized site")
    if request.kind == "upload":
        return _upload(attachments, request)
    return attachments.download(request.file_id or "")


def _upload(attachments: Attachments, request: ParsedRequest) -> Answer:
    found = _form_file(request)
    if found is None:
        raise _bad("The form needs a field 'file' with a file")
    name, content_type, content = found
    if not name or len(name) > 200 or {"/", "\\"} & set(name):
        raise _bad("The name of the file is not valid")
    if content_type not in _TYPES[request.family]:
        raise _bad("The type of the file is not allowed")
    if len(content) > _MOST_BYTES:
        raise _bad("The file is too large")
    file_id = attachments.add(content, name, content_type, used=False)
    return Answer(201, json.dumps({"id": file_id}).encode(), {"Content-Type": JSON})


def _form_file(request: ParsedRequest) -> tuple[str, str, bytes] | None:
    """Return the name, the type and the bytes of the field `file` of a form."""
    boundary = re.fullmatch(r'multipart/form-data; boundary="?([^"]+)"?', request.content_type)
    if boundary is None:
        return None
    delimiter = b"--" + boundary[1].encode()
    begins = request.body.startswith(delimiter + b"\r\n")
    if not begins or not request.body.rstrip(b"\r\n").endswith(b"\r\n" + delimiter + b"--"):
        return None
    head, _, rest = request.body[len(delimiter) + 2 :].partition(b"\r\n\r\n")
    content = rest[: rest.rindex(b"\r\n" + delimiter)]
    headers = head.decode()
    name = re.search(r'; name="file"; filename="([^"\r\n]*)"', headers)
    content_type = re.search(r"(?mi)^content-type: *([^;\r\n]+)", headers)
    if name is None or content_type is None:
        return None
    return name[1].replace("%22", '"'), content_type[1].strip(), content


def _bad(message: str) -> Refused:
    return Refused(400, message, "bad_request")

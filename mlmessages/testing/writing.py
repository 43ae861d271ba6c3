"""What the seller writes: messages, the action guide, files; with the documented refusals. No I/O."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import attrs

from .answers import JSON, Answer, Refused
from .asked import ParsedRequest
from .behaviour import Behaviour
from .packs import LIMITED
from .shapes import MARKETPLACE
from .world import StoredMessage, Thread, World

_MOST_BYTES = 25 * 1024 * 1024
_SITES = [
    "MLA",
    "MLB",
    "MLM",
    "MLC",
    "MCO",
    "MLU",
    "MPE",
    "MEC",
    "MLV",
    "MCR",
    "MRD",
    "MBO",
    "MPA",
    "MPY",
    "MGT",
    "MHN",
    "MSV",
    "MNI",
    "MCU",
]
_KEPT = 48 * 3600.0  # seconds that an upload waits for its message
_SHORTEST_CAP = 350
_TYPES = {
    "domestic": {"image/jpeg", "image/png", "application/pdf", "text/plain"},
    "marketplace": {
        *("text/plain", "image/png", "image/jpeg", "image/heif", "image/heic", "application/pdf", "application/msword"),
        *("application/vnd.ms-excel", "text/xml", "application/xml", "application/octet-stream"),
    },
}
_EMOJI = re.compile("[\u200d\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]")


def _template(name: str, *variables: str) -> dict[str, Any]:
    template = f"TEMPLATE___{name}___1"
    ids = [{"id": f"{template}___VAR___{variable}", "type": "NUMBER"} for variable in variables]
    return {"id": template, "vars": ids or None}


# As the documentation prints them: even the case of `type` varies within one answer.
_OPTIONS: list[dict[str, Any]] = [
    {"id": "REQUEST_VARIANTS", "type": "template", "templates": [_template("REQUEST_VARIANTS")]},
    {"id": "REQUEST_BILLING_INFO", "type": "template", "templates": [_template("REQUEST_BILLING_INFO")]},
    {"id": "SEND_INVOICE_LINK", "type": "free_text", "templates": None, "char_limit": _SHORTEST_CAP},
    {
        "id": "DELIVERY_PROMISE",
        "type": "TEMPLATE",
        "templates": [_template("DELIVERY_PROMISE", "INIT", "LIMIT")],
        "char_limit": None,
    },
    {"id": "OTHER", "type": "free_text", "templates": None, "char_limit": _SHORTEST_CAP},
]


@attrs.define
class _File:
    content: bytes
    name: str
    content_type: str
    at: float
    used: bool


class Writing:
    """The writing half of the API over a world."""

    def __init__(self, world: World, behaviour: Behaviour, seller_id: str) -> None:
        self.undelivered: set[str] = set()
        self._world = world
        self._behaviour = behaviour
        self._seller_id = seller_id
        self._files: dict[str, _File] = {}
        self._used: Counter[tuple[str, str]] = Counter()

    def answer(self, asked: ParsedRequest, thread: Thread) -> Answer:
        """A message, or the action guide of a conversation."""
        if asked.kind == "send":
            return self._send(asked, thread)
        self._check_guided(thread)
        if asked.kind == "reasons":
            rows = [
                {
                    "internal_description": "x",
                    "enabled": True,
                    "actionable": True,
                    "child_options": None,
                    "cap_available": self._left(thread, option["id"]),
                    **option,
                }
                for option in _OPTIONS
            ]
            return _json(200, {"options": rows})
        if asked.kind == "caps":
            return _json(200, [{"option_id": o["id"], "cap_available": self._left(thread, o["id"])} for o in _OPTIONS])
        return self._option(asked, thread)

    # -- messages

    def _send(self, asked: ParsedRequest, thread: Thread) -> Answer:
        body = posted(asked)
        if not isinstance(body, dict):
            raise _bad("A JSON body is required")
        text = body.get("text")
        if asked.family == "domestic":
            received = self._addressed(body, thread)
            text = text if isinstance(text, str) else ""
            if any(char > "\xff" and not _EMOJI.match(char) for char in text):
                raise _bad("The text has character/s that is/are not supported.")
        elif isinstance(text, str) and text:
            received = True
        else:
            raise _bad("Text is required")
        if thread.status == "blocked":
            if thread.substatus == LIMITED:
                raise _guide(403, "forbidden", "The seller can not start this conversation.", LIMITED)
            code = "blocked_conversation_send_message_forbidden"
            raise Refused(403, code, "forbidden", {"status_code": 403, "code": "forbidden", "message": code})
        longest = self._behaviour.longest_reply
        if len(text) > longest:
            raise _bad(f"The message content is too long, max characters allowed are {longest}")
        attachments = self._attached(body.get("attachments"))
        message = self._write(thread, text, {"message_attachments": attachments} if attachments else {}, received)
        return self._told(message, 201)

    def _addressed(self, body: dict[str, Any], thread: Thread) -> bool:
        """Whether somebody receives it."""
        sender, to = (_user(body.get(key)) for key in ("from", "to"))
        if sender is None:
            raise _bad("'from' required")
        if to is None:
            raise _bad("'to.user_id' required")
        if sender == to:
            raise _bad("Sender and received must not be equals")
        if sender != self._seller_id:
            message = f"Access denied for user {sender} to order {thread.pack_id}"
            raise Refused(403, message, "forbidden")
        if to == str(thread.agent_id or thread.buyer_id):
            return True
        if to == str(thread.buyer_id):
            return False  # observed: taken with a 200, and nobody receives it
        raise _bad(f"to_user_id {to} does not belong to pack /packs/{thread.pack_id}/sellers/{self._seller_id}")

    def _attached(self, ids: object) -> list[dict[str, Any]]:
        rows = []
        for file_id in ids if isinstance(ids, list) else []:
            file = self._files.get(file_id)
            if file is None or (not file.used and self._world.now - file.at > _KEPT):
                raise Refused(422, "Attachment key is invalid or not found", "unprocessable_entity")
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
        return rows

    def _write(self, thread: Thread, text: str, overrides: dict[str, object], received: bool) -> StoredMessage:
        reason = self._behaviour.moderate(text)
        if reason is not None:
            overrides = {
                **overrides,
                "status": "moderated",
                "message_moderation": {"status": "rejected", "reason": reason},
            }
        message = self._world.write(thread, text, "seller", overrides)
        if reason is not None or not received:
            self.undelivered.add(message.id)
        return message

    def _told(self, message: StoredMessage, status: int) -> Answer:
        if self._behaviour.tells == "nothing":
            return Answer(status, b"", ids=(message.id,))
        row = json.loads(MARKETPLACE.envelope(self._seller_id, message))["messages"][0]
        if self._behaviour.tells == "minimal":
            told = {
                "message_id": row["id"],
                "date_created": row["message_date"]["created"],
                "status": row["status"],
            }
        else:
            keys = ("id", "to", "status", "text", "message_date", "message_moderation")
            told = {key: row[key] for key in keys}
        return attrs.evolve(_json(status, told), ids=(message.id,))

    # -- the action guide

    def _check_guided(self, thread: Thread) -> None:
        if thread.guide == "excepted":
            message = "This pack belongs to an excepted case, it is requested to use the messaging resource."
            raise _guide(400, "bad_request", message, "blocked_by_excepted_case")
        if thread.guide is None:
            message = "The conversation is open, use /messages"
            raise _guide(403, "forbidden", message, "blocked_by_conversation_use_message_api")

    def _left(self, thread: Thread, option_id: str) -> int:
        return max(self._behaviour.option_cap - self._used[thread.pack_id, option_id], 0)

    def _option(self, asked: ParsedRequest, thread: Thread) -> Answer:
        body = posted(asked)
        if not isinstance(body, dict):
            raise _guide(400, "bad_request", "A JSON body is required")
        option = next((option for option in _OPTIONS if option["id"] == body.get("option_id")), None)
        if option is None:
            raise _guide(404, "not_found", "The option is not valid")
        text = body.get("text")
        if option["templates"] is not None:
            text = self._filled(option["templates"], body)
        elif not isinstance(text, str) or not text:
            raise _guide(400, "bad_request", "Text is required")
        elif len(text) > _SHORTEST_CAP:
            raise _guide(400, "limit_exceeded", f"The text has more than {_SHORTEST_CAP} characters")
        if not self._left(thread, option["id"]):
            raise _guide(403, "bad_request", f"You are not allowed to execute the option {option['id']} again")
        self._used[thread.pack_id, option["id"]] += 1
        message = self._write(thread, text, {"data": {"option_id": option["id"]}}, received=True)
        return self._told(message, 200)

    def _filled(self, templates: list[dict[str, Any]], body: dict[str, Any]) -> str:
        template = next((template for template in templates if template["id"] == body.get("template_id")), None)
        if template is None:
            raise _guide(400, "bad_request", "The template is not valid")
        given = {v.get("id"): v.get("value") for v in body.get("vars") or [] if isinstance(v, dict)}
        if given.keys() != {variable["id"] for variable in template["vars"] or []}:
            raise _guide(400, "bad_request", "The variables are not valid")
        return " ".join([template["id"], *map(str, given.values())])

    # -- files

    def add_file(self, content: bytes, name: str, content_type: str, *, used: bool) -> str:
        """One more file; its id."""
        ending = name.rpartition(".")[2] if "." in name else "bin"
        file_id = f"{self._seller_id}_{len(self._files):08x}-0000-4000-8000-000000000000.{ending}"
        self._files[file_id] = _File(content, name, content_type, self._world.now, used)
        return file_id

    def content_of(self, file_id: str) -> bytes:
        """A file's bytes, or a LookupError."""
        try:
            return self._files[file_id].content
        except KeyError:
            raise LookupError(f"no file {file_id} in this sandbox") from None

    def file(self, asked: ParsedRequest) -> Answer:
        """An upload or a download."""
        site = asked.query.get("site_id")
        if site is None and (asked.kind == "upload" or asked.family == "marketplace"):
            raise _bad("The queryparam 'site_id' is required")
        if site is not None and site not in _SITES:
            raise _bad(f"Invalid site_id: '{site}' is not a recognized site")
        if asked.kind == "upload":
            return self._upload(asked)
        file = self._files.get(asked.file_id or "")
        if file is None:  # so it is: a missing file is a 500
            raise Refused(500, "File can not be accessed, try it later", None)
        return Answer(200, file.content, {"Content-Type": file.content_type})

    def _upload(self, asked: ParsedRequest) -> Answer:
        found = _field(asked)
        if found is None:
            raise _bad("The form needs a field 'file' with a file")
        name, content_type, content = found
        if not name or len(name) > 200 or {"/", "\\"} & set(name):
            raise _bad("The name of the file is not valid")
        if content_type not in _TYPES[asked.family]:
            raise _bad("The type of the file is not allowed")
        if len(content) > _MOST_BYTES:
            raise _bad("The file is too large")
        return _json(201, {"id": self.add_file(content, name, content_type, used=False)})


def posted(asked: ParsedRequest) -> object:
    """The JSON of a request; None where it has none."""
    if not asked.body or not asked.content_type.startswith("application/json"):
        return None
    try:
        value: object = json.loads(asked.body)
    except ValueError:
        return None
    return value


def _field(asked: ParsedRequest) -> tuple[str, str, bytes] | None:
    """The name, the type and the bytes of the field `file` of a form."""
    boundary = re.fullmatch(r'multipart/form-data; boundary="?([^"]+)"?', asked.content_type)
    if boundary is None:
        return None
    delimiter = b"--" + boundary[1].encode()
    if not asked.body.startswith(delimiter + b"\r\n") or not asked.body.rstrip(b"\r\n").endswith(
        b"\r\n" + delimiter + b"--"
    ):
        return None
    head, _, rest = asked.body[len(delimiter) + 2 :].partition(b"\r\n\r\n")
    content = rest[: rest.rindex(b"\r\n" + delimiter)]
    headers = head.decode()
    name = re.search(r'; name="file"; filename="([^"\r\n]*)"', headers)
    content_type = re.search(r"(?mi)^content-type: *([^;\r\n]+)", headers)
    if name is None or content_type is None:
        return None
    return name[1].replace("%22", '"'), content_type[1].strip(), content


def _user(party: object) -> str | None:
    found = party.get("user_id") if isinstance(party, dict) else None
    return str(found) if isinstance(found, (str, int)) and str(found) else None


def _bad(message: str) -> Refused:
    return Refused(400, message, "bad_request")


def _guide(status: int, error: str, message: str, cause: str | None = None) -> Refused:
    body = {"cause": cause, "error": error, "message": message, "status_code": status}
    return Refused(status, message, error, body)


def _json(status: int, value: object) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": JSON})

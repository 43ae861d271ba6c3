"""A seller's message: whom it reaches, what is refused, what moderation makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .account import Account
from .answers import JSON, Answer, Refused
from .behaviour import Behaviour
from .conversations import StoredMessage, Thread
from .packs import LIMITED
from .requests import ParsedRequest
from .shapes import MARKETPLACE, attachments_validations

_EMOJI = re.compile("[\u200d\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]")


def answer(account: Account, behaviour: Behaviour, request: ParsedRequest, thread: Thread) -> Answer:
    """Answer a message to the buyer of a conversation."""
    body = posted(request)
    if not isinstance(body, dict):
        raise _bad("A JSON body is required")
    text = body.get("text")
    if request.family == "domestic":
        received = _reaches_its_reader(account, body, thread)
        text = text if isinstance(text, str) else ""
        if any(char > "\xff" and not _EMOJI.match(char) for char in text):
            raise _bad("The text has character/s that is/are not supported.")
    elif isinstance(text, str) and text:
        received = True
    else:
        raise _bad("Text is required")
    if thread.status == "blocked":
        raise _blocked(thread)
    longest = behaviour.longest_reply
    if len(text) > longest:
        raise _bad(f"The message content is too long, max characters allowed are {longest}")
    named = body.get("attachments")
    files, refused = account.attachments.attach(named if isinstance(named, list) else [], behaviour.refuses_file)
    overrides: dict[str, object] = {"message_attachments": files} if files else {}
    if refused:
        overrides["attachments_validations"] = attachments_validations(refused)
    message = write(account, behaviour, thread, text, overrides, received=received)
    return receipt(account, behaviour, message, 201)


def write(
    account: Account,
    behaviour: Behaviour,
    thread: Thread,
    text: str,
    overrides: Mapping[str, object],
    *,
    received: bool,
) -> StoredMessage:
    """Add the seller's message, moderated where its text asks for it; `received`: it reaches its reader."""
    reason = behaviour.moderate(text)
    if reason is not None:
        moderation = {"status": "rejected", "reason": reason}
        overrides = {**overrides, "status": "moderated", "message_moderation": moderation}
    message = account.conversations.write(thread, text, "seller", overrides)
    if reason is not None or not received:
        account.undelivered.add(message.id)
    return message


def receipt(account: Account, behaviour: Behaviour, message: StoredMessage, status: int) -> Answer:
    """Answer what was written, in the form that the behaviour says."""
    if behaviour.tells == "nothing":
        return Answer(status, b"", ids=(message.id,))
    row = MARKETPLACE.message_row(account.seller_id, message)
    if behaviour.tells == "minimal":
        told = {"message_id": row["id"], "date_created": row["message_date"]["created"], "status": row["status"]}
    else:
        keys = ("id", "to", "status", "text", "message_date", "message_moderation")
        told = {key: row[key] for key in keys}
        if "attachments_validations" in row:
            told["attachments_validations"] = row["attachments_validations"]
    return Answer(status, json.dumps(told).encode(), {"Content-Type": JSON}, ids=(message.id,))


def posted(request: ParsedRequest) -> object:
    """Return the JSON of a request; None where it has none."""
    if not request.body or not request.content_type.startswith("application/json"):
        return None
    try:
        value: object = json.loads(request.body)
    except ValueError:
        return None
    return value


def guide_body(status: int, error: str, message: str, cause: str | None) -> dict[str, object]:
    """Return the body of a refusal in the form of the action guide."""
    return {"cause": cause, "error": error, "message": message, "status_code": status}


def _reaches_its_reader(account: Account, body: dict[str, Any], thread: Thread) -> bool:
    """Whether the address is the one that speaks for the buyer now; a refusal where it is no party of the pack."""
    sender, to = (_user(body.get(key)) for key in ("from", "to"))
    if sender is None:
        raise _bad("'from' required")
    if to is None:
        raise _bad("'to.user_id' required")
    if sender == to:
        raise _bad("Sender and received must not be equals")
    if sender != account.seller_id:
        raise Refused(403, f"Access denied for user {sender} to order {thread.pack_id}", "forbidden")
    if to == str(thread.agent_id or thread.buyer_id):
        return True
    if to == str(thread.buyer_id):
        return False  # taken with a 200, and delivered to no one [observed: answers]
    raise _bad(f"to_user_id {to} does not belong to pack /packs/{thread.pack_id}/sellers/{account.seller_id}")


def _blocked(thread: Thread) -> Refused:
    if thread.substatus == LIMITED:
        message = "The seller can not start this conversation."
        return Refused(403, message, "forbidden", guide_body(403, "forbidden", message, LIMITED))
    code = "blocked_conversation_send_message_forbidden"
    return Refused(403, code, "forbidden", {"status_code": 403, "code": "forbidden", "message": code})


def _user(party: object) -> str | None:
    found = party.get("user_id") if isinstance(party, dict) else None
    return str(found) if isinstance(found, (str, int)) and str(found) else None


def _bad(message: str) -> Refused:
    return Refused(400, message, "bad_request")

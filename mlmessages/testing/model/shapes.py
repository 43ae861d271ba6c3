"""The JSON of the answers, as the documentation prints it: three families of keys over the same state."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, get_args

import attrs

from .behaviour import FileProblem
from .conversations import StoredMessage, Thread

_DATES = '"received":%(created)s,"available":%(created)s,"notified":%(created)s,"created":%(created)s,"read":%(read)s'
_MODERATION = '"status":"clean","reason":null,"source":"online","moderation_date":%(created)s'
_STATUS = '"status":%(status)s,"substatus":%(substatus)s,"status_date":%(date)s,"status_update_allowed":false'


@attrs.frozen
class Shape:
    """One family of keys; the templates are filled by `%`, every value already in JSON."""

    user_key: str
    user_is_text_when_empty: bool
    resource: str
    names_the_seller: bool
    """Whether the resource of a listing's row does."""
    buyer: str
    seller: str
    resources: str
    message: str
    status: str
    tail: str
    milliseconds: bool

    def row(self, seller_id: str, pack_id: str, count: int) -> str:
        """Return one row of an unread listing."""
        return f'{{"resource":"{self.resource % {"pack": pack_id, "seller": seller_id}}","count":{count}}}'

    def listing(self, user_id: str, rows: Sequence[str], total: int | None) -> bytes:
        """Return an unread listing; without a `total` unless it is given."""
        user = f'"{user_id}"' if not rows and self.user_is_text_when_empty else user_id
        told = "" if total is None else f',"total":{total}'
        return f'{{"{self.user_key}":{user},"results":[{",".join(rows)}]{told}}}'.encode()

    def page(
        self,
        seller_id: str,
        thread: Thread,
        messages: Sequence[StoredMessage],
        paging: Mapping[str, int] | None,
        *,
        longest_reply: int = 350,
        reads_until: float = math.inf,
    ) -> bytes:
        """Return one page of a conversation; a message that was read after `reads_until` is shown unread."""
        told = "null" if paging is None else json.dumps(paging, separators=(",", ":"))
        status = self.status % {
            "pack": thread.pack_id,
            "place": f"seller/{seller_id}"
            if thread.agent_id is None
            else f"sellers/{seller_id}/conversations/post_sale",
            "status": json.dumps(thread.status),
            "substatus": json.dumps(thread.substatus),
            "date": _date(thread.messages[-1].created if thread.messages else None, self.milliseconds),
        }
        rows = ",".join(self._messages(seller_id, thread, messages, reads_until))
        tail = self.tail % {"longest": longest_reply} if self.tail else ""
        return f'{{"paging":{told},"conversation_status":{{{status}}},"messages":[{rows}]{tail}}}'.encode()

    def message_row(self, seller_id: str, message: StoredMessage, *, reads_until: float = math.inf) -> dict[str, Any]:
        """Return one message as a page has it."""
        (row,) = self._messages(seller_id, message.thread, [message], reads_until)
        value: dict[str, Any] = json.loads(row)
        return value

    def _messages(
        self, seller_id: str, thread: Thread, messages: Sequence[StoredMessage], reads_until: float
    ) -> list[str]:
        ids = {"pack": thread.pack_id, "seller": seller_id, "buyer": thread.agent_id or thread.buyer_id}
        buyer = self.buyer % {**ids, "name": json.dumps(thread.buyer_name)}
        seller = self.seller % ids
        resources = self.resources % ids
        site = json.dumps(thread.site_id)
        rows = []
        for message in messages:
            row = self.message % {
                "id": message.id,
                "site": site,
                "from": buyer if message.from_buyer else seller,
                "to": seller if message.from_buyer else buyer,
                "text": _quoted(message.text),
                "created": _date(message.created, self.milliseconds),
                "read": _date(_shown(message.read, reads_until), self.milliseconds),
                "resources": resources,
            }
            rows.append(_overridden(row, message.overrides) if message.overrides else row)
        return rows


def envelope(row: Mapping[str, object]) -> bytes:
    """Return a message as it is asked for by its id: a page without paging and status."""
    return json.dumps({"paging": None, "conversation_status": None, "messages": [row]}).encode()


def flat(row: Mapping[str, Any], resource: str, resource_id: str) -> bytes:
    """Return a message in the legacy form of a message asked for by its id [documented: messages]."""
    dates = row["message_date"]
    moderation = row["message_moderation"]
    return json.dumps(
        {
            "message_id": row["id"],
            "date_received": dates["received"],
            "date": dates["created"],
            "date_available": dates["available"],
            "date_notified": dates["notified"],
            "date_read": dates["read"],
            "from": {"user_id": row["from"]["user_id"]},
            "to": {"user_id": row["to"]["user_id"]} if "to" in row else None,
            "subject": row.get("subject"),
            "text": {"plain": row["text"]},
            "attachments": row["message_attachments"] or [],
            "attachments_validations": row.get("attachments_validations", attachments_validations()),
            "site_id": row["site_id"],
            "resource": resource,
            "resource_id": resource_id,
            "status": row["status"],
            "moderation": {
                "status": moderation["status"],
                "date_moderated": moderation.get("moderation_date"),
                "source": moderation.get("source"),
            },
        }
    ).encode()


def attachments_validations(refused: Mapping[str, Sequence[str]] | None = None) -> dict[str, list[str]]:
    """Return which files a message lost, by the reason [documented: messages]."""
    return {reason: list((refused or {}).get(reason, ())) for reason in get_args(FileProblem)}


def _shown(read: float | None, reads_until: float) -> float | None:
    return None if read is not None and read > reads_until else read


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return json.dumps(text)


@lru_cache(maxsize=4096)
def _date(moment: float | None, milliseconds: bool) -> str:
    if moment is None:
        return "null"
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds" if milliseconds else "seconds")
    return f'"{text[:-6]}Z"'


def _overridden(row: str, overrides: object) -> str:
    message = json.loads(row)
    assert isinstance(overrides, dict)
    for key, value in overrides.items():
        old = message.get(key)
        message[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return json.dumps(message)


DOMESTIC = Shape(
    user_key="user_id",
    user_is_text_when_empty=True,
    resource="/packs/%(pack)s/sellers/%(seller)s",
    names_the_seller=True,
    buyer='{"user_id":%(buyer)s}',
    seller='{"user_id":%(seller)s}',
    resources='[{"id":"%(pack)s","name":"packs"},{"id":"%(seller)s","name":"sellers"}]',
    message='{"id":"%(id)s","site_id":%(site)s,"client_id":null,"from":%(from)s,"to":%(to)s,"status":"available",'
    '"subject":null,"text":%(text)s,"message_date":{' + _DATES + '},"message_moderation":{' + _MODERATION + "},"
    '"message_attachments":null,"message_resources":%(resources)s,"conversation_first_message":false}',
    status='"path":"/packs/%(pack)s/%(place)s",' + _STATUS + ',"claim_id":null,"shipping_id":null',
    tail=',"seller_max_message_length":%(longest)s,"buyer_max_message_length":3500',
    milliseconds=True,
)

MARKETPLACE = Shape(
    user_key="userId",
    user_is_text_when_empty=False,
    resource="/packs/%(pack)s",
    names_the_seller=False,
    buyer='{"user_id":%(buyer)s,"name":%(name)s}',
    seller='{"user_id":%(seller)s,"name":"Test Seller"}',
    resources=DOMESTIC.resources,
    message=DOMESTIC.message.removesuffix("}") + ',"text_translated":null}',
    status='"claim_ids":null,"shipping_id":null,' + _STATUS,
    tail="",
    milliseconds=False,
)

PENDING = Shape(
    user_key="userId",
    user_is_text_when_empty=False,
    resource="/packs/%(pack)s",
    names_the_seller=False,
    buyer='{"user_id":"%(buyer)s","email":"test_user_%(buyer)s@testuser.com","name":%(name)s}',
    seller='{"user_id":"%(seller)s","email":"test_user_%(seller)s@testuser.com","name":"Test Seller"}',
    resources='[{"id":"%(pack)s","name":"packs"},{"id":"%(seller)s","name":"seller"}]',
    message='{"id":"%(id)s","site_id":%(site)s,"client_id":123,"from":%(from)s,"status":"AVAILABLE",'
    '"text":%(text)s,"message_date":{' + _DATES + '},"message_moderation":{"status":"NON_MODERATED",'
    '"reason":"none","by":"none","moderation_date":null},"message_attachments":null,"message_resources":%(resources)s}',
    status=DOMESTIC.status,
    tail="",
    milliseconds=True,
)
"""The samples of the "Pending messages" page: ids as text, no `to`, upper-case statuses."""

SHAPES = {"domestic": DOMESTIC, "marketplace": MARKETPLACE, "pending": PENDING}

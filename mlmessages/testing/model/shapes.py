"""The JSON of the answers, as the documentation prints it: three families of keys over the same state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import attrs

from .conversations import StoredMessage, Thread

_DATES = '"received":%(created)s,"available":%(created)s,"notified":%(created)s,"created":%(created)s,"read":%(read)s'
_PAGING = '{{"limit":{},"offset":{},"total":{}}}'
_MODERATION = '"status":"clean","reason":null,"source":"online","moderation_date":%(created)s'
_STATUS = '"status":%(status)s,"substatus":%(substatus)s,"status_date":%(date)s,"status_update_allowed":false'


@attrs.frozen
class Shape:
    """One family of keys; the templates are filled by `%`, every value already in JSON."""

    user_key: str
    user_is_text_when_empty: bool
    resource: str
    buyer: str
    seller: str
    resources: str
    message: str
    status: str
    tail: str
    milliseconds: bool

    def listing(self, seller_id: str, rows: Sequence[tuple[Thread, int]], total: int | None) -> bytes:
        """An unread listing; without a `total` unless it is given."""
        packs = ",".join(
            f'{{"resource":"{self.resource % {"pack": thread.pack_id, "seller": seller_id}}","count":{count}}}'
            for thread, count in rows
        )
        user = f'"{seller_id}"' if not rows and self.user_is_text_when_empty else seller_id
        told = "" if total is None else f',"total":{total}'
        return f'{{"{self.user_key}":{user},"results":[{packs}]{told}}}'.encode()

    def page(
        self,
        seller_id: str,
        thread: Thread,
        messages: Sequence[StoredMessage],
        paging: tuple[int, int, int] | None,
        longest_reply: int = 350,
    ) -> bytes:
        """One page of a conversation; `paging` is limit, offset and total."""
        told = "null" if paging is None else _PAGING.format(*paging)
        status = self.status % {
            "pack": thread.pack_id,
            "place": f"seller/{seller_id}"
            if thread.agent_id is None
            else f"sellers/{seller_id}/conversations/post_sale",
            "status": json.dumps(thread.status),
            "substatus": json.dumps(thread.substatus),
            "date": _date(thread.messages[-1].created if thread.messages else None, self.milliseconds),
        }
        rows = ",".join(self._messages(seller_id, thread, messages))
        tail = self.tail % {"longest": longest_reply} if self.tail else ""
        return f'{{"paging":{told},"conversation_status":{{{status}}},"messages":[{rows}]{tail}}}'.encode()

    def envelope(self, seller_id: str, message: StoredMessage) -> bytes:
        """One message as asked by its id: a page without paging and status."""
        (row,) = self._messages(seller_id, message.thread, [message])
        return f'{{"paging":null,"conversation_status":null,"messages":[{row}]}}'.encode()

    def _messages(self, seller_id: str, thread: Thread, messages: Sequence[StoredMessage]) -> list[str]:
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
                "read": _date(message.read, self.milliseconds),
                "resources": resources,
            }
            rows.append(_overridden(row, message.overrides) if message.overrides else row)
        return rows


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

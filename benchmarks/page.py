"""The page that the benchmarks read: the documented shape of a Global Selling conversation, with invented values."""

from __future__ import annotations

import json
from typing import Any

SELLER = 700100200
BUYER = 800300400
PACK = 2000000000000001


def page(size: int) -> bytes:
    """The JSON of a page of `size` messages, written as compactly as a server writes it."""
    answer = {
        "paging": {"limit": 50, "offset": 0, "total": size},
        "conversation_status": {
            "claim_ids": None,
            "shipping_id": None,
            "status": "active",
            "status_date": "2026-02-26T17:37:42Z",
            "status_update_allowed": False,
            "substatus": None,
        },
        "messages": [_message(n) for n in range(size)],
    }
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


def _message(n: int) -> dict[str, Any]:
    """Buyer and seller by turns; one message in ten has a file, which is more than in life."""
    buyer, seller = {"user_id": BUYER, "name": "Test Buyer 1"}, {"user_id": SELLER, "name": "Test Seller"}
    date = f"2026-03-13T15:{n:02d}:10Z"
    attachment = {
        "filename": f"{SELLER}_aaaaaaaa-bbbb-cccc-dddd-{n:012d}.png",
        "original_filename": "photo.png",
        "type": "image/png",
        "size": 536766,
        "potential_security_threat": False,
        "creation_date": date,
    }
    return {
        "id": f"{n:032x}",
        "site_id": "MLM",
        "client_id": 1344270061100000,
        "from": seller if n % 2 else buyer,
        "to": buyer if n % 2 else seller,
        "status": "available",
        "subject": None,
        "text": f"Message {n}: ¿cuándo llega? It is for a birthday on the weekend, and I will not be at home before.",
        "text_translated": f"Message {n}: when does it arrive? It is for a birthday on the weekend, and I am out.",
        "message_date": {"received": date, "available": date, "notified": date, "created": date, "read": None},
        "message_moderation": {"status": "clean", "reason": None, "source": "online", "moderation_date": date},
        "message_attachments": [attachment] if n % 10 == 5 else None,
        "message_resources": [{"id": str(PACK), "name": "packs"}, {"id": str(SELLER), "name": "sellers"}],
        "conversation_first_message": n == 0,
    }

"""Lines as the commands write them, and what a report makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from mlmessages.report import lines
from mlmessages.report.facts import Facts
from mlmessages.report.figures import Figures, figures

SELLER, BUYER, AGENT = "700100200", "800300400", "3037674934"
START = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(minutes: float) -> str:
    """A moment after `START`, in the spelling of the wire."""
    return (START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def message(
    message_id: str, sender: str = BUYER, minutes: float | None = 0, text: str | None = "Test", **others: Any
) -> dict[str, Any]:
    """A message as the server sends it; `minutes=None`: it has no date."""
    return {
        "id": message_id,
        "from": {"user_id": int(sender)},
        "status": "available",
        "text": text,
        "message_date": {"created": None if minutes is None else at(minutes)},
        "message_moderation": {"status": "clean", "reason": None},
        "message_resources": [{"id": "11", "name": "packs"}, {"id": SELLER, "name": "sellers"}],
        **others,
    }


def fetched(pack: str, *raws: dict[str, Any], blocked: str | None = None, status: bool = True) -> bytes:
    """A line of `fetch`."""
    wire: dict[str, Any] = {
        "path": None,
        "status": "blocked" if blocked else "active",
        "substatus": blocked,
        "claim_ids": [],
    }
    rows = [{"unread": False, "raw": raw} for raw in raws]
    return json.dumps({"pack_id": pack, "status": wire if status else None, "messages": rows}).encode()


def drained(pack: str, *raws: dict[str, Any], blocked: str | None = None) -> bytes:
    """A line of `drain`."""
    line = json.loads(fetched(pack, *raws, blocked=blocked))
    return json.dumps({"pack_id": pack, "redelivered": False, **line}).encode()


def by_message(pack: str, *raws: dict[str, Any]) -> list[bytes]:
    """The lines of `fetch --messages`."""
    rows = [{"pack_id": pack, "last": n == len(raws), "unread": False, "raw": raw} for n, raw in enumerate(raws, 1)]
    rows = rows or [{"pack_id": pack, "last": True, "unread": False, "raw": None}]
    return [json.dumps(row).encode() for row in rows]


def facts_of(written: Iterable[bytes], seller_id: str | None = None) -> Facts:
    """The facts of some lines."""
    facts = Facts(seller_id)
    for line in written:
        facts.add(lines.read(line))
    return facts


def figures_of(
    *written: bytes,
    seller_id: str | None = SELLER,
    zone: tzinfo = UTC,
    zone_name: str = "UTC",
    minutes: float = 10_000,
) -> Figures:
    """The figures of some lines, so many minutes after `START`."""
    as_of = START + timedelta(minutes=minutes)
    return figures(facts_of(written, seller_id), seller_id, zone=zone, zone_name=zone_name, as_of=as_of)

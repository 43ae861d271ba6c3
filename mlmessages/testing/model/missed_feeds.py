"""The notifications that were given up: listed for two days, never taken away by asking."""

from __future__ import annotations

import json
from typing import Final

import attrs

_KEPT: Final = 2 * 24 * 3600.0  # seconds that a missed notification is listed [documented: notifications]


@attrs.define
class MissedFeeds:
    """The missed notifications of an application, over all its sellers, newest last."""

    entries: list[tuple[float, dict[str, object]]] = attrs.field(factory=list)

    def add(self, now: float, entry: dict[str, object]) -> None:
        """Add a notification that was given up."""
        self.entries.append((now, entry))

    def page(
        self, now: float, app_id: str, *, topic: str | None, seller_id: str | None, offset: int, limit: int
    ) -> bytes:
        """Return the answer: there is no `paging`, and the key is ``messages`` for every topic
        [documented: notifications].
        """
        rows = [
            entry
            for at, entry in self.entries
            if now - at < _KEPT
            and str(entry["application_id"]) == app_id
            and topic in (None, entry["topic"])
            and seller_id in (None, str(entry.get("user_id")))
        ]
        return json.dumps({"messages": rows[offset : offset + limit]}).encode()

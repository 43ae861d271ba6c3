"""What a fleet needs of a database: `mlmessages.Database` has it, and so has a store in memory for simulations."""

from __future__ import annotations

from typing import Protocol

from ..api.notifications import Notification
from ..auth.store import TokenStore
from ..http.limits import Limits
from ..journal.seats import Worker


class SellerDatabase(Protocol):
    """The sellers of one application, with their journals, tokens and budget. Each method raises `JournalError`."""

    async def worker(self) -> Worker:
        """Return this process's worker, with a lease that has begun."""

    def limits(self, application_id: int | str) -> Limits:
        """Return the budget that all processes share."""

    def tokens(self, seller_id: int | str) -> TokenStore:
        """Return where a seller's tokens are kept."""

    async def count_sellers(self) -> int:
        """Return how many sellers there are that are not stopped."""

    async def stop_seller(self, seller_id: str, reason: str) -> float:
        """Serve a seller no more for some time, an hour at first; return that time in seconds."""

    async def claim_duty(self, name: str, every: float) -> bool:
        """Return True to one process in `every` seconds: it does what `name` says for all."""

    async def notify(self, notification: Notification) -> bool:
        """Write a notification down for its seller, and ring; return False if it names none of these."""

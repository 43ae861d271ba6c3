"""What a fleet needs of a database: `mlmessages.Database` has it, and so has a store in memory for simulations."""

from __future__ import annotations

from typing import Protocol

from ..api.notifications import Notification
from ..auth.store import TokenStore
from ..http.limits import Limits
from ..journal.shared import SharedJournals


class SellerDatabase(Protocol):
    """The sellers of one application, with their journals, tokens and budget."""

    @property
    def journals(self) -> SharedJournals:
        """The seats and journals, open; and this process as a worker among others."""

    def limits(self, application_id: int | str) -> Limits:
        """Return the budget that all processes share."""

    def tokens(self, seller_id: int | str) -> TokenStore:
        """Return where a seller's tokens are kept."""

    async def notify(self, notification: Notification) -> bool:
        """Write a notification down for its seller; return False if it names none. Raises `JournalError`."""

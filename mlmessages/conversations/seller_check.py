"""Whether the client's `seller_id` is another user's: told from the first conversations, instead of 900 refusals."""

from __future__ import annotations

from typing import Final

from ..api.arguments import describe
from ..errors import Forbidden, MessagesError, NotFound
from ..models import UnreadListing

_FIRST: Final = 5  # conversations that are refused before it is said


class SellerCheck:
    """Raises `Forbidden` where the listing is of another user *and* the first conversations of it are all refused.

    The listing alone is no proof: a Global Selling seller has several ids, and which of them stands there is unknown.
    Until it is decided, no more than five conversations are read (`room`).
    """

    def __init__(self, seller_id: str) -> None:
        self._seller_id = seller_id
        self._other: str | None = None  # whose the listing is, while this can still turn out to be wrong
        self._decided = False
        self._enough = _FIRST
        self._refused = 0

    def listed(self, listing: UnreadListing) -> None:
        """Note whose listing came."""
        if self._decided or not listing.packs:
            return
        self._other = listing.user_id if listing.user_id != self._seller_id else None
        # One more than were refused, at the least: a listing that has become shorter still has one read.
        self._enough = max(min(_FIRST, len({pack.pack_id for pack in listing.packs})), self._refused + 1)

    @property
    def room(self) -> int | None:
        """How many conversations may be under way; None: any number."""
        return self._enough - self._refused if self._other is not None else None

    def ended(self, error: MessagesError | None) -> None:
        """Note that a conversation was read, or ended in `error`; raise `Forbidden` if it is decided by that."""
        if self._other is None:
            return
        if not isinstance(error, (Forbidden, NotFound)):
            self._decided, self._other = True, None
            return
        self._refused += 1
        if self._refused >= self._enough:
            raise Forbidden(
                403,
                error.code,
                f"the unread listing is of user {describe(self._other)}, not of seller {self._seller_id}, and its first"
                f" {self._refused} conversations are refused",
                request_id=error.request_id,
                hint=f"Is `seller_id` right? It is {self._seller_id}, and the token's user is {describe(self._other)}.",
            )

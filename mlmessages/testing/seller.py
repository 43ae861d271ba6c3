"""One seller of a sandbox: what buyers do, what happens on the site, and what the server knows afterwards."""

from __future__ import annotations

from .engine import Engine
from .model.account import Account
from .model.oauth import TokenEndpoint
from .model.packs import Pack, Sender


class Seller:
    """One seller's conversations, tokens and files. The methods may be called from any thread."""

    def __init__(self, engine: Engine, account: Account) -> None:
        self._engine = engine
        self._account = account

    @property
    def seller_id(self) -> str:
        """The id of the seller, as in the paths."""
        return self._account.seller_id

    @property
    def token(self) -> str:
        """The access token that the API takes; the newest, where it takes several."""
        return self._account.tokens.access_token

    @property
    def oauth(self) -> TokenEndpoint:
        """The application's side of the tokens: its id and secret, the refresh token, consent, expiry."""
        return self._account.tokens

    def rotate_token(self, new: str) -> None:
        """Take only the new token from now on; the old one gets a 401."""
        self._account.tokens.replace(new)

    # -- what happens

    def add_pack(self, pack: Pack | None = None) -> str:
        """Let a conversation begin, of a single message unless a `Pack` is given; return its id.

        Its newest message arrives now; notifications tell of those that are unread. ValueError: its id is taken.
        """
        with self._engine.lock:
            return self._account.conversations.begin(Pack() if pack is None else pack).pack_id

    def send(
        self,
        pack_id: int | str,
        text: str = "Test message",
        sender: Sender = "buyer",
        *,
        age: float = 0.0,
        **overrides: object,
    ) -> str:
        """Let a message arrive; return its id. `overrides` replace keys of its JSON.

        `age`: its date is so many seconds back, and so is its place, as of one that moderation held back.
        LookupError: there is no such conversation.
        """
        with self._engine.lock:
            return self._account.conversations.send(str(pack_id), text, sender, overrides, age=age)

    def hide(self, message_id: str) -> None:
        """Moderate a message away: no read shows or marks it, and `count` keeps counting it.

        LookupError: there is no such message.
        """
        with self._engine.lock:
            self._account.conversations.hide(message_id)

    def reveal(self, message_id: str) -> None:
        """Let a hidden message become visible, at its old place."""
        with self._engine.lock:
            self._account.conversations.reveal(message_id)

    def read_elsewhere(self, pack_id: int | str) -> None:
        """Read the conversation on the site, as the seller."""
        with self._engine.lock:
            conversations = self._account.conversations
            conversations.mark(conversations.thread(str(pack_id)).messages)

    def add_file(self, content: bytes, filename: str = "file.pdf", content_type: str = "application/pdf") -> str:
        """Add a file of the buyer's; return its id, for the `filename` of a message's attachment."""
        with self._engine.lock:
            return self._account.attachments.add(content, filename, content_type, used=True)

    # -- what happened

    def content_of(self, file_id: str) -> bytes:
        """Return what was uploaded under an id; LookupError where there is nothing."""
        with self._engine.lock:
            return self._account.attachments.content_of(file_id)

    def undelivered(self) -> set[str]:
        """Return the seller's messages that were taken with a 2xx, and that reach no buyer."""
        with self._engine.lock:
            return set(self._account.undelivered)

    @property
    def unread(self) -> int:
        """How many conversations hold something unread, visible or hidden."""
        return self._account.conversations.unread_conversations()

    def unread_ids(self) -> set[str]:
        """Return the buyers' messages that are unread, visible or hidden."""
        with self._engine.lock:
            return self._account.conversations.unread_ids()

    def marked_ids(self) -> set[str]:
        """Return the buyers' messages that are read because of a marking GET; those never delivered are lost."""
        with self._engine.lock:
            return self._account.conversations.marked_ids()

    def message_ids(self) -> set[str]:
        """Return the ids of every message."""
        with self._engine.lock:
            return self._account.conversations.message_ids()

    def pack_ids(self) -> list[str]:
        """Return the ids of every conversation, in the order of creation."""
        with self._engine.lock:
            return self._account.conversations.pack_ids()

"""What a report keeps of each message and of each conversation: little, because there may be hundreds of thousands."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, TypeVar, cast

import attrs

from ..models import ConversationStatus, Message
from .lines import Line

_T = TypeVar("_T")

LONGEST_TEXT: Final = 160  # characters that are kept of a text

# Mercado Libre began in 1999. One nonsensical date would stretch every chart over two thousand years.
_EARLIEST: Final = datetime(1999, 8, 2, tzinfo=UTC)
_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_SELLERS: Final = {"sellers", "seller"}  # two spellings of the wire
_ID: Final = re.compile(r"[0-9]{1,20}", re.ASCII)


@attrs.frozen
class Fact:
    """What is kept of a message.

    `at`: when it was written, in seconds since 1970; None: it has no date, or one that cannot be. `arrived`: moderation
    let it through. `text`: its beginning, if it may be one that waits for an answer. `files`: how many came with it.
    """

    pack_id: str
    at: float | None
    sender_id: str | None
    arrived: bool
    text: str
    files: int


@attrs.frozen
class Standing:
    """Whether one can write in a conversation; `reason`: why not, in words."""

    blocked: bool
    reason: str | None


class Facts:
    """What the lines of a file say, each message once: of one that comes again the last state counts.

    `seller_id`: whose conversations they are; None: those that the messages name (`sellers`).
    """

    def __init__(self, seller_id: str | None = None) -> None:
        self.packs: Final[dict[str, Standing | None]] = {}
        self.messages: Final[dict[str, Fact]] = {}
        self.sellers: Final[set[str]] = set()
        self.sites: Final[dict[str, str]] = {}  # of the packs whose messages name one
        self.repeated = 0
        self._seller_id = seller_id
        self._shared: Final[dict[object, object]] = {}

    def add(self, line: Line) -> None:
        """Add the messages of one line of the file, and where its conversation stands."""
        pack_id = self._share(line.pack_id)
        standing = self._share(_standing(line.status)) if line.status is not None else None
        self.packs[pack_id] = standing or self.packs.get(pack_id)
        for message in line.messages:
            if message.site_id is not None and pack_id not in self.sites:
                self.sites[pack_id] = self._share(message.site_id)
            self.repeated += message.id in self.messages
            self.messages[message.id] = self._fact(message, pack_id)

    def _fact(self, message: Message, pack_id: str) -> Fact:
        named = [r.id for r in message.resources if r.name in _SELLERS and r.id is not None and _ID.fullmatch(r.id)]
        self.sellers.update(named)
        sellers = named if self._seller_id is None else [self._seller_id]
        text = "" if message.sender_id in sellers else message.text or message.text_translated or ""
        return Fact(
            pack_id,
            _written(message),
            self._share(message.sender_id),
            not message.rejected,
            text[: LONGEST_TEXT + 1],
            len(message.attachments),
        )

    def _share(self, value: _T) -> _T:
        """Return the first of all that equal `value`: many lines say the same, and one copy of it is kept."""
        return cast(_T, self._shared.setdefault(value, value))


def _standing(status: ConversationStatus) -> Standing:
    return Standing(status.blocked, status.blocked_reason)


def _written(message: Message) -> float | None:
    moment = message.created or message.received or message.available or message.notified
    return moment.timestamp() if moment is not None and _EARLIEST <= moment < _LATEST else None

"""Conversations and their messages, as values: what a sandbox starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

Sender = Literal["buyer", "seller"]
Guide = Literal["limited", "excepted"]
"""Whether the seller may start a conversation through the action guide alone, or the pack is an exception to it."""
LIMITED = "blocked_by_conversation_initiated_by_seller_limited"


@attrs.frozen
class Message:
    """One message of a conversation; `overrides` replaces keys of its JSON (an object is merged, one level deep).

    `age`: how many seconds before the conversation is added it was written; None: messages come a minute apart.
    """

    text: str = "Test message"
    sender: Sender = "buyer"
    read: bool = False
    hidden: bool = False
    overrides: Mapping[str, object] = attrs.field(factory=dict)
    age: float | None = None


@attrs.frozen
class Pack:
    """One conversation: how many messages, or which ones (oldest first); `unread`: how many of the buyer's are unread.

    A number of messages means: the newest is the buyer's, the older ones alternate. `unread=None` leaves all of the
    buyer's unread (of explicit messages: those that do not say `read`). `agent_id`: an agent speaks for the buyer.
    `guide`: "limited" until the buyer writes, the seller has the action guide alone; "excepted", plain messages alone.
    """

    pack_id: int | str | None = None
    messages: int | Sequence[Message] = 1
    unread: int | None = None
    buyer_id: int | None = None
    buyer_name: str | None = None
    site_id: str = "MLM"
    status: str = "active"
    substatus: str | None = None
    agent_id: int | None = None
    guide: Guide | None = None

    def written(self) -> list[Message]:
        """Return the messages, oldest first."""
        if isinstance(self.messages, int):
            return _alternating(self.messages, self.unread)
        if self.unread is None:
            return list(self.messages)
        return _with_newest_unread(self.messages, self.unread)


_BUYER_UNREAD = Message()
_BUYER_READ = Message(read=True)
_SELLER_READ = Message(sender="seller", read=True)
_ONE_UNREAD = (_BUYER_UNREAD,)


def _alternating(count: int, unread: int | None) -> list[Message]:
    if count == 1 and unread is None:
        return list(_ONE_UNREAD)
    newest_first = []
    for position in range(count):
        if position % 2:
            newest_first.append(_SELLER_READ)
        else:
            newest_first.append(_BUYER_UNREAD if unread is None or position // 2 < unread else _BUYER_READ)
    return newest_first[::-1]


def _with_newest_unread(messages: Sequence[Message], unread: int) -> list[Message]:
    newest_first = []
    for message in reversed(messages):
        if message.sender == "seller":
            newest_first.append(message)
        else:
            newest_first.append(attrs.evolve(message, read=unread <= 0))
            unread -= 1
    return newest_first[::-1]

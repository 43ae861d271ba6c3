"""One seller as the API knows them: conversations, tokens, what they write and their files."""

from __future__ import annotations

from collections import Counter

import attrs

from .attachments import Attachments
from .conversations import Conversations
from .oauth import TokenEndpoint


@attrs.define(eq=False)
class Account:
    """Everything that belongs to one seller."""

    seller_id: str
    conversations: Conversations
    tokens: TokenEndpoint
    attachments: Attachments
    undelivered: set[str] = attrs.field(factory=set)
    """The seller's messages that were taken with a 2xx, and that reach no buyer."""
    used_options: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """How often each option of the action guide was used, by pack and option."""

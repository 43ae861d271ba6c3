"""What the API answers, as frozen attrs classes: typed, and with one name for what the wire spells in two ways.

They are made whole when an answer is read: `attrs.asdict`, `attrs.evolve`, copies, pickles and `match` work, assignment
raises. A message compares and hashes by its id, all others by their fields. No ``repr`` shows what people wrote, their
names or their emails.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from attrs import Attribute, field, frozen

from .errors import PackFailure

__all__ = [
    "Attachment",
    "Conversation",
    "ConversationStatus",
    "DrainReport",
    "FleetReport",
    "InboxReport",
    "Message",
    "MessagePage",
    "Moderation",
    "PackFailure",
    "Paging",
    "Reason",
    "Reasons",
    "Resource",
    "Template",
    "Token",
    "UnreadListing",
    "UnreadPack",
    "Variable",
]


@frozen
class UnreadPack:
    """A row of the unread listing: a conversation and how many of its messages count as unread.

    `count` includes moderated messages that no read returns [observed: integrators], so it may never reach 0.
    `resource` is the path as the server printed it.
    """

    pack_id: str
    count: int = 0
    resource: str | None = None


@frozen
class UnreadListing:
    """The answer of the unread query, which has no second page [documented: pending messages].

    `user_id` is whom the server says the listing is of, which may not be the `seller_id` that was asked for.
    `problems`: the rows that name no pack and are left out of `packs`, each as a path and a reason, without any value
    of the row. `answered_at`: when the server sent it, by its own clock, in UTC.
    """

    user_id: str | None
    packs: tuple[UnreadPack, ...] = ()
    total: int | None = None
    problems: tuple[str, ...] = ()
    answered_at: datetime | None = field(default=None, eq=False)

    @property
    def capped(self) -> bool:
        """True if there may be more conversations than are shown.

        That is at exactly 500 or 1,000 rows, those without a pack included, or where `total` is above the rows. The
        cap is 1,000 on Global Selling and 500 on domestic sites [documented: pending messages, messages]; which one
        holds where was never measured, so exactly 500 rows count as capped on every site. A false alarm costs one
        listing more; silence would hide conversations.
        """
        rows = len(self.packs) + len(self.problems)
        return rows in (500, 1000) or (self.total is not None and self.total > rows)


@frozen
class Paging:
    """Where a page lies: `limit` and `offset` as the server says, and `total` messages in the conversation."""

    limit: int | None = None
    offset: int | None = None
    total: int | None = None


@frozen
class Attachment:
    """A file of a message.

    `filename` is the id to download it by; `original_filename` is the name that the sender gave it.
    """

    filename: str | None = None
    original_filename: str | None = field(default=None, repr=False)
    type: str | None = None
    size: int | None = None
    potential_security_threat: bool | None = None
    creation_date: datetime | None = None


@frozen
class Moderation:
    """What moderation did to a message. `reason` is None where the server says nothing, ``""`` or ``"none"``."""

    status: str | None = None
    reason: str | None = None
    by: str | None = None
    source: str | None = None
    moderation_date: datetime | None = None


@frozen
class Resource:
    """What a message belongs to: `name` is ``packs``, ``sellers``, ``orders`` …"""

    id: str | None = None
    name: str | None = None


_REJECTED: Final = frozenset({"moderated", "rejected", "blocked"})


@frozen
class Message:
    """One message. It needs an id and nothing else.

    A field whose JSON has another type than any documented one is None and is named in `problems`, as its path and the
    reason; `raw` is the JSON object as it came. Datetimes are aware, in UTC. `status` and the like are lower-cased,
    unknown ones kept. `is_from` says who wrote it. `client_id` is the application that sent it. `pack_id` is the
    conversation that was asked for, or the one that `resources` names; an order without a pack stands in its place
    [documented: packs]. `refused_files`: the files that a send's answer says were not taken, each as its name and the
    server's reason, such as ``invalid_extension``.
    """

    id: str
    site_id: str | None = field(default=None, eq=False)
    client_id: str | None = field(default=None, eq=False)
    sender_id: str | None = field(default=None, eq=False)
    sender_name: str | None = field(default=None, eq=False, repr=False)
    sender_email: str | None = field(default=None, eq=False, repr=False)
    recipient_id: str | None = field(default=None, eq=False)
    status: str | None = field(default=None, eq=False)
    subject: str | None = field(default=None, eq=False, repr=False)
    text: str | None = field(default=None, eq=False, repr=False)
    text_translated: str | None = field(default=None, eq=False, repr=False)
    created: datetime | None = field(default=None, eq=False)
    received: datetime | None = field(default=None, eq=False)
    available: datetime | None = field(default=None, eq=False)
    notified: datetime | None = field(default=None, eq=False)
    read: datetime | None = field(default=None, eq=False)
    moderation: Moderation | None = field(default=None, eq=False)
    attachments: tuple[Attachment, ...] = field(default=(), eq=False)
    resources: tuple[Resource, ...] = field(default=(), eq=False)
    pack_id: str | None = field(default=None, eq=False)
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)
    problems: tuple[str, ...] = field(default=(), eq=False)
    refused_files: tuple[tuple[str, str], ...] = field(default=(), eq=False, repr=False)

    @property
    def rejected(self) -> bool:
        """True if moderation or the server refused it: the other side does not receive it."""
        moderation = self.moderation.status if self.moderation is not None else None
        return self.status in _REJECTED or moderation in _REJECTED

    def is_from(self, seller_id: int | str) -> bool:
        """True if the seller wrote it; else the buyer did, or the agent who speaks for them [documented: agents]."""
        return self.sender_id == str(seller_id)


# In words, by what follows ``blocked_by_`` [documented: blocking, agents; observed: integrators].
_BLOCKED_BY = {
    "time": "30 days have passed since the last message; the buyer may reopen it",
    "time_window": "the time for writing is over",
    "buyer": "the buyer blocked it",
    "mediation": "a mediation is open",
    "mediation_fbm": "a mediation is open on a sale that Mercado Libre ships",
    "fulfillment": "Mercado Libre ships it and has not delivered it yet",
    "payment": "the payment is not settled yet",
    "conversation_initiated_by_seller": "the seller may not start a conversation on this sale",
    "conversation_started_by_seller": "the seller may start it only through the action guide",
    "conversation_initiated_by_seller_limited": "the seller may start it only through the action guide",
    "conversation_use_message_api": "the buyer has answered: use plain messages, not the action guide",
    "cancelled_order": "the order was cancelled",
    "cancelled_order_by_fraud": "the order was cancelled for fraud",
    "cancelled_order_hidden": "the order was cancelled",
    "conversation_expired": "18 months have passed since the purchase; its messages are no longer returned",
    "refund": "the purchase was refunded; the buyer may reopen it",
    "claim": "a claim is open",
    "claim_change_open": "a claim about an exchange is open",
    "claim_change_closed": "a claim about an exchange was closed",
    "deactivated_account": "the buyer's account is deactivated",
    "restrictions": "the account is restricted",
    "message_pending_review": "a message is waiting for review",
    "return_to_buyer_fulfillment": "the product is on its way back to the buyer",
    "ai_assistant": "Mercado Libre's assistant is answering",
    "ai_assistant_expired": "the time for answering Mercado Libre's assistant is over",
    "ai_assistant_contact_closed": "Mercado Libre's assistant closed it",
    "ai_assistant_initiated_by_seller_expired": "the time for answering Mercado Libre's assistant is over",
    "excepted_case": "the pack is an exception to the action guide: use plain messages",
    "resale": "the product is being resold",
    "proximity_groceries": "groceries delivered nearby have no conversation",
}


@frozen
class ConversationStatus:
    """Whether one can write in a conversation, and if not, why.

    `claim_ids` joins the two spellings of the wire. `substatus` names the block [documented: blocking].
    """

    path: str | None = None
    status: str | None = None
    substatus: str | None = None
    status_date: datetime | None = None
    status_update_allowed: bool | None = None
    claim_ids: tuple[str, ...] = ()
    shipping_id: str | None = None

    @property
    def blocked(self) -> bool:
        """True if the server says that it is blocked."""
        return self.status == "blocked"

    @property
    def can_reply(self) -> bool:
        """True unless it is blocked."""
        return not self.blocked

    @property
    def blocked_reason(self) -> str | None:
        """Why it is blocked, in words; an unknown reason is the server's own; None where it is not blocked."""
        if not self.blocked:
            return None
        if self.substatus is None:
            return "the server gives no reason"
        # One documented reason is spelled ``block_by_…``.
        cause = self.substatus.removeprefix("blocked_by_").removeprefix("block_by_")
        return _BLOCKED_BY.get(cause, self.substatus)

    @property
    def handled_by_agent(self) -> bool:
        """True if Mercado Libre's agent speaks for the buyer: only a ``/conversations/`` segment says so."""
        return "/conversations/" in (self.path or "")


@frozen
class MessagePage:
    """One page of a conversation, in the server's order: newest first [observed: answers]."""

    pack_id: str
    paging: Paging
    conversation: ConversationStatus | None = None
    messages: tuple[Message, ...] = ()
    seller_max_message_length: int | None = None


@frozen
class Conversation:
    """What was read of one pack.

    `messages`: those that were read and not yielded before, newest first. `unread`: those of the counterparty that were
    unread when they were found, oldest first. `marked`: the server already shows them as read. `resource`: the path
    that the unread listing printed.
    """

    pack_id: str
    status: ConversationStatus | None = None
    messages: tuple[Message, ...] = ()
    unread: tuple[Message, ...] = ()
    marked: bool = False
    resource: str | None = None


@frozen
class Variable:
    """A gap in a template that the seller fills in; `type` is the server's word, lower-cased, such as ``number``."""

    id: str
    type: str | None = None


@frozen
class Template:
    """A text of the server's; `texts` are pairs of a site and the wording there, where the server shows it."""

    id: str
    variables: tuple[Variable, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()


@frozen
class Reason:
    """One option of the action guide.

    `type` is ``template`` or ``free_text``. `char_limit` is the longest text of a free one. `cap_available` is how
    often it may still be used on this sale; None: the server does not say.
    """

    id: str
    type: str | None = None
    enabled: bool | None = None
    actionable: bool | None = None
    char_limit: int | None = None
    cap_available: int | None = None
    templates: tuple[Template, ...] = ()
    children: tuple[Reason, ...] = ()
    description: str | None = None

    @property
    def free_text(self) -> bool:
        """True if it takes the seller's own text."""
        return self.type == "free_text"

    @property
    def usable(self) -> bool:
        """True unless the server says that it is off or used up."""
        return self.enabled is not False and self.actionable is not False and self.cap_available != 0


@frozen
class Reasons:
    """The reasons for which the seller may start this conversation: the action guide [documented: reasons].

    `plain_send`: the action guide is not for this pack, because it is an exception or because the buyer has answered:
    use `MessagesClient.send`. Then there are no `options`.
    """

    pack_id: str
    options: tuple[Reason, ...] = ()
    plain_send: bool = False

    @property
    def usable(self) -> tuple[Reason, ...]:
        """The options that can be used now."""
        return tuple(option for option in self.options if option.usable)

    def option(self, option_id: str) -> Reason | None:
        """The option of this id, if there is one."""
        return next((option for option in self.options if option.id == option_id), None)


@frozen
class DrainReport:
    """What a drain has done so far.

    `conversations` and `messages`: yielded. `listings` and `requests`: sent, retries included. `waiting`: packs whose
    marking request has no known outcome and which are read again later. `set_aside`: packs that failed. `unseen`: what
    only a marking answer showed and what could not be yielded any more, because the drain was closed; the server shows
    it as read. `in_doubt`: the ids of packs whose mark may have been executed, and which were not read again since: a
    message that came before the mark may be shown as read there, and was not yielded.
    """

    conversations: int = 0
    messages: int = 0
    listings: int = 0
    requests: int = 0
    waiting: int = 0
    set_aside: tuple[PackFailure, ...] = ()
    unseen: tuple[Conversation, ...] = ()
    in_doubt: tuple[str, ...] = ()


@frozen
class InboxReport:
    """What an inbox has done so far, and what it owes.

    `conversations` and `messages`: delivered. `listings` and `requests`: sent, retries included. `owed`: packs that are
    still to be read. `waiting`: those of them that wait, until `waits_until` at the latest, because a marking request
    may still be executed. `parked`: packs that were given up for now.
    """

    conversations: int = 0
    messages: int = 0
    listings: int = 0
    requests: int = 0
    owed: int = 0
    waiting: int = 0
    waits_until: datetime | None = None
    parked: tuple[PackFailure, ...] = ()


@frozen
class FleetReport:
    """What one process of a fleet has done so far, and what the sellers that it holds are owed.

    `sellers`: the ids of those that are held here now. `conversations` and `messages`: delivered. `listings` and
    `requests`: sent, retries included. `owed`, `waiting`, `parked`: conversations of the sellers held here, as in
    `InboxReport`. `stopped`: the sellers that this process stopped serving and has not served since, and why.
    """

    sellers: tuple[str, ...] = ()
    conversations: int = 0
    messages: int = 0
    listings: int = 0
    requests: int = 0
    owed: int = 0
    waiting: int = 0
    parked: int = 0
    stopped: tuple[tuple[str, str], ...] = ()


def _aware(_: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise ValueError(f"Token.{attribute.name} must be a datetime that knows its time zone")


def _as_text(value: int | str | None) -> str | None:
    return None if value is None else str(value)


@frozen
class Token:
    """One generation of a seller's tokens, as a `TokenStore` keeps it. Its repr shows neither token.

    `refresh_token` is for one use; None: the seller must authorise again when `expires_at` has come. `user_id` is the
    seller whom the server named. `refresh_issued_at`: when the refresh token was issued, if that was not `issued_at`.
    `refresh_sent_at`: a refresh was sent then, and no answer to it has been saved: it may have been executed.
    `refresh_refused_at`: the server refused the refresh token for good then. Datetimes are aware, else `ValueError`.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: datetime = field(validator=_aware)
    issued_at: datetime | None = field(default=None, validator=_aware)
    user_id: str | None = field(default=None, converter=_as_text)
    refresh_issued_at: datetime | None = field(default=None, validator=_aware)
    refresh_sent_at: datetime | None = field(default=None, validator=_aware)
    refresh_refused_at: datetime | None = field(default=None, validator=_aware)

"""How the sandbox's server behaves, as values; the defaults are the documented API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, get_args

import attrs

RetryAfter = Literal["seconds", "date"] | str | float | None
WindowKind = Literal["fixed", "sliding", "bucket"]
ListingOrder = Literal["newest", "oldest", "shuffled"]
Order = Literal["newest", "oldest"]
EchoLimit = Literal["given", "asked"]
PagingTotal = Literal["all", "page", "absent"]
Marks = Literal["pack", "page"]
Spellings = Literal["one", "both"]
ShapeName = Literal["marketplace", "domestic", "pending"]
ById = Literal["envelope", "flat"]
Resources = Literal["packs", "orders"]
Scope = Literal["application", "seller"]
Tells = Literal["message", "minimal", "nothing"]
FileProblem = Literal["invalid_size", "invalid_extension", "forbidden", "internal_error"]
"""Why a message lost a file, as `attachments_validations` names it [documented: messages]."""

_SHORTENERS = ("bit.ly/", "goo.gl/", "tinyurl.com/")


def shortened_links(text: str) -> str | None:
    """Return the reason for which moderation rejects a link that hides where it leads, or None
    [documented: messages]."""
    return "link_short_url" if any(name in text for name in _SHORTENERS) else None


def _takes_every_file(name: str) -> FileProblem | None:
    return None


def _one_of(choices: Any, *, or_none: bool = False) -> Any:
    check = attrs.validators.in_(get_args(choices))
    return attrs.validators.optional(check) if or_none else check


def _not_negative(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} is a number of seconds, 0 or more (got {value!r})")


@attrs.frozen
class RateWindow:
    """How many requests a server lets in: GETs and the rest are counted apart; a refused request is not counted.

    `kind`: "fixed" windows begin at `offset`, `offset + period` ...; "sliding" looks back one `period`; a "bucket"
    starts full and refills evenly. `retry_after`: the header of a 429: none, "seconds", "date", or that very number
    or text. `per`: whether all sellers of the application share the window, or each has one; which of the two the real
    server does is unknown. ValueError: `kind` or `per` is none of these.
    """

    reads: int = 500
    writes: int = 500
    period: float = 60.0
    kind: WindowKind = attrs.field(default="fixed", validator=_one_of(WindowKind))
    offset: float = 0.0
    retry_after: RetryAfter = None
    per: Scope = attrs.field(default="application", validator=_one_of(Scope))


@attrs.frozen(kw_only=True)
class Behaviour:
    """What the documentation leaves open or promises, each with the documented default.

    What integrators have seen differ has a switch [observed: answers, integrators].

    ValueError: a value that is not among the named ones, and the list of these.
    """

    # -- the unread listing

    cap: int | None = 1000
    """The most rows of an unread listing."""
    total: bool = False
    """Whether the listing says how many conversations there are beyond the cap."""
    listing_order: ListingOrder = attrs.field(default="newest", validator=_one_of(ListingOrder))
    lag: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds by which the listing lags behind marks and arrivals."""
    odd_rows: Sequence[object] = ()
    """JSON values that stand before the listing's own rows: ``None``, a row of another resource, a number ..."""
    spellings: Spellings = attrs.field(default="one", validator=_one_of(Spellings))
    """ "both": every pack is listed twice, in the resource of either family; the second row counts one more, and the
    two change places from listing to listing."""
    listing_user_id: int | str | None = None
    """Whose listing it says it is; None: the seller's."""
    other_seller_ids: Collection[int | str] = ()
    """More ids of the seller that paths and `user_id` take: a Global Selling account has one for each site."""

    # -- the pages of a conversation

    default_limit: int = 10
    max_limit: int | None = None
    """The most rows of a page, whatever was asked."""
    echo_limit: EchoLimit = attrs.field(default="given", validator=_one_of(EchoLimit))
    """What `paging.limit` says when the page was made shorter than asked."""
    order: Order = attrs.field(default="newest", validator=_one_of(Order))
    paging: bool = True
    """False: `paging` is null."""
    paging_total: PagingTotal = attrs.field(default="all", validator=_one_of(PagingTotal))
    """What `paging.total` counts: the conversation, or the rows of the page; or there is none."""
    total_lies: Callable[[int], int] | int = 0
    """Added to `paging.total`, or a function from the true total to the told one."""
    total_lag: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds by which `paging.total` is older than the rows beside it."""
    page_lag: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds by which reads that mark nothing are behind: peeks, and messages by their id (404 until then). They come
    from a replica; marking reads do not."""

    # -- marking

    marks: Marks = attrs.field(default="pack", validator=_one_of(Marks))
    """What a marking GET marks: the whole conversation, or the rows that it returns."""
    shows_read: bool = False
    """Whether the marking answer itself already shows `read`."""
    read_lag: float = attrs.field(default=0.0, validator=_not_negative)
    """Seconds until a message that was marked is shown with its `read` date; the listing knows at once."""
    honours_peek: bool = True
    """False: `mark_as_read=false` marks like any other GET."""

    # -- the form of the answers

    shape: ShapeName | None = attrs.field(default=None, validator=_one_of(ShapeName, or_none=True))
    """The form of every answer; None: by the path asked."""
    by_id: ById = attrs.field(default="envelope", validator=_one_of(ById))
    """The form of a message asked for by its id; "flat" is the legacy one, without its resources' list."""
    by_id_resources: Resources = attrs.field(default="packs", validator=_one_of(Resources))
    """What such a message says of its place: the pack and the seller, or an order alone, with the pack's id."""

    # -- time and budget

    latency: float | Callable[[], float] = 0.0
    """Seconds from the request to its answer: half passes before the request is counted, half after."""
    rate: RateWindow | None = None

    missed_feeds_of: Scope = attrs.field(default="application", validator=_one_of(Scope))
    """Whose missed notifications are listed: those of all sellers, or those of the token's; unknown."""

    # -- what the seller writes

    longest_reply: int = 350
    """`seller_max_message_length`: the most characters of a seller's message."""
    moderate: Callable[[str], str | None] = shortened_links
    """For which reason moderation rejects a seller's text; None: it does not."""
    refuses_file: Callable[[str], FileProblem | None] = _takes_every_file
    """Why a message is sent without the file of this name; None: with it. Told in `attachments_validations`."""
    tells: Tells = attrs.field(default="message", validator=_one_of(Tells))
    """What a POST of a message answers."""
    option_cap: int = 1
    """How often each option of the action guide may be used on one sale."""

    def told_total(self, total: int) -> int:
        """Return what `paging.total` says where it counts the conversation."""
        return self.total_lies(total) if callable(self.total_lies) else total + self.total_lies

    def next_latency(self) -> float:
        """Return the latency of one request."""
        return self.latency() if callable(self.latency) else self.latency

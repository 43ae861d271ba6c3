"""How the sandbox's server behaves, as values; the defaults are the documented API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

RetryAfter = Literal["seconds", "date"] | str | float | None


_SHORTENERS = ("bit.ly/", "goo.gl/", "tinyurl.com/")


def shortened_links(text: str) -> str | None:
    """What moderation says of a link that hides where it leads [documented]."""
    return "link_short_url" if any(name in text for name in _SHORTENERS) else None


@attrs.frozen
class RateWindow:
    """How many requests a server lets in: GETs and the rest are counted apart; a refused request is not counted.

    `kind`: "fixed" windows begin at `offset`, `offset + period` ...; "sliding" looks back one `period`; a "bucket"
    starts full and refills evenly. `retry_after`: the header of a 429: none, "seconds", "date", or that very number
    or text.
    """

    reads: int = 500
    writes: int = 500
    period: float = 60.0
    kind: Literal["fixed", "sliding", "bucket"] = "fixed"
    offset: float = 0.0
    retry_after: RetryAfter = None


@attrs.frozen(kw_only=True)
class Behaviour:
    """What the documentation leaves open or promises, each with the documented default."""

    cap: int | None = 1000
    """The most rows of an unread listing."""
    total: bool = False
    """Whether the listing says how many conversations there are beyond the cap."""
    listing_order: Literal["newest", "oldest", "shuffled"] = "newest"
    lag: float = 0.0
    """Seconds by which the listing lags behind marks and arrivals."""
    default_limit: int = 10
    max_limit: int | None = None
    """The most rows of a page, whatever was asked."""
    echo_limit: Literal["given", "asked"] = "given"
    """What `paging.limit` says when the page was made shorter than asked."""
    order: Literal["newest", "oldest"] = "newest"
    paging: bool = True
    """False: `paging` is null."""
    total_lies: Callable[[int], int] | int = 0
    """Added to `paging.total`, or a function from the true total to the told one."""
    marks: Literal["pack", "page"] = "pack"
    """What a marking GET marks: the whole conversation, or the rows that it returns."""
    shows_read: bool = False
    """Whether the marking answer itself already shows `read`."""
    honours_peek: bool = True
    """False: `mark_as_read=false` marks like any other GET."""
    shape: Literal["marketplace", "domestic", "pending"] | None = None
    """The form of every answer; None: by the path asked."""
    latency: float | Callable[[], float] = 0.0
    """Seconds from the request to its answer: half passes before the request is counted, half after."""
    rate: RateWindow | None = None
    longest_reply: int = 350
    """`seller_max_message_length`: the most characters of a seller's message."""
    moderate: Callable[[str], str | None] = shortened_links
    """For which reason moderation rejects a seller's text; None: it does not."""
    tells: Literal["message", "minimal", "nothing"] = "message"
    """What a POST of a message answers."""
    option_cap: int = 1
    """How often each option of the action guide may be used on one sale."""

    def told_total(self, total: int) -> int:
        """What `paging.total` says."""
        return self.total_lies(total) if callable(self.total_lies) else total + self.total_lies

    def next_latency(self) -> float:
        """The latency of one request."""
        return self.latency() if callable(self.latency) else self.latency

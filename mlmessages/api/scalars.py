"""One value of the wire: a date of HTTP."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime


def http_date(value: str | None) -> float | None:
    """Return the POSIX seconds of an HTTP date, or None where there is none that can be.

    It is in UTC also in the old form that does not say so (RFC 9110, 5.6.7).
    """
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (IndexError, OverflowError, TypeError, ValueError):  # it depends on the version which of them
        return None

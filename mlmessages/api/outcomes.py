"""What is known of a request on the server's side: executed, not executed, unknown; this decides what is repeated."""

from __future__ import annotations

import enum

from .. import errors
from ..errors import DecodeError
from .calls import Effect


class Outcome(enum.Enum):
    """What is known of a request on the server's side."""

    EXECUTED = "a 2xx status was seen"
    NOT_EXECUTED = "it never left, or the server refused it"
    UNKNOWN = "it left, and what became of it cannot be known"


def outcome(error: Exception | None) -> Outcome:
    """The class of an attempt by the `error` it ended in (None: an answer).

    Outcomes decide what is repeated, not verbs.
    """
    if error is None or isinstance(error, DecodeError):
        return Outcome.EXECUTED
    if isinstance(error, (errors.AnswerLost, errors.ServerError)):
        return Outcome.UNKNOWN
    return Outcome.NOT_EXECUTED


def repeatable(effect: Effect, error: Exception) -> bool:
    """True if sending the same request again is safe and may help: all that was not executed for a passing reason, and
    reads.
    """
    if isinstance(error, (errors.NotSent, errors.RateLimited)):
        return True
    return outcome(error) is Outcome.UNKNOWN and effect is Effect.READ

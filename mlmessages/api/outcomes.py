"""What is known of a request on the server's side: executed, not executed, unknown; this decides what is repeated."""

from __future__ import annotations

import enum
from typing import Final

from .. import errors
from ..errors import DecodeError
from .calls import Effect

SETTLE_TIME: Final = 120.0
"""Seconds after which a request of unknown outcome can no longer be executed."""


class Outcome(enum.Enum):
    """What is known of a request on the server's side."""

    EXECUTED = "a 2xx status was seen"
    NOT_EXECUTED = "it never left, or the server refused it"
    UNKNOWN = "it left, and what became of it cannot be known"


def outcome(error: Exception | None) -> Outcome:
    """Return what is known of an attempt that ended in `error`, or in an answer (None)."""
    if error is None or isinstance(error, DecodeError):
        return Outcome.EXECUTED
    if isinstance(error, (errors.AnswerLost, errors.ServerError)):
        return Outcome.UNKNOWN
    return Outcome.NOT_EXECUTED


def repeatable(effect: Effect, error: Exception) -> bool:
    """Return True if sending the same request again is safe and may help.

    That is what was not executed for a passing reason; and of reads also what has an unknown outcome or an answer that
    cannot be read, such as the HTML page of a maintenance. Not what is `final`.
    """
    if isinstance(error, (errors.NotSent, DecodeError)) and error.final:
        return False
    if isinstance(error, (errors.NotSent, errors.RateLimited)):
        return True
    return effect is Effect.READ and (outcome(error) is Outcome.UNKNOWN or isinstance(error, DecodeError))


def cured_by_new_token(error: Exception) -> bool:
    """Return True for a 401 that another token may cure.

    ``unauthorized_scopes`` is not one: the application is blocked, and with it each of its tokens [documented: blocked
    applications].
    """
    if not isinstance(error, errors.Unauthorized):
        return False
    return "unauthorized_scopes" not in f"{error.code} {error.message}".lower()

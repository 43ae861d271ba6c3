"""Everything that can go wrong, split by what is known about it.

::

    MessagesError
    ├── TransportError             no usable answer
    │   ├── NotSent                nothing left this machine
    │   └── AnswerLost             it was sent and not answered: it may have been executed
    ├── APIError                   the server refused: status, code, message, request_id, hint
    │   ├── BadRequest             400
    │   ├── Unauthorized           401
    │   ├── Forbidden              403
    │   ├── NotFound               404
    │   ├── Conflict               409
    │   ├── RateLimited            429, with retry_after
    │   └── ServerError            5xx: it may have been executed
    ├── DecodeError                the answer cannot be read: problems
    ├── AuthError                  there is no usable token
    │   └── ReauthorizationRequired
    ├── DrainStalled               packs that were set aside fill the capped listing: set_aside
    ├── StillListed                a pack stays listed although all that can be read was marked
    └── JournalError               the journal cannot be used
        └── LeaseLost              another worker has taken the seller over

Misuse is `ValueError` or `RuntimeError`. No error carries a token or the text of a message.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen


class MessagesError(Exception):
    """The base of every error that this library raises on purpose.

    `hint` says in our own words what to do, or is None.
    """

    hint: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which does not fit constructors with keywords.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[MessagesError], args: tuple[Any, ...], state: dict[str, Any]) -> MessagesError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def dump(error: MessagesError) -> str:
    """Return `error` as a text that `load` reads."""
    state: dict[str, Any] = {
        name: value for name, value in vars(error).items() if isinstance(value, (str, int, float, type(None)))
    }
    state["problems"] = list(getattr(error, "problems", ()))
    return json.dumps([type(error).__name__, str(error), state])


def load(text: str | None) -> MessagesError:
    """Return the error that `dump` wrote, or a plain `MessagesError` where it cannot be read."""
    try:
        name, said, state = json.loads(text or "")
        cls = globals().get(name)
        if isinstance(cls, type) and issubclass(cls, MessagesError):
            state["problems"] = tuple(state.get("problems", ()))
            return _restore(cls, (said,), state)
    except (AttributeError, RecursionError, TypeError, ValueError):
        pass
    return MessagesError("the reason that was written down cannot be read")


class TransportError(MessagesError):
    """There is no usable answer."""


class NotSent(TransportError):
    """Nothing left this machine (no address, no connection, no TLS): it was certainly not executed.

    `final`: asking again gives the same, such as a certificate that cannot be trusted.
    """

    final: bool = False


class AnswerLost(TransportError):
    """It was sent and no answer came back (timeout, disconnect): it may have been executed."""


class APIError(MessagesError):
    """The server refused.

    `status` is the HTTP status, which is trusted over the one in the body. `code` is the machine-readable word of the
    body, lower-cased, wherever it stood. `message` is the server's. `request_id` is for Mercado Libre's support.
    `retry_after` is how many seconds the server asks to wait.
    """

    def __init__(
        self,
        status: int,
        code: str | None = None,
        message: str | None = None,
        *,
        request_id: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.hint = hint
        self.retry_after = retry_after
        said = ": ".join(dict.fromkeys(part for part in (code, message) if part)) or "no reason given"
        said = said.rstrip(".")
        super().__init__(f"{status} {said}" + (f". {hint}" if hint else ""))


class BadRequest(APIError):
    """400: the request is wrong."""


class Unauthorized(APIError):
    """401: the token is not, or no longer, valid."""


class Forbidden(APIError):
    """403: not with this token, or not on this conversation."""


class NotFound(APIError):
    """404: it does not exist, or not yet."""


class Conflict(APIError):
    """409: another request holds the same sale at this moment."""


class RateLimited(APIError):
    """429: too many requests; it was not executed. `retry_after`: seconds that the server asks to wait, or None."""


class ServerError(APIError):
    """5xx: it may or may not have been executed."""


class DecodeError(MessagesError):
    """A 2xx answer cannot be read, or is beyond the size cap.

    `problems`: each a path and a reason. `final`: asking again gives the same, such as an answer beyond the size cap.
    """

    final: bool = False

    def __init__(self, what: str, problems: tuple[str, ...] = ()) -> None:
        self.problems = problems
        super().__init__(what + "".join(f"; {problem}" for problem in problems[:5]))


class AuthError(MessagesError):
    """There is no usable token."""


class ReauthorizationRequired(AuthError):
    """The seller must authorise the application again."""


@frozen
class PackFailure:
    """A pack that could not be read or marked, and why."""

    pack_id: str
    error: MessagesError


class DrainStalled(MessagesError):
    """Packs that were set aside fill the capped listing: what is behind them cannot be seen.

    `set_aside` says which and why.
    """

    def __init__(self, set_aside: tuple[PackFailure, ...]) -> None:
        self.set_aside = set_aside
        self.hint = (
            "Free them and drain again: read them on the site, or see each one's error."
            " If every pack is refused: is it another seller's id, or is a permission missing?"
        )
        stuck = f"{len(set_aside)} packs that could not be read or marked fill the unread listing"
        super().__init__(
            f"{stuck if set_aside else 'the unread listing says that there is more than it shows'}. {self.hint}"
        )


class StillListed(MessagesError):
    """The pack was read and marked, and the server still counts it as unread.

    What it counts are hidden (moderated) messages, which no read returns and no mark clears.
    """


class JournalError(MessagesError):
    """The journal cannot be used; nothing was marked."""


class LeaseLost(JournalError):
    """Another worker has taken the seller over, or may have: nothing more is claimed or sent here."""

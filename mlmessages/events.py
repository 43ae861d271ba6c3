"""What the library does, as it happens: frozen values for the hook `on_event`, and the same values in its log records.

No event carries the text of a message, a name or a token. A path stands in it without its ids.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from attrs import asdict, frozen

_log: Final = logging.getLogger("mlmessages")


@frozen
class RequestEvent:
    """One attempt has ended, with an answer or without.

    `effect`: ``read``, ``mark`` or ``write``. `route`: the path, with ``{id}`` for every id. `status`: of the answer,
    or None where there was none; `error` is then the name of the error. `seconds`: from the permit to the last byte.
    """

    method: str
    route: str
    effect: str
    status: int | None
    error: str | None
    seconds: float


@frozen
class RetryEvent:
    """A request is sent for the `attempt`-th time in `wait` seconds, because of `error`, the name of an error."""

    attempt: int
    wait: float
    error: str


@frozen
class PauseEvent:
    """The server answered 429: all clients that share the budget pause for `seconds`."""

    seconds: float


@frozen
class RefreshEvent:
    """The token source gives another access token than before; `rejected`: the server had refused the old one."""

    rejected: bool


@frozen
class DeliveryEvent:
    """New messages of a pack are handed over to the program.

    `attempt`: 1, or more where `Inbox.run` repeats what its handler failed at. `redelivered`: perhaps not for the
    first time.
    """

    pack_id: str
    messages: int
    redelivered: bool
    attempt: int = 1


@frozen
class ParkEvent:
    """A pack, a notification or a delivery is parked: it is given up for now, or for good.

    `what`: ``pack`` (it cannot be read), ``notification`` (its message does not appear) or ``letter`` (the handler
    failed too often). `id` is the pack's, or the message's. `error` is a name. `seconds`: until it is tried again;
    None: not by itself.
    """

    what: str
    id: str
    error: str
    seconds: float | None


@frozen
class SeatEvent:
    """A fleet holds a seller from now on, or does not any more.

    `what`: ``taken``, ``released`` (given back) or ``lost`` (another worker has it, or may have). `epoch` grows each
    time that a seller changes hands.
    """

    seller_id: str
    what: str
    epoch: int


@frozen
class StopEvent:
    """A fleet serves a seller no more for some `seconds`: its tokens or its listing are refused, as `reason` says."""

    seller_id: str
    reason: str
    seconds: float


@frozen
class HangEvent:
    """The handler has not returned from `calls` deliveries for five minutes, and from the first of them for `seconds`.

    `sellers`: whose they are, the longest first. `free`: how many more calls may begin; 0: all other deliveries wait.
    """

    sellers: tuple[str, ...]
    calls: int
    seconds: float
    free: int


Event: TypeAlias = (
    RequestEvent
    | RetryEvent
    | PauseEvent
    | RefreshEvent
    | DeliveryEvent
    | ParkEvent
    | SeatEvent
    | StopEvent
    | HangEvent
)
Hook: TypeAlias = Callable[[Event], object]


class Events:
    """Where events go: to a hook, or nowhere. What a hook raises is logged once, and changes nothing."""

    __slots__ = ("_hook", "_warned")

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook
        self._warned = False

    def __bool__(self) -> bool:
        """True if there is a hook: an event that costs something to make is only made for one."""
        return self._hook is not None

    def emit(self, event: Event) -> None:
        """Hand `event` to the hook."""
        if self._hook is None:
            return
        try:
            self._hook(event)
        except Exception as error:
            if not self._warned:
                self._warned = True
                _log.warning("on_event raised %s; what it raises later is not logged", type(error).__name__)


SILENT: Final = Events()


def extra(event: Event) -> dict[str, Any]:
    """Return `event` as the `extra` of a log record: its fields as ``ml_…``, its kind as ``ml_event``."""
    kind = type(event).__name__.removesuffix("Event").lower()
    return {"ml_event": kind, **{f"ml_{name}": value for name, value in asdict(event).items()}}


_AN_ID: Final = re.compile(r"/(?=[^/]*[0-9])[^/]+")


def route(target: str) -> str:
    """Return the path of a request without its query, with ``{id}`` for each segment that has a digit in it."""
    return _AN_ID.sub("/{id}", target.partition("?")[0])

"""What the library does, told as it happens: frozen values for one hook, and the same in its log records.

No event carries the text of a message, a name or a token; a path stands in it without its ids.
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
    """One attempt is over, whatever came of it.

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
    """A request is sent again, for the `attempt`-th time, in `wait` seconds, because of `error`."""

    attempt: int
    wait: float
    error: str


@frozen
class PauseEvent:
    """The server answered 429: everyone who shares the budget pauses for `seconds`."""

    seconds: float


@frozen
class RefreshEvent:
    """There is another access token than before; `rejected`: the server had refused that one."""

    rejected: bool


@frozen
class DeliveryEvent:
    """New messages of a pack are handed over.

    `attempt`: 1, or more where `Inbox.run` repeats what its handler failed at. `redelivered`: perhaps not for the
    first time.
    """

    pack_id: str
    messages: int
    redelivered: bool
    attempt: int = 1


@frozen
class ParkEvent:
    """Something was given up for now, or for good.

    `what`: ``pack`` (it cannot be read), ``notification`` (its message does not appear) or ``letter`` (the handler
    failed too often). `id` is the pack's, or the message's. `error` is a name. `seconds`: until it is tried again;
    None: not by itself.
    """

    what: str
    id: str
    error: str
    seconds: float | None


Event: TypeAlias = RequestEvent | RetryEvent | PauseEvent | RefreshEvent | DeliveryEvent | ParkEvent
Hook: TypeAlias = Callable[[Event], object]


class Events:
    """Where events go: a hook, or nowhere. A hook that raises is told of once and harms nothing."""

    __slots__ = ("_hook", "_warned")

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook
        self._warned = False

    def __bool__(self) -> bool:
        """True if somebody listens: what costs something is only made for them."""
        return self._hook is not None

    def emit(self, event: Event) -> None:
        """Tell it."""
        if self._hook is None:
            return
        try:
            self._hook(event)
        except Exception as error:
            if not self._warned:
                self._warned = True
                _log.warning("on_event raised %s; it is told nothing more of that", type(error).__name__)


SILENT: Final = Events()


def extra(event: Event) -> dict[str, Any]:
    """`event` as the `extra` of a log record: its fields as ``ml_…``, its kind as ``ml_event``."""
    kind = type(event).__name__.removesuffix("Event").lower()
    return {"ml_event": kind, **{f"ml_{name}": value for name, value in asdict(event).items()}}


_AN_ID: Final = re.compile(r"/(?=[^/]*[0-9])[^/]+")


def route(target: str) -> str:
    """The path of a request, with ``{id}`` for whatever has a digit in it, and without its query."""
    return _AN_ID.sub("/{id}", target.partition("?")[0])

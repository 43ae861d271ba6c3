"""What one call of the API is: a `Request`, and how to read its `Response`."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Final, Generic, Protocol, TypeVar

from attrs import field, frozen

T_co = TypeVar("T_co", covariant=True)
MOST_FILE_BYTES: Final = 25 * 1024 * 1024  # of an attachment [documented: attachments]


class Effect(enum.Enum):
    """What executing a request does on the server; it decides what may be repeated."""

    READ = "changes nothing"
    MARK = "marks messages as read"
    WRITE = "creates something"


class Stream(Protocol):
    """A body that is too large to be held: `size` bytes."""

    @property
    def size(self) -> int:
        """The number of bytes that `chunks` gives."""
        ...

    def chunks(self) -> AsyncIterable[bytes]:
        """Return the bytes from the start; called once for each attempt."""
        ...


class Sink(Protocol):
    """Where the body of a 2xx answer goes that is too large to be held."""

    async def begin(self) -> None:
        """Begin a new attempt: forget what an earlier one wrote."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Keep the next bytes. What it raises ends the call."""
        ...


@frozen
class Body:
    """What is sent with a request. It holds what a seller wrote, so its repr does not show it."""

    content_type: str
    data: bytes | Stream = field(repr=False)


@frozen
class Request:
    """What is asked of the server.

    `target` is the path with its query, already encoded, below the base URL. `sink` takes the body of a 2xx answer that
    is no JSON. `locks`: a 409 means that another request holds the same sale at this moment, so that this one was not
    executed and may be sent again.
    """

    target: str
    effect: Effect = Effect.READ
    method: str = "GET"
    body: Body | None = field(default=None, repr=False)
    sink: Sink | None = field(default=None, repr=False)
    locks: bool = False


class Fault(enum.Enum):
    """Why there is no whole body although the status was seen."""

    CUT_OFF = "the answer was cut off"
    LATE = "the answer did not end in time"
    TOO_LARGE = "the answer is larger than 8 MB"
    TOO_LARGE_FILE = "the file is larger than 25 MB"


@frozen
class Response:
    """What the server answered.

    Of a refusal: `received` is in POSIX seconds; `secrets` are the tokens that were sent and that its body and headers
    may quote.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    fault: Fault | None = None
    received: float = 0.0
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """True if the status is 2xx: it was executed."""
        return 200 <= self.status < 300


@frozen
class Call(Generic[T_co]):
    """A request, and how to read its 2xx answer: `read` returns it or raises `DecodeError`."""

    request: Request
    read: Callable[[Response], T_co]

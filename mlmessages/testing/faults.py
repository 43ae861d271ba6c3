"""Faults as data: which requests a rule is for, and what happens to them, in that order.

A rule's steps are effects (what the server does), pauses (when it goes on) and at most one ending (what the wire
does), which comes last: ``on("mark", nth=1).do(EXECUTE, DROP)`` is executed and its answer lost, ``do(DROP)`` never,
``do(Hold("z"), EXECUTE, DROP)`` a request that executes long after its client gave it up.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Mapping
from typing import Literal, get_args

import attrs

from .model.packs import Sender
from .model.requests import Kind, ParsedRequest

# -- effects: what the server does


@attrs.frozen
class Execute:
    """Count the request, do what it asks, and keep the answer."""


@attrs.frozen
class Stale:
    """Execute, and answer from a replica that is so many seconds behind: pages, messages by their id and listings.

    A marking read marks all the same. ValueError: more than an hour, or less than nothing.
    """

    seconds: float = attrs.field()

    @seconds.validator
    def _check(self, attribute: object, seconds: float) -> None:
        if not 0 <= seconds <= 3600:
            raise ValueError(f"a replica is 0 to 3600 seconds behind (got {seconds!r})")


@attrs.frozen
class Snapshot:
    """Count the request and keep its answer, without its marks: a server that reads and marks in two steps."""


@attrs.frozen
class MarkAll:
    """Mark whatever the conversation holds now."""


@attrs.frozen
class Send:
    """A message arrives, in this conversation unless another is named.

    `age`: its date is so many seconds back, and so is its place, as of one that moderation held back.
    """

    pack: int | str | None = None
    text: str = "Test message"
    sender: Sender = "buyer"
    age: float = 0.0


@attrs.frozen
class HideIt:
    """A message is moderated away."""

    message_id: str


@attrs.frozen
class RevealIt:
    """A hidden message is let through."""

    message_id: str


# -- pauses: when the server goes on


@attrs.frozen
class Hold:
    """Wait until `sandbox.release(gate)`; the client's going changes nothing."""

    gate: str


@attrs.frozen
class Delay:
    """Wait so many seconds of the loop's time."""

    seconds: float


# -- endings: what the wire does instead of sending the answer


@attrs.frozen
class Drop:
    """Close the connection without an answer."""


@attrs.frozen
class Reset:
    """Break the connection off: the client sees a TCP reset."""


@attrs.frozen
class Hang:
    """Answer never; it ends when the client goes or the server stops."""


@attrs.frozen
class Reply:
    """Send this instead: bytes as they are, text in UTF-8, anything else as JSON."""

    status: int
    body: object = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def encoded(self) -> bytes:
        """Return the body's bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@attrs.frozen
class Garbage:
    """Send 200 and a body that is no JSON."""

    body: bytes = b"<html>oops</html>"


@attrs.frozen
class Redirect:
    """Send a 302 to this address."""

    url: str


@attrs.frozen
class Gzip:
    """Send 200 and a gzip bomb: a valid JSON text that decodes to so many bytes."""

    decoded_bytes: int


@attrs.frozen
class EndlessHeaders:
    """Send a status line, and headers that do not end."""


@attrs.frozen
class Truncate:
    """Promise the executed answer's length, send its first `bytes`, close."""

    bytes: int


@attrs.frozen
class Trickle:
    """Send the executed answer's body at this pace."""

    bytes_per_second: float


@attrs.frozen
class Slice:
    """Send the executed answer's body in pieces of this size, each in a segment of its own."""

    bytes: int


@attrs.frozen
class ContentType:
    """Send the executed answer under another content type."""

    value: str


EXECUTE = Execute()
SNAPSHOT = Snapshot()
MARK_ALL = MarkAll()
DROP = Drop()
RESET = Reset()
HANG = Hang()
ENDLESS_HEADERS = EndlessHeaders()

Effect = Execute | Stale | Snapshot | MarkAll | Send | HideIt | RevealIt
Pause = Hold | Delay
_OfTheAnswer = Truncate | Trickle | Slice | ContentType
Ending = Drop | Reset | Hang | Reply | Garbage | Redirect | Gzip | EndlessHeaders | _OfTheAnswer
Action = Effect | Pause | Ending

STEPS = tuple(sorted(step.__name__ for step in get_args(Action)))
"""The names of the steps of a rule."""

RuleKind = Kind | Literal["any", "pack"]
"""A request's kind; "pack" is a mark or a peek, "any" is each of them."""


@attrs.frozen
class Pattern:
    """Which requests; `nth`, `every` and `times` count among those that fit `kind`, `pack` and `path`."""

    kind: RuleKind
    packs: frozenset[str] | None
    path: str | None
    nth: Container[int] | None
    every: int | None
    times: int | None
    seller: str | None = None

    def fits(self, request: ParsedRequest, seller_id: str | None) -> bool:
        """Whether a request is of this kind, pack, path and seller."""
        if self.seller is not None and seller_id != self.seller:
            return False
        if self.kind == "pack":
            if request.kind not in ("mark", "peek"):
                return False
        elif self.kind not in ("any", request.kind):
            return False
        if self.packs is not None and request.pack_id not in self.packs:
            return False
        return self.path is None or self.path in request.target

    def do(self, *steps: Action) -> Rule:
        """Return the rule by which these steps happen to them, in this order.

        ValueError: a step is none, or their order makes no sense.
        """
        return Rule(self, steps)


@attrs.frozen
class Rule:
    """A pattern and the steps that are played for the requests that it picks."""

    pattern: Pattern
    steps: tuple[Action, ...] = attrs.field()

    @steps.validator
    def _check(self, attribute: object, steps: tuple[Action, ...]) -> None:
        for step in steps:
            if not isinstance(step, Action):
                raise ValueError(f"{step!r} is no step of a rule; the steps are: {', '.join(STEPS)}")
        executes = any(isinstance(step, Execute | Stale | Snapshot) for step in steps)
        endings = [step for step in steps if isinstance(step, Ending)]
        if endings and (len(endings) > 1 or endings[0] is not steps[-1]):
            raise ValueError("a rule has one ending, as its last step")
        if not executes and not endings:
            raise ValueError("without EXECUTE a rule needs an ending: nothing would be answered")
        if not executes and isinstance(endings[0], _OfTheAnswer):
            raise ValueError(f"{type(endings[0]).__name__} needs an executed answer: put EXECUTE before it")


def on(
    kind: RuleKind,
    pack: int | str | Collection[int | str] | None = None,
    *,
    nth: int | Container[int] | None = None,
    every: int | None = None,
    times: int | None = None,
    path: str | None = None,
    seller: int | str | None = None,
) -> Pattern:
    """The requests that a rule is for: of one kind, of one pack or several, whose path and query contain `path`.

    `nth` (1 is the first; or a container of numbers), `every` so many, and at most `times`. `seller`: of one seller of
    a sandbox that has many. ValueError: there is no such kind, and the list of those that there are.
    """
    kinds = ("any", "pack", *get_args(Kind))
    if kind not in kinds:
        raise ValueError(f"unknown kind of request: {kind!r}; the kinds are: {', '.join(kinds)}")
    packs = None if pack is None else frozenset(map(str, [pack] if isinstance(pack, int | str) else pack))
    seller = None if seller is None else str(seller)
    return Pattern(kind, packs, path, (nth,) if isinstance(nth, int) else nth, every, times, seller)


def refuse(pack_ids: Iterable[int | str], status: int = 403, body: object = None) -> Rule:
    """Return the rule by which every read of these packs is refused, as another seller's would be."""
    if body is None:
        message = "User access token invalid for resource"
        body = {"message": message, "error": "forbidden", "status": status, "cause": []}
    return on("pack", pack=list(pack_ids)).do(Reply(status, body))


@attrs.define
class ArmedRule:
    """A rule in use: how many requests fitted it, and how often it was played."""

    rule: Rule = attrs.field()
    fitted: int = 0
    played: int = 0

    @rule.validator
    def _check(self, attribute: object, rule: object) -> None:
        if not isinstance(rule, Rule):
            raise ValueError(f"a rule is written on(...).do(...), and this is none: {rule!r}")

    def picks(self, request: ParsedRequest, seller_id: str | None) -> bool:
        """Count a request, and return whether the rule is for it."""
        pattern = self.rule.pattern
        if not pattern.fits(request, seller_id):
            return False
        self.fitted += 1
        return (
            (pattern.nth is None or self.fitted in pattern.nth)
            and (pattern.every is None or self.fitted % pattern.every == 0)
            and (pattern.times is None or self.played < pattern.times)
        )

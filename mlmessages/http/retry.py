"""When something is sent again: one policy, driven through backoff. The one place that knows backoff.

What may be sent again is `mlmessages.api.outcomes.repeatable`. backoff runs the loop and sleeps; how long, and when to
stop, is asked of `RetryLoop.next_wait`, because both depend on the error, the server's Retry-After and the deadline.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, Protocol, TypeVar

import backoff
from attrs import field, frozen

from ..api.arguments import check_int, check_seconds
from ..api.calls import Effect
from ..api.outcomes import repeatable
from ..errors import APIError, MessagesError, TransportError
from ..events import SILENT, Events, RetryEvent, extra

logging.getLogger("backoff").disabled = True
_log: Final = logging.getLogger("mlmessages")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Retry:
    """How often a request is repeated, where repeating is safe: by what is known of it, not by its verb.

    `attempts`: requests at most, the first included. `base`, `cap`: the n-th wait is base, 2*base, 4*base … up to cap
    seconds, and up to a quarter more at random. `deadline`: seconds from the start of the first attempt, sleeps
    included, waiting for the budget not. The server's Retry-After is a floor; one beyond the deadline ends the retries
    at once. Values out of range: `ValueError`.
    """

    attempts: int = field(default=6)
    base: float = field(default=0.5)
    cap: float = field(default=60.0)
    deadline: float = field(default=300.0)

    def __attrs_post_init__(self) -> None:
        check_int("attempts", self.attempts, 1)
        check_seconds("base", self.base)
        check_seconds("cap", self.cap)
        check_seconds("deadline", self.deadline)

    def delay(self, n: int) -> float:
        """Return the seconds to wait before the n-th retry, counted from 1, without the random part."""
        return float(min(self.cap, self.base * 2 ** min(n - 1, 60)))


class RetryBudget:
    """A bucket of retries: 100 at the start, one more for each 5 answers.

    It bounds storms and never touches a small script.
    """

    SIZE: Final = 100.0
    PER_ANSWER: Final = 0.2

    def __init__(self) -> None:
        self._left = self.SIZE

    def answered(self) -> None:
        """Add to the bucket: an answer came."""
        self._left = min(self.SIZE, self._left + self.PER_ANSWER)

    def take(self) -> bool:
        """Take one retry; return False if none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


@frozen
class FailedAttempt:
    """An attempt that came to nothing: the error, and how many seconds the budget wants to be left alone.

    `passing`: by what this very request means, it was not executed, and for a reason that passes.
    """

    error: MessagesError
    wait: float = 0.0
    passing: bool = False


class Attempts(Protocol[T_co]):
    """The attempts of one call."""

    async def attempt(self) -> T_co | FailedAttempt:
        """Make one attempt; return its result, or why it came to nothing."""
        ...

    def elapsed(self) -> float:
        """Return the seconds since the first attempt began, without those spent waiting for the budget."""
        ...


async def with_retries(
    policy: Retry, budget: RetryBudget, effect: Effect, attempts: Attempts[T], events: Events = SILENT
) -> T:
    """Return the result of the first attempt that has one. Raises the error of the last attempt."""
    result = await attempts.attempt()
    if isinstance(result, FailedAttempt):  # only now does a call pay for the machinery of retries
        loop = RetryLoop(policy, budget, effect, attempts, events=events, first=result)
        await _retry(loop)
        result = loop.result
    if not isinstance(result, FailedAttempt):
        budget.answered()
        return result
    if not (result.passing or repeatable(Effect.READ, result.error)):  # a refusal for good is an answer
        budget.answered()
    raise result.error


class RetryLoop(Generic[T]):
    """The attempts of one call after the first, which failed: as many as the policy allows."""

    def __init__(
        self,
        policy: Retry,
        budget: RetryBudget,
        effect: Effect,
        attempts: Attempts[T],
        *,
        events: Events,
        first: FailedAttempt,
    ) -> None:
        self.result: T | FailedAttempt = first
        self._policy = policy
        self._budget = budget
        self._effect = effect
        self._attempts = attempts
        self._events = events
        self._retries = 0

    def next_wait(self) -> float | None:
        """Return the seconds until the next attempt, or None if there is none."""
        assert isinstance(self.result, FailedAttempt)
        error, left = self.result.error, self._policy.deadline - self._attempts.elapsed()
        self._retries += 1
        if self._retries >= self._policy.attempts or not (self.result.passing or repeatable(self._effect, error)):
            return None
        retry_after = error.retry_after if isinstance(error, APIError) else None
        backing_off = self._policy.delay(self._retries)
        least = max(backing_off, self.result.wait, retry_after or 0.0)
        if least >= left or not self._budget.take():
            return None
        # Jitter only ever adds: Retry-After is a floor. And it leaves time for the attempt, which would else turn a
        # refusal into an unknown outcome.
        wait = least + min(backing_off * random.uniform(0, 0.25), (left - least) / 2)
        event = RetryEvent(self._retries, wait, type(error).__name__)
        # What a server says may quote what was written; what became of a request is told in our own words.
        why = f"{event.error}: {error}" if isinstance(error, TransportError) else event.error
        _log.info("retry %d in %.1f s after %s", event.attempt, event.wait, why, extra=extra(event))
        self._events.emit(event)
        return wait

    async def again(self) -> RetryLoop[T]:
        """Make the next attempt; the first time, look at the failure that is already there."""
        if self._retries:
            self.result = await self._attempts.attempt()
        return self

    @property
    def failed(self) -> bool:
        """True if the last attempt came to nothing."""
        return isinstance(self.result, FailedAttempt)


def _ask_policy() -> Generator[Any, Any, None]:  # backoff's types know nothing of what it sends in
    """Tell backoff how long to sleep: it sends in what the last attempt returned."""
    loop = yield None
    while (wait := loop.next_wait()) is not None:
        loop = yield wait


@contextmanager
def _asyncio_as_backoff_knows_it() -> Iterator[None]:
    """Lend asyncio the `iscoroutinefunction` that backoff asks it for while it decorates.

    Python 3.14 warns of that function and 3.16 has it no more; `inspect` has the one that stays.
    """
    name = "iscoroutinefunction"
    before = vars(asyncio).get(name)
    setattr(asyncio, name, inspect.iscoroutinefunction)
    try:
        yield
    finally:
        if before is None:
            delattr(asyncio, name)
        else:
            setattr(asyncio, name, before)


with _asyncio_as_backoff_knows_it():
    # No jitter and no max_time of backoff's: both would undercut Retry-After [measured].
    _retry: Final = backoff.on_predicate(_ask_policy, predicate=lambda loop: loop.failed, jitter=None, logger=None)(
        RetryLoop.again
    )

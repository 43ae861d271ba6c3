"""The states of a refresh, as values: what is in use, what is under way, and what became of the last attempts."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from attrs import define, field, frozen

from ..errors import AuthError, MessagesError
from ..models import Token

E = TypeVar("E", bound=BaseException)

PATIENCE: Final = 5.0  # seconds that a caller waits for a new token while the old one is still good
_FIRST_WAIT: Final = 60.0  # seconds without another refresh after one that failed; doubled each time up to the longest
_LONGEST_WAIT: Final = 900.0
_URGENT_WAIT: Final = 1.0  # the same where there is no good token, so that callers and their retries share one attempt


@frozen
class TokenInUse:
    """The tokens in use, and what the server made of the access token.

    `rejected`: it was answered 401. `expected_fix`: it came in the place of a rejected one.
    """

    token: Token
    rejected: bool = False
    expected_fix: bool = False

    def replaced_by(self, token: Token) -> TokenInUse:
        """Return the state with `token` in the place of this one."""
        if token.access_token == self.token.access_token:
            return TokenInUse(token, self.rejected, self.expected_fix)
        return TokenInUse(token, expected_fix=self.rejected)


@frozen
class UnsavedToken:
    """New tokens that the store did not take; `instead_of` is the refresh token that they replace."""

    instead_of: str | None = field(repr=False)
    token: Token


@frozen
class ExhaustedToken:
    """A refresh token that is not sent any more, and the error that says why."""

    refresh_token: str | None = field(repr=False)
    error: AuthError


@define(eq=False)
class FailedRefresh:
    """The last refresh came to nothing.

    It is repeated after `retry_after` seconds, or after `urgent_retry_after` where there is no good access token.
    """

    error: Exception
    loop: asyncio.AbstractEventLoop
    retry_after: float
    urgent_retry_after: float
    since: float

    @classmethod
    def after(cls, before: FailedRefresh | None, error: Exception, *, refused: bool = False) -> FailedRefresh:
        """Return the state after one more failure; `refused`: the endpoint refuses the application, so no hurry."""
        loop = asyncio.get_running_loop()
        wait = _FIRST_WAIT if before is None else min(before.retry_after * 2, _LONGEST_WAIT)
        return cls(error, loop, wait, wait if refused else _URGENT_WAIT, loop.time())

    def is_waiting(self, *, urgent: bool = False) -> bool:
        """Return True while it is too early for another attempt; never in another event loop."""
        loop = asyncio.get_running_loop()
        seconds = self.urgent_retry_after if urgent else self.retry_after
        return loop is self.loop and loop.time() < self.since + seconds


@define(eq=False)
class Refresh:
    """A refresh under way, which is a task of its own: the end of a caller is not its end.

    `slow`: callers that have a good token need not wait for it any longer. `idle`: nothing is lost if it is ended now.
    `refused`: the token endpoint has refused the application.
    """

    task: asyncio.Task[Token] = field(init=False)
    slow: asyncio.Event = field(factory=asyncio.Event)
    idle: asyncio.Event = field(factory=asyncio.Event)
    refused: bool = False

    @property
    def is_current(self) -> bool:
        """True while it runs, in this event loop."""
        return not self.task.done() and self.task.get_loop() is asyncio.get_running_loop()

    async def result(self) -> Token:
        """Return the tokens that it brings, or raise its error; the caller's cancellation does not end it."""
        await asyncio.wait({self.task})
        if self.task.cancelled():
            raise RuntimeError("the client was closed while it waited for an access token")
        error = self.task.exception()
        if error is None:
            return self.task.result()
        raise again(error)

    async def done_or_slow(self) -> None:
        """Wait for its end, but not for long."""
        await self.slow.wait()

    async def done_or_idle(self) -> None:
        """Wait until nothing is lost if it is ended."""
        idle = asyncio.ensure_future(self.idle.wait())
        try:
            await asyncio.wait({self.task, idle}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()

    def ended(self, task: asyncio.Task[Token]) -> None:
        """Let the callers that wait go on; called when the task is done."""
        self.slow.set()
        if not task.cancelled():
            task.exception()  # all callers may have been cancelled: asyncio need not complain of an unread error

    @asynccontextmanager
    async def idling(self) -> AsyncIterator[None]:
        """In this block it may be ended."""
        self.idle.set()
        try:
            yield
        finally:
            self.idle.clear()

    async def idle_for(self, seconds: float) -> None:
        """Let time pass, in which it may be ended."""
        if seconds > 0:
            if seconds > PATIENCE:
                self.slow.set()
            async with self.idling():
                await asyncio.sleep(seconds)


def again(error: E) -> E:
    """Return `error` for one more caller: one and the same, raised often, would collect the frames of all of them."""
    return copy.copy(error) if isinstance(error, MessagesError) else error

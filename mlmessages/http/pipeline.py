"""Every request of a client: `Pipeline.execute` sends a call through retry ( limits ( auth ( transport )))."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from attrs import define

from ..api.calls import Call, Effect, Fault, Response
from ..api.outcomes import Outcome, cured_by_new_token, outcome
from ..api.refusals import check
from ..auth.source import Secret, TokenSource, current_token
from ..errors import AnswerLost, APIError, Conflict, DecodeError, MessagesError, NotSent, RateLimited
from ..events import SILENT, Events, PauseEvent, RefreshEvent, RequestEvent, extra, route
from .limits import Limits, Permit
from .retry import FailedAttempt, Retry, RetryBudget, with_retries
from .transport import Transport

_log: Final = logging.getLogger("mlmessages")
T = TypeVar("T")
Guard = Callable[[], Awaitable[None]]


@define
class RequestCount:
    """What the requests of one purpose have come to.

    `requests`: how many were sent, retries included. `in_doubt`: one that changes something was sent, and it may have
    been executed, or it was, and what it showed is still being read.
    """

    requests: int = 0
    in_doubt: bool = False


class TokenWatch:
    """Emits a `RefreshEvent` where a request carries another token than the one before it."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._last: Secret | None = None

    def see(self, token: Secret, *, rejected: bool) -> None:
        """Note the token of a request. `rejected`: the one before was answered 401."""
        before, self._last = self._last, token
        if self._events and before is not None and before != token:
            self._events.emit(RefreshEvent(rejected))


class Pipeline:
    """The way of every request of one client: retry ( limits ( auth ( transport ))), then check and read.

    Every attempt pays the budget; the token is asked for after the permit; nothing is held while sleeping.
    """

    def __init__(
        self, transport: Transport, source: TokenSource, limits: Limits, retry: Retry, events: Events = SILENT
    ) -> None:
        self.limits: Final = limits
        self.transport: Final = transport
        self.source: Final = source
        self.retry: Final = retry
        self.retry_budget: Final = RetryBudget()
        self.events: Final = events
        self.token_watch: Final = TokenWatch(events)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = "not entered yet: use `async with`"

    async def open(self) -> None:
        """Bind the pipeline to the running event loop and open the transport: once, else `RuntimeError`."""
        if self._loop is not None:
            raise RuntimeError("a client is entered once; make a new one")
        self._loop = asyncio.get_running_loop()
        await self.transport.open()
        self._state = ""

    async def close(self) -> None:
        """Send nothing any more, and close the transport."""
        self._state = "closed"
        await self.transport.close()

    def check_open(self) -> None:
        """Raise `RuntimeError` before entering, after closing, and in another event loop than the one entered in."""
        if self._state:
            raise RuntimeError(f"the client is {self._state}")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a generator may be made outside of a loop; it runs in one
        if loop is not self._loop:
            raise RuntimeError("the client belongs to the event loop that it was entered in")

    async def execute(
        self, call: Call[T], count: RequestCount | None = None, *, before_sending: Guard | None = None
    ) -> T:
        """Return what `call` reads from its answer.

        `before_sending` is awaited before each attempt, when permit and token are there and nothing is left to wait
        for; what it raises ends the call, with nothing sent and the permit given back at once.

        Raises `TransportError`, `APIError`, `DecodeError` or `AuthError`, after the retries that are safe. A marking
        request and a write are not repeated when they may have been executed.
        """
        self.check_open()  # before it waits for the budget; and again when it has it
        attempts = RequestAttempts(self, call, count or RequestCount(), before_sending)
        return await with_retries(self.retry, self.retry_budget, call.request.effect, attempts, self.events)


class RequestAttempts(Generic[T]):
    """The attempts of one call, and how much of their time counts."""

    __slots__ = (
        "_before_sending",
        "_call",
        "_count",
        "_loop",
        "_pipeline",
        "_renewed",
        "_request",
        "_started",
        "_token",
        "_waited",
    )

    def __init__(self, pipeline: Pipeline, call: Call[T], count: RequestCount, before_sending: Guard | None) -> None:
        self._pipeline = pipeline
        self._call = call
        self._request = call.request
        self._count = count
        self._before_sending = before_sending
        self._loop = asyncio.get_running_loop()
        self._started: float | None = None
        self._waited = 0.0
        self._token: Secret | None = None
        self._renewed = False

    def elapsed(self) -> float:
        """Seconds since the first attempt started, without waiting for the budget."""
        return 0.0 if self._started is None else self._loop.time() - self._started - self._waited

    async def attempt(self) -> T | FailedAttempt:
        """Make one attempt; a permit that runs out, and a 401 that a new token cures, are part of it."""
        while True:
            answer = await self._send()
            if isinstance(answer, Response):
                return self._read(answer)
            if answer is None:
                _log.info("a permit ran out before its request left: was the process or its machine stopped?")
                continue
            if not cured_by_new_token(answer.error):
                return answer
            try:
                if not await self._renew_token():
                    return answer
            except MessagesError as error:  # the 401 says that nothing was executed; this may say that it passes
                return FailedAttempt(error)

    async def _send(self) -> Response | FailedAttempt | None:
        """Send the request once: with a permit, then a token, then past the guard. None: the permit has run out."""
        pipeline = self._pipeline
        try:
            permit = await self._acquire()
        except NotSent as error:
            return FailedAttempt(error)
        sent = answered = False
        try:
            try:
                self._token = await current_token(pipeline.source)
            except MessagesError as error:
                return FailedAttempt(error)
            pipeline.token_watch.see(self._token, rejected=self._renewed)
            pipeline.check_open()  # it may have been closed meanwhile, and a borrowed session would still send
            if self._before_sending is not None:
                await self._before_sending()
                pipeline.check_open()
            if not pipeline.limits.is_valid(permit):
                return None
            sent = True
            result = await self._exchange(permit, self._token)
            failure = result.error if isinstance(result, FailedAttempt) else None
            sent = not isinstance(failure, NotSent)
            answered = failure is None or (
                isinstance(failure, (APIError, DecodeError)) and not isinstance(failure, RateLimited)
            )
            return result
        finally:
            pipeline.limits.release(permit, sent=sent, answered=answered)

    async def _exchange(self, permit: Permit, token: Secret) -> Response | FailedAttempt:
        """Send the request once, note in the count what is known of it, and check the answer."""
        pipeline, request, count = self._pipeline, self._request, self._count
        in_doubt_before = count.in_doubt
        count.requests += 1
        count.in_doubt = in_doubt_before or request.effect is not Effect.READ
        status: int | None = None
        failure: BaseException | None = None
        try:
            response = await pipeline.transport.send(request, token, pipeline.retry.deadline - self.elapsed())
            status = response.status
            check(response)
            _check_whole(response, request.effect)
            return response
        except MessagesError as error:
            failure = error
            if outcome(error) is Outcome.NOT_EXECUTED:
                count.in_doubt = in_doubt_before
            if isinstance(error, NotSent):
                count.requests -= 1
            wait = self._pause(permit, error) if isinstance(error, RateLimited) else 0.0
            return FailedAttempt(error, wait, passing=request.locks and isinstance(error, Conflict))
        except BaseException as error:
            failure = error
            raise
        finally:
            if (pipeline.events or _log.isEnabledFor(logging.DEBUG)) and not isinstance(failure, NotSent):
                self._tell(permit, status, failure)

    async def _renew_token(self) -> bool:
        """Tell the source of the token's refusal; return True if it has another one, once a call."""
        assert self._token is not None
        await self._pipeline.source.rejected(self._token)
        if self._renewed:
            return False
        self._renewed = await current_token(self._pipeline.source) != self._token
        return self._renewed

    def _read(self, response: Response) -> T | FailedAttempt:
        """Read the answer, with the permit already given back."""
        try:
            return self._call.read(response)
        except DecodeError as error:
            # Its frames and the parser's error behind it hold the answer, and with it what buyers wrote.
            unreadable = error.with_traceback(None)
            unreadable.__context__ = None
            return FailedAttempt(unreadable)

    async def _acquire(self) -> Permit:
        asked = self._loop.time()
        permit = await self._pipeline.limits.acquire(self._pipeline, write=self._request.effect is Effect.WRITE)
        if self._started is None:
            self._started = permit.started
        else:
            self._waited += permit.started - asked
        return permit

    def _pause(self, permit: Permit, error: RateLimited) -> float:
        retry = self._pipeline.retry
        wait = self._pipeline.limits.refused(permit, error.retry_after, retry.delay, retry.deadline)
        self._pipeline.events.emit(PauseEvent(wait))
        return wait

    def _tell(self, permit: Permit, status: int | None, failure: BaseException | None) -> None:
        """Tell of a request that left: at DEBUG, and as an event."""
        request = self._request
        error = type(failure).__name__ if failure is not None else None
        took = self._loop.time() - permit.started
        event = RequestEvent(request.method, route(request.target), request.effect.name.lower(), status, error, took)
        path = request.target.partition("?")[0]
        _log.debug("%s %s: %s in %.2f s", event.method, path, status or error, took, extra=extra(event))
        self._pipeline.events.emit(event)


def _check_whole(response: Response, effect: Effect) -> None:
    """Raise an error if the body of a 2xx `response` did not come whole; only a read may be repeated for it."""
    if response.fault is None:
        return
    too_large = response.fault in (Fault.TOO_LARGE, Fault.TOO_LARGE_FILE)
    if effect is Effect.READ and not too_large:
        raise AnswerLost(response.fault.value)
    incomplete = DecodeError(response.fault.value)
    incomplete.final = too_large
    raise incomplete

"""The one door to the API: `Session.execute` sends a call through retry ( limits ( auth ( transport )))."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from attrs import define

from ..api.calls import Call, Effect, Fault, Request, Response, T_co
from ..api.outcomes import Outcome, outcome
from ..api.refusals import check
from ..auth.source import Secret, TokenSource, current_token
from ..errors import AnswerLost, APIError, Conflict, DecodeError, MessagesError, NotSent, RateLimited, Unauthorized
from ..events import SILENT, Events, PauseEvent, RefreshEvent, RequestEvent, route
from .limits import Limits, Permit
from .retry import FailedAttempt, Retry, RetryBudget, RetryLoop
from .transport import Transport

T = TypeVar("T")


@define
class RequestCount:
    """What somebody's requests have come to.

    `requests`: how many were sent, retries included. `in_doubt`: one that changes something was sent, and it may have
    been executed, or it was, and what it showed is still being read.
    """

    requests: int = 0
    in_doubt: bool = False


class Pipeline:
    """The pipeline of one client.

    Every attempt pays the budget; the token is asked for last; nothing is held while sleeping.
    """

    def __init__(
        self, transport: Transport, source: TokenSource, limits: Limits, retry: Retry, events: Events = SILENT
    ) -> None:
        self.limits: Final = limits
        self.transport: Final = transport
        self.source: Final = source
        self.retry: Final = retry
        self.events: Final = events
        self.date: str | None = None  # of the last answer, by the server's clock
        self._quota = RetryBudget()
        self._token: Secret | None = None  # the last one, to see that there is another
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = "not entered yet: use `async with`"

    async def open(self) -> None:
        """Bind it to the running event loop; once."""
        if self._loop is not None:
            raise RuntimeError("a client is entered once; make a new one")
        self._loop = asyncio.get_running_loop()
        await self.transport.open()
        self._state = ""

    async def close(self) -> None:
        """Nothing is sent any more."""
        self._state = "closed"
        await self.transport.close()

    def check_open(self) -> None:
        """`RuntimeError` before entering, after closing, and in another event loop than the one entered in."""
        if self._state:
            raise RuntimeError(f"the client is {self._state}")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a generator may be made outside of a loop; it runs in one
        if loop is not self._loop:
            raise RuntimeError("the client belongs to the event loop that it was entered in")

    async def execute(self, call: Call[T_co], tally: RequestCount | None = None) -> T_co:
        """What `call` reads from its answer.

        Raises `TransportError`, `APIError`, `DecodeError` or `AuthError`, after the retries that are safe. A marking
        request and a write are not repeated when they may have been executed.
        """
        self.check_open()  # before it waits for the budget; and again when it has it
        exchange = RequestAttempts(self, call.request, tally)
        course = RetryLoop(
            self.retry, self._quota, call.request.effect, exchange.attempt, exchange.elapsed, events=self.events
        )
        response = await course.run()
        try:
            return call.read(response.body)
        except DecodeError as error:
            # Its frames and the parser's error behind it hold the answer, and with it what buyers wrote.
            unreadable = error.with_traceback(None)
            unreadable.__context__ = None
        raise unreadable

    def tell_of_token(self, token: Secret, *, rejected: bool) -> None:
        """Tell it where `token` is another one than before."""
        before, self._token = self._token, token
        if before is not None and before != token:
            self.events.emit(RefreshEvent(rejected))


class RequestAttempts:
    """The attempts of one request, and how much of their time counts."""

    __slots__ = ("_loop", "_refreshed", "_request", "_session", "_started", "_tally", "_waited")

    def __init__(self, session: Pipeline, request: Request, tally: RequestCount | None) -> None:
        self._session = session
        self._request = request
        self._tally = tally or RequestCount()
        self._loop = asyncio.get_running_loop()
        self._started: float | None = None
        self._waited = 0.0
        self._refreshed = False

    def elapsed(self) -> float:
        """Seconds since the first attempt started, without waiting for the budget."""
        return 0.0 if self._started is None else self._loop.time() - self._started - self._waited

    async def attempt(self) -> Response | FailedAttempt:
        """One attempt; a 401 that a new token cures is part of it."""
        source, effect = self._session.source, self._request.effect
        while True:
            permit = await self._permit()
            sent = answered = False
            failure: BaseException | None = None
            status: int | None = None
            was_in_doubt = self._tally.in_doubt
            try:
                token = await current_token(source)
                if self._session.events:
                    self._session.tell_of_token(token, rejected=self._refreshed)
                self._session.check_open()  # it may have been closed meanwhile, and a borrowed session would still send
                sent = True
                self._tally.requests += 1
                self._tally.in_doubt = was_in_doubt or effect is not Effect.READ
                response = await self._session.transport.send(self._request, token, self._time_left())
                status = response.status
                _check(response, effect)
                answered = True
                self._session.date = response.headers.get("Date")
                return response
            except MessagesError as error:
                failure = error
                if outcome(error) is Outcome.NOT_EXECUTED:
                    self._tally.in_doubt = was_in_doubt
                if sent and isinstance(error, NotSent):
                    sent = False
                    self._tally.requests -= 1
                answered = isinstance(error, (APIError, DecodeError)) and not isinstance(error, RateLimited)
                wait = self._pause(permit, error) if isinstance(error, RateLimited) else 0.0
                if not isinstance(error, Unauthorized):
                    return FailedAttempt(error, wait, passing=self._request.locks and isinstance(error, Conflict))
                rejection = error
            except BaseException as error:
                failure = error
                raise
            finally:
                self._session.limits.release(permit, sent=sent, answered=answered)
                if self._session.events and sent:
                    self._tell(permit, status, failure)
            await source.rejected(token)
            if self._refreshed or await current_token(source) == token:
                return FailedAttempt(rejection)
            self._refreshed = True

    def _tell(self, permit: Permit, status: int | None, failure: BaseException | None) -> None:
        request = self._request
        self._session.events.emit(
            RequestEvent(
                request.method,
                route(request.target),
                request.effect.name.lower(),
                status,
                type(failure).__name__ if failure is not None else None,
                self._loop.time() - permit.started,
            )
        )

    async def _permit(self) -> Permit:
        asked = self._loop.time()
        permit = await self._session.limits.acquire(self._session, write=self._request.effect is Effect.WRITE)
        if self._started is None:
            self._started = permit.started
        else:
            self._waited += permit.started - asked
        return permit

    def _time_left(self) -> float:
        return self._session.retry.deadline - self.elapsed()

    def _pause(self, permit: Permit, error: RateLimited) -> float:
        retry = self._session.retry
        wait = self._session.limits.refused(permit, error.retry_after, retry.delay, retry.deadline)
        self._session.events.emit(PauseEvent(wait))
        return wait


def _check(response: Response, effect: Effect) -> None:
    """Raise what `response` is, if it is no answer to read."""
    check(response)
    if response.fault is not None:
        if effect is Effect.READ and response.fault not in (Fault.TOO_LARGE, Fault.TOO_LARGE_FILE):
            raise AnswerLost(response.fault.value)
        raise DecodeError(response.fault.value)

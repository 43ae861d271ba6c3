"""`OAuthToken`: a seller's access token, renewed ahead of time, and never two refreshes with one refresh token."""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from attrs import define, evolve, field, frozen

from ..api.arguments import base_url as checked_base_url
from ..api.arguments import describe
from ..api.refusals import check
from ..errors import (
    AnswerLost,
    APIError,
    AuthError,
    MessagesError,
    NotSent,
    RateLimited,
    ReauthorizationRequired,
    ServerError,
)
from ..failpoints import failpoint
from ..models import Token
from . import grants
from .source import Http, Secret

_log: Final = logging.getLogger("mlmessages")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)

SETTLE_TIME: Final = 120.0  # seconds after which a request of unknown outcome can no longer be executed
_PATIENCE: Final = 5.0  # seconds that a caller waits for a new token while the old one is still good
_PASSING: Final = (0.5, 1.0, 2.0)  # seconds before a refresh that certainly was not executed is sent again
_LONGEST_PASSING: Final = 30.0
_REREAD: Final = (0.0, 0.5, 2.0)  # seconds before each look whether another process has saved newer tokens
_REST: Final = 60.0  # seconds without another refresh after one that failed; doubled each time up to the longest
_LONGEST_REST: Final = 900.0
_BREATH: Final = 1.0  # the same where there is no good token, so that callers and their retries share one attempt
_LONGEST_LOCK: Final = 300.0  # seconds: whoever holds the lock for longer is stopped, and not at work

_AUTHORISE: Final = "Let the seller authorise the application again: `mlmessages auth url`."
_TOO_OFTEN: Final = "The token endpoint is asked too often: do other programs refresh for this application?"
_SECRET: Final = "Check the client id and the client secret: was the secret renewed?"  # noqa: S105


@runtime_checkable
class TokenStore(Protocol):
    """Where the tokens of one seller are kept, for all processes that use them."""

    async def load(self) -> Token | None:
        """The tokens that were saved last, or None; it may be called without the lock."""
        ...

    async def save(self, token: Token) -> None:
        """Keep `token` with all its fields; when this returns it is durable. What it raises means: nothing changed."""
        ...

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Hold the store alone, across tasks and processes; what a dead process held is free."""
        ...


class OAuthToken:
    """A `TokenSource` that refreshes: one seller's access token, kept in `store`.

    - It refreshes when half of the token's life has passed, once at a time over all tasks and, through the store's
      lock, all processes. While that goes wrong, the token that is there is used to its end, with a warning.
    - The store is written before a refresh is sent (one that cannot be written: none is sent), and the new tokens are
      saved before they are used. A refresh token is for one use: it is never sent twice but for one case, an answer
      that was lost; then it waits two minutes and tries once more.
    - A cancelled call does not cancel the refresh that it waits for.
    - A rejected token is refreshed if it is still the current one, and not when the last refresh did not help: a 401
      may have another reason.

    `client_id` and `client_secret` are the application's. `base_url`: where the token endpoint is; None: the client's.
    Wrong arguments: `ValueError`. One object may serve several clients of the same seller.

    `token` raises `ReauthorizationRequired` where only the seller can help, another `AuthError` where the application
    or the store is at fault, and `NotSent` or `RateLimited` where the token endpoint was not reached.
    """

    def __init__(
        self, client_id: int | str, client_secret: str, store: TokenStore, base_url: str | None = None
    ) -> None:
        client_secret = Secret(client_secret) if isinstance(client_secret, str) else client_secret
        self._client_id = str(client_id) if isinstance(client_id, int) else client_id
        for name, value in (("client_id", self._client_id), ("client_secret", client_secret)):
            if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
                raise ValueError(f"{name} must be a text of visible ASCII characters, without blanks or line breaks")
        if not isinstance(store, TokenStore):
            raise ValueError(f"store must be a TokenStore, not {describe(store)}")
        self._client_secret = client_secret
        self._store = store
        self._base_url = None if base_url is None else checked_base_url(base_url)
        self._https: list[Http] = []
        self._held: Token | None = None
        self._rejected: str | None = None  # the access token that is held was answered 401
        self._cure: str | None = None  # the access token that was to cure a 401
        self._dead: str | None = None  # the refresh token that cannot be used any more, and why
        self._obituary: ReauthorizationRequired | None = None
        self._unsaved: _Unsaved | None = None
        self._failure: _Failure | None = None
        self._flight: _Refresh | None = None

    def __repr__(self) -> str:
        return f"OAuthToken(client_id={getattr(self, '_client_id', '?')!r})"

    # -- what a client calls --

    def bind(self, http: Http) -> None:
        """A client is entered: refreshes are sent through it."""
        _now()  # from here on the passing of time is known, whatever happens to the system's clock
        self._https.append(http)

    async def unbind(self, http: Http) -> None:
        """The client is about to close: a refresh that is under way is finished first, and its answer saved."""
        if http in self._https:
            self._https.remove(http)
        flight = self._current_flight()
        while flight is not None and not flight.task.done():
            idle = asyncio.ensure_future(flight.idle.wait())
            try:
                await asyncio.wait({flight.task, idle}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                idle.cancel()
            if flight.idle.is_set():  # it waits for a lock, or for time to pass: another process can do that
                if not self._https:
                    flight.task.cancel()
                    await asyncio.wait({flight.task})
                return

    async def token(self) -> str:
        """The current access token, which is refreshed first where that is due."""
        await self._look()
        held, good = self._known(), self._is_good()
        wanted = _now() >= grants.half_life(held) or self._unsaved is not None
        if good and (not wanted or self._resting()):
            return held.access_token
        if not good and self._failure is not None and not self._failure.is_over(self._failure.breath):
            raise self._failure.again()
        flight = self._current_flight() or self._take_off()
        if good:
            await flight.done_or_slow()
            return self._known().access_token
        try:
            return (await flight.result()).access_token
        except Exception:
            if not self._is_good():
                raise
        return self._known().access_token  # what another process has saved: that it is due can wait

    async def rejected(self, token: str) -> None:
        """The server answered 401 to `token`: if it is the current one it is refreshed before it is given out again."""
        if self._held is not None and self._held.access_token == token:
            self._rejected = self._held.access_token

    async def refresh(self) -> Token:
        """Refresh now, due or not; what is kept from now on. Raises what `token` raises."""
        await self._look()
        flight = self._current_flight() or self._take_off(forced=self._known().access_token)
        return await flight.result()

    # -- flights: a refresh is a task of its own --

    def _current_flight(self) -> _Refresh | None:
        flight = self._flight
        if flight is None or flight.task.done() or flight.task.get_loop() is not asyncio.get_running_loop():
            return None
        return flight

    def _take_off(self, forced: str | None = None) -> _Refresh:
        flight = self._flight = _Refresh(asyncio.get_running_loop())
        flight.task = flight.loop.create_task(self._fly(flight, forced), name="mlmessages-refresh")
        flight.task.add_done_callback(flight.landed)
        return flight

    async def _fly(self, flight: _Refresh, forced: str | None) -> Token:
        patience = flight.loop.call_later(_PATIENCE, flight.slow.set)
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with flight.idling(), asyncio.timeout(_LONGEST_LOCK):
                        await stack.enter_async_context(self._store.lock())
                except TimeoutError:
                    raise AuthError("another process has held the lock of the token store for too long") from None
                token = await self._renewed(flight, forced)
        except Exception as error:
            self._note(error, flight)
            raise
        finally:
            patience.cancel()
        if self._unsaved is None:
            self._failure = None
        return token

    async def _renewed(self, flight: _Refresh, forced: str | None) -> Token:
        """The tokens to use from now on; the lock is held."""
        stored = await self._saved(await self._load())
        while True:
            rejected = stored.access_token in (self._rejected, forced)
            if not rejected and _now() < grants.half_life(stored):  # another process was faster
                return self._adopt(stored)
            if rejected and forced is None and not self._curable(stored.access_token):
                self._rejected = None
                return self._adopt(stored)
            if not rejected:
                self._adopt(stored)  # due, and perhaps better than what is held
            try:
                renewed = await self._exchange(flight, stored)
            except InvalidGrant as refusal:
                newer = await self._newer_than(flight, stored)
                if newer is None:
                    raise self._bury(stored, refusal.said) from None
                stored = newer
            else:
                if renewed is not None:
                    return renewed
                stored = await self._load()

    async def _newer_than(self, flight: _Refresh, stored: Token) -> Token | None:
        """What another process has saved meanwhile: one that does not hold our lock, such as on another machine."""
        for seconds in _REREAD:
            await flight.idle_for(seconds)
            found = await self._load()
            if found.refresh_token != stored.refresh_token:
                return found
        return None

    async def _exchange(self, flight: _Refresh, stored: Token) -> Token | None:
        """The next generation: asked for, and saved; None if the store has another one than `stored` by now.

        Raises `InvalidGrant` where the server does not know this one.
        """
        if stored.refresh_token is None:
            raise _reauthorization("there is no refresh token: was the application granted offline_access?")
        if stored.refresh_token == self._dead and self._obituary is not None:
            raise copy.copy(self._obituary)
        waited = lost = await self._settled(flight, stored)
        passing = iter(_PASSING)
        while True:
            if waited and (await self._load()).refresh_token != stored.refresh_token:
                return None
            http, asked = self._http(), _now()
            # Before it is sent: if the store cannot be written, the answer would be lost. What is written says that
            # a refresh may be under way, for whoever comes after a crash.
            await self._store.save(evolve(stored, refresh_sent_at=asked))
            failpoint("refresh noted")
            try:
                form = grants.refresh_form(self._client_id, self._client_secret, stored.refresh_token)
                grant = await granted(http, form, self._base_url)
            except (NotSent, RateLimited) as error:
                await self._not_executed(stored)
                pause, asked_for = next(passing, None), getattr(error, "retry_after", None) or 0.0
                if pause is None or asked_for > _LONGEST_PASSING:
                    raise
                await flight.idle_for(max(pause, asked_for))
            except AuthError:
                await self._not_executed(stored)
                flight.refused = True
                raise
            except Lost as error:
                if lost:
                    raise self._bury(stored, f"the answer to the refresh was lost twice ({error.said})") from None
                lost = True
                _log.warning("the answer to a refresh was lost (%s): sent once more in %g s", error.said, SETTLE_TIME)
                await flight.idle_for(SETTLE_TIME)
            else:
                return await self._keep(stored, grants.generation(grant, asked, stored), grant.remarks)
            waited = True

    def _http(self) -> Http:
        if not self._https:
            raise RuntimeError("an OAuthToken refreshes through a client: enter one with it first")
        return self._https[-1]

    async def _settled(self, flight: _Refresh, stored: Token) -> bool:
        """True if a refresh with this token was sent before and its answer never saved; it can then no longer come."""
        if stored.refresh_sent_at is None:
            return False
        passed = (_now() - stored.refresh_sent_at).total_seconds()
        wait = min(max(SETTLE_TIME - passed, 0.0), SETTLE_TIME)
        _log.warning("a refresh was sent and its answer never saved: sent once more in %.0f s", wait)
        await flight.idle_for(wait)
        return True

    async def _not_executed(self, stored: Token) -> None:
        """Take the note back: the server has refused the refresh, or never seen it."""
        try:
            await self._store.save(evolve(stored, refresh_sent_at=None))
        except Exception as error:
            _log.warning("the note of a refresh that was not executed stays: %s", type(error).__name__)

    async def _keep(self, stored: Token, token: Token, remarks: tuple[str, ...]) -> Token:
        failpoint("refresh answered")
        for remark in remarks:
            _log.warning("the answer to a refresh is odd: %s", remark)
        try:
            await self._store.save(token)
        except Exception as error:
            # The old refresh token is spent. To keep the new one for this process alone is better than to lose it.
            self._unsaved = _Unsaved(stored.refresh_token, token)
            _log.error(
                "THE NEW TOKENS COULD NOT BE SAVED (%s: %s): they live in this process alone, until it can save them;"
                " do not stop it before",
                type(error).__name__,
                error if isinstance(error, MessagesError) else "see the store",
            )
            self._failure = _Failure(error, asyncio.get_running_loop(), _REST)
            return self._adopt(token, cure=True)
        failpoint("refresh saved")
        _log.info("the access token of seller %s was refreshed", token.user_id or "?")
        return self._adopt(token, cure=True)

    async def _saved(self, stored: Token) -> Token:
        """`stored`, or the tokens that could not be saved when they came."""
        unsaved = self._unsaved
        if unsaved is None:
            return stored
        if stored.refresh_token == unsaved.instead_of:
            await self._store.save(unsaved.token)
            stored = unsaved.token
            _log.warning("the new tokens are saved now")
        self._unsaved = None
        return stored

    # -- what is known --

    def _is_good(self) -> bool:
        """True if the access token that is held can be used."""
        held = self._known()
        return held.access_token != self._rejected and _now() < held.expires_at

    async def _look(self) -> None:
        if self._held is None:
            stored = await self._load()
            if self._held is None:  # others have looked meanwhile, and perhaps gone further
                self._adopt(stored)

    async def _load(self) -> Token:
        stored = await self._store.load()
        if stored is None:
            raise _reauthorization("the token store is empty")
        if not isinstance(stored, Token):
            raise AuthError("the token store returned something that is not a Token")
        return evolve(
            stored,
            access_token=Secret(stored.access_token),
            refresh_token=None if stored.refresh_token is None else Secret(stored.refresh_token),
        )

    def _known(self) -> Token:
        assert self._held is not None
        return self._held

    def _adopt(self, token: Token, *, cure: bool = False) -> Token:
        """Use `token` from now on."""
        before, self._held = self._held, token
        if before is None or before.refresh_token != token.refresh_token or before.issued_at != token.issued_at:
            left = grants.end_of_refresh(token) - _now()
            if left < grants.NOTICE and token.refresh_token is not None:
                _log.warning(
                    "the refresh token of seller %s ends in %d days at the latest (6 months after it was issued, 4"
                    " after its last use): authorise again before",
                    token.user_id or "?",
                    max(left.days, 0),
                )
        if self._rejected is not None and token.access_token != self._rejected:
            self._cure, self._rejected = token.access_token, None
        elif cure:
            self._cure = None
        return token

    def _curable(self, token: str) -> bool:
        """False if a refresh will not help: the last one did not, or the server takes this very token elsewhere."""
        records, now = [http.record for http in self._https], asyncio.get_running_loop().time()
        if any(record.is_fine(token, now) for record in records):
            return False
        return token != self._cure or any(record.worked(token) for record in records)

    def _bury(self, stored: Token, why: str) -> ReauthorizationRequired:
        """The refresh token cannot be used any more; nobody sends it again from this process."""
        self._dead, self._obituary = stored.refresh_token, _reauthorization(why)
        return copy.copy(self._obituary)

    def _resting(self) -> bool:
        return self._failure is not None and not self._failure.is_over(self._failure.rest)

    def _note(self, error: Exception, flight: _Refresh) -> None:
        """A refresh came to nothing: leave it alone for some time, and say so, while there is a token to work with."""
        rest = min(self._failure.rest * 2, _LONGEST_REST) if self._failure is not None else _REST
        self._failure = failure = _Failure(error, flight.loop, rest, rest if flight.refused else _BREATH)
        held = self._held
        if held is None or held.access_token == self._rejected:
            return
        left = (held.expires_at - _now()).total_seconds() / 3600
        if left > 0:
            _log.warning(
                "THE TOKENS ARE NOT RENEWED (%s): the access token of seller %s is good for %.1f h more; tried again"
                " in %.0f s",
                f"{type(error).__name__}: {error}" if isinstance(error, MessagesError) else type(error).__name__,
                held.user_id or "?",
                left,
                failure.rest,
            )


async def granted(http: Http, form: dict[str, str], base_url: str | None = None) -> grants.Grant:
    """What the token endpoint grants for `form`: one POST.

    Raises `NotSent`, `RateLimited`, `AuthError`, `InvalidGrant` or `Lost`; none of them carries a secret.
    """
    refusal: Exception
    try:
        response = await http.post_form(grants.PATH, form, base_url)
        check(response)
    except AnswerLost as error:
        refusal = Lost(str(error))
    except ServerError as error:
        refusal = Lost(str(error))
    except RateLimited as error:
        said = {"request_id": error.request_id, "hint": _TOO_OFTEN}
        refusal = RateLimited(error.status, error.code, error.message, **said, retry_after=error.retry_after)
    except APIError as error:
        refusal = _refused(error)
    else:
        grant = grants.read_grant(response.body) if response.fault is None else None
        if grant is not None:
            return grant
        refusal = Lost("it cannot be read")
    # Raised here, where no other exception with its frames is its context.
    raise refusal.with_traceback(None)


class InvalidGrant(Exception):
    """The server does not know the code or the refresh token, or not any more."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(said)


class Lost(Exception):
    """The request may have been executed, and there is no usable answer."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(said)


def _refused(error: APIError) -> Exception:
    if error.code == "invalid_grant":
        return InvalidGrant(error.message or "invalid_grant")
    said = ": ".join(dict.fromkeys(part for part in (error.code, error.message) if part)) or "no reason given"
    refusal = AuthError(f"the token endpoint refused ({error.status}): {said}")
    if error.code in ("invalid_client", "unauthorized_client") or error.status == 401:
        refusal.hint = _SECRET
    elif error.code == "unauthorized_application":
        refusal.hint = _AUTHORISE
    elif error.code == "invalid_operator_user_id":
        refusal.hint = "Only the account's administrator may authorise an application."
    return refusal


def _reauthorization(why: str) -> ReauthorizationRequired:
    error = ReauthorizationRequired(f"the seller must authorise again: {why}")
    error.hint = _AUTHORISE
    return error


@define(eq=False)
class _Refresh:
    """A refresh under way.

    `slow`: whoever has a good token need not wait for it. `idle`: nothing is lost if it is ended. `refused`: the token
    endpoint has refused the application.
    """

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Token] = field(init=False)
    slow: asyncio.Event = field(factory=asyncio.Event)
    idle: asyncio.Event = field(factory=asyncio.Event)
    refused: bool = False

    async def result(self) -> Token:
        """What it comes to; its caller's cancellation does not end it."""
        await asyncio.wait({self.task})
        if self.task.cancelled():
            raise RuntimeError("the client was closed while it waited for an access token")
        error = self.task.exception()
        if error is None:
            return self.task.result()
        raise _fresh(error)

    async def done_or_slow(self) -> None:
        """Wait for its end, but not for long."""
        await self.slow.wait()

    def landed(self, task: asyncio.Task[Token]) -> None:
        """It is over."""
        self.slow.set()
        if not task.cancelled():
            task.exception()  # who waited may have been cancelled: asyncio need not complain that nobody took it

    @asynccontextmanager
    async def idling(self) -> AsyncIterator[None]:
        """In this block it may be ended."""
        self.idle.set()
        try:
            yield
        finally:
            self.idle.clear()

    async def idle_for(self, seconds: float) -> None:
        """Let time pass."""
        if seconds > 0:
            if seconds > _PATIENCE:
                self.slow.set()
            async with self.idling():
                await asyncio.sleep(seconds)


@define
class _Failure:
    """The last refresh came to nothing: it is repeated after `rest` seconds, or `breath` where that is urgent."""

    error: Exception
    loop: asyncio.AbstractEventLoop
    rest: float
    breath: float = _BREATH
    since: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.since = self.loop.time()

    def is_over(self, seconds: float) -> bool:
        """True if it is longer ago than that, or in another event loop."""
        loop = asyncio.get_running_loop()
        return loop is not self.loop or loop.time() >= self.since + seconds

    def again(self) -> BaseException:
        """The error, for one more caller."""
        return _fresh(self.error)


@frozen
class _Unsaved:
    """New tokens that the store did not take; `instead_of` is the refresh token that they replace."""

    instead_of: str | None
    token: Token


def _fresh(error: BaseException) -> BaseException:
    """`error` for one more caller: raised often, one and the same would collect the frames of all of them."""
    return copy.copy(error) if isinstance(error, MessagesError) else error


# By loop: the date at its time 0.
_ORIGINS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, float]] = WeakKeyDictionary()


def _now() -> datetime:
    """The date: the system's, or a later one where the loop's clock says that more time has passed.

    So a clock that is set back delays nothing, and a machine that slept is noticed.
    """
    loop = asyncio.get_running_loop()
    passed, wall = loop.time(), time.time()
    return datetime.fromtimestamp(max(wall, _ORIGINS.setdefault(loop, wall - passed) + passed), UTC)

"""`OAuthToken`: a seller's access token, renewed ahead of time, and never two refreshes with one refresh token."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final
from weakref import WeakKeyDictionary

from attrs import evolve

from ..api.arguments import check_base_url, describe
from ..api.outcomes import SETTLE_TIME
from ..errors import AuthError, MessagesError, NotSent, RateLimited
from ..failpoints import failpoint
from ..models import Token
from . import grants
from .in_flight import answer_awaited, uninterrupted
from .refresh import PATIENCE, ExhaustedToken, FailedRefresh, Refresh, TokenInUse, UnsavedToken, again
from .source import conceal, concealed, revealed
from .store import TokenStore
from .token_endpoint import (
    AUTHORISE,
    GrantLost,
    Http,
    InvalidGrant,
    explained,
    reauthorization,
    request_grant,
)

_log: Final = logging.getLogger("mlmessages")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)

_REPEAT_WAITS: Final = (0.5, 1.0, 2.0)  # seconds before a refresh that certainly was not executed is sent again
_LONGEST_REPEAT_WAIT: Final = 30.0
_REREAD_WAITS: Final = (0.0, 0.5, 2.0)  # seconds before each look whether another process has saved newer tokens
_LONGEST_LOCK: Final = 300.0  # seconds: a process that holds the lock for longer is stopped, and not at work
_LOCK_AT_CLOSING: Final = 10.0  # seconds that the last attempt to save new tokens waits for the lock


class OAuthToken:
    """A `TokenSource` that refreshes: one seller's access token, kept in `store`.

    - It refreshes when half of the token's life has passed, once at a time over all tasks and, through the store's
      lock, all processes. While that goes wrong, the token that is there is used to its end, with a warning.
    - The store is written before a refresh is sent (one that cannot be written: none is sent), and the new tokens are
      saved before they are used; tokens that could not be saved are saved later, at the latest when the client closes.
      A refresh token is for one use: it is never sent twice but for one case, an answer that was lost; then it waits
      two minutes and tries once more.
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
        client_secret = conceal(client_secret)
        client_id = "" if isinstance(client_id, bool) else client_id  # an int to Python, and no id
        self._client_id = str(client_id) if isinstance(client_id, int) else client_id
        for name, value in (("client_id", self._client_id), ("client_secret", client_secret)):
            if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
                raise ValueError(f"{name} must be a text of visible ASCII characters, without blanks or line breaks")
        if not isinstance(store, TokenStore):
            raise ValueError(f"store must be a TokenStore, not {describe(store)}")
        self._client_secret = client_secret
        self._store = store
        self._base_url = None if base_url is None else check_base_url(base_url)
        self._clients: list[Http] = []
        self._in_use: TokenInUse | None = None
        self._refresh: Refresh | None = None
        self._failed: FailedRefresh | None = None
        self._unsaved: UnsavedToken | None = None
        self._exhausted: ExhaustedToken | None = None

    def __repr__(self) -> str:
        return f"OAuthToken(client_id={getattr(self, '_client_id', '?')!r})"

    # -- what a client calls --

    def bind(self, http: Http) -> None:
        """Send refreshes through `http` from now on: the client is entered."""
        _now()  # from here on the passing of time is known, whatever happens to the system's clock
        self._clients.append(http)

    async def unbind(self, http: Http) -> None:
        """Finish a refresh that is under way and save its answer: the client is about to close."""
        if http in self._clients:
            self._clients.remove(http)
        refresh = self._current_refresh()
        while refresh is not None and not refresh.task.done():
            await refresh.done_or_idle()
            if refresh.idle.is_set():  # it waits for a lock, or for time to pass: another process can do that
                if not self._clients:
                    refresh.task.cancel()
                    await asyncio.wait({refresh.task})
                break
        if self._unsaved is not None and not self._clients:
            await uninterrupted(self._save_at_closing())

    async def token(self) -> str:
        """Return the current access token, which is refreshed first where that is due."""
        await self._load_once()
        if self._is_good():
            if self._is_due() and not (self._failed is not None and self._failed.is_waiting()):
                await (self._current_refresh() or self._start_refresh()).done_or_slow()
            return str(self._token.access_token)
        if self._failed is not None and self._failed.is_waiting(urgent=True):
            raise again(self._failed.error)
        try:
            await (self._current_refresh() or self._start_refresh()).result()
        except Exception:
            if not self._is_good():  # if it is, another process has saved it: that it is due can wait
                raise
        return str(self._token.access_token)

    async def rejected(self, token: str) -> None:
        """Refresh before the token is given out again, if `token`, which was answered 401, is the current one."""
        if self._in_use is not None and self._token.access_token == token:
            self._in_use = evolve(self._in_use, rejected=True)

    async def refresh(self) -> Token:
        """Refresh now, due or not; return what is kept from now on. Raises what `token` raises."""
        await self._load_once()
        refresh = self._current_refresh() or self._start_refresh(forced=self._token.access_token)
        return revealed(await refresh.result())

    # -- a refresh is a task of its own --

    def _current_refresh(self) -> Refresh | None:
        return self._refresh if self._refresh is not None and self._refresh.is_current else None

    def _start_refresh(self, forced: str | None = None) -> Refresh:
        refresh = self._refresh = Refresh()
        refresh.task = asyncio.get_running_loop().create_task(self._run(refresh, forced), name="mlmessages-refresh")
        refresh.task.add_done_callback(refresh.ended)
        return refresh

    async def _run(self, refresh: Refresh, forced: str | None) -> Token:
        patience = asyncio.get_running_loop().call_later(PATIENCE, refresh.slow.set)
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with refresh.idling(), asyncio.timeout(_LONGEST_LOCK):
                        await stack.enter_async_context(self._store.lock())
                except TimeoutError:
                    raise AuthError("another process has held the lock of the token store for too long") from None
                token = await self._renewed(refresh, forced)
        except Exception as error:
            self._failed = FailedRefresh.after(self._failed, error, refused=refresh.refused)
            self._warn_not_renewed(error)
            raise
        finally:
            patience.cancel()
        if self._unsaved is None:
            self._failed = None
        return token

    async def _renewed(self, refresh: Refresh, forced: str | None) -> Token:
        """Return the tokens to use from now on; the lock is held."""
        stored = await self._save_unsaved(await self._load())
        while True:
            rejected = stored.access_token == forced or self._is_rejected(stored)
            if not rejected and _now() < grants.half_life(stored):  # another process was faster
                return self._adopt(stored)
            if rejected and forced is None and not self._may_be_cured(stored.access_token):
                assert self._in_use is not None
                self._in_use = evolve(self._in_use, token=stored, rejected=False)
                return stored
            if not rejected:
                self._adopt(stored)  # due, and perhaps better than what is held
            try:
                renewed = await self._exchange(refresh, stored)
            except InvalidGrant as refusal:
                newer = await self._newer_than(refresh, stored)
                if newer is None:
                    await self._note_refusal(stored)
                    raise self._mark_exhausted(stored, reauthorization(refusal.said)) from None
                stored = newer
            else:
                if renewed is not None:
                    return renewed
                stored = await self._load()

    async def _newer_than(self, refresh: Refresh, stored: Token) -> Token | None:
        """Return what another process has saved meanwhile, such as on a machine that does not see our lock."""
        for seconds in _REREAD_WAITS:
            await refresh.idle_for(seconds)
            found = await self._load()
            if found.refresh_token != stored.refresh_token:
                return found
        return None

    async def _exchange(self, refresh: Refresh, stored: Token) -> Token | None:
        """Ask for the next tokens and save them; return None if the store has others than `stored` by now.

        Raises `InvalidGrant` where the server does not know this refresh token.
        """
        if stored.refresh_token is None:
            raise reauthorization("there is no refresh token: was the application granted offline_access?")
        if self._exhausted is not None and self._exhausted.refresh_token == stored.refresh_token:
            raise self._exhausted_error()
        waited = lost = await self._settled(refresh, stored)
        repeat_waits = iter(_REPEAT_WAITS)
        while True:
            if waited and (await self._load()).refresh_token != stored.refresh_token:
                return None
            try:
                with answer_awaited():
                    return await self._sent(stored)
            except (NotSent, RateLimited) as error:
                await self._take_note_back(stored)
                wait, asked_for = next(repeat_waits, None), getattr(error, "retry_after", None) or 0.0
                if wait is None or asked_for > _LONGEST_REPEAT_WAIT:
                    raise
                await refresh.idle_for(max(wait, asked_for))
            except _Refused as error:
                await self._take_note_back(stored)
                refresh.refused = True
                raise error.refusal from None
            except GrantLost as error:
                if lost:
                    why = f"the answer to the refresh was lost twice ({error.said})"
                    raise self._mark_exhausted(stored, reauthorization(why)) from None
                lost = True
                _log.warning("the answer to a refresh was lost (%s): sent once more in %g s", error.said, SETTLE_TIME)
                await refresh.idle_for(SETTLE_TIME)
            waited = True

    async def _sent(self, stored: Token) -> Token:
        """Note that a refresh is under way, send it, and save the answer."""
        if not self._clients:
            raise RuntimeError("an OAuthToken refreshes through a client: enter one with it first")
        assert stored.refresh_token is not None
        http, asked = self._clients[-1], _now()
        # Before it is sent: if the store cannot be written, the answer would be lost. What is written says that a
        # refresh may be under way, to the process that comes after a crash.
        await self._store.save(revealed(evolve(stored, refresh_sent_at=asked)))
        failpoint("refresh noted")
        form = grants.refresh_form(self._client_id, self._client_secret, stored.refresh_token)
        try:
            grant = await request_grant(http, form, self._base_url)
        except AuthError as error:
            raise _Refused(error) from None
        failpoint("refresh answered")
        if None not in (grant.user_id, stored.user_id) and grant.user_id != stored.user_id:
            raise self._mark_exhausted(stored, _of_another_seller(stored, grant))
        return await self._keep(stored, grants.next_token(grant, asked, stored), grant.remarks)

    async def _settled(self, refresh: Refresh, stored: Token) -> bool:
        """Wait until a refresh that was sent before, and whose answer was never saved, can no longer be executed.

        Return True if there was one.
        """
        if stored.refresh_sent_at is None:
            return False
        passed = (_now() - stored.refresh_sent_at).total_seconds()
        wait = min(max(SETTLE_TIME - passed, 0.0), SETTLE_TIME)
        _log.warning("a refresh was sent and its answer never saved: sent once more in %.0f s", wait)
        await refresh.idle_for(wait)
        return True

    async def _take_note_back(self, stored: Token) -> None:
        """Note that no refresh is under way: the server has refused it, or never seen it."""
        try:
            await self._store.save(revealed(evolve(stored, refresh_sent_at=None)))
        except Exception as error:
            _log.warning("the note of a refresh that was not executed stays: %s", type(error).__name__)

    async def _note_refusal(self, stored: Token) -> None:
        """Note for `mlmessages auth status` that the refresh token is worth nothing."""
        try:
            await self._store.save(revealed(evolve(stored, refresh_sent_at=None, refresh_refused_at=_now())))
        except Exception as error:
            _log.warning("the note of a refresh that was refused could not be saved: %s", type(error).__name__)

    async def _keep(self, stored: Token, token: Token, remarks: tuple[str, ...]) -> Token:
        for remark in remarks:
            _log.warning("the answer to a refresh is odd: %s", remark)
        try:
            await self._store.save(revealed(token))
        except Exception as error:
            # The old refresh token is spent. To keep the new one for this process alone is better than to lose it.
            self._unsaved = UnsavedToken(stored.refresh_token, token)
            self._failed = FailedRefresh.after(None, error)
            _log.error(
                "THE NEW TOKENS COULD NOT BE SAVED (%s): they live in this process alone, until it can save them;"
                " do not stop it before",
                _in_words(error),
            )
        else:
            failpoint("refresh saved")
            _log.info("the access token of seller %s was refreshed", token.user_id or "?")
        return self._adopt(token)

    # -- new tokens that could not be saved when they came --

    async def _save_unsaved(self, stored: Token) -> Token:
        """Save what is unsaved, if it is the successor of `stored`; return what is in the store then."""
        unsaved = self._unsaved
        if unsaved is None:
            return stored
        if stored.refresh_token == unsaved.instead_of:
            await self._store.save(revealed(unsaved.token))
            stored = unsaved.token
            _log.warning("the new tokens are saved now")
        self._unsaved = None
        return stored

    async def _save_at_closing(self) -> None:
        """Try once more to save the new tokens: with the end of this process they would be lost."""
        with answer_awaited():
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(_LOCK_AT_CLOSING):
                        await stack.enter_async_context(self._store.lock())
                    await self._save_unsaved(await self._load())
            except Exception as error:
                _log.error(
                    "THE NEW TOKENS COULD NOT BE SAVED (%s), and the client closes: with the end of this process they"
                    " are lost, and the seller has to authorise again",
                    _in_words(error),
                )

    # -- what is known --

    @property
    def _token(self) -> Token:
        assert self._in_use is not None
        return self._in_use.token

    def _is_good(self) -> bool:
        """Return True if the access token in use can be sent."""
        assert self._in_use is not None
        return not self._in_use.rejected and _now() < self._token.expires_at

    def _is_due(self) -> bool:
        """Return True if there is something to do for the token in use: to renew it, or to save it."""
        return self._unsaved is not None or _now() >= grants.half_life(self._token)

    def _is_rejected(self, token: Token) -> bool:
        in_use = self._in_use
        return in_use is not None and in_use.rejected and in_use.token.access_token == token.access_token

    async def _load_once(self) -> None:
        if self._in_use is None:
            stored = await self._load()
            if self._in_use is None:  # other calls have loaded meanwhile, and perhaps gone further
                self._adopt(stored)

    async def _load(self) -> Token:
        stored = await self._store.load()
        if stored is None:
            raise reauthorization("the token store is empty")
        if not isinstance(stored, Token):
            raise AuthError("the token store returned something that is not a Token")
        return concealed(stored)

    def _adopt(self, token: Token) -> Token:
        """Use `token` from now on; warn if its refresh token ends soon."""
        before = self._in_use
        self._in_use = TokenInUse(token) if before is None else before.replaced_by(token)
        if before is None or _generation(before.token) != _generation(token):
            left = grants.end_of_refresh(token) - _now()
            if left < grants.NOTICE and token.refresh_token is not None:
                _log.warning(
                    "the refresh token of seller %s ends in %d days at the latest (6 months after it was issued, 4"
                    " after its last use): authorise again before",
                    token.user_id or "?",
                    max(left.days, 0),
                )
        return token

    def _may_be_cured(self, token: str) -> bool:
        """Return False if a refresh will not help: the last one did not, or the server still takes this very token."""
        histories, now = [http.record for http in self._clients], asyncio.get_running_loop().time()
        if any(history.is_fine(token, now) for history in histories):
            return False
        in_use = self._in_use
        expected_fix = in_use is not None and in_use.expected_fix and in_use.token.access_token == token
        return not expected_fix or any(history.worked(token) for history in histories)

    def _mark_exhausted(self, stored: Token, error: AuthError) -> AuthError:
        """Never send this refresh token again from this process; return the error that says why."""
        self._exhausted = ExhaustedToken(stored.refresh_token, error)
        return self._exhausted_error()

    def _exhausted_error(self) -> AuthError:
        assert self._exhausted is not None
        return again(self._exhausted.error)

    def _warn_not_renewed(self, error: Exception) -> None:
        """Say that a refresh came to nothing, while there is a token to work with: the callers do not see an error."""
        if self._in_use is None or self._in_use.rejected:
            return
        left = (self._token.expires_at - _now()).total_seconds() / 3600
        if left > 0:
            _log.warning(
                "THE TOKENS ARE NOT RENEWED (%s): the access token of seller %s is good for %.1f h more",
                f"{type(error).__name__}: {error}" if isinstance(error, MessagesError) else type(error).__name__,
                self._token.user_id or "?",
                left,
            )


class _Refused(Exception):
    """The token endpoint has refused the application: `refusal` says why."""

    def __init__(self, refusal: AuthError) -> None:
        self.refusal = refusal
        super().__init__()


def _of_another_seller(stored: Token, grant: grants.Grant) -> AuthError:
    return explained(
        AuthError(
            f"the token endpoint answered the refresh of seller {stored.user_id} with tokens of seller"
            f" {grant.user_id}: they are not used, and nothing was replaced"
        ),
        f"Did the tokens of two sellers get mixed up? {AUTHORISE}",
    )


def _generation(token: Token) -> tuple[str | None, datetime | None]:
    return token.refresh_token, token.issued_at


def _in_words(error: Exception) -> str:
    """Return what happened; the text of an error that is not ours may quote anything."""
    return f"{type(error).__name__}: {error if isinstance(error, MessagesError) else 'see the store'}"


# By loop: the date at its time 0.
_ORIGINS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, float]] = WeakKeyDictionary()


def _now() -> datetime:
    """Return the date: the system's, or a later one where the loop's clock says that more time has passed.

    So a clock that is set back delays nothing, and a machine that slept is noticed.
    """
    loop = asyncio.get_running_loop()
    passed, wall = loop.time(), time.time()
    return datetime.fromtimestamp(max(wall, _ORIGINS.setdefault(loop, wall - passed) + passed), UTC)

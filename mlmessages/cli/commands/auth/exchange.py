"""``mlmessages auth exchange``: the code that the browser brought back becomes tokens, which are kept."""

from __future__ import annotations

import hmac
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ....escaping import one_line
from ... import options
from ...database import opened_database
from ...interruptible import run
from ...settings import application
from ...terminal import note
from .endpoint import token_endpoint
from .pending import Pending
from .places import BEGIN_AGAIN, pending_beside, token_file_or_database
from .status import print_status

if TYPE_CHECKING:
    from ....auth.grants import Redirect
    from ....auth.source import Secret
    from ....auth.token_endpoint import Http
    from ....models import Token

    Keep = Callable[[Token], Awaitable[None]]

_LONGEST_SAID: Final = 200  # characters of what a server says


@click.command(short_help="Take the address where the browser was sent.")
@options.base_url
@token_file_or_database
def exchange(place: Path | str, *, base_url: str) -> None:
    """Turn the address where the browser was sent, or the code in it, into tokens, and keep them.

    It is asked for, or read as one line from stdin. In a database the seller is taken in, beside the others.
    """
    beside = pending_beside(place)
    pending = Pending.load(beside)
    id_, secret = application()
    if id_ != pending.client_id:
        raise click.UsageError(f"The consent was asked for by another application, {pending.client_id}.")
    code = _code(_pasted(), pending)
    keeping = _in_file(place) if isinstance(place, Path) else _in_database(place)
    token = run(_exchanged(base_url, keeping, beside=beside, pending=pending, secret=secret, code=code))
    note("The tokens are kept.")
    if isinstance(place, Path) and on_windows():
        note("On Windows all who may read the folder may read them: keep the file in your user profile.")
    print_status(token)


def on_windows() -> bool:
    """Return True where mode 0600 means nothing."""
    return sys.platform == "win32"


def _pasted() -> Secret:
    """Return what is pasted or piped in, hidden: it holds a code that is good for tokens."""
    from ....auth.source import Secret

    if sys.stdin.isatty():
        return Secret(click.prompt("Address where the browser was sent (not shown)", hide_input=True, err=True))
    return Secret(sys.stdin.readline(16384))


def _code(pasted: Secret, pending: Pending) -> Secret:
    """Return the code in what was pasted; what is wrong with it is a `click.ClickException`."""
    from ....auth.grants import read_redirect

    found = read_redirect(pasted)
    if found.error:
        raise click.ClickException(_not_given(found))
    if found.code is None:
        raise click.ClickException("There is no code in that: paste the whole address where the browser was sent.")
    if "://" in pasted or found.state is not None:
        state = found.state or ""
        if not hmac.compare_digest(state.encode(), pending.state.encode()):
            raise click.ClickException(
                "The state in that address is not the one that was asked with: it belongs to another attempt, or to"
                f" another program. {BEGIN_AGAIN}"
            )
    return found.code


def _not_given(found: Redirect) -> str:
    """Return why the seller's consent did not come, and what to do."""
    from ....auth.token_endpoint import hint_for

    said = one_line(": ".join(part for part in (found.error, found.explanation) if part))[:_LONGEST_SAID].rstrip(".")
    hint = hint_for(found.error, found.explanation)
    return f"The consent was not given: {said}. {hint + ' ' if hint else ''}{BEGIN_AGAIN}"


async def _exchanged(
    base_url: str,
    keeping: AbstractAsyncContextManager[Keep],
    *,
    beside: Path,
    pending: Pending,
    secret: Secret,
    code: Secret,
) -> Token:
    from ....auth.grants import code_form
    from ....auth.in_flight import uninterrupted

    form = code_form(pending.client_id, secret, code, pending.redirect_uri, pending.verifier)
    async with token_endpoint(base_url) as http, keeping as keep:
        # A code is for one use: before it is spent, each file is written that has to be written afterwards.
        pending.save(beside)
        token = await uninterrupted(_granted(http, form, keep))
    Pending.path(beside).unlink(missing_ok=True)
    return token


async def _granted(http: Http, form: dict[str, str], keep: Keep) -> Token:
    """Spend the code, and keep what it brings."""
    from ....auth.grants import next_token
    from ....auth.in_flight import answer_awaited
    from ....auth.source import revealed
    from ....auth.token_endpoint import GrantLost, InvalidGrant, request_grant
    from ....errors import AuthError

    with answer_awaited():
        asked = datetime.now(UTC)
        try:
            grant = await request_grant(http, form)
        except InvalidGrant as error:
            raise AuthError(
                f"the code was not taken: {error.said}. It is good for some minutes and for one use. {BEGIN_AGAIN}"
            ) from None
        except GrantLost as error:
            raise AuthError(f"no usable answer ({error.said}): the code may be spent. {BEGIN_AGAIN}") from None
        for remark in grant.remarks:
            note(f"The answer is odd: {remark}.")
        token = next_token(grant, asked)
        await keep(revealed(token))
        return token


@asynccontextmanager
async def _in_file(token_file: Path) -> AsyncIterator[Keep]:
    """Give what keeps tokens in the file, which is locked, and was replaced by itself to see that it can be."""
    from ....auth.store import FileTokenStore
    from ....errors import AuthError

    store = FileTokenStore(token_file)

    async def keep(token: Token) -> None:
        if before is not None and before.user_id is not None and token.user_id not in (None, before.user_id):
            raise AuthError(
                f"{token_file.name} holds the tokens of seller {before.user_id}, and seller {token.user_id} has agreed:"
                f" nothing was replaced. Name another token file. {BEGIN_AGAIN}"
            )
        await store.save(token)

    async with store.lock():
        before = await store.load()
        if before is not None:
            await store.save(before)
        yield keep


@asynccontextmanager
async def _in_database(url: str) -> AsyncIterator[Keep]:
    """Give what keeps tokens in the database, which was asked whether it can be written."""
    from ....errors import AuthError

    async def keep(token: Token) -> None:
        if token.user_id is None:
            raise AuthError(f"the answer does not say whose tokens they are: they are not kept. {BEGIN_AGAIN}")
        await database.add(token)

    async with opened_database(url) as database:
        await database.check()
        yield keep

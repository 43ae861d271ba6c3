"""``mlmessages auth``: get a seller's consent, keep the tokens in a file, and see how long they last.

The address and the code belong together by a state and by PKCE; both are kept, 0600, beside the token file until then.
"""

from __future__ import annotations

import functools
import hmac
import json
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import click
from click.core import ParameterSource

from ...escaping import one_line
from .. import options
from ..database import opened_database, with_database
from ..interruptible import run
from ..settings import DATABASE, TOKEN_FILE, application, client_id
from ..terminal import note

if TYPE_CHECKING:
    from ...auth.grants import Redirect
    from ...auth.source import Secret
    from ...auth.store import FileTokenStore
    from ...auth.token_endpoint import Http
    from ...models import Token

    Keep = Callable[[Token], Awaitable[None]]

REDIRECT_URI: Final = "MLMESSAGES_REDIRECT_URI"
AUTH_HOST: Final = "MLMESSAGES_AUTH_HOST"
_SITES: Final = (
    *("CBT", "MLA", "MLB", "MLM", "MLC", "MCO", "MLU", "MPE", "MEC", "MLV"),
    *("MCR", "MPA", "MRD", "MBO", "MPY", "MGT", "MHN", "MNI", "MSV"),
)
_LONGEST_SAID: Final = 200  # characters of what a server says
_BEGIN_AGAIN: Final = "Begin again: mlmessages auth url"


@attrs.frozen
class Pending:
    """A consent that was asked for: what the answer must bring back, and what proves that we asked."""

    client_id: str
    redirect_uri: str
    state: Secret = attrs.field(repr=False)
    verifier: Secret = attrs.field(repr=False)

    @classmethod
    def new(cls, client_id: str, redirect_uri: str) -> Pending:
        """Return one with a state and a verifier that cannot be guessed."""
        from ...auth.source import Secret

        return cls(client_id, redirect_uri, Secret(secrets.token_urlsafe(32)), Secret(secrets.token_urlsafe(64)))

    @staticmethod
    def path(token_file: Path) -> Path:
        """Return where it is kept."""
        return token_file.with_name(token_file.name + ".pending")

    def save(self, token_file: Path) -> None:
        """Keep it for `exchange`. Raises `OSError`."""
        from ...files import replace_private

        replace_private(self.path(token_file), json.dumps(attrs.asdict(self)).encode())

    @classmethod
    def load(cls, token_file: Path) -> Pending:
        """Return what `url` kept; raise `click.UsageError` if there is nothing."""
        from ...auth.source import Secret
        from ...files import read_private, reason

        path = cls.path(token_file)
        try:
            value = {name: Secret(text) for name, text in json.loads(read_private(path)).items()}
            return cls(str(value["client_id"]), str(value["redirect_uri"]), value["state"], value["verifier"])
        except FileNotFoundError:
            raise click.UsageError(f"No consent was asked for with this token file. {_BEGIN_AGAIN}") from None
        except OSError as error:
            raise click.ClickException(f"{path.name} cannot be read: {reason(error)}. {_BEGIN_AGAIN}") from None
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise click.ClickException(f"{path.name} cannot be understood. {_BEGIN_AGAIN}") from None


def _token_file(command: Callable[..., None]) -> Callable[..., None]:
    return _token_file_option(required=True)(command)


def _token_file_or_database(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` where tokens are kept, as its first argument: a file, or the URL of a database."""

    @with_database
    @_token_file_option(required=False)
    @functools.wraps(command)
    def with_place(token_file: Path | None, *, database: str | None, **others: object) -> None:
        if token_file is not None and database is not None:
            sources = map(click.get_current_context().get_parameter_source, ("token_file", "database"))
            match [source is ParameterSource.COMMANDLINE for source in sources]:
                case [True, False]:
                    database = None
                case [False, True]:
                    token_file = None
                case _:
                    raise click.UsageError("Tokens are kept in a file or in a database: name one of them.")
        if token_file is None and database is None:
            raise click.UsageError(
                f"Say where tokens are kept: --token-file ({TOKEN_FILE}), or --database ({DATABASE})."
            )
        command(token_file or database, **others)

    return with_place


def _token_file_option(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--token-file",
            envvar=TOKEN_FILE,
            show_envvar=True,
            required=required,
            type=click.Path(path_type=Path),
            help="Where the seller's tokens are kept.",
        )
        @functools.wraps(command)
        def with_option(*, token_file: Path | None, **others: object) -> None:
            if token_file is not None and not token_file.name:
                raise click.UsageError("The token file has no name.")
            command(token_file, **others)

        return with_option

    return decorate


@click.group(short_help="Get and keep a seller's tokens.")
def auth() -> None:
    """Get a seller's consent once, and keep the tokens alive.

    \b
    mlmessages auth url        prints the address where the seller agrees
    mlmessages auth exchange   takes the address where the browser is sent then
    mlmessages auth status     says how long the tokens last
    mlmessages auth refresh    refreshes now; every other command does it when it is due

    \b
    The application comes from MLMESSAGES_CLIENT_ID and MLMESSAGES_CLIENT_SECRET, or
    a prompt. The tokens are kept in MLMESSAGES_TOKEN_FILE, readable by you alone; or,
    those of many sellers, in MLMESSAGES_DATABASE, encrypted by MLMESSAGES_KEY.
    """


@auth.command(short_help="Print the address where the seller agrees.")
@click.option(
    "--redirect-uri",
    envvar=REDIRECT_URI,
    show_envvar=True,
    required=True,
    metavar="URI",
    help="Where the browser is sent then, exactly as the application's settings have it.",
)
@click.option(
    "--site",
    type=click.Choice(_SITES, case_sensitive=False),
    default="CBT",
    show_default=True,
    metavar="SITE",
    help=f"The site of the seller's account: {', '.join(_SITES)}; CBT is Global Selling.",
)
@click.option(
    "--host",
    envvar=AUTH_HOST,
    show_envvar=True,
    metavar="HOST",
    help="The host where the seller agrees, such as auth.mercadolibre.com.ar, instead of the one of --site; or"
    " http://127.0.0.1:PORT for the sandbox.",
)
@_token_file_or_database
def url(place: Path | str, *, redirect_uri: str, site: str, host: str | None) -> None:
    """Print the address where the seller agrees, and remember what must come back.

    Nothing is sent.
    """
    from ...auth import grants

    parts = urlsplit(redirect_uri)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.fragment or not redirect_uri.isprintable():
        raise click.UsageError(
            "--redirect-uri must be a URL without a fragment, as the application's settings have it."
        )
    origin = _origin(grants.HOSTS[site.upper()] if host is None else host)
    pending = Pending.new(client_id(), redirect_uri)
    _save_pending(_pending_beside(place), pending)
    click.echo(grants.authorization_url(origin, pending.client_id, redirect_uri, pending.state, pending.verifier))
    note(
        "Open it as the seller, agree, and give the address where the browser is sent then to: mlmessages auth exchange"
    )


def _origin(host: str) -> str:
    from ...api.arguments import check_base_url

    try:
        return check_base_url(host if "://" in host else f"https://{host}")
    except ValueError:
        raise click.UsageError(
            "--host must be the name of a host, such as auth.mercadolibre.com.ar (or http://127.0.0.1:PORT)."
        ) from None


def _save_pending(token_file: Path, pending: Pending) -> None:
    from ...files import reason

    try:
        pending.save(token_file)
    except OSError as error:
        raise click.ClickException(
            f"{Pending.path(token_file).name} cannot be written beside the token file: {reason(error)}"
        ) from None


@auth.command(short_help="Take the address where the browser was sent.")
@options.base_url
@_token_file_or_database
def exchange(place: Path | str, *, base_url: str) -> None:
    """Turn the address where the browser was sent, or the code in it, into tokens, and keep them.

    It is asked for, or read as one line from stdin. In a database the seller is taken in, beside the others.
    """
    beside = _pending_beside(place)
    pending = Pending.load(beside)
    id_, secret = application()
    if id_ != pending.client_id:
        raise click.UsageError(f"The consent was asked for by another application, {pending.client_id}.")
    code = _code(_pasted(), pending)
    keeping = _in_file(place) if isinstance(place, Path) else _in_database(place)
    token = run(_exchanged(base_url, keeping, beside=beside, pending=pending, secret=secret, code=code))
    note("The tokens are kept.")
    if isinstance(place, Path) and on_windows():
        note("On Windows whoever may read the folder may read them: keep the file in your user profile.")
    _print(token)


def on_windows() -> bool:
    """Return True where mode 0600 means nothing."""
    return sys.platform == "win32"


def _pasted() -> Secret:
    """Return what is pasted or piped in, hidden: it holds a code that is good for tokens."""
    from ...auth.source import Secret

    if sys.stdin.isatty():
        return Secret(click.prompt("Address where the browser was sent (not shown)", hide_input=True, err=True))
    return Secret(sys.stdin.readline(16384))


def _code(pasted: Secret, pending: Pending) -> Secret:
    """Return the code in what was pasted; what is wrong with it is a `click.ClickException`."""
    from ...auth.grants import read_redirect

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
                f" another program. {_BEGIN_AGAIN}"
            )
    return found.code


def _not_given(found: Redirect) -> str:
    """Return why the seller's consent did not come, and what to do."""
    from ...auth.token_endpoint import hint_for

    said = one_line(": ".join(part for part in (found.error, found.explanation) if part))[:_LONGEST_SAID].rstrip(".")
    hint = hint_for(found.error, found.explanation)
    return f"The consent was not given: {said}. {hint + ' ' if hint else ''}{_BEGIN_AGAIN}"


async def _exchanged(
    base_url: str,
    keeping: AbstractAsyncContextManager[Keep],
    *,
    beside: Path,
    pending: Pending,
    secret: Secret,
    code: Secret,
) -> Token:
    from ...auth.grants import code_form
    from ...auth.in_flight import uninterrupted

    form = code_form(pending.client_id, secret, code, pending.redirect_uri, pending.verifier)
    async with _endpoint(base_url) as http, keeping as keep:
        # A code is for one use: before it is spent, each file is written that has to be written afterwards.
        _save_pending(beside, pending)
        token = await uninterrupted(_granted(http, form, keep))
    Pending.path(beside).unlink(missing_ok=True)
    return token


async def _granted(http: Http, form: dict[str, str], keep: Keep) -> Token:
    """Spend the code, and keep what it brings."""
    from ...auth.grants import next_token
    from ...auth.in_flight import answer_awaited
    from ...auth.source import revealed
    from ...auth.token_endpoint import GrantLost, InvalidGrant, request_grant
    from ...errors import AuthError

    with answer_awaited():
        asked = datetime.now(UTC)
        try:
            grant = await request_grant(http, form)
        except InvalidGrant as error:
            raise AuthError(
                f"the code was not taken: {error.said}. It is good for some minutes and for one use. {_BEGIN_AGAIN}"
            ) from None
        except GrantLost as error:
            raise AuthError(f"no usable answer ({error.said}): the code may be spent. {_BEGIN_AGAIN}") from None
        for remark in grant.remarks:
            note(f"The answer is odd: {remark}.")
        token = next_token(grant, asked)
        await keep(revealed(token))
        return token


@asynccontextmanager
async def _in_file(token_file: Path) -> AsyncIterator[Keep]:
    """Give what keeps tokens in the file, which is locked, and was replaced by itself to see that it can be."""
    from ...auth.store import FileTokenStore
    from ...errors import AuthError

    store = FileTokenStore(token_file)

    async def keep(token: Token) -> None:
        if before is not None and before.user_id is not None and token.user_id not in (None, before.user_id):
            raise AuthError(
                f"{token_file.name} holds the tokens of seller {before.user_id}, and seller {token.user_id} has agreed:"
                f" nothing was replaced. Name another token file. {_BEGIN_AGAIN}"
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
    from ...errors import AuthError

    async def keep(token: Token) -> None:
        if token.user_id is None:
            raise AuthError(f"the answer does not say whose tokens they are: they are not kept. {_BEGIN_AGAIN}")
        await database.add(token)

    async with opened_database(url) as database:
        await database.check()
        yield keep


def _pending_beside(place: Path | str) -> Path:
    """Return the file beside which the pending consent is kept: the token file, or one of the current folder."""
    return place if isinstance(place, Path) else Path("mlmessages")


@asynccontextmanager
async def _endpoint(base_url: str) -> AsyncIterator[Http]:
    """Give a way to the token endpoint, without a client."""
    from ...api.arguments import check_base_url
    from ...http.transport import Transport

    try:
        transport = Transport(check_base_url(base_url), None, 30.0)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


@auth.command(short_help="Say how long the tokens last.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; times in UTC.")
@_token_file
def status(token_file: Path, *, as_json: bool) -> None:
    """Say whose tokens there are and how long they last; never the tokens. Nothing is sent.

    The exit code is 1 when the seller must authorise again.
    """
    _print(run(_loaded(_store(token_file))), as_json=as_json)


@auth.command(short_help="Refresh the tokens now.")
@options.base_url
@_token_file
def refresh(token_file: Path, *, base_url: str) -> None:
    """Refresh the tokens now, whether it is due or not.

    Other processes that use the same file find the new ones there.
    """
    store = _store(token_file)
    run(_loaded(store))  # before a secret is asked for
    _print(run(_refreshed(base_url, store, *application())))


async def _refreshed(base_url: str, store: FileTokenStore, id_: str, secret: str) -> Token:
    from ...auth.oauth import OAuthToken

    try:
        source = OAuthToken(id_, secret, store)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    async with _endpoint(base_url) as http:
        source.bind(http)
        try:
            return await source.refresh()
        finally:
            await source.unbind(http)


def _store(token_file: Path) -> FileTokenStore:
    from ...auth.store import FileTokenStore

    return FileTokenStore(token_file)


async def _loaded(store: FileTokenStore) -> Token:
    token = await store.load()
    if token is None:
        raise click.ClickException(f"There are no tokens in this file. {_BEGIN_AGAIN}")
    return token


def _print(token: Token, *, as_json: bool = False) -> None:
    from ...auth import grants

    now, end = datetime.now(UTC), grants.end_of_refresh(token)
    usable = token.refresh_token is not None and end > now and token.refresh_refused_at is None
    if as_json:
        click.echo(
            json.dumps(
                {
                    "seller_id": token.user_id,
                    "access_token_until": _moment(token.expires_at),
                    "refresh_due": _moment(grants.half_life(token)),
                    "refresh_token_until": _moment(end) if token.refresh_token is not None else None,
                    "refresh_unanswered_since": _moment(token.refresh_sent_at) if token.refresh_sent_at else None,
                    "refresh_refused_at": _moment(token.refresh_refused_at) if token.refresh_refused_at else None,
                    "must_authorise_again": not usable,
                }
            )
        )
    else:
        left = (token.expires_at - now).total_seconds() / 3600
        click.echo(f"seller         {one_line(token.user_id or 'not known')}")
        good = (
            f"good until {_moment(token.expires_at)} ({left:.1f} h)" if left > 0 else "expired; refreshed when needed"
        )
        click.echo(f"access token   {good}")
        click.echo(f"refresh token  {_refresh_token(token, end, now)}")
    if token.refresh_sent_at is not None:
        note(
            f"A refresh was sent at {_moment(token.refresh_sent_at)} and its answer never kept: the next one finds out"
            " whether these tokens are still good."
        )
    if not usable:
        raise click.ClickException(f"The seller must authorise again. {_BEGIN_AGAIN}")
    if end - now < grants.NOTICE:
        note(f"The seller should authorise again soon: {max((end - now).days, 0)} days are left. {_BEGIN_AGAIN}")


def _refresh_token(token: Token, end: datetime, now: datetime) -> str:
    if token.refresh_token is None:
        return "none: was the application granted offline_access?"
    if token.refresh_refused_at is not None:
        return f"refused by the server on {_moment(token.refresh_refused_at)}: it is spent or revoked"
    if end <= now:
        return f"ended on {_moment(end)}"
    return f"good until {_moment(end)} at the latest, if it is not used before"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Which seller, which server, whose token: options and environment variables. The only place that reads either."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
import click
from click.core import ParameterSource

from ..escaping import one_line
from .input_text import NotText, decode
from .terminal import note

if TYPE_CHECKING:
    from ..auth.source import Secret, TokenSource
    from ..client import MessagesClient
    from ..http.limits import Limits
    from ..http.retry import Retry

TOKEN = "MLMESSAGES_TOKEN"  # noqa: S105 - the name of the variable
TOKEN_FILE = "MLMESSAGES_TOKEN_FILE"  # noqa: S105
CLIENT_ID = "MLMESSAGES_CLIENT_ID"
CLIENT_SECRET = "MLMESSAGES_CLIENT_SECRET"  # noqa: S105
SELLER_ID = "MLMESSAGES_SELLER_ID"
BASE_URL = "MLMESSAGES_BASE_URL"
API = "MLMESSAGES_API"
NOTIFICATION_SECRET = "MLMESSAGES_NOTIFICATION_SECRET"  # noqa: S105
FORWARD = "MLMESSAGES_FORWARD"
DATABASE = "MLMESSAGES_DATABASE"
KEY = "MLMESSAGES_KEY"
SECRETS = (TOKEN, CLIENT_SECRET, NOTIFICATION_SECRET, FORWARD, DATABASE, KEY)  # what no child inherits


@attrs.frozen
class Settings:
    """What a command needs to talk to the API, but for the token, which is read when it is needed and not kept."""

    seller_id: str
    base_url: str
    api: Literal["marketplace", "domestic"]
    token_file: Path | None

    def client(self, limits: Limits | None = None, retry: Retry | None = None) -> MessagesClient:
        """A client, not entered yet; misuse is a `click.UsageError` that names the setting.

        It may ask for the token at the terminal: call it outside of an event loop, where Ctrl-C ends the question.
        """
        from ..client import MessagesClient

        try:
            return MessagesClient(
                _auth(self.token_file),
                seller_id=self.seller_id,
                base_url=self.base_url,
                api=self.api,
                limits=limits,
                retry=retry,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` its `Settings` as the first argument, and the options to set them."""

    @click.option("--seller-id", envvar=SELLER_ID, show_envvar=True, required=True, metavar="ID", help="The seller.")
    @click.option(
        "--base-url",
        envvar=BASE_URL,
        show_envvar=True,
        show_default=True,
        metavar="URL",
        default="https://api.mercadolibre.com",
        help="The server.",
    )
    @click.option(
        "--api",
        envvar=API,
        show_envvar=True,
        show_default=True,
        type=click.Choice(["marketplace", "domestic"]),
        default="marketplace",
        help="Global Selling, or one country's own site.",
    )
    @click.option(
        "--token-file",
        envvar=TOKEN_FILE,
        show_envvar=True,
        type=click.Path(path_type=Path),
        help=f"The file of `mlmessages auth`, or a text file with an access token; from the environment, only where"
        f" {TOKEN} is not set.",
    )
    @functools.wraps(command)
    def with_options(
        *,
        seller_id: str,
        base_url: str,
        api: Literal["marketplace", "domestic"],
        token_file: Path | None,
        **others: object,
    ) -> None:
        command(Settings(seller_id, base_url, api, token_file), **others)

    return with_options


def check_folder(option: str, path: Path) -> None:
    """`click.UsageError` where there is no folder for the file that `option` names."""
    if not path.parent.is_dir():
        raise click.UsageError(f"{option} {one_line(click.format_filename(path))}: its folder does not exist")


def patience() -> Retry:
    """The retries of a command that runs for long.

    Who starts it again right after a kill may find the budget of the minute spent: it waits for the next one.
    """
    from ..http.retry import Retry

    return Retry(attempts=9)


def application() -> tuple[str, Secret]:
    """The client id and the client secret: from the environment, or asked for at the terminal."""
    from ..auth.source import Secret

    return client_id(), Secret(_asked(CLIENT_SECRET, "Client secret (not shown)", hide=True))


def client_id() -> str:
    """The application's id, which is no secret."""
    return _asked(CLIENT_ID, "Client id", hide=False)


def _asked(variable: str, question: str, *, hide: bool) -> str:
    if value := os.environ.get(variable):
        return value
    if not sys.stdin.isatty():
        raise click.UsageError(f"The application is not known: set {CLIENT_ID} and {CLIENT_SECRET}.")
    answer: str = click.prompt(question, hide_input=hide, err=True)
    return answer.strip()


def _auth(file: Path | None) -> str | TokenSource:
    from ..auth.source import Secret

    typed = click.get_current_context().get_parameter_source("token_file") is ParameterSource.COMMANDLINE
    if not typed and (token := Secret(os.environ.get(TOKEN, ""))):
        return token
    if file is not None:
        token = _token_in(file)
        return _renewed(file) if token.startswith("{") else token
    if sys.stdin.isatty():
        return Secret(click.prompt("Access token (not shown)", hide_input=True, err=True).strip())
    raise click.UsageError(f"There is no access token: set {TOKEN}, or {TOKEN_FILE} to a file with it.")


def _renewed(file: Path) -> TokenSource:
    """The tokens that `mlmessages auth` keeps in `file`, refreshed when that is due."""
    from ..auth.oauth import OAuthToken
    from ..auth.store import FileTokenStore

    return OAuthToken(*application(), FileTokenStore(file))


def _token_in(file: Path) -> Secret:
    from ..auth.source import Secret

    name = one_line(click.format_filename(file))
    try:
        token = Secret(decode(file.read_bytes()).strip())
    except NotText as error:
        raise click.UsageError(f"The token file is no text: {error}: {name}") from None
    except OSError as error:
        raise click.UsageError(f"The token file cannot be read: {error.strerror}: {name}") from None
    if not token:
        raise click.UsageError(f"The token file is empty: {name}")
    if not token.startswith("{") and not (token.isascii() and token.isprintable() and " " not in token):
        raise click.UsageError(f"The token file has something else than a token in it: {name}")
    if os.name == "posix" and not token.startswith("{") and file.stat().st_mode & 0o077:
        note(f"Others on this machine may read or replace the token file: chmod 600 {name}")
    return token

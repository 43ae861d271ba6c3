"""Which seller, which server, whose token: what the options and the environment say. No other file reads the latter."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs
import click
from click.core import ParameterSource

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
PROXY = "MLMESSAGES_PROXY"
DATABASE = "MLMESSAGES_DATABASE"
KEY = "MLMESSAGES_KEY"
SECRETS = (TOKEN, CLIENT_SECRET, NOTIFICATION_SECRET, FORWARD, PROXY, DATABASE, KEY)  # what no child inherits


_TRIES: Final = 4  # some 4 s in all where a connection is refused
_TRIES_OF_LONG_COMMANDS: Final = 9


@attrs.frozen
class Settings:
    """What a command needs to talk to the API. The token is not part of it: it is read when it is needed."""

    seller_id: str
    base_url: str
    api: Literal["marketplace", "domestic"]
    token_file: Path | None
    proxy: str | None = attrs.field(repr=False)  # it may hold a password

    @property
    def reads_token_file(self) -> bool:
        """Whether the token comes from `token_file`: one that was typed goes before the environment's token."""
        return self.token_file is not None and (_token_file_is_typed() or not os.environ.get(TOKEN))

    def source(self) -> TokenSource:
        """Return where the token comes from; as with `client`, it may ask for it at the terminal."""
        from ..auth.source import StaticToken

        auth = _auth(self)
        try:
            return StaticToken(auth) if isinstance(auth, str) else auth
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def client(self, limits: Limits | None = None, retry: Retry | None = None) -> MessagesClient:
        """Return a client, not entered yet; misuse is a `click.UsageError` that names the setting.

        It may ask for the token at the terminal: call it outside of an event loop, where Ctrl-C ends the question.
        `retry`: without it, that of a command whose user waits for it: a server that is not there is told in seconds.
        """
        from ..client import MessagesClient
        from ..http.retry import Retry

        try:
            return MessagesClient(
                _auth(self),
                seller_id=self.seller_id,
                base_url=self.base_url,
                api=self.api,
                limits=limits,
                retry=retry or Retry(attempts=_TRIES),
                proxy=self.proxy,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def check_folder(option: str, path: Path) -> None:
    """Raise `click.UsageError` where there is no folder for the file that `option` names."""
    if not path.parent.is_dir():
        raise click.UsageError(f"{option} {click.format_filename(path)}: its folder does not exist")


def patience() -> Retry:
    """Return the retries of a command that runs for long.

    Started again right after a kill, it may find the budget of the minute spent: then it waits for the next minute.
    """
    from ..http.retry import Retry

    return Retry(attempts=_TRIES_OF_LONG_COMMANDS)


def application() -> tuple[str, Secret]:
    """Return the client id and the client secret: from the environment, or asked for at the terminal."""
    from ..auth.source import Secret

    return client_id(), Secret(_asked(CLIENT_SECRET, "Client secret (not shown)", hide=True))


def client_id() -> str:
    """Return the application's id, which is no secret."""
    return _asked(CLIENT_ID, "Client id", hide=False)


def _asked(variable: str, question: str, *, hide: bool) -> str:
    if value := os.environ.get(variable):
        return value
    if not sys.stdin.isatty():
        raise click.UsageError(f"The application is not known: set {CLIENT_ID} and {CLIENT_SECRET}.")
    answer: str = click.prompt(question, hide_input=hide, err=True)
    return answer.strip()


def _token_file_is_typed() -> bool:
    return click.get_current_context().get_parameter_source("token_file") is ParameterSource.COMMANDLINE


def _auth(settings: Settings) -> str | TokenSource:
    from ..auth.source import Secret

    if settings.reads_token_file:
        assert settings.token_file is not None
        token = _token_in(settings.token_file)
        return _renewed(settings.token_file) if token.startswith("{") else token
    if token := Secret(os.environ.get(TOKEN, "")):
        return token
    if sys.stdin.isatty():
        return Secret(click.prompt("Access token (not shown)", hide_input=True, err=True).strip())
    raise click.UsageError(f"There is no access token: set {TOKEN}, or {TOKEN_FILE} to a file with it.")


def _renewed(file: Path) -> TokenSource:
    """Return the tokens that `mlmessages auth` keeps in `file`, refreshed when that is due."""
    from ..auth.oauth import OAuthToken
    from ..auth.store import FileTokenStore

    return OAuthToken(*application(), FileTokenStore(file))


def _token_in(file: Path) -> Secret:
    from ..auth.source import Secret

    name = click.format_filename(file)
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
    if os.name == "posix" and not token.startswith("{"):
        if file.stat().st_mode & 0o077:
            note(f"Others on this machine may read or replace the token file: chmod 600 {name}")
        elif file.is_symlink():
            note(f"The token file is a symbolic link; a change of the link changes the token: {name}")
    return token

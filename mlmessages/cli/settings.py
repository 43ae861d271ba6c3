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

if TYPE_CHECKING:
    from ..client import MessagesClient

TOKEN = "MLMESSAGES_TOKEN"  # noqa: S105 - the name of the variable
TOKEN_FILE = "MLMESSAGES_TOKEN_FILE"  # noqa: S105
SELLER_ID = "MLMESSAGES_SELLER_ID"
BASE_URL = "MLMESSAGES_BASE_URL"
API = "MLMESSAGES_API"


@attrs.frozen
class Settings:
    """What a command needs to talk to the API, but for the token, which is read when it is needed and not kept."""

    seller_id: str
    base_url: str
    api: Literal["marketplace", "domestic"]
    token_file: Path | None

    def client(self) -> MessagesClient:
        """A client, not entered yet; misuse is a `click.UsageError` that names the setting.

        It may ask for the token at the terminal: call it outside of an event loop, where Ctrl-C ends the question.
        """
        from ..client import MessagesClient

        try:
            return MessagesClient(
                _token(self.token_file), seller_id=self.seller_id, base_url=self.base_url, api=self.api
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
        help=f"A text file with the access token, where {TOKEN} is not set.",
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


def _token(file: Path | None) -> str:
    if token := os.environ.get(TOKEN):
        return token
    if file is not None:
        return _token_in(file)
    if sys.stdin.isatty():
        prompted: str = click.prompt("Access token (not shown)", hide_input=True, err=True)
        return prompted.strip()
    raise click.UsageError(f"There is no access token: set {TOKEN}, or {TOKEN_FILE} to a file with it.")


def _token_in(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        token = ""
    except OSError as error:
        raise click.UsageError(
            f"The token file cannot be read: {error.strerror}: {click.format_filename(file)}"
        ) from None
    if not token:
        raise click.UsageError(f"The token file is no text with a token in it: {click.format_filename(file)}")
    return token

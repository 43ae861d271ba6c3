"""Where tokens are kept: the options of the commands of `mlmessages auth`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from ...database import with_database
from ...settings import DATABASE, TOKEN_FILE

BEGIN_AGAIN: Final = "Begin again: mlmessages auth url"


def token_file(command: Callable[..., None]) -> Callable[..., None]:
    return _token_file_option(required=True)(command)


def token_file_or_database(command: Callable[..., None]) -> Callable[..., None]:
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


def pending_beside(place: Path | str) -> Path:
    """Return the file beside which the pending consent is kept: the token file, or one of the current folder."""
    return place if isinstance(place, Path) else Path("mlmessages")

"""The option ``--database``, and the `Database` that it names: the URL's password and the key never stand in `ps`."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from .settings import DATABASE, KEY

if TYPE_CHECKING:
    from ..postgres.database import Database

F = TypeVar("F", bound=Callable[..., object])

_CLEAR_TEXT: Final = "none"
_PASSWORD: Final = re.compile(r"\bpassword\s*=", re.IGNORECASE)


def with_database(command: F) -> F:
    """Give `command` the parameter `database`: a URL, or None; `opened_database` makes it a `Database`."""
    return click.option(
        "--database",
        envvar=DATABASE,
        show_envvar=True,
        metavar="URL",
        callback=_without_password,
        help=f"Of PostgreSQL, for many sellers. A URL with a password is taken from {DATABASE} alone; {KEY} has the"
        f" Fernet key (or several, parted by commas; or `{_CLEAR_TEXT}`: clear text).",
    )(command)


def required_database(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the parameter `database`, without which it is misuse."""

    @functools.wraps(command)
    def with_url(*, database: str | None, **others: object) -> None:
        if database is None:
            raise click.UsageError(f"Which database? Set {DATABASE}, or --database URL.")
        command(database=database, **others)

    return with_database(with_url)


def _without_password(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    from ..auth.source import Secret

    typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    if url and typed and _has_password(url):
        raise click.UsageError(f"A password on the command line is shown to all users by `ps`: set {DATABASE} instead.")
    return Secret(url) if url else None


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None or _PASSWORD.search(url) is not None
    except ValueError:
        return True  # it cannot be read: perhaps


def opened_database(url: str) -> Database:
    """Return the database, which is to be entered; what is wrong with URL or key is a `click.UsageError`."""
    from ..auth.source import Secret
    from ..postgres.database import Database

    key = Secret(os.environ.get(KEY, ""))
    if not key:
        raise click.UsageError(
            f"{KEY} is not set: a Fernet key, which encrypts tokens and messages, or `{_CLEAR_TEXT}` for clear text."
            ' Make one with: python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
        )
    try:
        return Database(url, key=None if key == _CLEAR_TEXT else key)
    except (ValueError, RuntimeError) as error:
        raise click.UsageError(str(error)) from None

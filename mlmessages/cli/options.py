"""The options that several commands share, each spelled once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import click

from . import narration
from .settings import API, BASE_URL, PROXY, SELLER_ID, TOKEN, TOKEN_FILE, Settings

Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]

FILE: Final = click.Path(dir_okay=False, path_type=Path)  # one that need not exist yet
AS_PROXY_OF_THE_ENVIRONMENT: Final = "environment"


def _verbose(ctx: click.Context, _: click.Parameter, times: int) -> None:
    if times and not ctx.resilient_parsing:
        narration.say_more(times)


verbose: Decorator = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_verbose,
    help="Say each request in a line; -vv: with the time, and what aiohttp and asyncio log.",
)

base_url: Decorator = click.option(
    "--base-url",
    envvar=BASE_URL,
    show_envvar=True,
    show_default=True,
    metavar="URL",
    default="https://api.mercadolibre.com",
    help="The server.",
)

journal: Decorator = click.option(
    "--journal",
    type=FILE,
    required=True,
    metavar="FILE",
    help="The journal: what is still to be read or written. One file for each seller. Keep it.",
)


def concurrency(default: int, help_text: str) -> Decorator:
    """Return the option ``--concurrency``."""
    return click.option(
        "--concurrency", type=click.IntRange(1, 32), default=default, show_default=True, metavar="N", help=help_text
    )


def seconds(name: str, default: float, help_text: str, *, least: float = 1.0) -> Decorator:
    """Return an option for a span of time of `least` seconds to a day."""
    kind = click.FloatRange(least, 86_400)
    return click.option(name, type=kind, default=default, show_default=True, metavar="S", help=help_text)


def port(name: str, default: int, help_text: str) -> Decorator:
    """Return an option for a TCP port."""
    kind = click.IntRange(0, 65535)
    return click.option(name, type=kind, default=default, show_default=True, metavar="N", help=help_text)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` its `Settings` as the first argument, and the options to set them."""
    return _with_settings(command, of_one_seller=True)


def with_settings_of_many(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_settings`, but the seller may be left out: then `Settings.seller_id` is empty."""
    return _with_settings(command, of_one_seller=False)


def _with_settings(command: Callable[..., None], *, of_one_seller: bool) -> Callable[..., None]:
    @click.option(
        "--seller-id",
        envvar=SELLER_ID,
        show_envvar=True,
        required=of_one_seller,
        metavar="ID",
        help="The seller." if of_one_seller else "The seller; with --database, only this one.",
    )
    @base_url
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
        help="The file of `mlmessages auth`, or a text file with an access token; from the environment, only where"
        f" {TOKEN} is not set.",
    )
    @click.option(
        "--proxy",
        envvar=PROXY,
        show_envvar=True,
        metavar="URL",
        help=f"An HTTP proxy; `{AS_PROXY_OF_THE_ENVIRONMENT}` is the one that HTTPS_PROXY names. A URL with a password"
        " belongs in the variable.",
    )
    @verbose
    @functools.wraps(command)
    def with_options(
        *,
        seller_id: str | None,
        base_url: str,
        api: Literal["marketplace", "domestic"],
        token_file: Path | None,
        proxy: str | None,
        **others: Any,
    ) -> None:
        if proxy == AS_PROXY_OF_THE_ENVIRONMENT:
            proxy = _proxy_of_the_environment()
        command(Settings(seller_id or "", base_url, api, token_file, proxy), **others)

    return with_options


def _proxy_of_the_environment() -> str:
    from urllib.request import getproxies

    named = getproxies()
    found = named.get("https") or named.get("all")
    if not found:
        raise click.UsageError("--proxy environment: no HTTPS_PROXY is set")
    return found

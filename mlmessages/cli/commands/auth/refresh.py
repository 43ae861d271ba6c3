"""``mlmessages auth refresh``: new tokens now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ... import options
from ...interruptible import run
from ...settings import application
from .endpoint import token_endpoint
from .places import token_file
from .status import file_store, loaded, print_status

if TYPE_CHECKING:
    from ....auth.store import FileTokenStore
    from ....models import Token


@click.command(short_help="Refresh the tokens now.")
@options.base_url
@token_file
def refresh(token_file: Path, *, base_url: str) -> None:
    """Refresh the tokens now, whether it is due or not.

    Other processes that use the same file find the new ones there.
    """
    store = file_store(token_file)
    run(loaded(store))  # before a secret is asked for
    print_status(run(_refreshed(base_url, store, *application())))


async def _refreshed(base_url: str, store: FileTokenStore, id_: str, secret: str) -> Token:
    from ....auth.oauth import OAuthToken

    try:
        source = OAuthToken(id_, secret, store)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    async with token_endpoint(base_url) as http:
        source.bind(http)
        try:
            return await source.refresh()
        finally:
            await source.unbind(http)

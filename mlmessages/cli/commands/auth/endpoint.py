"""A way to the token endpoint for commands, which have no client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ....auth.token_endpoint import Http


@asynccontextmanager
async def token_endpoint(base_url: str) -> AsyncIterator[Http]:
    """Give a way to the token endpoint, without a client."""
    from ....api.arguments import check_base_url
    from ....http.transport import Transport

    try:
        transport = Transport(check_base_url(base_url), None, 30.0)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()

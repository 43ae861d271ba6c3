"""``mlmessages sandbox``: the sandbox as a server, to try things against."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click

from ..interruptible import run
from ..settings import BASE_URL, SELLER_ID, TOKEN
from ..terminal import counted, not_opened, note

if TYPE_CHECKING:
    from ...testing import Server


@click.command(short_help="Run a server that behaves like the real one, to try things against.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="The port on 127.0.0.1; without it, or with 0, a free one is taken.",
)
@click.option(
    "--packs",
    type=click.IntRange(0, 1_000_000),
    default=2500,
    show_default=True,
    metavar="N",
    help="How many unread conversations there are.",
)
def sandbox(*, port: int, packs: int) -> None:
    """Run the documented API with invented conversations on this machine, until Ctrl-C.

    What to set in another terminal is printed on stdout, as commands of its shell.
    """
    run(_serve(port, packs))


async def _serve(port: int, packs: int) -> None:
    from ...testing import Sandbox

    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(Sandbox(packs=packs).serve(port=port))
        except OSError as error:
            raise not_opened("127.0.0.1", port, error) from None
        has = counted(packs, "unread conversation")
        note(f"The sandbox is at {server.base_url}; its seller {server.seller_id} has {has}.")
        note("In another terminal:\n")
        for line in _environment(server):
            click.echo(line)
        note("mlmessages unread\n\nCtrl-C ends it.")
        await asyncio.Event().wait()


def _environment(server: Server) -> Iterator[str]:
    """The settings of a client, as the usual shell of the system sets them."""
    form = '$env:{} = "{}"' if os.name == "nt" else "export {}={}"
    for name, value in ((BASE_URL, server.base_url), (SELLER_ID, server.seller_id), (TOKEN, server.token)):
        yield form.format(name, value)

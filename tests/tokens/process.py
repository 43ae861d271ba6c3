"""One process that needs the seller's token, and dies where it is told to.

``python process.py PLACE BASE_URL CLIENT_ID CLIENT_SECRET STEP``: PLACE is a token file, or the URL of a database whose
key is in MLMESSAGES_KEY. At the crash point STEP (its number from 1, or its name; 0: none) the process kills itself.

It waits for a line before it begins, so that several can begin at once. It prints the access token, or the name of the
error.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlmessages import FileTokenStore, MessagesClient, OAuthToken, TokenStore, failpoints
from mlmessages.errors import MessagesError

SELLER = "700100200"


def tell(line: str) -> None:
    """Say it to the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def die_at(step: str) -> None:
    """SIGKILL at that crash point: its number, or its name."""
    count = 0

    def hook(name: str) -> None:
        nonlocal count
        count += 1
        if name == os.environ.get("TELL"):
            tell(name)
        if step in (str(count), name):
            tell(name)
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.hook = hook


@asynccontextmanager
async def opened(place: str) -> AsyncIterator[TokenStore]:
    """Open the file or the database with the seller's tokens."""
    if "://" not in place:
        yield FileTokenStore(place)
        return
    from mlmessages.postgres.database import Database

    async with Database(place, key=os.environ["MLMESSAGES_KEY"]) as database:
        yield database.tokens(SELLER)


async def main(place: str, base_url: str, client_id: str, client_secret: str) -> None:
    """Ask for the token once."""
    async with opened(place) as store:
        source = OAuthToken(client_id, client_secret, store)
        async with MessagesClient(source, seller_id=SELLER, base_url=base_url):
            tell("ready")
            sys.stdin.readline()
            if "FULL_DISK" in os.environ:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
            try:
                tell(await source.token())
            except MessagesError as error:
                tell(f"{type(error).__name__} {error}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    die_at(sys.argv.pop())
    asyncio.run(main(*sys.argv[1:]))

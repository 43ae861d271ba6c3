"""One process that needs the seller's token, and dies where it is told to.

``python process.py FILE BASE_URL CLIENT_ID CLIENT_SECRET STEP``: at the crash point number STEP (from 1; 0: none) it kills
itself. It waits for a line before it begins, so that several can begin at once. It prints the access token, or the name
of the error.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys

from mlmessages import FileTokenStore, MessagesClient, OAuthToken, failpoints
from mlmessages.errors import MessagesError


def tell(line: str) -> None:
    """Say it to the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def die_at(step: int) -> None:
    """SIGKILL at that crash point."""
    count = 0

    def hook(name: str) -> None:
        nonlocal count
        count += 1
        if name == os.environ.get("TELL"):
            tell(name)
        if count == step:
            tell(name)
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.hook = hook


async def main(file: str, base_url: str, client_id: str, client_secret: str) -> None:
    """Ask for the token once."""
    source = OAuthToken(client_id, client_secret, FileTokenStore(file))
    async with MessagesClient(source, seller_id=700100200, base_url=base_url):
        tell("ready")
        sys.stdin.readline()
        if "FULL_DISK" in os.environ:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            tell(await source.token())
        except MessagesError as error:
            tell(f"{type(error).__name__} {error}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    die_at(int(sys.argv.pop()))
    asyncio.run(main(*sys.argv[1:]))

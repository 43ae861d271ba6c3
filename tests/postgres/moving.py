"""A program that moves a journal, and ends without a goodbye where it is told to."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mlmessages import failpoints
from mlmessages.postgres.database import Database
from mlmessages.postgres.move import move


async def main(url: str, path: str, place: str) -> None:
    """Move `path`; end at `place`."""

    def end(name: str) -> None:
        if name == place:
            os._exit(77)

    failpoints.hook = end
    async with Database(url, key=None) as database:
        await move(Path(path), database)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

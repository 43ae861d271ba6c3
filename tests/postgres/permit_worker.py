"""A process that sends requests on a shared budget: `python permit_worker.py '{"database": …, "requests": …, …}'`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mlmessages import Database, MessagesClient


async def main(task: dict[str, Any]) -> None:
    async with (
        Database(task["database"], key=None) as database,
        MessagesClient(
            task["token"],
            seller_id=task["seller"],
            base_url=task["url"],
            limits=database.limits(1, reads=task["reads"], period=task["period"], per_second=None),
        ) as client,
    ):
        await asyncio.gather(*(client.page(task["pack"]) for _ in range(task["requests"])))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

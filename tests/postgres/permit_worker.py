"""A process that sends requests on a shared budget: `python permit_worker.py '{"database": …, "requests": …, …}'`."""

from __future__ import annotations

import asyncio
import json
import sys

from mlmessages import MessagesClient
from mlmessages.postgres.address import Address
from mlmessages.postgres.connection import Statements
from mlmessages.postgres.permits import limits


async def main(task: dict[str, str | int | float]) -> None:
    statements = Statements(Address(str(task["database"])), "mlmessages")
    await statements.open()
    budget = limits(statements, 1, reads=int(task["reads"]), period=float(task["period"]), per_second=None)
    async with MessagesClient(
        str(task["token"]), seller_id=str(task["seller"]), base_url=str(task["url"]), limits=budget
    ) as client:
        await asyncio.gather(*(client.page(str(task["pack"])) for _ in range(int(task["requests"]))))
    await budget.close()
    await statements.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

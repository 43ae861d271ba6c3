"""One worker of ``mlmessages demo --fleet``: a program as README writes it, which prints what its handler is given."""

from __future__ import annotations

import asyncio
import os
import sys

from .. import Database, Delivery, Fleet
from .fleet_demo import PERIOD, READS, SETTLE_TIME


async def on_delivery(delivery: Delivery) -> None:
    line = " ".join([delivery.pack_id, *(message.id for message in delivery.messages)])
    os.write(1, f"{line}\n".encode())  # one write: whole or not at all


async def main(name: str, schema: str) -> None:
    env = os.environ
    async with Database(
        env["MLMESSAGES_DATABASE"], key=env["MLMESSAGES_KEY"], schema=schema, name=name, lease=3.0
    ) as database:
        limits = database.limits(env["MLMESSAGES_CLIENT_ID"], reads=READS, period=PERIOD, per_second=None)
        await Fleet(
            database,
            env["MLMESSAGES_CLIENT_ID"],
            env["MLMESSAGES_CLIENT_SECRET"],
            base_url=env["MLMESSAGES_BASE_URL"],
            limits=limits,
            settle_time=SETTLE_TIME,
        ).run(on_delivery)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

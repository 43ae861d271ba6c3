"""One machine of a fleet, as README writes it; what its handler is given goes to a file of its own."""

from __future__ import annotations

import asyncio
import os
import sys

from mlmessages import Database, Delivery, Fleet


async def main(name: str) -> None:
    env = os.environ
    lines = os.open(env["DELIVERED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def on_delivery(delivery: Delivery) -> None:
        text = "".join(f"{name} {delivery.seller_id} {message.id}\n" for message in delivery.messages)
        os.write(lines, text.encode())  # one write, whole or not at all

    async with Database(env["MLMESSAGES_DATABASE"], key=env["MLMESSAGES_KEY"], name=name, lease=3.0) as database:
        fleet = Fleet(
            database,
            env["MLMESSAGES_CLIENT_ID"],
            env["MLMESSAGES_CLIENT_SECRET"],
            base_url=env["MLMESSAGES_BASE_URL"],
            limits=database.limits(env["MLMESSAGES_CLIENT_ID"], reads=100, period=2.0, per_second=None),
            settle_time=1.0,
        )
        await fleet.run(on_delivery, grace=5.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""A FastAPI application that takes notifications and handles messages: `uvicorn fastapi_service:app --no-access-log`.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID, MLMESSAGES_APP_ID, MLMESSAGES_NOTIFICATION_SECRET (the end of the
address in the application's settings) and, for the sandbox, MLMESSAGES_BASE_URL. One worker process: a journal has one
user at a time.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mlmessages import Delivery, Inbox, MessagesClient
from mlmessages.asgi import NotificationApp

env = os.environ
client = MessagesClient(
    env["MLMESSAGES_TOKEN"],
    seller_id=env["MLMESSAGES_SELLER_ID"],
    base_url=env.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
)
inbox = Inbox(client, "inbox.db")


async def on_delivery(delivery: Delivery) -> None:
    for message in delivery.unread:
        print(delivery.pack_id, message.text, flush=True)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with client, inbox:
        running = asyncio.create_task(inbox.run(on_delivery))
        yield
        running.cancel()
        await asyncio.wait([running])


app = FastAPI(lifespan=lifespan)
app.mount(
    "/notifications",
    NotificationApp(inbox, secret=env["MLMESSAGES_NOTIFICATION_SECRET"], application_id=env["MLMESSAGES_APP_ID"]),
)

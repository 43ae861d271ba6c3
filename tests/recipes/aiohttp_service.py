"""An aiohttp.web application that takes notifications and handles messages: `python aiohttp_service.py`.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID, MLMESSAGES_APP_ID, MLMESSAGES_NOTIFICATION_SECRET (the end of the
address in the application's settings), PORT and, for the sandbox, MLMESSAGES_BASE_URL.
"""

import asyncio
import os
from collections.abc import AsyncIterator

from aiohttp import web

from mlmessages import Delivery, Inbox, MessagesClient
from mlmessages.web import NotificationRoutes


async def on_delivery(delivery: Delivery) -> None:
    for message in delivery.unread:
        print(delivery.pack_id, message.text, flush=True)


async def application() -> web.Application:
    env = os.environ
    client = MessagesClient(
        env["MLMESSAGES_TOKEN"],
        seller_id=env["MLMESSAGES_SELLER_ID"],
        base_url=env.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
    )
    inbox = Inbox(client, "inbox.db")

    async def service(_: web.Application) -> AsyncIterator[None]:
        async with client, inbox:
            running = asyncio.create_task(inbox.run(on_delivery))
            yield
            running.cancel()
            await asyncio.wait([running])

    app = web.Application()
    app.cleanup_ctx.append(service)
    secret, app_id = env["MLMESSAGES_NOTIFICATION_SECRET"], env["MLMESSAGES_APP_ID"]
    app.add_routes(NotificationRoutes(inbox, secret=secret, application_id=app_id))
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), access_log=None)

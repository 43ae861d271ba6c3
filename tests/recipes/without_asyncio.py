"""Use the library from a program without asyncio, such as a script or a Django command: `python without_asyncio.py`.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID and, for the sandbox, MLMESSAGES_BASE_URL. Each call of `asyncio.run`
opens a client, does one piece of work and closes it. That is honest and enough for a command or a cron job. For a
service, run `mlmessages serve --exec` or `--forward` beside it instead, and let it call your program. In Django, this
is the `handle` of a management command; `Message.objects.update_or_create(id=...)` makes a repetition harmless.
"""

import asyncio
import os

from mlmessages import Inbox, MessagesClient


def save(pack_id: str, message_id: str, text: str | None) -> None:
    """Store it where your program keeps its data; here it is printed."""
    print(pack_id, message_id, text)


async def take_new_messages() -> int:
    client = MessagesClient(
        os.environ["MLMESSAGES_TOKEN"],
        seller_id=os.environ["MLMESSAGES_SELLER_ID"],
        base_url=os.environ.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
    )
    async with client, Inbox(client, "inbox.db") as inbox:
        async for delivery in inbox.drain():
            for message in delivery.messages:
                # `to_thread`: a database call without asyncio must not hold up the requests
                await asyncio.to_thread(save, delivery.pack_id, message.id, message.text)
            await delivery.ack()
        return inbox.report.messages


def main() -> None:
    print(asyncio.run(take_new_messages()), "messages")


if __name__ == "__main__":
    main()

"""Answer each buyer once, whatever fails: `python answer_once.py`, until Ctrl-C.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID and, for the sandbox, MLMESSAGES_BASE_URL. The journal is in inbox.db.
`delivery.once` is on the disk before the answer leaves: where this program fails or is killed, a buyer may get no
answer, and never gets two.
"""

import asyncio
import contextlib
import os

from mlmessages import Delivery, Inbox, MessagesClient
from mlmessages.errors import Forbidden


async def main() -> None:
    client = MessagesClient(
        os.environ["MLMESSAGES_TOKEN"],
        seller_id=os.environ["MLMESSAGES_SELLER_ID"],
        base_url=os.environ.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
    )

    async def answer(delivery: Delivery) -> None:
        if not delivery.unread:
            return
        try:
            async with delivery.once("thanks") as first:
                if first:
                    await client.send(delivery.pack_id, "Thank you for your message. We will answer today.")
                    print(delivery.pack_id, "answered", flush=True)
        except Forbidden as error:  # the conversation is blocked: nothing was sent, and nothing can be
            print(delivery.pack_id, error.message, flush=True)

    async with client, Inbox(client, "inbox.db") as inbox:
        await inbox.run(answer)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: what is in hand was finished
        asyncio.run(main())

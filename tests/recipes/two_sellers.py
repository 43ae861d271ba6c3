"""Drain two sellers of one application on one request budget: `python two_sellers.py`.

Settings: MLMESSAGES_SELLERS, such as `700100200:token,700100201:token`, and, for the sandbox, MLMESSAGES_BASE_URL. The
500 requests a minute are the application's: both clients share one `Limits`, which gives them out in turns.
"""

import asyncio
import os

from mlmessages import Limits, MessagesClient


async def drain(seller_id: str, token: str, limits: Limits) -> None:
    base_url = os.environ.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com")
    async with MessagesClient(token, seller_id=seller_id, base_url=base_url, limits=limits) as client:
        async with client.drain() as drain:
            async for conversation in drain:
                print(seller_id, conversation.pack_id, len(conversation.unread))


async def main() -> None:
    limits = Limits()
    sellers = [entry.split(":", 1) for entry in os.environ["MLMESSAGES_SELLERS"].split(",")]
    await asyncio.gather(*(drain(seller_id, token, limits) for seller_id, token in sellers))
    print(limits.used, "of", limits.reads, "reads of this minute are used")


if __name__ == "__main__":
    asyncio.run(main())

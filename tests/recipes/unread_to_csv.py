"""Write every unread message into a CSV file: `python unread_to_csv.py messages.csv`.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID and, for the sandbox, MLMESSAGES_BASE_URL. A conversation is marked as
read when its rows are in the file. Run it again after an interruption: it appends what is still unread.
"""

import asyncio
import csv
import os
import sys
from pathlib import Path

from mlmessages import MessagesClient

COLUMNS = ["pack_id", "message_id", "created", "sender_id", "text"]


async def main(path: Path) -> None:
    client = MessagesClient(
        os.environ["MLMESSAGES_TOKEN"],
        seller_id=os.environ["MLMESSAGES_SELLER_ID"],
        base_url=os.environ.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
    )
    new = not path.exists()
    # utf-8-sig: spreadsheets read accents then
    with path.open("a", newline="", encoding="utf-8-sig" if new else "utf-8") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(COLUMNS)
        async with client, client.drain() as drain:
            async for conversation in drain:
                for message in conversation.unread:
                    text = message.text or ""
                    if text.startswith(("=", "+", "-", "@")):
                        text = "'" + text  # a spreadsheet would take it for a formula
                    rows.writerow([conversation.pack_id, message.id, message.created, message.sender_id, text])
                file.flush()
            print(drain.report)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

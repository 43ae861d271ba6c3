"""Save the attachments of a conversation: `python save_attachments.py PACK FOLDER`.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID and, for the sandbox, MLMESSAGES_BASE_URL. Nothing is marked as read.
A file gets a name of this program's making: names that a buyer chose are not used as paths. Run it again after an
interruption: what is there is not loaded again. `mlmessages download` is the same as a command.
"""

import asyncio
import os
import sys
from pathlib import Path

from mlmessages import MessagesClient
from mlmessages.errors import MessagesError


async def main(pack_id: str, folder: Path) -> None:
    client = MessagesClient(
        os.environ["MLMESSAGES_TOKEN"],
        seller_id=os.environ["MLMESSAGES_SELLER_ID"],
        base_url=os.environ.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
        timeout=300.0,  # for a whole file
    )
    folder.mkdir(exist_ok=True)
    async with client:
        async for message in client.messages(pack_id):
            for number, attachment in enumerate(message.attachments, 1):
                ending = Path(attachment.filename or "").suffix
                path = folder / f"{message.id}-{number}{ending}"
                if path.exists():
                    continue
                try:
                    await client.download(attachment, path, site_id=message.site_id)
                except (MessagesError, ValueError) as error:  # gone for good, or the server warns of it
                    print(message.id, number, error)
                else:
                    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

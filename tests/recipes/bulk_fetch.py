"""Read many conversations with a progress bar, and go on after an interruption: `python bulk_fetch.py packs.txt out.jsonl`.

Settings: MLMESSAGES_TOKEN, MLMESSAGES_SELLER_ID and, for the sandbox, MLMESSAGES_BASE_URL. Nothing is marked as read.
Each conversation is one line, written whole; what is in the file is not read again. `mlmessages fetch` is the same as
a command, with more care for a torn last line.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from rich.progress import track

from mlmessages import MessagesClient
from mlmessages.models import PackFailure


async def main(packs: Path, out: Path) -> None:
    client = MessagesClient(
        os.environ["MLMESSAGES_TOKEN"],
        seller_id=os.environ["MLMESSAGES_SELLER_ID"],
        base_url=os.environ.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com"),
    )
    done = {json.loads(line)["pack_id"] for line in out.read_text().splitlines()} if out.exists() else set()
    wanted = [pack for pack in packs.read_text().split() if pack not in done]
    failed = 0
    with out.open("a", encoding="utf-8") as file:
        async with client:
            results = client.fetch(wanted, concurrency=16)
            for _ in track(wanted, description="conversations"):
                result = await anext(results)
                if isinstance(result, PackFailure):
                    failed += 1
                    print(result.pack_id, result.error, file=sys.stderr)
                    continue
                line = {"pack_id": result.pack_id, "messages": [message.raw for message in result.messages]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(len(wanted) - failed, "read,", failed, "failed,", len(done), "were there")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""`mlmessages fetch` over 5,000 conversations, killed ten times at random, and run again each time.

    python benchmarks/resume.py                # some seven minutes: the command keeps to 500 requests a minute

The sandbox is served here, the command is a process. Each SIGKILL comes when a random number of further conversations
is in the file, from none to 416. At the end: how many messages are missing, how many stand in the file twice, and how
many requests were repeated because of a kill.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from mlmessages.testing import Behaviour, Sandbox, Server


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


async def fetch(server: Server, directory: Path, kill_after: int | None) -> int | None:
    """Run the command; it is killed when so many more lines are in the file."""
    out = directory / "out.jsonl"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mlmessages.cli", "fetch", "--packs", str(directory / "packs"), "--out", str(out)),
        stderr=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "MLMESSAGES_TOKEN": server.token,
            "MLMESSAGES_SELLER_ID": str(server.seller_id),
            "MLMESSAGES_BASE_URL": server.base_url,
        },
    )
    before = lines(out)
    while process.returncode is None and kill_after is not None:
        if lines(out) >= before + kill_after:
            process.send_signal(signal.SIGKILL)
            break
        await asyncio.sleep(0.002)
    return await process.wait()


async def main(packs: int, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    sandbox = Sandbox(packs, messages=3, behaviour=Behaviour(latency=0.02))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "packs").write_text("\n".join(sandbox.pack_ids()))
        async with sandbox.serve() as server:
            for n in range(kills):
                code = await fetch(server, directory, dice.randint(0, packs // (kills + 2)))
                print(f"kill {n + 1}: {lines(directory / 'out.jsonl'):,} in the file", file=sys.stderr)
                assert code == -signal.SIGKILL, code
            assert await fetch(server, directory, None) == 0
        found = Counter(
            row["raw"]["id"]
            for line in (directory / "out.jsonl").read_text().splitlines()
            for row in json.loads(line)["messages"]
        )
    asked = Counter(entry.pack_id for entry in sandbox.log if entry.kind == "peek")
    print(
        f"\n{packs:,} packs, {kills} kills: {len(sandbox.message_ids() - set(found))} messages missing,"
        f" {sum(found.values()) - len(found)} twice in the file; {asked.total() - len(asked)} requests repeated,"
        f" at most {max(asked.values())} for a pack"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    asyncio.run(main(told.packs, told.kills, told.seed))

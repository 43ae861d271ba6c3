"""Memory of a client that drains 20,000 packs, and of one that drains 1,000, whose consumer keeps nothing.

    python benchmarks/memory.py

Each client, and the sandbox that it drains, is a process of its own. Two runs of each size: for the peak of resident
memory (where the system tells it), and for the peak of what Python allocated, which `tracemalloc` slows down.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

SIZES = (1000, 20000)
SELLER = 700100200


async def serve(packs: int) -> None:
    from mlmessages.testing import Sandbox

    async with Sandbox(packs, seller_id=SELLER).serve() as server:
        print(server.base_url, server.token, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def drain(base_url: str, token: str) -> int:
    from mlmessages import Limits, MessagesClient

    limits = Limits(reads=10**6, per_second=None)
    async with (
        MessagesClient(token, seller_id=SELLER, base_url=base_url, limits=limits) as client,
        client.drain() as conversations,
    ):
        return sum([len(conversation.messages) async for conversation in conversations])


def peak_resident() -> float:
    """In MB."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def client(base_url: str, token: str, measure: str) -> None:
    if measure == "resident":
        found = asyncio.run(drain(base_url, token))
        peak = peak_resident()
    else:
        import tracemalloc

        import mlmessages

        assert mlmessages.MessagesClient  # load it first: modules are not what is measured
        tracemalloc.start()
        found = asyncio.run(drain(base_url, token))
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    print(found, peak)


def measured(packs: int, measure: str) -> float:
    """The peak in MB."""
    command = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen(
        [*command, "--serve", str(packs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        where = server.stdout.readline().split()
        ran = subprocess.run([*command, "--client", *where, measure], check=True, capture_output=True, text=True)
        server.stdin.close()
    found, peak = ran.stdout.split()
    assert int(found) == packs, "a message of each pack"
    return float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    if options.client:
        client(*options.client)
        return
    few, many = SIZES
    print(f"| peak, MB | {few:,} packs | {many:,} packs | difference |\n|---|---|---|---|")
    for measure in ("resident", "allocated"):
        if measure == "resident" and sys.platform == "win32":
            continue
        small, large = (measured(packs, measure) for packs in SIZES)
        print(f"| {measure} | {small:.1f} | {large:.1f} | {large - small:.1f} |", flush=True)


if __name__ == "__main__":
    main()

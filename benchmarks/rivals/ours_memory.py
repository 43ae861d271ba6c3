"""`client.fetch` over 100,000 packs, for a consumer that keeps nothing: resident memory after 1,000 and at the end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path

from job import peak_memory

from mlmessages import Limits, MessagesClient
from mlmessages.models import PackFailure


def resident() -> float:
    """In MB, at this moment; the peak where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory()
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1e3


def ids(path: str) -> Iterator[str]:
    """One at a time: the file is not what is measured."""
    with Path(path).open() as file:
        for line in file:
            yield line.strip()


async def fetch(told: argparse.Namespace) -> None:
    limits = Limits(reads=10**6, per_second=None)
    packs = failed = 0
    early = 0.0
    begun = time.perf_counter()
    async with MessagesClient(told.token, seller_id=told.seller, base_url=told.base_url, limits=limits) as client:
        async for fetched in client.fetch(ids(told.packs), concurrency=told.concurrency):
            packs += 1
            failed += isinstance(fetched, PackFailure)
            if packs == 1000:
                gc.collect()
                early = resident()
        late = resident()
    counts = {"packs": packs, "failed": failed, "seconds": round(time.perf_counter() - begun, 1)}
    print(json.dumps(counts | {"MB after 1,000": early, "MB at the end": late, "MB at the peak": peak_memory()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("base_url", "token", "seller", "packs"):
        parser.add_argument(name)
    parser.add_argument("--concurrency", type=int, default=16)
    asyncio.run(fetch(parser.parse_args()))

"""What every program here is told, and the line that it prints: only the standard library, for each has its own
environment.

    python PROGRAM BASE_URL TOKEN SELLER FILE_OF_PACK_IDS [--concurrency 16] [--limit 50] [--budget READS SECONDS]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """All messages of these packs, without marking them. `budget`: so many requests in so many seconds."""

    base_url: str
    token: str
    seller: str
    packs: list[str]
    concurrency: int
    limit: int
    budget: tuple[int, float] | None

    def path(self, pack: str) -> str:
        return f"/messages/packs/{pack}/sellers/{self.seller}"

    def query(self, offset: int) -> dict[str, str | int]:
        return {"tag": "post_sale", "limit": self.limit, "offset": offset, "mark_as_read": "false"}


@dataclass
class Found:
    """What a program found, and how many packs it gave up: of each message who wrote it, when, and what.

    Only the ids are kept.
    """

    ids: set[str] = field(default_factory=set)
    characters: int = 0
    newest: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def message(self, id_: str, sender: str, created: datetime, text: str) -> None:
        self.ids.add(id_)
        self.characters += len(text) + len(sender)
        self.newest = max(self.newest, created)

    def page(self, messages: Iterable[dict[str, Any]]) -> None:
        """The messages as JSON, for programs that have no models."""
        for message in messages:
            created = datetime.fromisoformat(message["message_date"]["created"])
            self.message(message["id"], str(message["from"]["user_id"]), created, message["text"])

    def gave_up(self, error: BaseException) -> None:
        self.failed += 1
        self.reasons[type(error).__name__] = self.reasons.get(type(error).__name__, 0) + 1


def peak_memory() -> float:
    """The most resident memory of this process so far, in MB; of what ran before `exec` it counts nothing, on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1e3
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def run(work: Callable[[Job, Found], None]) -> None:
    """Do it and print the counts; imports and the reading of the arguments are not timed."""
    parser = argparse.ArgumentParser()
    for name in ("base_url", "token", "seller", "packs"):
        parser.add_argument(name)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--budget", nargs=2, type=float)
    told = parser.parse_args()
    packs = Path(told.packs).read_text().split()
    budget = (int(told.budget[0]), told.budget[1]) if told.budget else None
    job = Job(told.base_url, told.token, told.seller, packs, told.concurrency, told.limit, budget)
    found = Found()
    begun, cpu = time.perf_counter(), time.process_time()
    work(job, found)
    counts = {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "messages": len(found.ids),
        "failed": found.failed,
        "reasons": found.reasons,
        "memory": peak_memory(),
    }
    print(json.dumps(counts))


def in_threads(job: Job, found: Found, read_pack: Callable[[str], None]) -> None:
    """One pack at a time in each of `concurrency` threads: for the clients that wait while they read."""

    def read(pack: str) -> None:
        try:
            read_pack(pack)
        except Exception as error:  # the others go on, whatever it is
            found.gave_up(error)

    with ThreadPoolExecutor(job.concurrency) as threads:
        list(threads.map(read, job.packs))

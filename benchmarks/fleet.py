"""A fleet of three processes with a thousand sellers, in virtual time: requests, use of the budget, fairness, memory.

`python benchmarks/fleet.py [--sellers 1000] [--packs 50] [--kill-every 600]`: the sellers' conversations are drained
over a store in memory, on 500 reads a minute; every ten minutes one process is cut off from the store, as if it were
killed, and another one starts. The sandbox keeps the log. Nothing sleeps: the clock of the event loop jumps.
`--packs 0 --processes 1`: what a process with a thousand idle sellers holds, after half an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from mlmessages import Delivery, Fleet, Limits
from mlmessages.fleet.memory import MemoryDatabase, SharedMemory
from mlmessages.models import Token
from mlmessages.testing import Behaviour, Marketplace, RateWindow, virtual_run

READS, PERIOD = 500, 60.0
IDLE = 1800.0  # seconds that nothing happens, where there are no conversations


async def main(sellers: int, packs: int, kill_every: float, processes: int) -> None:
    loop = asyncio.get_running_loop()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    marketplace = Marketplace(
        sellers=sellers, packs=packs, behaviour=Behaviour(rate=RateWindow(reads=READS, period=PERIOD))
    )
    shared = SharedMemory(Limits(reads=READS, period=PERIOD, per_second=None))
    now = datetime.now(UTC)
    for seller in marketplace.sellers:
        oauth = seller.oauth
        shared.add(Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller.seller_id))
    sandbox_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    delivered: set[str] = set()
    twice = 0
    by_seller = {seller.seller_id: 0 for seller in marketplace.sellers}
    shares_at_20_minutes: list[int] = []

    async def handler(delivery: Delivery) -> None:
        nonlocal twice
        for message in delivery.messages:
            twice += message.id in delivered
            delivered.add(message.id)
        by_seller[delivery.seller_id] += 1

    async with AsyncExitStack() as stack, marketplace.session() as session:
        running: list[tuple[MemoryDatabase, asyncio.Task[None]]] = []

        async def start() -> None:
            database = await stack.enter_async_context(MemoryDatabase(shared, f"process {len(running)}"))
            application = marketplace.application
            fleet = Fleet(
                database,
                application.client_id,
                application.client_secret,
                base_url=marketplace.base_url,
                session=session,
            )
            task = asyncio.create_task(fleet.run(handler, grace=0.0))
            running.append((database, task))

        for _ in range(processes):
            await start()
        began, wall, kills = loop.time(), time.perf_counter(), 0
        next_kill = began + kill_every
        while len(delivered) < sellers * packs or (packs == 0 and loop.time() - began < IDLE):
            await asyncio.sleep(5)
            if not shares_at_20_minutes and loop.time() - began >= 1200:
                shares_at_20_minutes = sorted(by_seller.values())
            if packs and loop.time() >= next_kill:
                next_kill += kill_every
                database, task = running[kills]
                database.cut_off()
                task.cancel()
                await asyncio.wait([task])
                kills += 1
                await start()
        took, wall = loop.time() - began, time.perf_counter() - wall
        for _, task in running:
            task.cancel()
        await asyncio.wait([task for _, task in running])

    log = [entry for entry in marketplace.log if entry.kind in ("mark", "page", "listing", "message")]
    listings = sum(entry.kind == "listing" for entry in log)
    refused = sum(entry.status == 429 for entry in log)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    share = took / (len(log) / READS * PERIOD)
    expected = sellers * packs + listings
    rows = {
        "conversations": f"{sellers * packs:,} of {sellers:,} sellers, {processes} processes, {kills} killed",
        "lost": len(marketplace.marked_ids() - delivered),
        "left unread": marketplace.unread,
        "delivered twice": twice,
        "requests": f"{len(log):,}: {listings:,} listings, {len(log) - listings:,} reads; {refused} refused with 429",
        "of conversations + listings": f"{len(log) / expected:.4f}",
        "virtual minutes": f"{took / 60:.1f}, {share:.3f} of what the budget takes for these requests",
        "real seconds": f"{wall:.0f}",
        "MB of the sandbox": f"{sandbox_memory / 1024:.0f}",
        "MB of the fleets": f"{(peak - before - sandbox_memory) / 1024:.0f}",
    }
    if shares_at_20_minutes:
        least, most, mean = shares_at_20_minutes[0], shares_at_20_minutes[-1], sum(shares_at_20_minutes) / sellers
        rows["of a seller after 20 minutes"] = f"{least} at least, {mean:.1f} in the mean, {most} at most"
    for name, figure in rows.items():
        print(f"{name:30} {figure}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sellers", type=int, default=1000)
    parser.add_argument("--packs", type=int, default=50)
    parser.add_argument("--kill-every", type=float, default=600.0)
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    virtual_run(main(options.sellers, options.packs, options.kill_every, options.processes))

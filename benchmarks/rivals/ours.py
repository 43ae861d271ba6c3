"""This library: `client.fetch`, typed models."""

from __future__ import annotations

import asyncio

from job import Found, Job, run

from mlmessages import Limits, MessagesClient
from mlmessages.models import PackFailure


async def fetch(job: Job, found: Found) -> None:
    reads, period = job.budget or (10**6, 60.0)
    limits = Limits(reads=reads, period=period, per_second=None)
    async with MessagesClient(job.token, seller_id=job.seller, base_url=job.base_url, limits=limits) as client:
        async for fetched in client.fetch(job.packs, concurrency=job.concurrency, limit=job.limit):
            if isinstance(fetched, PackFailure):
                found.gave_up(fetched.error)
            else:
                for message in fetched.messages:
                    found.message(message.id, message.sender_id or "", message.created, message.text or "")


if __name__ == "__main__":
    run(lambda job, found: asyncio.run(fetch(job, found)))

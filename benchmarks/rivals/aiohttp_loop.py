"""The loop that people write by hand over aiohttp, and a good one: one session, a semaphore, paging, patience at a 429.

Dicts, `await response.json()`; `offset += limit`, as every API client does; aiolimiter where there is a budget.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiolimiter import AsyncLimiter
from job import Found, Job, run


async def fetch(job: Job, found: Found) -> None:
    slots = asyncio.Semaphore(job.concurrency)
    limiter = AsyncLimiter(*job.budget) if job.budget else None
    headers = {"Authorization": f"Bearer {job.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def get(pack: str, offset: int) -> Any:
            for attempt in range(6):
                if limiter is not None:
                    await limiter.acquire()
                async with session.get(job.base_url + job.path(pack), params=job.query(offset)) as response:
                    if response.status != 429:
                        response.raise_for_status()
                        return await response.json()
                    wait = float(response.headers.get("Retry-After", 2**attempt))
                await asyncio.sleep(wait)
            raise RuntimeError("429, again and again")

        async def read(pack: str) -> None:
            async with slots:
                offset, total = 0, 1
                while offset < total:
                    page = await get(pack, offset)
                    found.page(page["messages"])
                    offset, total = offset + job.limit, page["paging"]["total"]

        for result in await asyncio.gather(*map(read, job.packs), return_exceptions=True):
            if isinstance(result, BaseException):
                found.gave_up(result)


if __name__ == "__main__":
    run(lambda job, found: asyncio.run(fetch(job, found)))

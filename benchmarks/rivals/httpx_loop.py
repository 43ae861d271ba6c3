"""The same loop by hand over httpx."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from aiolimiter import AsyncLimiter
from job import Found, Job, run


async def fetch(job: Job, found: Found) -> None:
    slots = asyncio.Semaphore(job.concurrency)
    limiter = AsyncLimiter(*job.budget) if job.budget else None
    headers = {"Authorization": f"Bearer {job.token}"}
    async with httpx.AsyncClient(base_url=job.base_url, headers=headers) as client:

        async def get(pack: str, offset: int) -> Any:
            for attempt in range(6):
                if limiter is not None:
                    await limiter.acquire()
                response = await client.get(job.path(pack), params=job.query(offset))
                if response.status_code != 429:
                    return response.raise_for_status().json()
                await asyncio.sleep(float(response.headers.get("Retry-After", 2**attempt)))
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

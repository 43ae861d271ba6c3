"""The package meliapiclient 0.0.5, which has no messages, no paging, no retry, no budget and no kept connection.

Its general `request` is lent a paging loop and threads here; a 429 is its MeliAPIError, and ends a pack.
"""

from __future__ import annotations

import time

from job import Found, Job, in_threads, run
from MeliAPIClient import MeliClient, MemoryTokenStorage


def fetch(job: Job, found: Found) -> None:
    storage = MemoryTokenStorage()
    storage.save_token({"access_token": job.token, "refresh_token": "", "expires_at": time.time() + 6 * 3600})
    client = MeliClient("client", "secret", storage, api_url=job.base_url)

    def read(pack: str) -> None:
        offset, total = 0, 1
        while offset < total:
            page = client.request("GET", job.path(pack), params=job.query(offset))
            found.page(page["messages"])
            offset, total = offset + job.limit, page["paging"]["total"]

    in_threads(job, found, read)


if __name__ == "__main__":
    run(fetch)

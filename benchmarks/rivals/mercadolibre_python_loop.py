"""The package mercadolibre-python 0.2.2, which has no messages, no paging, no retry, no budget and no kept connection.

It sends the token in the query, where the documentation has it in a header, and looks at no status. Its private `_get`
is lent the header, a paging loop and threads here; the body of a 429 holds no messages, and ends a pack.
"""

from __future__ import annotations

from job import Found, Job, in_threads, run
from mercadolibre.client import Client


def fetch(job: Job, found: Found) -> None:
    client = Client("client", "secret")
    client.BASE_URL = job.base_url
    client.set_token(job.token)
    headers = {"Authorization": f"Bearer {job.token}"}

    def read(pack: str) -> None:
        offset, total = 0, 1
        while offset < total:
            page = client._get(job.path(pack), params=job.query(offset), headers=headers)  # noqa: SLF001
            found.page(page["messages"])
            offset, total = offset + job.limit, page["paging"]["total"]

    in_threads(job, found, read)


if __name__ == "__main__":
    run(fetch)

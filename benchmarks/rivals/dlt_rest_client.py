"""dlt's RESTClient with its OffsetPaginator and its own retries, one in each of the threads."""

from __future__ import annotations

import os
import threading

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"  # it would report to its makers

from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import OffsetPaginator
from job import Found, Job, in_threads, run


def fetch(job: Job, found: Found) -> None:
    local = threading.local()

    def read(pack: str) -> None:
        if not hasattr(local, "client"):
            local.client = RESTClient(
                job.base_url,
                auth=BearerTokenAuth(job.token),
                paginator=OffsetPaginator(limit=job.limit, total_path="paging.total"),
                data_selector="messages",
            )
        query = {"tag": "post_sale", "mark_as_read": "false"}
        for page in local.client.paginate(job.path(pack), params=query):
            found.page(page)

    in_threads(job, found, read)


if __name__ == "__main__":
    run(fetch)

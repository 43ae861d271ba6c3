"""requests in threads, a session in each, and tenacity around every request."""

from __future__ import annotations

import threading
from typing import Any

import requests
import tenacity
from job import Found, Job, in_threads, run

_backoff = tenacity.wait_exponential(max=60)


def _wait(state: tenacity.RetryCallState) -> float:
    """What Retry-After says, else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, requests.HTTPError) and (told := error.response.headers.get("Retry-After")):
        return float(told)
    return _backoff(state)


def _passing(error: BaseException) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (requests.ConnectionError, requests.Timeout))


def fetch(job: Job, found: Found) -> None:
    local = threading.local()

    @tenacity.retry(
        retry=tenacity.retry_if_exception(_passing), wait=_wait, stop=tenacity.stop_after_attempt(6), reraise=True
    )
    def get(pack: str, offset: int) -> Any:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers["Authorization"] = f"Bearer {job.token}"
        response = local.session.get(job.base_url + job.path(pack), params=job.query(offset), timeout=30)
        response.raise_for_status()
        return response.json()

    def read(pack: str) -> None:
        offset, total = 0, 1
        while offset < total:
            page = get(pack, offset)
            found.page(page["messages"])
            offset, total = offset + job.limit, page["paging"]["total"]

    in_threads(job, found, read)


if __name__ == "__main__":
    run(fetch)

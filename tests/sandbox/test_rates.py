"""The rate windows, on a virtual clock."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from mlmessages.testing import Behaviour, RateWindow, Sandbox


def statuses_at(in_memory, window, moments):
    """The statuses of listings asked at these moments."""
    sandbox = Sandbox(1, behaviour=Behaviour(rate=window))
    seen = []

    async def scenario(ask):
        loop = asyncio.get_running_loop()
        for moment in moments:
            await asyncio.sleep(max(0.0, moment - loop.time()))
            seen.append(await ask.get("/marketplace/messages/unread"))

    in_memory(sandbox, scenario)
    assert sandbox.throttled == sum(one.status == 429 for one in seen)
    return [one.status for one in seen], seen


@pytest.mark.parametrize(
    ("window", "moments", "statuses"),
    [
        # a fixed window forgets at its edge: twice the limit around it
        (RateWindow(reads=2, period=60), [58, 59, 59.5, 60, 61, 62], [200, 200, 429, 200, 200, 429]),
        (RateWindow(reads=2, period=60, offset=10), [8, 9, 9.5, 10, 60, 69, 70], [200, 200, 429, 200, 200, 429, 200]),
        (
            RateWindow(reads=2, period=60, kind="sliding"),
            [50, 55, 60, 109, 110, 111, 115],
            [200, 200, 429, 429, 200, 429, 200],
        ),
        (RateWindow(reads=2, period=60, kind="bucket"), [0, 0, 1, 29, 31, 32, 60], [200, 200, 429, 429, 200, 429, 200]),
        (RateWindow(reads=0, period=60, kind="bucket"), [0], [429]),
    ],
)
def test_a_window_lets_so_many_in(in_memory, window, moments, statuses):
    assert statuses_at(in_memory, window, moments)[0] == statuses


def test_a_refused_request_is_bare_and_not_executed(in_memory):
    sandbox = Sandbox(1, behaviour=Behaviour(rate=RateWindow(reads=0)))

    async def scenario(ask):
        seen = await ask.pack(sandbox.pack_ids()[0])
        assert (seen.status, seen.json) == (429, {"message": "local_rate_limited"})
        assert "Retry-After" not in seen.headers
        assert sandbox.unread == 1
        assert (sandbox.log[0].status, sandbox.log[0].executed) == (429, False)

    in_memory(sandbox, scenario)


@pytest.mark.parametrize(("told", "header"), [("seconds", "50"), (7, "7"), (-5, "-5"), ("junk", "junk")])
def test_retry_after_says_what_it_is_told_to(in_memory, told, header):
    _, seen = statuses_at(in_memory, RateWindow(reads=1, retry_after=told), [9, 10.5])
    assert seen[1].headers["Retry-After"] == header


def test_retry_after_may_be_a_date(in_memory):
    _, seen = statuses_at(in_memory, RateWindow(reads=1, retry_after="date"), [9, 10])
    wait = parsedate_to_datetime(seen[1].headers["Retry-After"]) - parsedate_to_datetime(seen[1].headers["Date"])
    assert 50 <= wait.total_seconds() <= 52


def test_a_request_is_counted_half_way_through_its_latency(in_memory):
    sandbox = Sandbox(1, behaviour=Behaviour(latency=iter([4.0, 2.0]).__next__))

    async def scenario(ask):
        await ask.listing()
        assert asyncio.get_running_loop().time() == 4.0
        await ask.listing()
        assert [entry.at for entry in sandbox.log] == [2.0, 5.0]

    in_memory(sandbox, scenario)

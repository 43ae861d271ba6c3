"""A machine that was suspended: its clocks but one stood still, and what it held is given on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cases import case
from edges.sockets import within
from mlmessages import Database, MessagesClient
from mlmessages.testing import Sandbox


class Suspension:
    """The clock that goes on while the others stand still."""

    def __init__(self) -> None:
        self.seconds = 0.0


@pytest.fixture(params=["time", *(["clock_gettime"] if hasattr(time, "CLOCK_BOOTTIME") else [])])
def suspension(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Suspension:
    """One clock alone tells of it: the wall's, as where a virtual machine was paused, or that of Linux."""
    slept = Suspension()
    real: Callable[..., float] = getattr(time, request.param)
    monkeypatch.setattr(time, request.param, lambda *clock: real(*clock) + slept.seconds)
    return slept


class SlowTokens:
    """The machine is suspended while the token of the first request is got."""

    def __init__(self, token: str, suspension: Suspension, seconds: float) -> None:
        self._token, self._suspension, self._seconds = token, suspension, seconds

    async def token(self) -> str:
        self._suspension.seconds, self._seconds = self._suspension.seconds + self._seconds, 0.0
        return self._token

    async def rejected(self, token: str) -> None:
        """It is not."""


@pytest.fixture
def turns(database_url: str) -> Iterator[Callable[[], Any]]:
    """How often permits were taken, and how many are taken now."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        yield lambda: admin.execute(
            "SELECT sum(turn)::int, count(*) FILTER (WHERE free_at > mlmessages.clock() + interval '61 s')"
            " FROM mlmessages.permit WHERE kind = 'read'"
        ).fetchone()


@case("Q68")
@pytest.mark.parametrize(("seconds", "permits"), [(200.0, 2), (20.0, 1)])
@within(30)
async def test_no_request_leaves_on_a_permit_that_was_given_on(
    database_url: str, suspension: Suspension, turns: Callable[[], Any], seconds: float, permits: int
) -> None:
    """Suspended for longer than a permit is held, between the permit and the request: it takes another one first."""
    sandbox = Sandbox(packs=1)
    async with sandbox.serve() as served, Database(database_url, key=None) as database:
        limits = database.limits(1, reads=5)
        tokens = SlowTokens(served.token, suspension, seconds)
        async with MessagesClient(
            tokens, seller_id=served.seller_id, base_url=served.base_url, limits=limits
        ) as client:
            assert len((await client.unread()).packs) == 1
        assert limits.used == 1
    assert len(sandbox.log) == 1
    assert turns() == (permits, 0)  # the one that was not used is given back


@case("Q68")
@within(30)
async def test_permits_that_were_fetched_before_a_suspension_are_not_used_after_it(
    database_url: str, suspension: Suspension, turns: Callable[[], Any]
) -> None:
    """The second request has its permit, and waits until it may start, when the machine is suspended."""
    async with Database(database_url, key=None) as database:
        limits = database.limits(1, reads=5, per_second=1)
        first = await limits.acquire(None)
        waiting = asyncio.create_task(limits.acquire(None))
        while turns()[0] < 2:
            await asyncio.sleep(0)
        suspension.seconds += 200.0
        second = await waiting
        assert not limits.is_valid(first)
        assert limits.is_valid(second)
        assert turns()[0] == 3
        limits.release(first, sent=False)
        limits.release(second, sent=False)
    assert turns() == (3, 0)

"""Limits on a virtual clock: those that share a budget take turns."""

from __future__ import annotations

import asyncio

import pytest

from mlmessages import Limits
from mlmessages.testing import virtual_run
from policy.budgets import roomy


def test_owners_share_fairly() -> None:
    """E11: three sellers, one of them with ten times the work: each gets a third of the budget while it has work."""

    async def main() -> list[str]:
        limits = roomy(30)
        order: list[str] = []

        async def request(owner: str) -> None:
            permit = await limits.acquire(owner)
            order.append(owner)
            limits.release(permit, answered=True)

        await asyncio.gather(
            *(request("A") for _ in range(1000)),
            *(request("B") for _ in range(100)),
            *(request("C") for _ in range(100)),
        )
        return order

    order = virtual_run(main())
    for begin in range(30, 270, 30):  # the first window went to those who were first
        shares = [order[begin : begin + 30].count(owner) for owner in "ABC"]
        assert min(shares) >= 9, (begin, shares)


def test_first_in_first_out_within_an_owner() -> None:
    """Requests of one owner start in the order in which they were asked for."""

    async def main() -> list[tuple[str, int]]:
        limits = Limits(reads=5, concurrency=2, per_second=3)
        order: list[tuple[str, int]] = []

        async def request(owner: str, n: int) -> None:
            permit = await limits.acquire(owner)
            order.append((owner, n))
            await asyncio.sleep(0.1)
            limits.release(permit, answered=True)

        await asyncio.gather(*(request("AB"[n % 2], n) for n in range(40)))
        return order

    order = virtual_run(main())
    for owner in "AB":
        mine = [n for who, n in order if who == owner]
        assert mine == sorted(mine)
        assert len(mine) == 20


def test_latecomer_does_not_overtake() -> None:
    """Who asks later starts later, also when a permit is free for a moment."""

    async def main() -> list[int]:
        limits = Limits(concurrency=1, per_second=None)
        order: list[int] = []

        async def request(n: int) -> None:
            permit = await limits.acquire(None)
            order.append(n)
            await asyncio.sleep(1)
            limits.release(permit, answered=True)
            if n < 10:
                await request(n + 10)

        await asyncio.gather(*(request(n) for n in range(3)))
        return order

    assert virtual_run(main()) == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("when", ["before the turn is given on", "at that moment"])
def test_cancelled_request_does_not_cost_its_owner_the_turn(when: str) -> None:
    """Where an owner's first request in line was given up, its second goes in its place."""

    async def main() -> list[str]:
        limits = Limits(concurrency=1, per_second=None)
        order: list[str] = []
        held = await limits.acquire("first")

        async def request(name: str) -> None:
            permit = await limits.acquire(name[0])
            order.append(name)
            limits.release(permit, answered=True)

        tasks = [asyncio.create_task(request(name)) for name in ("-", "A1", "A2", "B1", "A3", "B2")]
        await asyncio.sleep(1)
        if when == "at that moment":
            limits.release(held, answered=True)
            tasks[1].cancel()
        else:
            tasks[1].cancel()
            limits.release(held, answered=True)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results if result] == [asyncio.CancelledError]
        return order

    assert virtual_run(main()) == ["-", "A2", "B1", "A3", "B2"]


def test_writes_are_not_starved_by_reads() -> None:
    """Where `concurrency` is what is scarce, GETs and others take turns."""

    async def main() -> str:
        limits = Limits(concurrency=1, per_second=None)
        order: list[str] = []

        async def request(write: bool) -> None:
            permit = await limits.acquire(None, write=write)
            order.append("w" if write else "r")
            await asyncio.sleep(0.1)
            limits.release(permit, answered=True)

        await asyncio.gather(*(request(n >= 100) for n in range(120)))
        return "".join(order)

    order = virtual_run(main())
    assert order.rindex("w") <= 42
    assert "ww" not in order

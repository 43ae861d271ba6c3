"""Rule 5: unknown outcomes wait; what certainly was not executed does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.observed import gets, now, states
from mlmessages import Inbox, MessagesClient, Retry
from mlmessages.errors import (
    AnswerLost,
    DecodeError,
    NotSent,
    Unauthorized,
)
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    RESET,
    Behaviour,
    Garbage,
    Hold,
    Reply,
    Sandbox,
    Send,
    Truncate,
    on,
)
from worlds import client_of, lost, on_virtual_clock

FIRST = "2000000000000001"


# -- rule 5: unknown outcomes wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        (EXECUTE, DROP),
        (EXECUTE, RESET),
        (DROP,),
        (EXECUTE, Reply(500)),
        (EXECUTE, Reply(502)),
        (Reply(503),),
        (EXECUTE, Reply(504)),
        (EXECUTE, HANG),
    ],
    ids=["dropped", "reset", "never executed", "500", "502", "503", "504", "timed out"],
)
@on_virtual_clock
async def test_rule_5_a5_a9_an_unknown_outcome_waits_and_is_read_again(
    steps: tuple[Any, ...], inbox_of: Any, consumer: Any
) -> None:
    """Exactly one more GET of that pack, `settle_time` or more later; the others do not wait; the report says who does."""
    sandbox = Sandbox(packs=5, rules=[on("mark", nth=1).do(*steps)])
    late: list[float] = []
    async with inbox_of(sandbox, settle_time=100, concurrency=2) as inbox:
        async with inbox.drain() as drain:
            async for delivery in drain:
                consumer.deliveries.append(delivery)
                late.append(now())
                await delivery.ack()
                if len(late) == 4:
                    assert inbox.report.owed == 1
                    assert inbox.report.waiting == (steps[-1] is not HANG)  # that one is not known to be lost yet
                    assert (inbox.report.waits_until is not None) == (steps[-1] is not HANG)
        assert (inbox.report.waiting, inbox.report.owed, inbox.report.waits_until) == (0, 0, None)
        assert inbox.report.parked == ()
    first, again = [e.at for e in sandbox.log if e.pack_id == sandbox.log[1].pack_id]
    assert 100 <= again - first <= 135
    assert late[3] < 40
    assert len(gets(sandbox)) == 6
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@case("A6")
@on_virtual_clock
async def test_a_zombie_cannot_mark_what_nobody_read(inbox_of: Any, consumer: Any) -> None:
    """A mark that timed out executes 100 s later, over a message that came meanwhile: it is delivered all the same."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Hold("z"), EXECUTE, DROP)])

    async def zombie() -> None:
        await asyncio.sleep(60)
        sandbox.send(FIRST)
        await asyncio.sleep(70)
        sandbox.release("z")

    async with inbox_of(sandbox, client={"timeout": 30}) as inbox:
        walking = asyncio.ensure_future(zombie())
        await consumer.empty(inbox)
        await walking
    assert set(consumer.ids) == sandbox.message_ids()
    assert set(consumer.unread_ids) == sandbox.message_ids()
    assert not lost(sandbox, consumer.deliveries)


@case("A7")
@on_virtual_clock
async def test_one_request_one_execution_over_a_real_socket(tmp_path: Path) -> None:
    """aiohttp would send a dropped GET again by itself: the server sees one mark before the wait."""
    sandbox = Sandbox(packs=2, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with client_of(sandbox) as client, Inbox(client, tmp_path / "j.db", concurrency=1) as inbox:
        async with inbox.drain() as drain:
            await anext(drain)
            assert inbox.report.waiting == 1
            assert sandbox.count("mark") == 2


@case("A8")
@pytest.mark.parametrize(
    "ending", [Garbage(), Truncate(40), Reply(200, {"nothing": 1})], ids=["garbage", "cut", "other"]
)
@on_virtual_clock
async def test_an_answer_that_cannot_be_read_is_read_again_at_once(ending: Any, inbox_of: Any, consumer: Any) -> None:
    """2xx means executed: the page is read again with mark_as_read=false, without a wait; and once more, later."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Send(), EXECUTE, ending)])
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            consumer.deliveries.append(delivery)
            assert [e.kind for e in gets(sandbox)] == ["mark", "peek"]
            assert now() < 1
    assert [e.kind for e in gets(sandbox)] == ["mark", "peek", "mark"]
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.message_ids()


@on_virtual_clock
async def test_an_answer_that_stays_unreadable_is_parked_and_owed(
    tmp_path: Path, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """Garbage for ever parks the pack with a `DecodeError`; the others come; a restart still knows it, and later it comes."""
    rule = on("pack", pack=FIRST).do(EXECUTE, Garbage())
    sandbox = Sandbox(packs=3, rules=[rule])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
    assert (failure.pack_id, type(failure.error)) == (FIRST, DecodeError)
    assert len(consumer.ids) == 2
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
        assert isinstance(failure.error, DecodeError)
        sandbox.remove(rule)
        await asyncio.sleep(3700)
        await consumer.empty(inbox)
        assert inbox.report.parked == ()
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.message_ids()


@on_virtual_clock
async def test_a_mark_that_never_gets_an_answer_is_parked_some_day(journal: Path, inbox_of: Any, consumer: Any) -> None:
    """After six marks of unknown outcome the pack is parked, in the journal too; the drain ends."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST).do(DROP)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        [failure] = inbox.report.parked
        assert isinstance(failure.error, AnswerLost)
        assert (inbox.report.owed, inbox.report.waiting) == (0, 0)
    assert len(gets(sandbox, FIRST)) == 6
    assert states(journal) == {FIRST: "parked"}


# -- tokens and connections --------------------------------------------------------------------------------------------


class Rotating:
    """A source whose token is rejected until a new one is set."""

    def __init__(self, token: str) -> None:
        self.current = token

    async def token(self) -> str:
        return self.current

    async def rejected(self, token: str) -> None:
        pass


@on_virtual_clock
async def test_a_rejected_token_ends_the_drain_and_a_new_one_goes_on(inbox_of: Any, consumer: Any) -> None:
    """401 is not executed: `Unauthorized`, nothing waits, everything is still owed."""
    sandbox = Sandbox(packs=6, behaviour=Behaviour(latency=0.01))
    source = Rotating(sandbox.token)
    async with inbox_of(sandbox, client={"auth": source}, concurrency=2) as inbox:
        with pytest.raises(Unauthorized):
            async with inbox.drain() as drain:
                async for delivery in drain:
                    consumer.deliveries.append(delivery)
                    await delivery.ack()
                    sandbox.rotate_token("APP_USR-new")
        assert inbox.report.waiting == 0
        source.current = "APP_USR-new"
        await consumer.empty(inbox)
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0
    assert now() < 60


@case("D3")
@pytest.mark.parametrize("nth", range(1, 12))
@on_virtual_clock
async def test_an_exception_of_the_token_source_ends_the_drain_and_loses_nothing(
    nth: int, inbox_of: Any, consumer: Any
) -> None:
    """An OSError at its n-th call is raised, once; the next drain of the same inbox gets all the rest."""
    sandbox = Sandbox(packs=5, behaviour=Behaviour(latency=0.01))

    class Failing(Rotating):
        calls = 0

        async def token(self) -> str:
            self.calls += 1
            if self.calls in (nth, nth + 1):
                raise OSError("the vault is locked")
            return self.current

    async with inbox_of(sandbox, client={"auth": Failing(sandbox.token)}, concurrency=2) as inbox:
        for _ in range(3):
            try:
                async with inbox.drain() as drain:
                    async for delivery in drain:
                        consumer.deliveries.append(delivery)
                        await delivery.ack()
            except OSError:
                continue
        assert inbox.report.owed == 0
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert sandbox.unread == 0


@on_virtual_clock
async def test_nothing_left_this_machine_ends_the_drain_without_a_wait(tmp_path: Path, consumer: Any) -> None:
    """`NotSent` when there is no connection: the claims are given back, not doubted."""
    async with MessagesClient(
        "APP_USR-1", seller_id=700100200, base_url="http://127.0.0.1:1", retry=Retry(attempts=1), timeout=0.5
    ) as client:
        async with Inbox(client, tmp_path / "j.db") as inbox:
            with pytest.raises(NotSent):
                await consumer.empty(inbox)
            assert (inbox.report.owed, inbox.report.waiting) == (0, 0)

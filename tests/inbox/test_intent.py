"""Rules 1, 3 and 6: the claim before the request, the ids with "done", the claims of the dead."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cases import case
from inbox.observed import gets, now, states, until
from mlmessages import failpoints
from mlmessages.errors import (
    JournalError,
)
from mlmessages.journal.sqlite import contents
from mlmessages.testing import (
    DROP,
    EXECUTE,
    Behaviour,
    Hold,
    Pack,
    Sandbox,
    on,
)
from worlds import lost, on_virtual_clock

FIRST = "2000000000000001"


# -- rule 1: intent first ----------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_1_the_claim_is_on_the_disk_before_the_request_leaves(
    journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """At the moment a marking GET arrives at the server, the journal's file says that this pack is claimed."""
    seen: list[dict[str, str]] = []

    def arriving() -> float:
        seen.append(states(journal))
        return 0.0

    sandbox = Sandbox(packs=12, behaviour=Behaviour(latency=arriving))
    async with inbox_of(sandbox, concurrency=3) as inbox:
        await consumer.empty(inbox)
    asked = [e.pack_id for e in sandbox.log]
    for entry, state in zip(sandbox.log, seen, strict=True):
        if entry.kind == "mark":
            assert state[entry.pack_id or ""] == "issued"
        assert sum(s == "issued" for s in state.values()) <= 3
    assert len(seen) == len(asked) == 14
    assert states(journal) == {}


@case("A13")
@pytest.mark.parametrize("full_at", range(1, 11))
@on_virtual_clock
async def test_a_full_disk_marks_nothing_that_is_not_written_down(
    full_at: int, disk: Any, inbox_of: Any, consumer: Any
) -> None:
    """The n-th commit fails: `JournalError`; every mark on the wire had its claim; with space again nothing is lost or left."""
    sandbox = Sandbox(packs=4)
    disk.full_at = full_at
    with pytest.raises(JournalError, match="No space left"):
        async with inbox_of(sandbox, concurrency=2) as inbox:
            await consumer.empty(inbox)
            raise AssertionError("it never met the full disk")
    marks = sandbox.count("mark")
    assert marks <= max(full_at - 3, 0) * 2  # recovery and the listing come before; then each commit claims two at most
    if full_at <= 3:
        assert marks == 0
    disk.full_at = float("inf")
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
    assert not lost(sandbox, consumer.deliveries)
    assert sandbox.unread == 0
    assert set(consumer.ids) == sandbox.message_ids()


@pytest.mark.parametrize("full_at", range(2, 11))
@on_virtual_clock
async def test_a_disk_with_space_again_goes_on_in_the_same_process(
    full_at: int, disk: Any, inbox_of: Any, consumer: Any
) -> None:
    """A drain that ended in a `JournalError` loses nothing to the next drain of the same inbox, and each comes once."""
    sandbox = Sandbox(packs=4)
    async with inbox_of(sandbox, concurrency=2) as inbox:
        disk.full_at = disk.commits + full_at
        with pytest.raises(JournalError):
            async with inbox.drain() as drain:
                async for delivery in drain:
                    consumer.deliveries.append(delivery)
                    await delivery.ack()
        disk.full_at = float("inf")
        await consumer.empty(inbox)
        assert inbox.report.owed == 0
    assert set(consumer.ids) == sandbox.message_ids()
    assert len(consumer.ids) == 4
    assert sandbox.unread == 0


@on_virtual_clock
async def test_an_ack_that_fails_says_so_and_may_be_repeated(disk: Any, inbox_of: Any, journal: Path) -> None:
    """`ack` on a full disk is a `JournalError`; again with space it is durable; twice is once."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        async with inbox.drain() as drain:
            delivery = await anext(drain)
        disk.full_at = 0
        with pytest.raises(JournalError):
            await delivery.ack()
        assert sum(contents(journal).undelivered.values()) == 1
        disk.full_at = float("inf")
        await delivery.ack()
        await delivery.ack()
        assert contents(journal).undelivered == {}


# -- rule 3: done with its ids -----------------------------------------------------------------------------------------


@on_virtual_clock
async def test_rule_3_c6_a_crash_between_two_pages_reads_the_whole_pack_again(
    tmp_path: Path, journal: Path, life_of: Any, consumer: Any
) -> None:
    """Ids are stored together with "done": after a crash at page two nothing counts as known, all 80 are delivered once."""
    sandbox = Sandbox([Pack(messages=80)], rules=[on("peek", nth=1).do(Hold("page two"), EXECUTE)])
    life = life_of(sandbox, journal)
    inbox = await life.begin()
    reading = asyncio.ensure_future(consumer.empty(inbox))
    await until(lambda: sandbox.held("page two"))
    await life.crash(tmp_path / "b.db")
    await asyncio.gather(reading, return_exceptions=True)
    sandbox.release("page two")
    assert states(tmp_path / "b.db") == {FIRST: "issued"}
    again = life_of(sandbox, tmp_path / "b.db")
    await consumer.empty(await again.begin())
    await again.end()
    assert len(consumer.ids) == len(set(consumer.ids)) == 80


# -- rule 6: a dead claim is unknown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("executed", [False, True])
@on_virtual_clock
async def test_rule_6_a1_a_claim_of_a_dead_process_waits_from_the_restart(
    executed: bool, tmp_path: Path, journal: Path, life_of: Any, consumer: Any
) -> None:
    """Killed with a request under way: the next process reads that pack `settle_time` after its own start, once."""
    steps: list[Any] = [EXECUTE, Hold("z")] if executed else [Hold("z"), EXECUTE]
    sandbox = Sandbox(packs=3, rules=[on("mark", pack=FIRST, nth=1).do(*steps, DROP)])
    life = life_of(sandbox, journal, concurrency=4, settle_time=100)
    reading = asyncio.ensure_future(consumer.empty(await life.begin()))
    await until(lambda: sandbox.held("z") and len(consumer.ids) == 2)
    await life.crash(tmp_path / "b.db")
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.sleep(500)
    late = sandbox.send(FIRST)
    restarted = now()
    again = life_of(sandbox, tmp_path / "b.db", settle_time=100)
    inbox = await again.begin()
    assert (inbox.report.owed, inbox.report.waiting) == (1, 1)
    release = asyncio.ensure_future(asyncio.sleep(50))
    release.add_done_callback(lambda _: sandbox.release("z"))
    await consumer.empty(inbox)
    await again.end()
    entries = gets(sandbox, FIRST)
    assert len(entries) == 2
    assert 99 < entries[1].at - restarted < 101  # the journal's clock is the calendar's
    assert late in consumer.ids
    assert sorted(consumer.ids) == sorted(sandbox.message_ids())
    assert set(consumer.unread_ids) == sandbox.message_ids()
    assert sandbox.unread == 0


@case("A2")
@on_virtual_clock
async def test_a_crash_after_the_answer_and_before_the_commit(
    tmp_path: Path, journal: Path, life_of: Any, consumer: Any, copy_files: Any, monkeypatch: Any
) -> None:
    """What the answer showed is not on the disk: the claim is, the pack is read once more, nothing is lost."""
    sandbox = Sandbox(packs=1)
    copied = tmp_path / "b.db"

    def crash(name: str) -> None:
        if name == "read":
            copy_files(journal, copied)

    monkeypatch.setattr(failpoints, "hook", crash)
    life = life_of(sandbox, journal)
    inbox = await life.begin()
    async with inbox.drain() as drain:
        await anext(drain)  # the process that holds this is killed
    await life.end()
    monkeypatch.setattr(failpoints, "hook", None)
    again = life_of(sandbox, copied)
    await consumer.empty(await again.begin())
    await again.end()
    assert len(gets(sandbox)) == 2
    assert consumer.ids == consumer.unread_ids == list(sandbox.message_ids())


@case("A3")
@on_virtual_clock
async def test_a_crash_after_the_commit_and_before_the_handler_costs_no_get(
    tmp_path: Path, journal: Path, life_of: Any, consumer: Any, copy_files: Any, monkeypatch: Any
) -> None:
    """The handler gets it from the store, first of all, without a GET of the pack."""
    sandbox = Sandbox(packs=1)
    copied = tmp_path / "b.db"
    monkeypatch.setattr(failpoints, "hook", lambda name: name == "stored" and copy_files(journal, copied))
    life = life_of(sandbox, journal)
    inbox = await life.begin()
    async with inbox.drain() as drain:
        await anext(drain)
    await life.end()
    monkeypatch.setattr(failpoints, "hook", None)
    again = life_of(sandbox, copied)
    inbox = await again.begin()
    async with inbox.drain() as drain:
        listings = sandbox.count("listing")
        delivery = await anext(drain)
        assert sandbox.count("listing") == listings  # at once: it comes before anything is asked
        assert [m.id for m in delivery.messages] == [m.id for m in delivery.unread] == list(sandbox.message_ids())
        assert delivery.redelivered
        assert delivery.status is not None
        await delivery.ack()
        assert [d async for d in drain] == []
    await again.end()
    assert len(gets(sandbox)) == 1

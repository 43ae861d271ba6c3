"""What was acknowledged is overwritten in every file of the journal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages.testing import Message, Pack, Sandbox
from worlds import on_virtual_clock


def on_the_disk(directory: Path, canary: bytes) -> list[str]:
    """The files that hold `canary`."""
    return sorted(p.name for p in directory.iterdir() if canary in p.read_bytes())


@case("H10")
@pytest.mark.parametrize("length", [10, 20_000], ids=["short", "on overflow pages"])
@on_virtual_clock
async def test_bodies_are_gone_from_every_file_when_a_drain_has_ended(
    length: int, tmp_path: Path, inbox_of: Any, consumer: Any
) -> None:
    """After the drain, and after closing, no file holds a buyer's words: not the log, not a free page. The ids stay."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY" * length)] * 3) for _ in range(5)])
    async with inbox_of(sandbox) as inbox:
        async for delivery in inbox.drain():
            consumer.deliveries.append(delivery)
            assert on_the_disk(tmp_path, b"CANARY")
            await delivery.ack()
        assert on_the_disk(tmp_path, b"CANARY") == []
        assert on_the_disk(tmp_path, consumer.ids[0].encode())
    assert on_the_disk(tmp_path, b"CANARY") == []
    assert on_the_disk(tmp_path, consumer.ids[0].encode()) == ["inbox.db"]


@case("H10")
@on_virtual_clock
async def test_what_lay_in_the_file_for_long_is_overwritten_too(tmp_path: Path, inbox_of: Any, consumer: Any) -> None:
    """Read by one process, which closed it into the file, and acknowledged by the next: no free page holds it."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY" * length) for length in (1, 20, 5000)]) for _ in range(20)])
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox, ack=False)
    assert on_the_disk(tmp_path, b"CANARY") == ["inbox.db"]
    async with inbox_of(sandbox) as inbox:
        await consumer.empty(inbox)
        assert on_the_disk(tmp_path, b"CANARY") == []
    assert on_the_disk(tmp_path, b"CANARY") == []


@case("H10")
@on_virtual_clock
async def test_what_a_dead_process_had_acknowledged_is_purged_by_the_next(
    tmp_path: Path, inbox_of: Any, life_of: Any, consumer: Any
) -> None:
    """The dead one's log still held it: the next drain, though it acknowledges nothing, ends with it overwritten."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY")])])
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    life = life_of(sandbox, tmp_path / "before" / "j.db")
    inbox = await life.begin()
    drain = inbox.drain()
    delivery = await anext(drain)
    await delivery.ack()
    await life.crash(tmp_path / "after" / "j.db")
    assert on_the_disk(tmp_path / "after", b"CANARY")
    async with inbox_of(sandbox, path=tmp_path / "after" / "j.db") as inbox:
        await consumer.empty(inbox)
        assert on_the_disk(tmp_path / "after", b"CANARY") == []


@case("H10")
@on_virtual_clock
async def test_what_a_reader_kept_from_being_purged_is_purged_by_the_next_drain(
    tmp_path: Path, journal: Path, inbox_of: Any, consumer: Any
) -> None:
    """Another program reads the file while a drain ends: the log cannot be emptied then; the next drain's end empties it."""
    sandbox = Sandbox([Pack(messages=[Message("CANARY")])])
    async with inbox_of(sandbox) as inbox:
        async with inbox.drain() as drain:
            delivery = await anext(drain)
            with closing(sqlite3.connect(journal, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM body").fetchone()
                await delivery.ack()
                await drain.aclose()
                assert on_the_disk(tmp_path, b"CANARY")
        await consumer.empty(inbox)
        assert on_the_disk(tmp_path, b"CANARY") == []


@case("H10")
@on_virtual_clock
async def test_a_long_drain_purges_on_its_way(tmp_path: Path, inbox_of: Any) -> None:
    """After 1,000 acknowledged messages their words are gone, though the drain goes on."""
    sandbox = Sandbox([Pack(messages=[Message(f"CANARY{p}-")] * 400) for p in range(4)])
    async with inbox_of(sandbox, concurrency=1) as inbox:
        seen = []
        async for delivery in inbox.drain():
            seen.append((delivery.messages[0].text or "").encode())
            await delivery.ack()
            if len(seen) == 3:
                assert [on_the_disk(tmp_path, text) for text in seen] == [[], [], []]

"""Several engines on one store, in whatever order things happen: nothing is lost, and one worker alone decides.

More of it: ``python -m pytest tests/journal/test_machines.py --hypothesis-profile=machines-thorough``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from cases import case
from journal.processes import ANSWERED, CHECKED, CLAIMED, SENT, Hand, Late, Process, Read, Server
from journal.stores import LEASE, SELLER, SETTLE, entry
from mlmessages.errors import JournalError, LeaseLost
from mlmessages.journal.memory import Memory, MemoryStore
from mlmessages.journal.memory_tables import SellerRows
from mlmessages.journal.seats import SECOND_LOOK
from mlmessages.journal.store import DONE, ISSUED, Disconnected, Seat
from mlmessages.testing import VirtualClockLoop

T = TypeVar("T")
PROCESSES, PACKS = 2, ("1", "2")
STEPS = 12  # that a process takes for a pack, from its start to the acknowledgement, with some to spare
LONGEST_STOP = SECOND_LOOK - SETTLE  # between a check and its request: what README assumes
A_BEAT = LEASE / 2
NEARLY = 1e-3  # seconds

QUICK = settings(
    max_examples=100,
    phases=[Phase.generate],  # a failure is long; the thorough profile shortens it
    report_multiple_bugs=False,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

which = st.integers(0, PROCESSES - 1)
# Seconds: past what a lease is trusted for, a lease, the wait of its claims, the second look.
awhile = st.sampled_from([0.0, 0.0, 0.0, 21.0, 31.0, 155.0, 155.0, 910.0])
packs = st.sampled_from(["1", "1", "1", "2"])


class Machines(RuleBasedStateMachine):
    """A server, a store, one seller with two conversations, three machines on which processes start and die."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        self.loop = self.runner.get_loop()
        self.memory = Memory(self.loop.time)
        self.server = Server({pack: [] for pack in PACKS})
        self.processes: list[Process | None] = [None] * PROCESSES
        self.late: list[Late] = []
        self.claimed_by: dict[str, int] = {}  # the epoch of each pack's last claim
        self.fresh: set[str] = set()
        self.handled: set[str] = set()
        self.acknowledged: set[str] = set()
        self.starts = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @property
    def now(self) -> float:
        return self.loop.time()

    @property
    def rows(self) -> SellerRows:
        """What the store has of the seller, at this moment."""
        return self.memory.sellers[SELLER]

    @property
    def epoch(self) -> int:
        return self.rows.seat[""].epoch

    def held_until(self) -> float | None:
        """When the lease of the worker ends that has the seat; None: it is free."""
        worker = self.rows.seat[""].worker
        return None if worker is None else self.memory.workers[worker].until

    # -- the world --

    @initialize()
    def a_seller(self) -> None:
        store = MemoryStore(self.memory)
        store.begin()
        store.add_seller(SELLER)
        store.commit()
        for pack in PACKS:
            self.server.write(pack)

    @rule(pack=packs, seconds=awhile, executed=st.booleans())
    def a_buyer_writes_and_time_passes(self, pack: str, seconds: float, executed: bool) -> None:
        """The second look of what was taken over is due, where that was long ago."""
        self.server.write(pack)
        self.run(self.wait(seconds, executed=executed))

    def end_late(self, late: Late, *, executed: bool) -> None:
        self.late.remove(late)
        if executed:
            self.server.mark(late.pack)

    async def wait(self, seconds: float, *, executed: bool) -> None:
        """Those that are awake beat; what is on the wire is executed in time, or never; no one stands still too long."""
        end = self.now + seconds
        while True:
            for process in self.awake():
                for read in [read for read in process.reads.values() if read.at == CHECKED]:
                    await self.go_on(process, read)
                if process.journal is not None or process.holds:
                    await self.beat(process)
            for late in [late for late in self.late if late.until <= self.now + NEARLY]:
                self.end_late(late, executed=executed)
            for process in self.alive():
                for read in [read for read in process.reads.values() if self.last_moment(read) <= self.now + NEARLY]:
                    process.stopped &= read.at != CHECKED
                    await self.go_on(process, read)
            if self.now >= end:
                return
            moments = [late.until for late in self.late] + [
                self.last_moment(r) for p in self.alive() for r in p.reads.values()
            ]
            await asyncio.sleep(max(min([end, self.now + A_BEAT, *moments]) - self.now, 0.0))

    def last_moment(self, read: Read) -> float:
        """When it is sent, or executed, at the latest."""
        return read.since + {CHECKED: LONGEST_STOP, SENT: SETTLE}.get(read.at, float("inf"))

    # -- the processes --

    def alive(self) -> list[Process]:
        return [process for process in self.processes if process is not None]

    def holders(self) -> list[Process]:
        return [process for process in self.awake() if process.journal is not None]

    def awake(self) -> list[Process]:
        return [process for process in self.alive() if not process.stopped]

    @rule(
        n=which,
        pack=packs,
        until=st.sampled_from([CLAIMED, CHECKED, CHECKED, SENT, ANSWERED]),
        seconds=st.sampled_from([21.0, 31.0, 155.0, 155.0]),
        other=st.sampled_from([None, None, None, CLAIMED, CHECKED, ANSWERED]),
        steps=st.sampled_from([0, 1, 2, 2, 3]),
        then=st.sampled_from([None, "killed"]),
    )
    def it_is_stopped_and_followed(
        self, n: int, pack: str, until: str, seconds: float, other: str | None, steps: int, then: str | None
    ) -> None:
        """At work, by preference the holder; the other one, which is awake, takes over if the lease is over, and works
        too; the first one wakes, if it makes a step.
        """
        n = next((each for each, at in enumerate(self.processes) if at is not None and at in self.holders()), n)
        other_one = self.processes[1 - n]
        if other_one is not None:
            other_one.stopped = False
        self.it_works(n, pack, until, "stopped", seconds)
        self.it_works(1 - n, pack, other, None, 0.0)
        if steps:
            self.it_wakes(pack, news=True, beats=False, steps=steps, then=then)

    @rule(
        n=which,
        pack=packs,
        until=st.sampled_from([None, None, CLAIMED, CHECKED, SENT, ANSWERED]),
        then=st.sampled_from([None, None, None, "stopped", "killed"]),
        seconds=awhile,
    )
    def it_works(self, n: int, pack: str, until: str | None, then: str | None, seconds: float) -> None:
        """Until its read of a pack is so far, or there is nothing to do; there it may be stopped or killed."""
        process = self.processes[n]
        if process is not None and process.stopped:
            n = 1 - n  # the other one
        self.run(self.work_until(n, pack, until))
        self.strike(n, then)
        self.run(self.wait(seconds, executed=False))

    async def work_until(self, n: int, pack: str, until: str | None) -> None:
        for _ in range(STEPS):
            process = self.processes[n]
            if until is not None and process is not None and pack in process.reads and process.reads[pack].at == until:
                return
            if not await self.work(n, pack):
                return

    def strike(self, n: int, how: str | None) -> None:
        process = self.processes[n]
        if process is not None and how == "stopped":
            process.stopped = True
        elif process is not None and how == "killed":
            self.give_up(process)
            self.processes[n] = None
            self.run(process.kill())

    async def work(self, n: int, pack: str) -> bool:
        """The next thing that it does about a pack; False: there is nothing."""
        process = self.processes[n]
        if process is None:
            self.starts += 1
            process = self.processes[n] = Process(self.memory, f"{n}, start {self.starts}")
            await process.start()
        elif process.stopped:
            for read in [read for read in process.reads.values() if read.at == SENT]:
                await self.go_on(process, read)  # the server does not know who is stopped
            return False
        else:
            return await self.work_on(process, pack)
        return True

    async def work_on(self, process: Process, pack: str) -> bool:
        try:
            if process.journal is None:
                return await self.take(process)
            if process.rung:
                await process.reload()
            elif pack in process.reads:
                await self.go_on(process, process.reads[pack])
            elif pack in process.hands:
                await self.handle(process, pack)
            elif pack in await process.journal.undelivered() and await self.deliver(process, pack):
                pass
            elif process.due.get(pack, float("inf")) <= self.now:
                await self.claim(process, pack)
            else:
                return await self.list_unread(process)
        except JournalError:
            await self.leave(process)
        return True

    async def take(self, process: Process) -> bool:
        """Where the lease of the last holder has ended, and only there; what it had claimed waits from then on."""
        until, claimed = self.held_until(), {id_ for id_, pack in self.rows.packs.items() if pack.state == ISSUED}
        holder, before = self.rows.seat[""].worker, self.epoch
        try:
            await process.take()
        except JournalError as error:
            if "is held by worker" in str(error):
                assert until is not None
                assert until > self.now
                assert self.epoch == before
            return False
        assert self.epoch == before + 1
        if holder == process.worker.id:  # it had not been able to give it back, and does so first
            until = None
        assert until is None or until <= self.now
        settled = (self.now if until is None else until) + SETTLE
        for pack in claimed:
            assert abs(process.due[pack] - max(settled, self.now)) < NEARLY, "the wait runs from the end of the lease"
        return True

    async def list_unread(self, process: Process) -> bool:
        """False: nothing can be read now."""
        assert process.journal is not None
        listed = self.server.unread()
        await process.journal.listed([(pack, count, None) for pack, count in listed.items()], None)
        for pack in listed:
            if pack not in process.reads:
                process.due.setdefault(pack, self.now)
        return any(due <= self.now for due in process.due.values())

    async def claim(self, process: Process, pack: str) -> None:
        assert process.journal is not None
        seat = process.holds
        try:
            await process.journal.claim(pack)
        except Disconnected:  # it may be there
            if seat is not None and seat.epoch == self.epoch and self.rows.packs[pack].state == ISSUED:
                self.claimed_by[pack] = seat.epoch
            raise
        assert seat is not None
        assert seat.epoch == self.epoch, "an older epoch has claimed"
        self.claimed_by[pack] = seat.epoch
        del process.due[pack]
        process.reads[pack] = Read(pack)

    async def go_on(self, process: Process, read: Read) -> None:
        """The next step of a request."""
        assert process.journal is not None
        if read.at == CLAIMED:
            process.journal.check()
            until = self.held_until()
            assert until is not None
            assert process.holds == Seat(SELLER, self.rows.no, self.epoch), "what another holds is sent"
            assert until > self.now + LEASE / 3 - NEARLY, "sent when another may take over"
            read.at, read.since = CHECKED, self.now
        elif read.at == CHECKED:
            read.at, read.since = SENT, self.now
        elif read.at == SENT:
            read.at, read.shown = ANSWERED, self.server.mark(read.pack)
        elif not process.stopped:
            await self.store(process, read)

    async def store(self, process: Process, read: Read) -> None:
        assert process.journal is not None
        seat, before = process.holds, self.rows.packs.get(read.pack)
        breaks, known = process.engine.breaks, set(self.rows.known)
        try:
            stored = await process.journal.read(read.pack, [entry(id_) for id_ in read.shown], None)
        except LeaseLost:
            assert self.rows.packs.get(read.pack) == before, "a pack is done by who does not hold it"
            assert set(read.shown) <= self.rows.known.keys(), "a late answer is dropped"
            raise
        assert breaks != process.engine.breaks or set(stored.fresh) == set(read.shown) - known
        assert not self.fresh & set(stored.fresh), "new twice"
        self.fresh |= set(stored.fresh)
        assert seat is not None
        assert seat.epoch == self.claimed_by[read.pack] == self.epoch, "an older epoch decides"
        del process.reads[read.pack]
        if stored.again is not None:
            process.due[read.pack] = self.now + stored.again

    async def deliver(self, process: Process, pack: str) -> bool:
        assert process.journal is not None
        entries, _ = await process.journal.entries(pack)
        ids = tuple(each.id for each in entries if each.id not in process.given)
        assert not self.acknowledged & set(ids), "acknowledged, and delivered again"
        if ids:
            process.given |= set(ids)
            process.hands[pack] = Hand(process.journal, ids)
        return bool(ids)

    async def handle(self, process: Process, pack: str) -> None:
        hand = process.hands[pack]
        if not hand.handled:
            hand.handled = True
            self.handled |= set(hand.ids)
            return
        await hand.journal.acknowledge(pack, hand.ids)
        self.acknowledged |= set(hand.ids)
        del process.hands[pack]

    async def beat(self, process: Process) -> None:
        with suppress(JournalError):
            await process.worker.beat()
        if process.journal is not None and not process.holds:
            await self.leave(process)

    async def leave(self, process: Process) -> None:
        """It sees that it is lost, or that its connection broke: what it had sent is on its way all the same."""
        self.give_up(process)
        await process.leave()

    def give_up(self, process: Process) -> None:
        self.late += [Late(read.pack, read.since + SETTLE) for read in process.reads.values() if read.at == SENT]

    # -- faults --

    @rule(
        pack=packs,
        news=st.booleans(),
        beats=st.booleans(),
        steps=st.integers(0, 4),
        then=st.sampled_from([None, "killed"]),
    )
    def it_wakes(self, pack: str, news: bool, beats: bool, steps: int, then: str | None) -> None:
        """Who was stopped. Its heartbeat is due at once; so is whatever it was at."""
        for n, process in enumerate(self.processes):
            if process is not None and process.stopped:
                if news:
                    self.server.write(pack)
                process.stopped = False
                if beats:
                    self.run(self.beat(process))
                for _ in range(steps):
                    self.run(self.work(n, next(iter(process.reads), pack)))
                self.strike(n, then)
                return

    @rule(
        n=which,
        pack=packs,
        what=st.sampled_from(
            ["killed", "answer lost", "answer lost", "before", "after", "late request executed", "late request gone"]
        ),
    )
    def a_fault(self, n: int, pack: str, what: Any) -> None:
        process = self.processes[n]
        if what.startswith("late") and self.late:
            self.end_late(self.late[0], executed=what.endswith("executed"))
        elif what in ("before", "after") and process is not None:
            process.line.breaks = what
        elif what == "answer lost" and process is not None and not process.stopped and pack in process.reads:
            if process.reads[pack].at in (SENT, ANSWERED):
                self.run(self.lose_answer(process, pack))
        else:
            self.strike(n, what)

    async def lose_answer(self, process: Process, pack: str) -> None:
        assert process.journal is not None
        self.late += [Late(pack, read.since + SETTLE) for read in [process.reads.pop(pack)] if read.at == SENT]
        try:
            await process.journal.reopen(pack, SETTLE, outcome_unknown=True)
            process.due[pack] = self.now + SETTLE
        except JournalError:
            await self.leave(process)

    # -- what is true after every step --

    @invariant()
    def nothing_is_lost(self) -> None:
        """Read on the server: known, or its pack is owed or claimed, or the answer is on its way to who lives."""
        if SELLER not in self.memory.sellers:
            return
        on_the_way = {id_ for process in self.alive() for read in process.reads.values() for id_ in read.shown}
        for pack, ids in self.server.packs.items():
            row = self.rows.packs.get(pack)
            if row is None or row.state == DONE:
                assert self.server.read & set(ids) <= self.rows.known.keys() | on_the_way, "lost"

    @invariant()
    def what_is_forgotten_was_handled(self) -> None:
        """Acknowledged: handled, and known for ever. Every other known message has its body."""
        if SELLER in self.memory.sellers:
            assert self.acknowledged <= self.handled <= self.rows.known.keys()
            assert self.rows.known.keys() - self.rows.bodies.keys() <= self.handled
            assert self.rows.bodies.keys() <= self.rows.known.keys()

    @invariant()
    def a_claim_is_of_the_epoch_that_holds(self) -> None:
        if SELLER in self.memory.sellers:
            for pack, row in self.rows.packs.items():
                assert row.state != ISSUED or self.claimed_by.get(pack, self.epoch) == self.epoch

    # -- the end --

    def teardown(self) -> None:
        try:
            if SELLER in self.memory.sellers:
                self.run(self.heal())
        finally:
            for process in self.alive():
                self.run(process.kill())
            self.runner.close()

    async def heal(self) -> None:
        """One process lives on: everything is handled, and nothing is left."""
        for n, process in enumerate(self.processes):
            if process is not None:
                self.give_up(process)
                self.processes[n] = None
                await process.kill()
        await self.wait(LEASE + 2.0, executed=True)
        for _ in range(6):
            for pack in PACKS:
                await self.work_until(0, pack, None)
            process = self.processes[0]
            assert process is not None
            if process.due:
                await self.wait(max(min(process.due.values()) - self.now, 0.0), executed=True)
        assert not self.server.unread(), "left"
        everything = {id_ for ids in self.server.packs.values() for id_ in ids}
        assert self.handled == self.acknowledged == everything
        assert {row.state for row in self.rows.packs.values()} == {DONE}
        assert not self.rows.bodies


@case("Q3")
def test_engines_on_one_store_lose_nothing_in_any_order() -> None:
    """Claims, takeovers, kills, stops, late answers and requests, lost answers, broken connections."""
    thorough = settings.get_current_profile_name() == "machines-thorough"
    run_state_machine_as_test(Machines, settings=settings.get_profile("machines-thorough") if thorough else QUICK)

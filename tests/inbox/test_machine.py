"""A state machine over the real Inbox: whatever happens, in whatever order, nothing is lost, and in the end nothing is left.

More of it: ``python -m pytest tests/inbox/test_machine.py --hypothesis-profile=inbox-thorough``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mlmessages import Delivery, MessagesError, Retry
from mlmessages.errors import DrainStalled, JournalError
from mlmessages.journal.sqlite import contents
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    RESET,
    Behaviour,
    Delay,
    Garbage,
    Pack,
    Reply,
    Rule,
    Sandbox,
    Truncate,
    VirtualClockLoop,
    on,
)

T = TypeVar("T")
# No rule has a precondition: what the threads of the journals did first is not Hypothesis's to replay.
SETTLE = 60.0  # no request is executed later than that after its answer was given up
CONCURRENCY = 3

QUICK = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

MARK_FAULTS: dict[str, tuple[Any, ...]] = {
    "executed, lost": (EXECUTE, DROP),
    "executed, reset": (EXECUTE, RESET),
    "lost": (DROP,),
    "executed, 502": (EXECUTE, Reply(502)),
    "503": (Reply(503),),
    "late execution": (Delay(50.0), EXECUTE, DROP),
    "late answer": (EXECUTE, Delay(50.0)),
    "hangs": (EXECUTE, HANG),
    "429": (Reply(429, headers={"Retry-After": "3"}),),
    "429 for long": (Reply(429, headers={"Retry-After": "4000"}),),
    "404": (Reply(404),),
    "403": (Reply(403),),
    "garbage": (EXECUTE, Garbage()),
    "truncated": (EXECUTE, Truncate(40)),
}
READ_FAULTS: dict[str, tuple[Any, ...]] = {
    "lost": (DROP,),
    "503": (Reply(503),),
    "429": (Reply(429, headers={"Retry-After": "3"}),),
    "403": (Reply(403),),
    "404": (Reply(404),),
    "garbage": (EXECUTE, Garbage()),
    "hangs": (HANG,),
}


class Tokens:
    """The seller's token, as long as it is a good one."""

    def __init__(self, token: str) -> None:
        self.current = token

    async def token(self) -> str:
        return self.current

    async def rejected(self, token: str) -> None:
        pass


class InboxMachine(RuleBasedStateMachine):
    """A buyer, a human on the site, a server, a network, a disk, and processes with an inbox, one after the other."""

    def __init__(self, life_of: Callable[..., Any], disk: Any, directory: Path) -> None:
        super().__init__()
        self.life_of = life_of
        self.disk = disk
        self.names = (directory / f"{n}.db" for n in itertools.count())
        self.numbers = itertools.count()
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        self.life: Any = None
        self.drain: Any = None
        self.faults: list[Rule] = []
        self.pack_of: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.unseeable: set[str] = set()
        self.delivered: set[str] = set()
        self.unread_seen: set[str] = set()
        self.acknowledged: set[str] = set()
        self.of_this_life: set[str] = set()
        self.held: list[Delivery] = []
        self.was_full = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # -- the world --

    @initialize(
        packs=st.integers(1, 9),
        marks=st.sampled_from(["pack", "pack", "page"]),
        order=st.sampled_from(["newest", "newest", "oldest"]),
        shows_read=st.booleans(),
        lag=st.sampled_from([0.0, 0.0, 4.0]),
        verify=st.sampled_from(["never", "never", "always"]),
        limit=st.sampled_from([1, 2, 50]),
    )
    def a_world(
        self, packs: int, marks: Any, order: Any, shows_read: bool, lag: float, verify: str, limit: int
    ) -> None:
        async def make() -> Sandbox:
            return Sandbox(
                [Pack(messages=0) for _ in range(packs)],
                behaviour=Behaviour(
                    cap=4, total=True, latency=0.02, marks=marks, order=order, shows_read=shows_read, lag=lag
                ),
            )

        self.sandbox = self.run(make())
        self.lag = lag
        self.packs = self.sandbox.pack_ids()
        self.tokens = Tokens(self.sandbox.token)
        self.options = {"concurrency": CONCURRENCY, "limit": limit, "settle_time": SETTLE, "verify": verify}
        self.path = next(self.names)
        for pack_id in self.packs:
            self.send(pack_id)
        self.start()

    def send(self, pack_id: str, sender: Any = "buyer") -> None:
        async def arrive() -> str:
            return self.sandbox.send(pack_id, sender=sender)

        self.pack_of[self.run(arrive())] = pack_id

    def a_pack(self, n: int) -> str:
        return self.packs[n % len(self.packs)]

    @rule(n=st.integers(0, 8), many=st.sampled_from([1, 1, 2, 5]), sender=st.sampled_from(["buyer", "buyer", "seller"]))
    def somebody_writes(self, n: int, many: int, sender: str) -> None:
        for _ in range(many):
            self.send(self.a_pack(n), sender)

    @rule(n=st.integers(0, 200))
    def moderation_hides(self, n: int) -> None:
        message = sorted(self.pack_of)[n % len(self.pack_of)]
        # No client can show what was marked by a request whose answer it has not got, and was then taken away.
        self.unseeable |= {message} & (self.sandbox.marked_ids() - self.delivered)
        self.hidden.add(message)
        self.sandbox.hide(message)

    @rule()
    def moderation_reveals(self) -> None:
        if self.hidden:
            message = min(self.hidden)
            self.hidden.remove(message)
            self.sandbox.reveal(message)

    @rule(n=st.integers(0, 8))
    def a_human_reads_on_the_site(self, n: int) -> None:
        async def read() -> None:
            self.sandbox.read_elsewhere(self.a_pack(n))

        self.run(read())

    @rule(seconds=st.sampled_from([0.005, 0.03, 1.0, 20.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    # -- faults --

    @rule(fault=st.sampled_from(sorted(MARK_FAULTS)), times=st.sampled_from([1, 1, 2]))
    def a_mark_will_fail(self, fault: str, times: int) -> None:
        event(f"mark: {fault}")
        self.faults.append(self.sandbox.add(on("mark", times=times).do(*MARK_FAULTS[fault])))

    @rule(fault=st.sampled_from(sorted(READ_FAULTS)), kind=st.sampled_from(["peek", "listing"]))
    def a_read_will_fail(self, fault: str, kind: Any) -> None:
        self.faults.append(self.sandbox.add(on(kind, times=1).do(*READ_FAULTS[fault])))

    @rule(good=st.sampled_from([True, True, False]))
    def the_token_changes(self, good: bool) -> None:
        new = f"APP_USR-{next(self.numbers)}"
        self.sandbox.rotate_token(new)
        if good:
            self.tokens.current = new

    @rule(full=st.sampled_from([False, False, True]))
    def the_disk_fills(self, full: bool) -> None:
        self.disk.full_at = 0 if full else float("inf")
        self.was_full |= full

    # -- the process --

    @rule()
    def it_starts(self) -> None:
        if self.life is None:
            self.start()

    def start(self) -> None:
        async def begin() -> None:
            life = self.life_of(self.sandbox, self.path, **self.options)
            try:
                await life.begin(auth=self.tokens, timeout=10, retry=Retry(attempts=2, base=0.1, deadline=30))
                self.life = life
            except JournalError:
                assert self.was_full
                await life.end()

        self.of_this_life, self.held, self.drain = set(), [], None
        self.was_full = self.disk.full_at == 0
        self.run(begin())

    @rule(seconds=st.sampled_from([0.005, 0.03, 0.1, 5.0, 200.0]), ack=st.booleans())
    def it_takes(self, seconds: float, ack: bool) -> None:
        if self.life is not None:
            self.run(self.take(seconds, ack=ack))

    @rule(ack=st.booleans())
    def it_takes_all(self, ack: bool) -> None:
        async def all_of_it() -> None:
            while await self.take(10_000, ack=ack):
                pass

        if self.life is not None:
            self.run(all_of_it())

    async def take(self, seconds: float, *, ack: bool) -> bool:
        """The next delivery, if it comes in time; False: there is none, or none yet."""
        if self.drain is None:
            self.drain = self.life.inbox.drain()
        try:
            async with asyncio.timeout(seconds):
                delivery = await anext(self.drain)
        except TimeoutError:
            assert seconds < 10_000, "a drain that does not end"
            return False
        except StopAsyncIteration:
            event("a drain ended")
            self.the_end_is_true()
            self.drain = None
            return False
        except MessagesError as error:
            event(f"a drain ended in {type(error).__name__}")
            self.drain = None
            return False
        await self.taken(delivery, ack=ack)
        return True

    async def taken(self, delivery: Delivery, *, ack: bool) -> None:
        ids = [message.id for message in delivery.messages]
        assert ids
        assert len(ids) == len(set(ids))
        assert not self.acknowledged & set(ids), "acknowledged, and delivered again"
        assert not self.of_this_life & set(ids), "delivered twice in one process"
        assert delivery.redelivered or not self.delivered & set(ids), "delivered before, and it does not say so"
        assert [m.created for m in delivery.messages] == sorted(m.created for m in delivery.messages if m.created)
        self.of_this_life.update(ids)
        self.delivered.update(ids)
        self.unread_seen.update(message.id for message in delivery.unread)
        self.held.append(delivery)
        if ack:
            await self.acknowledge()

    async def acknowledge(self) -> None:
        while self.held:
            try:
                await self.held[-1].ack()
            except JournalError:
                assert self.was_full
                break
            self.acknowledged.update(message.id for message in self.held.pop().messages)

    def the_end_is_true(self) -> None:
        """What is unread when a drain says that it is done is in parked packs, or came meanwhile."""
        if self.lag:
            return
        parked = {failure.pack_id for failure in self.life.inbox.report.parked}
        assert {self.pack_of[id_] for id_ in self.sandbox.unread_ids()} <= parked
        assert (self.life.inbox.report.owed, self.life.inbox.report.waiting) == (0, 0)

    @rule()
    def it_acknowledges(self) -> None:
        self.run(self.acknowledge())

    @rule()
    def it_closes_the_drain(self) -> None:
        if self.drain is not None:
            self.run(self.drain.aclose())
            self.drain = None

    @rule()
    def it_ends(self) -> None:
        if self.life is not None:
            self.run(self.life.end())
            self.life, self.drain, self.held = None, None, []

    @rule(
        letters=st.integers(0, 4),
        seconds=st.sampled_from([0.005, 0.025, 0.035, 0.045, 0.065, 12.0]),
        restart=st.booleans(),
    )
    def it_is_killed_at_work(self, letters: int, seconds: float, restart: bool) -> None:
        if self.life is None:
            return
        for n in range(letters):
            self.send(self.a_pack(n))
        self.run(self.take(seconds, ack=False))
        to = next(self.names)
        self.run(self.life.crash(to))
        self.path, self.life, self.drain, self.held = to, None, None, []
        if restart:
            self.start()

    # -- what is true after every step --

    @invariant()
    def nothing_is_lost(self) -> None:
        """What is marked was delivered, or is in the journal, or its pack is owed: on the disk, at this moment."""
        missing = self.sandbox.marked_ids() - self.delivered - self.unseeable
        if missing:
            said = contents(self.path)
            owed = {row.pack_id for row in said.rows} | said.undelivered.keys()
            assert {self.pack_of[id_] for id_ in missing} <= owed

    @invariant()
    def few_are_claimed(self) -> None:
        """No more than `concurrency`; a full disk may leave older claims standing, as of a dead process."""
        if self.life is not None and not self.was_full:
            claimed = [row for row in contents(self.path).rows if row.state == "issued"]
            assert len(claimed) <= CONCURRENCY

    @invariant()
    def the_report_is_true(self) -> None:
        if self.life is not None:
            report = self.run(self.report())
            assert report.messages == len(self.of_this_life)
            assert 0 <= report.waiting <= report.owed
            assert (report.waits_until is None) == (report.waiting == 0)

    async def report(self) -> Any:
        return self.life.inbox.report

    # -- the end --

    def teardown(self) -> None:
        try:
            if hasattr(self, "sandbox"):
                self.run(self.heal())
        finally:
            if self.life is not None:
                self.run(self.life.end())
            self.runner.close()

    async def heal(self) -> None:
        """Everything works again: a few drains, with time between, and nothing is missing."""
        for armed in self.faults:
            self.sandbox.remove(armed)
        self.disk.full_at = float("inf")
        for message in self.hidden:
            self.sandbox.reveal(message)
        self.tokens.current = self.sandbox.token
        for again in (self.life is not None, True):
            if not again:
                continue
            if self.life is None:
                self.of_this_life, self.held, self.drain = set(), [], None
                self.life = self.life_of(self.sandbox, self.path, **self.options)
                await self.life.begin(auth=self.tokens, retry=Retry(attempts=2))
            for _ in range(4):
                await self.drain_to_the_end()
                await asyncio.sleep(25 * 3600)  # what was parked is tried again
            assert self.life.inbox.report.parked == ()
            await self.life.end()
            self.life = None
        assert self.sandbox.unread_ids() == set(), "left"
        marked = self.sandbox.marked_ids() - self.unseeable
        assert marked <= self.delivered, "lost"
        assert marked <= self.unread_seen, "lost by who looks at `unread` alone"
        assert self.delivered == self.acknowledged
        assert contents(self.path).rows == []

    async def drain_to_the_end(self) -> None:
        self.drain = self.life.inbox.drain()
        try:
            async for delivery in self.drain:
                await self.taken(delivery, ack=True)
        except DrainStalled:
            pass  # parked packs fill the listing until they are tried again
        await self.acknowledge()


def test_nothing_is_lost_whatever_happens(life_of: Any, disk: Any, tmp_path: Path) -> None:
    """Buyers, humans, moderation, faults, crashes in any order: the invariants after every step; healed, nothing is missing."""
    numbers = itertools.count()

    def machine() -> InboxMachine:
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        disk.full_at = float("inf")
        return InboxMachine(life_of, disk, directory)

    thorough = settings.get_current_profile_name() == "inbox-thorough"
    factory: Any = machine  # it is called as the class would be
    run_state_machine_as_test(factory, settings=settings.get_profile("inbox-thorough") if thorough else QUICK)

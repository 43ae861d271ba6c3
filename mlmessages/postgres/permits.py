"""The request budget of an application as rows: all processes on one database share it, on any number of machines.

Each permit is a row that is free from a moment on, by the database's clock. A process takes as many as it has requests
waiting, and gives back in the same round trip what is over. What a process takes with it when it dies comes back by
itself; a process that was stopped or suspended for so long sends nothing on it. Without the database nothing is sent: a
guess would spend what belongs to the other processes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import define, evolve, field, frozen

from ..api.arguments import check_id
from ..errors import JournalError, NotSent
from ..http.limits import CLOCK_STEP, Brake, Limits, MemoryWindow, Permit, Window
from ..moments import Moment

if TYPE_CHECKING:
    from .connection import Statements

_log: Final = logging.getLogger("mlmessages")
Kind = Literal["read", "write"]

_KNOWN: Final = "SELECT size, period FROM mlmessages.budget WHERE app = %(app)s AND kind = %(kind)s"
_BUDGET: Final = """
INSERT INTO mlmessages.budget AS b (app, kind, size, period)
 VALUES (%(app)s, %(kind)s, %(size)s::int, %(period)s::float8)
 ON CONFLICT (app, kind) DO UPDATE SET size = excluded.size, period = excluded.period
  WHERE b.size <> excluded.size OR b.period <> excluded.period"""
_PERMITS: Final = """
INSERT INTO mlmessages.permit (app, kind, no) SELECT %(app)s, %(kind)s, no FROM generate_series(1, %(size)s::int) no
 ON CONFLICT DO NOTHING"""

# A late GIVE is only late: the wait is counted from the answer's age, and `turn` keeps it off a permit that came back
# by itself and has another holder now.
_GIVE: Final = """
WITH now AS MATERIALIZED (SELECT mlmessages.clock() AS t)
UPDATE mlmessages.permit p SET free_at = now.t + f.wait * interval '1 s'
 FROM now, unnest(%(nos)s::int[], %(turns)s::bigint[], %(waits)s::float8[]) f(no, turn, wait)
 WHERE p.app = %(app)s AND p.kind = %(kind)s AND p.no = f.no AND p.turn = f.turn"""
# In a storm, which begins with a pause, no permit is given before the pause is over. Then one is, to the process whose
# turn it is to find out whether others may follow.
_ASK: Final = """
WITH now AS MATERIALIZED (SELECT mlmessages.clock() AS t),
 b AS MATERIALIZED (
  SELECT size, storm, rounds, paused_until FROM mlmessages.budget WHERE app = %(app)s AND kind = %(kind)s),
 probing AS (UPDATE mlmessages.budget SET probe_until = now.t + interval '45 s' FROM now
   WHERE app = %(app)s AND kind = %(kind)s AND storm AND paused_until <= now.t AND probe_until <= now.t RETURNING 1),
 known AS MATERIALIZED (
  SELECT count(*) FILTER (WHERE free_at > now.t) AS used, min(free_at) AS next FROM mlmessages.permit, now, b
   WHERE app = %(app)s AND kind = %(kind)s AND no <= b.size),
 free AS (SELECT no FROM mlmessages.permit WHERE app = %(app)s AND kind = %(kind)s AND no <= (SELECT size FROM b)
   AND free_at <= (SELECT t FROM now) ORDER BY no
   LIMIT CASE WHEN (SELECT storm FROM b) THEN (SELECT count(*) FROM probing) ELSE %(wanted)s::int END
   FOR UPDATE SKIP LOCKED),
 taken AS (UPDATE mlmessages.permit p SET turn = turn + 1, free_at = now.t + %(hold)s::float8 * interval '1 s'
   FROM now, free WHERE p.app = %(app)s AND p.kind = %(kind)s AND p.no = free.no RETURNING p.no, p.turn)
 SELECT (SELECT coalesce(json_agg(json_build_array(no, turn)), '[]') FROM taken), b.storm, b.rounds,
  (known.used + (SELECT count(*) FROM taken))::int, extract(epoch FROM now.t)::float8,
  extract(epoch FROM greatest(nullif(b.paused_until, '-infinity'), nullif(known.next, '-infinity'), now.t) - now.t
  )::float8 FROM b, known, now"""
_PAUSE: Final = """
UPDATE mlmessages.budget
 SET rounds = rounds + CASE WHEN %(started)s::float8 >= extract(epoch FROM paused_at) THEN 1 ELSE 0 END,
  paused_at = mlmessages.clock(), storm = true, probe_until = '-infinity',
  paused_until = greatest(paused_until, mlmessages.clock() + %(wait)s::float8 * interval '1 s') WHERE app = %(app)s"""
_CALM: Final = """
UPDATE mlmessages.budget SET storm = false, rounds = 0, probe_until = '-infinity'
 WHERE app = %(app)s AND storm AND paused_until <= mlmessages.clock()"""
_NO_PROBE: Final = "UPDATE mlmessages.budget SET probe_until = '-infinity' WHERE app = %(app)s AND storm"

_HOLD: Final = 3  # periods for which a permit is taken; while its request lasts it is taken anew every period
_HINT: Final = (
    "Is the database up? Without a permit from it nothing is sent: a guess would spend the budget of the other"
    " processes."
)


def limits(
    statements: Statements,
    application_id: int | str,
    *,
    reads: int = 500,
    writes: int = 500,
    period: float = 60.0,
    concurrency: int = 32,
    per_second: float | None = 100,
) -> SharedLimits:
    """Return the budget of an application, shared by all processes that use the database of `statements`.

    `concurrency` and `per_second` are of this process. Values out of range: `ValueError`.
    """
    app = check_id("application_id", application_id)
    return SharedLimits(
        statements, app, reads=reads, writes=writes, period=period, concurrency=concurrency, per_second=per_second
    )


@frozen
class Slot:
    """A permit that this process holds: row `no`, for the `turn`-th time, since `taken` by the database's clock."""

    no: int
    turn: int
    taken: float


@frozen
class _Holding:
    """What is known of a permit that is held. `renewed`: before it was taken, or last taken anew."""

    kind: Kind
    renewed: Moment


class SharedLimits(Limits):
    """`Limits` whose permits, pauses and storms are rows of a database."""

    def __init__(self, statements: Statements, app: str, **options: Any) -> None:
        self._table = PermitTable(statements, app)
        super().__init__(**options)

    def _budget(self) -> tuple[Window, Window, Brake]:
        table = self._table
        table.windows = {
            "read": SharedWindow(table, "read", self.reads, self.period),
            "write": SharedWindow(table, "write", self.writes, self.period),
        }
        return table.windows["read"], table.windows["write"], table.brake

    async def close(self) -> None:
        """Give back what is over. What is still in flight comes back by itself."""
        await self._table.close()


class SharedWindow:
    """A `Window` whose permits are rows: fetched a few at a time, and given back with the next round trip."""

    def __init__(self, table: PermitTable, kind: Kind, size: int, period: float) -> None:
        self.kind: Final = kind
        self.size: Final = size
        self.period: Final = period
        self._table = table
        self._own = MemoryWindow(size, period)  # what this process has used
        self._fetched: deque[Slot] = deque()  # and not yet taken
        self._opens_at = -math.inf  # when a permit may be free
        self._used_by_all = (0, -math.inf)  # so many, at that moment

    @property
    def in_flight(self) -> int:
        return self._own.in_flight

    @property
    def ready(self) -> bool:
        return bool(self._fetched)

    def used(self, now: float) -> int:
        count, moment = self._used_by_all
        return max(self._own.used(now), count if now < moment + self.period else 0)

    def opens_at(self, now: float) -> float:
        while self._fetched and not self._table.is_held(self._fetched[0]):
            self._table.give(self.kind, self._fetched.popleft(), now)
        return now if self._fetched else max(now, self._opens_at)

    async def fetch(self, wanted: int) -> None:
        await self._table.ask(self.kind, wanted)

    def take(self) -> Slot:
        self._own.take()
        return self._fetched.popleft()

    def is_valid(self, name: Hashable) -> bool:
        assert isinstance(name, Slot)
        return self._table.is_held(name)

    def give_back(self, name: Hashable, now: float, *, sent: bool, counted: bool) -> None:
        assert isinstance(name, Slot)
        self._own.give_back(None, now, sent=sent, counted=counted)
        self._table.give(self.kind, name, now + (1 if counted else 2) * self.period + CLOCK_STEP if sent else now)
        if not sent:
            self._opens_at = now

    def give_back_unused(self) -> None:
        if self._fetched and self._table.brake.half_open:
            self._table.give_up_probe()
        while self._fetched:
            self._table.give(self.kind, self._fetched.popleft(), -math.inf)

    def moved(self, now: float) -> SharedWindow:
        if self._own.used(now) or self._fetched:
            raise RuntimeError("limits of a database belong to the event loop in which the database was entered")
        return self

    def returns(self, now: float) -> dict[float, int]:
        return {}  # the database knows

    def spend(self, seconds: float, count: int, now: float) -> None:
        pass

    def note_answer(self, now: float, slots: list[Slot], used: int, wait: float, *, storm: bool) -> None:
        """Note what the database said at `now`."""
        self._fetched.extend(slots)
        self._used_by_all = (used, now)
        # What is in flight comes back a period from now at the earliest. Where another process finds out whether a
        # storm is over, or takes at this moment what is free, it will not take long.
        self._opens_at = now if slots else now + min(max(wait, 0.25 if storm else 0.005), self.period)


class SharedBrake(Brake):
    """Pauses and storms that all processes see."""

    def __init__(self, table: PermitTable) -> None:
        super().__init__()
        self._table = table

    def learn(self, *, storm: bool, rounds: int) -> None:
        """Note what the database says of a storm."""
        self.half_open = storm
        self.rounds = rounds

    def refuse(
        self, permit: Permit, now: float, retry_after: float | None, delay: Callable[[int], float], longest: float
    ) -> float:
        wait = super().refuse(permit, now, retry_after, delay, longest)
        assert isinstance(permit.name, Slot)
        self._table.pause(permit.name.taken, now + min(wait, longest))
        return wait

    def end(self, permit: Permit, *, answered: bool) -> None:
        storm = self.half_open
        super().end(permit, answered=answered)
        if storm and not self.half_open:
            self._table.calm()
        elif permit.probe and not answered and not permit.refused:
            self._table.give_up_probe()


@define
class _Due:
    """What the next round trip has to do for one kind of permit."""

    gives: dict[Slot, float] = field(factory=dict)  # each with the moment from which on it is free
    wanted: int = 0
    asking: list[asyncio.Future[None]] = field(factory=list)


class PermitTable:
    """The rows of one application, as one process asks for them: in one round trip at a time.

    What comes up while one is under way goes with the next.
    """

    def __init__(self, statements: Statements, app: str) -> None:
        self.windows: dict[Kind, SharedWindow] = {}
        self.brake: Final = SharedBrake(self)
        self._statements = statements
        self._app = app
        self._prepared = False
        self._due: dict[Kind, _Due] = {"read": _Due(), "write": _Due()}
        self._held: dict[Slot, _Holding] = {}
        self._brakes: list[tuple[str, dict[str, Any], float]] = []  # statements; the moment at which a pause ends
        self._failure: tuple[JournalError, float] | None = None  # with its moment
        self._round: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None

    async def ask(self, kind: Kind, wanted: int) -> None:
        """Get up to `wanted` permits into the window of that kind. Raises `NotSent` if the database does not answer."""
        loop = asyncio.get_running_loop()
        if self._failure is not None and loop.time() < self._failure[1] + self._interval:
            raise _not_sent(self._failure[0])
        answered = loop.create_future()
        due = self._due[kind]
        due.wanted = wanted
        due.asking.append(answered)
        self._start_round()
        await answered

    def is_held(self, slot: Slot) -> bool:
        """Return True while it is certain that no other process has the permit.

        That is a period less than it is held for: a renewal may be under way.
        """
        holding = self._held.get(slot)
        return holding is not None and holding.renewed.age < (_HOLD - 1) * self.windows[holding.kind].period

    def give(self, kind: Kind, slot: Slot, free_at: float) -> None:
        """Give a permit back, with the next round trip; it is free from the moment `free_at` on."""
        self._held.pop(slot, None)
        self._due[kind].gives[slot] = free_at
        self._start_later()

    def pause(self, started: float, until: float) -> None:
        """Pause all processes until a moment. `started`: when the refused request took its permit."""
        for window in self.windows.values():
            window.give_back_unused()
        self._brakes.append((_PAUSE, {"started": started}, until))
        self._start_round()

    def calm(self) -> None:
        """End a storm for all processes."""
        self._brakes.append((_CALM, {}, 0.0))
        self._start_round()

    def give_up_probe(self) -> None:
        """Let another request find out whether a storm is over."""
        self._brakes.append((_NO_PROBE, {}, 0.0))
        self._start_round()

    async def close(self) -> None:
        """Give back what is over, if the database is there."""
        for window in self.windows.values():
            window.give_back_unused()
        if self._later is not None:
            self._later.cancel()
        if self._round is not None:
            await self._round
        if any(due.gives for due in self._due.values()):
            await self._run_round()
        if self._later is not None:
            self._later.cancel()

    # -- round trips --

    def _start_round(self) -> None:
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_task(self._run_rounds())

    def _start_later(self) -> None:
        """Give back before long also where nothing is asked for, and take anew what lasts."""
        loop = asyncio.get_running_loop()
        if self._later is None or self._later.cancelled() or self._later.when() <= loop.time():
            self._later = loop.call_later(self._interval, self._start_round)

    @property
    def _interval(self) -> float:
        return min(window.period for window in self.windows.values()) / 60

    async def _run_rounds(self) -> None:
        while await self._run_round() and (self._brakes or any(due.asking for due in self._due.values())):
            pass

    async def _run_round(self) -> bool:
        """Make one round trip; return False if the database does not answer."""
        loop = asyncio.get_running_loop()
        due, self._due = self._due, {"read": _Due(), "write": _Due()}
        brakes, self._brakes = self._brakes, []
        asked = [kind for kind in due if due[kind].asking]
        sent, renewing = Moment.now(), self._to_be_renewed()
        statements = self._statements_of(loop.time(), due, brakes, renewing)
        if not statements:
            self._start_later()
            return False
        try:
            rows = await self._statements.run(*statements)
        except JournalError as error:
            self._failed(error, due, brakes)
            return False
        except BaseException:
            self._failed(JournalError("the program ends"), due, brakes)
            raise
        self._failure = None
        self._note_size(rows)
        self._held.update((slot, evolve(held, renewed=sent)) for slot, held in renewing.items() if slot in self._held)
        for kind, (row,) in zip(asked, rows[len(rows) - len(asked) :], strict=True):
            self._answered(kind, loop.time(), row, due[kind], sent)
        if self._held or any(kind.gives for kind in self._due.values()):
            self._start_later()
        return True

    def _to_be_renewed(self) -> dict[Slot, _Holding]:
        """Return the permits whose requests last; forget those that may be another process's by now."""
        self._held = {slot: held for slot, held in self._held.items() if self.is_held(slot)}
        return {slot: held for slot, held in self._held.items() if held.renewed.age >= self.windows[held.kind].period}

    def _statements_of(
        self,
        now: float,
        due: Mapping[Kind, _Due],
        brakes: list[tuple[str, dict[str, Any], float]],
        renewing: Mapping[Slot, _Holding],
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return what a round trip says: what is over, what lasts, pauses, and last what is asked for."""
        statements: list[tuple[str, dict[str, Any]]] = []
        names = {kind: {"app": self._app, "kind": kind} for kind in due}
        if not self._prepared:
            for kind, window in self.windows.items():
                parameters = {**names[kind], "size": window.size, "period": window.period}
                statements += [(_KNOWN, parameters), (_BUDGET, parameters), (_PERMITS, parameters)]
        for kind, window in self.windows.items():
            waits = {slot: max(free_at - now, 0.0) for slot, free_at in due[kind].gives.items()}
            waits |= {slot: _HOLD * window.period for slot, held in renewing.items() if held.kind == kind}
            if waits:
                columns = {"nos": [s.no for s in waits], "turns": [s.turn for s in waits], "waits": [*waits.values()]}
                statements.append((_GIVE, names[kind] | columns))
        for sql, parameters, until in brakes:
            statements.append((sql, {"app": self._app, **parameters, "wait": max(until - now, 0.0)}))
        for kind, window in self.windows.items():
            if due[kind].asking:
                wanted = {"wanted": due[kind].wanted, "hold": _HOLD * window.period}
                statements.append((_ASK, names[kind] | wanted))
        return statements

    def _answered(self, kind: Kind, now: float, row: tuple[Any, ...], due: _Due, sent: Moment) -> None:
        pairs, storm, rounds, used, clock, wait = row
        window = self.windows[kind]
        slots = [Slot(no, turn, clock) for no, turn in pairs]
        self._held.update((slot, _Holding(kind, sent)) for slot in slots)
        if not self._brakes:  # else it is not yet told what happened here
            self.brake.learn(storm=storm, rounds=rounds)
        window.note_answer(now, slots, used, wait, storm=storm)
        waiting = [future for future in due.asking if not future.done()]
        for future in waiting:
            future.set_result(None)
        if not waiting:  # given up meanwhile
            window.give_back_unused()

    def _note_size(self, rows: list[list[tuple[Any, ...]]]) -> None:
        if self._prepared:
            return
        self._prepared = True
        for (kind, window), known in zip(self.windows.items(), rows[::3], strict=False):
            if known and known[0] != (window.size, window.period):
                size, period = known[0]
                _log.warning(
                    "the %s budget of application %s was %d in %g s, and is %d in %g s from now on, for every process",
                    kind, self._app, size, period, window.size, window.period,
                )  # fmt: skip

    def _failed(
        self, error: JournalError, due: Mapping[Kind, _Due], brakes: list[tuple[str, dict[str, Any], float]]
    ) -> None:
        """Tell what asks, and keep what has to be said until the database is there again."""
        for kind, failed in due.items():
            self._due[kind].gives = failed.gives | self._due[kind].gives
            for future in failed.asking:
                if not future.done():
                    future.set_exception(_not_sent(error))
        self._brakes = brakes + self._brakes
        self._failure = (error, asyncio.get_running_loop().time())
        if self._brakes or self._held or any(kind.gives for kind in self._due.values()):
            self._start_later()


def _not_sent(error: JournalError) -> NotSent:
    not_sent = NotSent(f"no permit: {error}")
    not_sent.hint = _HINT
    return not_sent

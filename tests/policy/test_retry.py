"""Retry on a virtual clock: what is sent again, when, and when no more."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import case
from mlmessages import Limits, Retry, errors
from mlmessages.api.calls import Effect
from mlmessages.api.outcomes import repeatable
from mlmessages.http.pipeline import RequestCount
from mlmessages.http.retry import FailedAttempt, RetryBudget, with_retries
from mlmessages.testing import DROP, EXECUTE, HANG, Garbage, Redirect, Reply, Rule, Sandbox, on, virtual_run
from policy.cancelling import Cancel, cancelled_at
from policy.pipelines import MARK, READ, WRITE, Renewable, call, once, session_of

# -- one course of attempts --------------------------------------------------------------------------------------------


class Script:
    """Attempts whose outcomes and durations are made to order; `None` is a success."""

    def __init__(self, outcomes: Iterable[errors.MessagesError | None], seconds: float = 0.0) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self._outcomes: Iterator[errors.MessagesError | None] = iter(outcomes)
        self._seconds = seconds

    async def attempt(self) -> str | FailedAttempt:
        loop = asyncio.get_running_loop()
        self.began.append(loop.time())
        await asyncio.sleep(self._seconds)
        self.ended.append(loop.time())
        error = next(self._outcomes)
        return "answer" if error is None else FailedAttempt(error)

    async def run(self, policy: Retry, effect: Effect = READ, budget: RetryBudget | None = None) -> str:
        """What comes of it under `policy`."""
        self._started = asyncio.get_running_loop().time()
        return await with_retries(policy, budget or RetryBudget(), effect, self)

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    @property
    def waits(self) -> list[float]:
        """The seconds slept before each attempt but the first."""
        return [began - ended for ended, began in zip(self.ended, self.began[1:], strict=False)]


def lost() -> errors.MessagesError:
    return errors.AnswerLost("no answer within 30 s")


def unavailable(retry_after: float | None = None) -> errors.MessagesError:
    return errors.ServerError(503, retry_after=retry_after)


def too_many(retry_after: float | None = None) -> errors.MessagesError:
    return errors.RateLimited(429, retry_after=retry_after)


def final(error: errors.NotSent | errors.DecodeError) -> errors.MessagesError:
    error.final = True
    return error


ALWAYS = (READ, MARK, WRITE)


@pytest.mark.parametrize("effect", Effect)
@pytest.mark.parametrize(
    ("error", "repeated_for"),
    [
        (errors.NotSent("no connection"), ALWAYS),
        (too_many(), ALWAYS),
        (lost(), (READ,)),
        (errors.ServerError(500), (READ,)),
        (errors.ServerError(502), (READ,)),
        (errors.ServerError(504), (READ,)),
        (errors.BadRequest(400), ()),
        (errors.Unauthorized(401), ()),
        (errors.Forbidden(403), ()),
        (errors.NotFound(404), ()),
        (errors.Conflict(409), ()),
        (errors.APIError(302), ()),
        (errors.APIError(451), ()),
        (errors.DecodeError("not JSON"), (READ,)),
        (final(errors.DecodeError("too large")), ()),
        (final(errors.NotSent("no trust in its certificate")), ()),
        (errors.AuthError("no token"), ()),
        (errors.ReauthorizationRequired("no token"), ()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else f"{len(value)} repeated",
)
def test_outcome_decides_what_is_repeated(
    error: errors.MessagesError, repeated_for: tuple[Effect, ...], effect: Effect
) -> None:
    """What was not executed is sent again, what may have been only if it is a read, a refusal never."""
    script = Script([error, None])
    if effect in repeated_for:
        assert repeatable(effect, error)
        assert virtual_run(script.run(Retry(), effect)) == "answer"
        assert len(script.began) == 2
    else:
        assert not repeatable(effect, error)
        with pytest.raises(type(error)) as caught:
            virtual_run(script.run(Retry(), effect))
        assert caught.value is error
        assert len(script.began) == 1


def test_a_refusal_after_a_lost_answer_ends_the_retries() -> None:
    """Each outcome is judged anew: 503, then 403 is a `Forbidden` after two requests."""
    script = Script([unavailable(), errors.Forbidden(403)])
    with pytest.raises(errors.Forbidden):
        virtual_run(script.run(Retry()))
    assert len(script.began) == 2


def test_waits_double_up_to_the_cap() -> None:
    """The n-th wait is base, 2*base, 4*base … up to cap seconds."""
    policy = Retry(base=0.5, cap=60)
    assert [policy.delay(n) for n in (1, 2, 3, 7, 8, 9, 5000)] == [0.5, 1, 2, 32, 60, 60, 60]


def test_jitter_only_adds() -> None:
    """Each wait is the policy's, and up to a quarter more at random."""
    script = Script([lost()] * 60 + [None])
    virtual_run(script.run(Retry(attempts=100, base=2, cap=2, deadline=1e6)))
    assert len(script.waits) == 60
    assert all(2 <= wait <= 2.5 + 1e-3 for wait in script.waits)
    assert max(script.waits) - min(script.waits) > 0.2


@pytest.mark.parametrize("retry_after", [0.0, 0.3, 7.0, 120.0])
def test_retry_after_is_a_floor(retry_after: float) -> None:
    """No wait is shorter than the server asks, nor longer than needed: jitter is of the policy's delay alone."""
    script = Script([unavailable(retry_after)] * 5 + [None])
    virtual_run(script.run(Retry(deadline=1e6)))
    for n, wait in enumerate(script.waits, 1):
        least = max(retry_after, Retry().delay(n))
        assert least <= wait <= least + 0.25 * Retry().delay(n) + 1e-3


@pytest.mark.parametrize(("pause", "requests"), [(20.0, 2), (40.0, 1)])
def test_pause_of_the_budget_is_slept_within_the_deadline(pause: float, requests: int) -> None:
    """What the budget asks for after a 429 is a floor too, and where it is beyond the deadline the retries end."""
    outcomes: Iterator[FailedAttempt | str] = iter([FailedAttempt(too_many(), pause), "answer"])
    began: list[float] = []

    async def main() -> str:
        class Attempts:
            elapsed = asyncio.get_running_loop().time

            async def attempt(self) -> str | FailedAttempt:
                began.append(self.elapsed())
                return next(outcomes)

        return await with_retries(Retry(deadline=30), RetryBudget(), READ, Attempts())

    with nullcontext() if requests == 2 else pytest.raises(errors.RateLimited):
        virtual_run(main())
    assert began == pytest.approx([0.0, pause][:requests], abs=0.2)


@pytest.mark.parametrize("attempts", [1, 2, 6])
def test_attempts_counts_requests(attempts: int) -> None:
    """`attempts` is how many requests are sent at most, the first included; the error of the last is raised."""
    failures = [lost() for _ in range(10)]
    script = Script(failures)
    with pytest.raises(errors.AnswerLost) as caught:
        virtual_run(script.run(Retry(attempts=attempts)))
    assert len(script.began) == attempts
    assert caught.value is failures[attempts - 1]


def test_wait_beyond_the_deadline_is_not_begun() -> None:
    """E8: where the next wait would pass the deadline the retries end at once, with the error that there is."""
    script = Script([unavailable(9.9), unavailable(0.2)])
    with pytest.raises(errors.ServerError) as caught:
        virtual_run(script.run(Retry(deadline=10)))
    assert caught.value.retry_after == 0.2
    assert len(script.began) == 2
    assert script.ended[-1] == pytest.approx(9.9, abs=0.2)


@pytest.mark.parametrize("seed", range(10))
def test_jitter_leaves_time_for_the_attempt(seed: int) -> None:
    """E8: a Retry-After just within the deadline is waited for, and the deadline is not passed by the random part."""
    random.seed(seed)
    script = Script([unavailable(9.99), None])
    assert virtual_run(script.run(Retry(deadline=10))) == "answer"
    assert 9.99 <= script.began[1] <= 9.9951


def test_retry_after_beyond_the_deadline_ends_the_retries_at_once() -> None:
    """E4: a server that asks for a day gets no second request, and the caller gets `.retry_after`, at once."""

    async def main() -> tuple[errors.APIError, float]:
        with pytest.raises(errors.RateLimited) as caught:
            await Script([too_many(86400)]).run(Retry())
        return caught.value, asyncio.get_running_loop().time()

    error, now = virtual_run(main())
    assert error.retry_after == 86400
    assert now < 0.01


outcomes = st.sampled_from([lost, unavailable, too_many]) | st.builds(
    lambda seconds: lambda: unavailable(seconds), st.floats(0, 50)
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    failures=st.lists(outcomes, min_size=1, max_size=30),
    policy=st.builds(Retry, st.integers(1, 30), st.floats(0.01, 5), st.floats(0.01, 60), st.floats(0.1, 100)),
    seconds=st.floats(0, 20),
)
def test_deadline_is_never_slept_past(
    failures: list[Callable[[], errors.MessagesError]], policy: Retry, seconds: float
) -> None:
    """E8: no attempt begins at or after the deadline, and after the last one nothing is waited for."""
    script = Script([*(failure() for failure in failures), None], seconds)

    async def main() -> float:
        with suppress(errors.MessagesError):
            await script.run(policy)
        return asyncio.get_running_loop().time()

    ended = virtual_run(main())
    assert all(began < policy.deadline + 1e-3 for began in script.began)
    assert ended == pytest.approx(script.ended[-1], abs=1e-3)
    assert len(script.began) <= policy.attempts


# -- the budget ---------------------------------------------------------------------------------------------------------


async def many(calls: int, fails: Callable[[], bool], pause: float = 0.0) -> tuple[int, int, int]:
    """`calls` calls one after another on one budget: how many requests, answers and errors there were."""
    budget, requests, answers, failures = RetryBudget(), 0, 0, 0

    def outcomes() -> Iterator[errors.MessagesError | None]:
        while True:
            yield unavailable() if fails() else None

    for _ in range(calls):
        script = Script(outcomes())
        try:
            await script.run(Retry(attempts=10), budget=budget)
            answers += 1
        except errors.ServerError:
            failures += 1
        requests += len(script.began)
        await asyncio.sleep(pause)
    return requests, answers, failures


def test_retry_budget_bounds_a_storm() -> None:
    """E6: where half of everything fails for 10 minutes, retries are 100 and one for each 5 answers, no more."""
    rng = random.Random(1)
    calls = 5000
    requests, answers, failures = virtual_run(many(calls, lambda: rng.random() < 0.5))
    retries = requests - calls
    assert retries <= 100 + answers / 5
    assert retries >= 95 + answers / 5  # and it is used
    assert requests / calls < 1.2
    assert failures > 0


def test_budget_is_never_met_by_one_failure_in_six() -> None:
    """E6: a server that fails one request in six costs no call: the budget refills as fast as it empties."""
    turn = iter(range(10**6))
    requests, answers, failures = virtual_run(many(5000, lambda: next(turn) % 6 == 0))
    assert (answers, failures) == (5000, 0)
    assert requests == 6000


def test_budget_is_never_met_by_a_small_script() -> None:
    """E6: 20 calls through a bad time get all of their attempts."""
    turn = iter(range(10**6))
    _, answers, failures = virtual_run(many(20, lambda: next(turn) % 6 != 5))
    assert (answers, failures) == (20, 0)


def test_refusal_for_good_is_an_answer() -> None:
    """A 404 refills the budget as a 200 does: what counts is that the server answers."""

    async def main() -> str:
        budget = RetryBudget()
        for _ in range(100):
            assert budget.take()
        for _ in range(6):
            with pytest.raises(errors.NotFound):
                await Script([errors.NotFound(404)]).run(Retry(), budget=budget)
        return await Script([lost(), None]).run(Retry(), budget=budget)

    assert virtual_run(main()) == "answer"


def test_budget_is_not_hoarded() -> None:
    """A good day does not save up more than 100 retries for a bad one."""
    budget = RetryBudget()
    for _ in range(10_000):
        budget.answered()
    assert sum(budget.take() for _ in range(1000)) == 100


def test_empty_budget_raises_the_error_without_waiting() -> None:
    """Where there is no retry left the error comes at once."""

    async def main() -> float:
        budget = RetryBudget()
        while budget.take():
            pass
        with pytest.raises(errors.AnswerLost):
            await Script([lost(), None]).run(Retry(), budget=budget)
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) < 0.01


# -- the whole pipeline, on the wire -----------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", Effect)
@pytest.mark.parametrize(
    ("steps", "error", "repeated_for"),
    [
        ([Reply(429)], errors.RateLimited, ALWAYS),
        ([Reply(503)], errors.ServerError, (READ,)),
        ([DROP], errors.AnswerLost, (READ,)),
        ([HANG], errors.AnswerLost, (READ,)),
        ([Reply(400)], errors.BadRequest, ()),
        ([Reply(403)], errors.Forbidden, ()),
        ([Reply(404)], errors.NotFound, ()),
        ([Redirect("http://127.0.0.1/elsewhere")], errors.APIError, ()),
    ],
    ids=str,
)
def test_what_the_server_does_decides_how_often_it_is_asked(
    steps: list[object], error: type[errors.MessagesError], repeated_for: tuple[Effect, ...], effect: Effect
) -> None:
    """E5, E7: on the wire, one request or two, by what is known of the first: ours is the only layer of retries."""

    async def main() -> Sandbox:
        sandbox = once(*steps)
        async with session_of(sandbox) as session:
            if effect in repeated_for:
                with_answer = sandbox.add(on("any", nth=2).do(Reply(200, b"{}")))
                assert await session.execute(call(effect)) == b"{}"
                sandbox.remove(with_answer)
            else:
                with pytest.raises(error):
                    await session.execute(call(effect))
        await sandbox.aclose()
        return sandbox

    assert len(virtual_run(main()).log) == (2 if effect in repeated_for else 1)


def test_dropped_answer_of_a_marking_request_is_executed_once() -> None:
    """A7: a marking GET that was executed and whose answer is lost is `AnswerLost`, and one request on the wire."""

    async def main() -> Sandbox:
        sandbox = Sandbox(packs=1, rules=[on("mark").do(EXECUTE, DROP)])
        async with session_of(sandbox) as session:
            await session.execute(call(READ))  # the connection is a reused one
            with pytest.raises(errors.AnswerLost):
                await session.execute(call(MARK))
        return sandbox

    assert virtual_run(main()).count("mark") == 1


def test_unreadable_answer_is_not_asked_for_again_here() -> None:
    """A body that is no JSON is a 2xx: executed, and given to the reader of the call as it is."""

    async def main() -> tuple[bytes, int]:
        sandbox = once(Garbage(b"<html>"))
        async with session_of(sandbox) as session:
            return await session.execute(call()), len(sandbox.log)

    assert virtual_run(main()) == (b"<html>", 1)


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({}, 0.5),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0"}, 0.5),
        ({"Retry-After": "-5"}, 0.5),
        ({"Retry-After": "nan"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": ""}, 0.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:07 GMT", "Date": DATE}, 7),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": DATE}, 0.5),
        ({"Retry-After": "Wed, 99 Oct 2026 07:28:07 GMT", "Date": DATE}, 0.5),
    ],
    ids=str,
)
def test_retry_after_on_the_wire(status: int, headers: dict[str, str], least: float) -> None:
    """E4: Retry-After in seconds, as a date, in the past, absurd or absent: a floor where it makes sense."""

    async def main() -> list[float]:
        sandbox = once(Reply(status, headers=headers))
        async with session_of(sandbox) as session:
            await session.execute(call())
        return [entry.at for entry in sandbox.log]

    first, second = virtual_run(main())
    assert least <= second - first <= least + 0.25 * 0.5 + 0.01


@pytest.mark.parametrize(("value", "seconds"), [("1e9", 1e9), ("301", 301), ("Wed, 21 Oct 2126 07:28:00 GMT", None)])
def test_absurd_retry_after_ends_the_retries_and_pauses_the_others(value: str, seconds: float | None) -> None:
    """E4: beyond the deadline it is raised at once with `.retry_after`; who shares the budget waits for 300 s."""

    async def main() -> tuple[errors.APIError, list[float]]:
        sandbox = once(Reply(429, headers={"Retry-After": value, "Date": DATE}))
        limits = Limits(per_second=None)
        async with session_of(sandbox, limits) as session, session_of(sandbox, limits, Retry(deadline=5)) as other:
            with pytest.raises(errors.RateLimited) as caught:
                await session.execute(call())
            raised = asyncio.get_running_loop().time()
            await other.execute(call())
        return caught.value, [raised, sandbox.log[-1].at]

    error, moments = virtual_run(main())
    assert error.retry_after is not None
    assert error.retry_after == seconds or (seconds is None and error.retry_after > 3e9)
    assert moments == pytest.approx([0, 300], abs=0.01)


def test_waiting_for_the_budget_does_not_count() -> None:
    """E8: a call whose retry has to wait a minute for the budget is within a deadline of 5 s all the same."""

    async def main() -> list[float]:
        sandbox = once(Reply(503), latency=0.2)
        limits = Limits(reads=1, per_second=None)
        async with session_of(sandbox, limits, Retry(deadline=5)) as session:
            await session.execute(call())
        return [entry.at for entry in sandbox.log]

    assert virtual_run(main()) == pytest.approx([0, 60], abs=0.5)


def test_pause_of_others_does_not_count() -> None:
    """E8: nor does waiting for a pause that another's 429 began."""

    async def main() -> list[float]:
        sandbox = once(Reply(503), latency=0.2)
        limits = Limits(per_second=None)
        async with session_of(sandbox, limits, Retry(deadline=5)) as session, session_of(sandbox, limits) as other:
            waiting = asyncio.create_task(session.execute(call()))
            await asyncio.sleep(0.3)
            sandbox.add(on("any", nth=1).do(Reply(429, headers={"Retry-After": "100"})))
            await asyncio.gather(waiting, other.execute(call()))
        return [entry.at for entry in sandbox.log]

    moments = virtual_run(main())
    assert moments == pytest.approx([0, 0.4, 100.5, 100.7], abs=0.5)


def test_attempt_is_cut_short_by_the_deadline() -> None:
    """E8: a server that hangs is given up on at the deadline, however long the timeout of one attempt is."""

    async def main() -> tuple[float, int]:
        sandbox = Sandbox(packs=1, rules=[on("any").do(HANG)])
        async with session_of(sandbox, retry=Retry(deadline=40)) as session:
            with pytest.raises(errors.AnswerLost):
                await session.execute(call())
            ended = asyncio.get_running_loop().time()
        await sandbox.aclose()
        return ended, len(sandbox.log)

    ended, requests = virtual_run(main())
    assert ended <= 40.01
    assert requests == 2


def test_cured_401_is_not_an_attempt() -> None:
    """A 401 that a new token cures costs a request of the budget, and none of the attempts."""

    async def main() -> tuple[list[int | None], int, int]:
        sandbox = Sandbox(packs=1)
        limits, tally = Limits(per_second=None), RequestCount()
        source = Renewable("APP_USR-old", sandbox.token)
        async with session_of(sandbox, limits, Retry(attempts=1), source) as session:
            await session.execute(call(), tally)
        return [entry.status for entry in sandbox.log], limits.used, tally.requests

    assert virtual_run(main()) == ([401, 200], 2, 2)


def test_every_request_on_the_wire_is_paid_for() -> None:
    """E2: retries, renewed tokens, timeouts and refusals included, the budget counts what the server sees."""

    async def main() -> tuple[int, int, int]:
        steps: list[Rule] = [
            on("any", nth=2).do(Reply(503)),
            on("any", nth=4).do(DROP),
            on("any", nth=6).do(Reply(429)),
            on("any", nth=8).do(HANG),
            on("any", nth=10).do(Redirect("http://127.0.0.1/elsewhere")),
        ]
        sandbox = Sandbox(packs=1, rules=steps)
        limits, tally = Limits(per_second=None, period=1000), RequestCount()
        async with session_of(sandbox, limits, source=Renewable("APP_USR-old", sandbox.token)) as session:
            for _ in range(12):
                with suppress(errors.APIError):  # the redirect
                    await session.execute(call(), tally)
        await sandbox.aclose()
        return len(sandbox.log), limits.used, tally.requests

    wire, used, told = virtual_run(main())
    assert wire == used == told == 17


def test_nothing_is_held_while_sleeping() -> None:
    """While a call waits to be repeated, another gets through on the only connection."""

    async def main() -> list[tuple[float, int | None]]:
        sandbox = once(Reply(503, headers={"Retry-After": "10"}))
        async with session_of(sandbox, Limits(concurrency=1, per_second=None)) as session:
            waiting = asyncio.create_task(session.execute(call()))
            await asyncio.sleep(1)
            await session.execute(call())
            await waiting
        return [(entry.at, entry.status) for entry in sandbox.log]

    log = virtual_run(main())
    assert [status for _, status in log] == [503, 200, 200]
    assert [moment for moment, _ in log] == pytest.approx([0, 1, 10], abs=0.2)


def test_storm_of_429s_costs_few_requests_and_no_call() -> None:
    """E3: 429 on everything for 90 s, 64 workers: at most 10 requests after the first burst, and no call fails."""

    async def main() -> Sandbox:
        storm = on("any").do(Reply(429))
        sandbox = Sandbox(packs=1, rules=[storm])
        async with session_of(sandbox, Limits(concurrency=64, per_second=None)) as session:
            asyncio.get_running_loop().call_at(90, sandbox.remove, storm)
            await asyncio.gather(*(session.execute(call()) for _ in range(64)))
        return sandbox

    log = virtual_run(main()).log
    burst = [entry for entry in log if entry.at < 0.4]
    assert len(burst) == 64
    assert len([entry for entry in log if entry.at < 90]) - 64 <= 10
    assert [entry.status for entry in log].count(200) == 64


@pytest.mark.parametrize("cancel", Cancel)
@pytest.mark.parametrize("steps", [[Reply(503)], [Reply(429)], [DROP], [Reply(401)]], ids=str)
def test_cancelling_at_any_await_leaves_the_pipeline_whole(steps: list[object], cancel: Cancel) -> None:
    """D1: a call cancelled at any of its suspensions raises `CancelledError`, and the next call is answered."""

    async def main(step: int) -> bool:
        sandbox = once(*steps)
        limits = Limits(reads=4, concurrency=1, per_second=10)
        async with session_of(sandbox, limits, source=Renewable(sandbox.token, sandbox.token + "2")) as session:
            sandbox.rotate_token(sandbox.token + "2") if steps == [Reply(401)] else None
            victim = asyncio.create_task(cancelled_at(session.execute(call()), step, cancel))
            cancelled = isinstance((await asyncio.gather(victim, return_exceptions=True))[0], asyncio.CancelledError)
            async with asyncio.timeout(250):
                await session.execute(call())
            await asyncio.sleep(121)
            assert limits.used == 0
        return cancelled

    step = 0
    while virtual_run(main(step)):
        step += 1
    assert step >= 3  # the first attempt, the wait for the second, and that


# -- what the user sees ------------------------------------------------------------------------------------------------


def test_retry_is_told_at_info(caplog: pytest.LogCaptureFixture) -> None:
    """A retry is one INFO line of the logger `mlmessages`, with its seconds, and nothing is a warning."""
    caplog.set_level(logging.DEBUG)
    virtual_run(Script([lost(), unavailable(7), None]).run(Retry()))
    told = [(record.name, record.levelno, record.getMessage()) for record in caplog.records if record.name != "asyncio"]
    assert [name for name, *_ in told] == ["mlmessages", "mlmessages"]
    assert {level for _, level, _ in told} == {logging.INFO}
    assert told[0][2].startswith("retry 1 in 0.")
    assert told[0][2].endswith(" s after AnswerLost: no answer within 30 s")
    assert told[1][2].startswith("retry 2 in 7.")


def test_last_failure_is_not_told_as_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is repeated nothing is told: the error tells it."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(errors.ServerError):
        virtual_run(Script([unavailable()]).run(Retry(), MARK))
    assert [record for record in caplog.records if record.name != "asyncio"] == []


def test_long_pause_is_told_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A 429 with Retry-After 30 for each of 8 calls: one WARNING with the seconds."""

    async def main() -> None:
        sandbox = Sandbox(packs=1, rules=[on("any", times=8).do(Reply(429, headers={"Retry-After": "30"}))])
        async with session_of(sandbox) as session:
            await asyncio.gather(*(session.execute(call()) for _ in range(8)))

    virtual_run(main())
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["429: too many requests; pausing for 30.0 s"]


@pytest.mark.parametrize("on_again", [False, True])
def test_backoff_is_silent(on_again: bool) -> None:
    """The logger of backoff is off; and where the user's logging turns it on again, it has nothing to say."""
    program = f"""
        import asyncio, logging.config, sys
        logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format="%(name)s")
        from mlmessages.errors import AnswerLost
        from mlmessages.http.retry import FailedAttempt, Retry, RetryBudget, with_retries
        from mlmessages.api.calls import Effect
        if {on_again}:
            logging.config.dictConfig({{"version": 1, "disable_existing_loggers": False}})
            logging.getLogger("backoff").setLevel(logging.DEBUG)
            assert not logging.getLogger("backoff").disabled
        else:
            logging.getLogger("backoff").error("not even this")
        outcomes = iter([FailedAttempt(AnswerLost("")), FailedAttempt(AnswerLost("")), "answer"])
        class Attempts:
            elapsed = float
            async def attempt(self):
                return next(outcomes)
        print(asyncio.run(with_retries(Retry(base=1e-6), RetryBudget(), Effect.READ, Attempts())))
    """
    lines = run_program(program).split()
    assert lines.count("mlmessages") == 2
    assert lines[-1] == "answer"
    assert "backoff" not in lines


DEPRECATED = """
def deprecated(function):
    warnings.warn("deprecated since 3.14", DeprecationWarning, stacklevel=2)
    return inspect.iscoroutinefunction(function)
asyncio.iscoroutinefunction = deprecated  # not where asyncio itself asks
"""
GONE = """
del asyncio.iscoroutinefunction
"""


@case("O11")
@pytest.mark.parametrize("function", [DEPRECATED, GONE], ids=["3.14", "3.16"])
def test_backoff_works_on_later_pythons(function: str) -> None:
    """Where `asyncio.iscoroutinefunction` is deprecated or gone, importing and retrying work and warn of nothing.

    asyncio is afterwards what it was before, and the user's own warnings are not touched.
    """
    program = f"""
import asyncio, inspect, warnings
{function}
before = vars(asyncio).get("iscoroutinefunction")
from mlmessages.errors import AnswerLost
from mlmessages.http.retry import FailedAttempt, Retry, RetryBudget, with_retries
from mlmessages.api.calls import Effect
assert vars(asyncio).get("iscoroutinefunction") is before
outcomes = iter([FailedAttempt(AnswerLost("")), "answer"])
class Attempts:
    elapsed = float
    async def attempt(self):
        return next(outcomes)
print(asyncio.run(with_retries(Retry(base=1e-6), RetryBudget(), Effect.READ, Attempts())))
warnings.warn("the user's own warnings are not touched", DeprecationWarning)
"""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_program(program)
    assert caught.value.stdout.split() == ["answer"]
    assert caught.value.stderr.rstrip().endswith("DeprecationWarning: the user's own warnings are not touched")


def run_program(program: str) -> str:
    """What `program` prints, run by an interpreter of its own to which every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({"attempts": value} for value in (0, -1, True, 1.5, "6", None)),
        *(
            {name: value}
            for name in ("base", "cap", "deadline")
            for value in (0, -1, math.inf, math.nan, True, "1", None)
        ),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    """A `Retry` that could not work is a `ValueError` that names the parameter."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Retry(**options)  # type: ignore[arg-type]


def test_defaults_are_the_documented_policy() -> None:
    """6 requests, from 0.5 s to 60 s apart, within 300 s; and it cannot be changed."""
    assert Retry() == Retry(attempts=6, base=0.5, cap=60.0, deadline=300.0)
    with pytest.raises(AttributeError):
        Retry().attempts = 7  # type: ignore[misc]

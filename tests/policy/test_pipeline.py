"""The order of the pipeline: permit, token, guard, transport; and what a refused token costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cases import case
from mlmessages import Limits, Retry, StaticToken, errors
from mlmessages.api.calls import Request, Response
from mlmessages.auth.source import Secret
from mlmessages.events import Events, RetryEvent
from mlmessages.http.pipeline import Pipeline, RequestCount
from mlmessages.http.transport import Transport
from mlmessages.testing import DROP, Behaviour, Garbage, Reply, Sandbox, on, virtual_run
from policy.pipelines import MARK, PACK, READ, WRITE, Effect, Renewable, call, once, refuse_html, session_of


@case("Q1")
def test_the_guard_runs_after_the_permit_and_before_the_bytes() -> None:
    """With one permit a second guard runs only when the first request is over; each attempt passes it, repeats too."""

    async def main() -> list[str]:
        sandbox = Sandbox(packs=1, rules=[on("any", nth=1).do(Reply(429))], behaviour=Behaviour(latency=1.0))
        passed: list[str] = []

        async def guard(name: str) -> None:
            passed.append(f"{name} at {asyncio.get_running_loop().time():.0f}, {len(sandbox.log)} sent")

        async with session_of(sandbox, Limits(concurrency=1, per_second=None)) as session:
            await asyncio.gather(
                session.execute(call(), before_sending=lambda: guard("first")),
                session.execute(call(), before_sending=lambda: guard("second")),
            )
        return passed

    first, *others = virtual_run(main())
    assert first == "first at 0, 0 sent"
    assert sorted(name.split()[0] for name in others) == ["first", "second"]
    assert [passed.split(", ")[1] for passed in others] == ["1 sent", "2 sent"]


@case("Q1")
@pytest.mark.parametrize("error", [errors.JournalError("no seat"), errors.NotSent("lease"), KeyError()], ids=repr)
def test_what_the_guard_raises_ends_the_call_with_nothing_sent(error: Exception) -> None:
    """Nothing leaves, nothing is repeated, the permit is free at once, the report counts no request."""

    async def main() -> None:
        sandbox = Sandbox(packs=1)
        count = RequestCount()

        async def guard() -> None:
            raise error

        async with session_of(sandbox, Limits(reads=1, per_second=None)) as session:
            with pytest.raises(type(error)) as caught:
                await session.execute(call(MARK), count, before_sending=guard)
            assert caught.value is error
            assert (sandbox.log, count, session.limits.used) == ([], RequestCount(), 0)
            await session.execute(call())
        assert asyncio.get_running_loop().time() < 1

    virtual_run(main())


@case("Q1")
@pytest.mark.parametrize("closed_by", ["the token", "the guard"])
def test_a_client_that_was_closed_meanwhile_claims_and_sends_nothing(closed_by: str) -> None:
    """Closed while the token was awaited: the guard does not run; closed while the guard runs: nothing is sent."""

    async def main() -> None:
        sandbox = Sandbox(packs=1)
        passed = []

        class Slow(Renewable):
            async def token(self) -> str:
                if closed_by == "the token":
                    await session.close()
                return await super().token()

        async def guard() -> None:
            passed.append("guard")
            await session.close()

        async with session_of(sandbox, source=Slow(sandbox.token, "")) as session:
            with pytest.raises(RuntimeError, match="closed"):
                await session.execute(call(MARK), before_sending=guard)
            assert session.limits.used == 0
        assert passed == (["guard"] if closed_by == "the guard" else [])
        assert sandbox.log == []

    virtual_run(main())


@case("R4")
def test_each_request_is_told_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """Method, path without its query, status and seconds; no token; where there is no answer, the error's name."""

    async def main() -> None:
        sandbox = Sandbox(packs=1, rules=[on("any", nth=1).do(Reply(503)), on("any", nth=2).do(DROP)])
        async with session_of(sandbox) as session:
            await session.execute(call())

    with caplog.at_level("DEBUG", "mlmessages"):
        virtual_run(main())
    path = f"GET /marketplace/messages/packs/{PACK}"
    told = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    assert told == [f"{path}: 503 in 0.00 s", f"{path}: AnswerLost in 0.00 s", f"{path}: 200 in 0.00 s"]


@case("K26")
def test_a_blocked_application_costs_no_refresh() -> None:
    """401 `unauthorized_scopes`: no token cures it, so the source is not told to forget this one."""

    async def main() -> None:
        body = {"message": "unauthorized_scopes", "error": "unauthorized_scopes", "status": 401, "cause": []}
        sandbox = once(Reply(401, body))
        source = Renewable(sandbox.token, "another")
        async with session_of(sandbox, source=source) as session:
            with pytest.raises(errors.Unauthorized):
                await session.execute(call(READ))
        assert await source.token() == sandbox.token
        assert len(sandbox.log) == 1

    virtual_run(main())


class Unreachable(Transport):
    """A server that cannot be connected to."""

    async def send(self, request: Request, token: Secret, time_left: float) -> Response:
        raise errors.NotSent("no connection")


def test_what_never_left_is_neither_counted_nor_told(caplog: pytest.LogCaptureFixture) -> None:
    """No connection: a report's `requests` stays as it was, no event and no DEBUG line tells of a request."""

    async def main() -> None:
        told: list[object] = []
        count = RequestCount()
        pipeline = Pipeline(
            Unreachable("http://127.0.0.1", None, 30.0),
            StaticToken("APP_USR-1"),
            Limits(per_second=None),
            Retry(attempts=3),
            Events(told.append),
        )
        await pipeline.open()
        with pytest.raises(errors.NotSent):
            await pipeline.execute(call(MARK), count)
        await pipeline.close()
        assert count == RequestCount()
        assert [type(event) for event in told] == [RetryEvent, RetryEvent]

    with caplog.at_level("DEBUG", "mlmessages"):
        virtual_run(main())
    assert not [record for record in caplog.records if record.levelname == "DEBUG"]


def test_a_token_that_is_refused_twice_is_not_sent_a_third_time() -> None:
    """Each call tries one other token: a source that always has one more is not asked for ever."""

    async def main() -> None:
        sandbox = Sandbox(packs=1)
        source = Renewable("wrong", "as-wrong")
        async with session_of(sandbox, source=source) as session:
            with pytest.raises(errors.Unauthorized):
                await session.execute(call())
        assert [entry.status for entry in sandbox.log] == [401, 401]

    virtual_run(main())


@pytest.mark.parametrize(
    ("step", "effect", "in_doubt"),
    [
        (Reply(403), MARK, False),
        (Reply(429, b"", {"Retry-After": "9999"}), MARK, False),
        (DROP, MARK, True),
        (Reply(500), WRITE, True),
        (Garbage(b"<html>"), MARK, True),
        (Reply(404), READ, False),
        (DROP, READ, False),
    ],
    ids=str,
)
def test_what_may_have_been_executed_is_in_doubt(step: Any, effect: Effect, in_doubt: bool) -> None:
    """What changes something and was not refused; a request after it leaves the doubt as it is."""

    async def main() -> None:
        sandbox = Sandbox(packs=1, rules=[on("any", times=1).do(step)])
        count = RequestCount()
        async with session_of(sandbox, retry=Retry(attempts=1)) as session:
            with pytest.raises(errors.MessagesError):
                await session.execute(call(effect, refuse_html), count)
            assert count == RequestCount(1, in_doubt)
            await session.execute(call(READ), count)
            assert count == RequestCount(2, in_doubt)

    virtual_run(main())

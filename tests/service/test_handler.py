"""What `Inbox.run` says of a handler that fails or hangs, and whom it tells."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from cases import case
from mlmessages import Delivery
from mlmessages.events import DeliveryEvent
from mlmessages.testing import Sandbox
from worlds import on_virtual_clock

FIRST = "2000000000000001"


async def later(seconds: float) -> None:
    await asyncio.sleep(seconds)


@case("M4")
@on_virtual_clock
async def test_a_handler_that_hangs_is_warned_of_once_and_then_rarely(
    inbox_of: Any, handler: Any, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """After five minutes, and each time that twice as much has passed: a stalled service is not a silent one."""
    sandbox = Sandbox(packs=3)
    handler.seconds = 1e6
    async with inbox_of(sandbox, concurrency=2) as inbox, running(inbox, handler, grace=0):
        await later(299)
        assert caplog.records == []
        await later(2)
        [warning] = caplog.records
        assert warning.levelno == logging.WARNING
        assert "has not returned from pack" in warning.getMessage()
        assert "0:05:00" in warning.getMessage()
        assert "2 of 2" in warning.getMessage()
        assert vars(warning)["ml_event"] == "hang"
        assert (vars(warning)["ml_sellers"], vars(warning)["ml_calls"]) == ((sandbox.seller_id,), 2)
        await later(5 * 3600)
    warnings = [record for record in caplog.records if "has not returned" in record.getMessage()]
    assert 3 <= len(warnings) <= 8


@case("M4")
@on_virtual_clock
async def test_a_failing_handler_is_told_with_the_place_in_the_users_code(
    inbox_of: Any, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """File, line and function of the handler, where a library raised below it; nothing of what the exception says."""

    async def handler(delivery: Delivery) -> None:
        json.loads("CANARY")

    async with inbox_of(Sandbox(packs=1)) as inbox, running(inbox, handler):
        await later(1)
    [record] = caplog.records
    assert "JSONDecodeError" in record.getMessage()
    assert f"{__file__}, line {handler.__code__.co_firstlineno + 1}, in handler" in record.getMessage()
    assert "CANARY" not in record.getMessage()


@case("M4")
@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
@on_virtual_clock
async def test_on_error_gets_the_exception_and_the_delivery(
    awaited: bool, inbox_of: Any, handler: Any, running: Any
) -> None:
    """After every attempt, the one that makes a dead letter too."""
    told: list[tuple[BaseException, Delivery]] = []

    def on_error(error: BaseException, delivery: Delivery) -> Any:
        told.append((error, delivery))
        return asyncio.sleep(0) if awaited else None

    sandbox = Sandbox(packs=2)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, attempts=3, on_error=on_error):
        await later(100)
    assert [str(error) for error, _ in told] == ["what a buyer wrote: CANARY"] * 3
    assert [delivery.pack_id for _, delivery in told] == [FIRST] * 3
    assert told[0][0].__traceback__ is not None


@case("M4")
@on_virtual_clock
async def test_an_on_error_that_raises_changes_nothing(
    inbox_of: Any, handler: Any, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log, the delivery comes again, and the others flow."""

    def on_error(error: BaseException, delivery: Delivery) -> None:
        raise LookupError("CANARY")

    sandbox = Sandbox(packs=2)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, on_error=on_error) as service:
        await later(20)
        assert handler.at(FIRST) == [0.0, 5.0, 15.0]
        assert not service.task.done()
    assert sum("on_error raised LookupError" in record.getMessage() for record in caplog.records) == 3
    assert "CANARY" not in caplog.text


@on_virtual_clock
async def test_an_on_error_that_cannot_be_called_is_refused(inbox_of: Any, handler: Any) -> None:
    """A `ValueError`, before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(ValueError, match="on_error"):
            await inbox.run(handler, on_error="print")
    assert sandbox.log == []


@case("A18")
@on_virtual_clock
async def test_a_handler_whose_own_work_is_cancelled_has_failed(inbox_of: Any, running: Any) -> None:
    """A `CancelledError` of something that it awaits ends neither the service nor the delivery: it comes again."""
    said: list[bool] = []

    async def handler(delivery: Delivery) -> None:
        said.append(delivery.redelivered)
        if len(said) == 1:
            work = asyncio.ensure_future(asyncio.sleep(100))
            work.cancel()
            await work

    async with inbox_of(Sandbox(packs=1)) as inbox, running(inbox, handler) as service:
        await later(10)
        assert said == [False, True]
        assert not service.task.done()


@case("A18")
@on_virtual_clock
async def test_a_success_ends_the_count_of_failures_for_later_processes_too(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """What failed twice and was taken then is over: what comes after a restart has all of its attempts again."""
    sandbox = Sandbox(packs=1)
    attempts: list[int] = []

    def note(event: object) -> None:
        if isinstance(event, DeliveryEvent):
            attempts.append(event.attempt)

    handler.failing.add(FIRST)
    async with inbox_of(sandbox, client={"on_event": note}) as inbox, running(inbox, handler, attempts=3):
        await later(12)  # it failed at once, and 5 s later
        handler.failing.clear()
        await later(10)
    assert attempts == [1, 2, 3]
    sandbox.send(FIRST)
    handler.failing.add(FIRST)
    async with inbox_of(sandbox, client={"on_event": note}) as inbox, running(inbox, handler, attempts=3):
        await later(30)
        assert len(await inbox.dead_letters()) == 1
    assert attempts == [1, 2, 3, 1, 2, 3]

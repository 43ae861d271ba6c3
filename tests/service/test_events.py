"""The event hook, the `extra` of log records, and OpenTelemetry on top of the hook: what happened, and no text, no token."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mlmessages import events
from mlmessages.otel import OpenTelemetry
from mlmessages.testing import Behaviour, Message, Pack, RateWindow, Reply, Sandbox, on
from worlds import client_of, on_virtual_clock

CANARY = "CANARY-text"
ROUTE = "/messages/packs/{id}/sellers/{id}"


def of(found: list[Any], kind: type) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


@on_virtual_clock
async def test_every_attempt_is_an_event(inbox_of: Any, handler: Any, running: Any) -> None:
    """Requests with what came of them, retries, deliveries: the log of the server in the client's words, without ids in paths."""
    told: list[Any] = []
    rules = [on("listing", nth=1).do(Reply(503)), on("mark", nth=1).do(Reply(403))]
    sandbox = Sandbox([Pack(messages=[Message(CANARY)]) for _ in range(3)], rules=rules)
    async with inbox_of(sandbox, client={"on_event": told.append}) as inbox, running(inbox, handler):
        await inbox.notify(events_notification())
        await asyncio.sleep(2000)
    requests = of(told, events.RequestEvent)
    assert len(requests) == len(sandbox.log)
    assert requests[0] == events.RequestEvent(
        "GET", "/marketplace/messages/unread", "read", 503, "ServerError", requests[0].seconds
    )
    assert {(r.route, r.effect) for r in requests} >= {(ROUTE, "mark"), ("/marketplace/messages/{id}", "read")}
    assert [(r.attempt, r.error) for r in of(told, events.RetryEvent)] == [(1, "ServerError")]
    assert sorted(d.pack_id for d in of(told, events.DeliveryEvent)) == sorted(d.pack_id for _, d in handler.deliveries)
    assert {(p.what, p.error) for p in of(told, events.ParkEvent)} == {
        ("pack", "Forbidden"),
        ("notification", "NotFound"),
    }
    assert CANARY not in repr(told)
    assert sandbox.token not in repr(told)


def events_notification() -> Any:
    from mlmessages import Notification

    return Notification.parse({"topic": "messages", "resource": "never1"})


@on_virtual_clock
async def test_a_pause_is_an_event_and_a_record_with_extra(caplog: pytest.LogCaptureFixture) -> None:
    """A 429: its seconds, in the event and as `ml_seconds` of the warning."""
    told: list[Any] = []
    sandbox = Sandbox(packs=0, behaviour=Behaviour(rate=RateWindow(reads=1, retry_after=30)))
    with caplog.at_level(logging.INFO, "mlmessages"):
        async with client_of(sandbox, on_event=told.append) as client:
            await client.unread()
            await client.unread()
    pauses = of(told, events.PauseEvent)
    assert pauses[0].seconds >= 30
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING][:1]
    said = vars(warning)
    assert (said["ml_event"], said["ml_seconds"]) == ("pause", pytest.approx(pauses[0].seconds))
    [retry] = [record for record in caplog.records if getattr(record, "ml_event", "") == "retry"][:1]
    assert (vars(retry)["ml_attempt"], vars(retry)["ml_error"]) == (1, "RateLimited")


@on_virtual_clock
async def test_another_token_is_an_event() -> None:
    """Both kinds: after a 401, and one that the source brought ahead of time. The token is not in it."""
    sandbox = Sandbox(packs=0)
    told: list[Any] = []

    class Source:
        def __init__(self) -> None:
            self.tokens = [sandbox.token, "APP_USR-second", "APP_USR-third"]

        async def token(self) -> str:
            return self.tokens[0]

        async def rejected(self, token: str) -> None:
            self.tokens.pop(0)

    source = Source()
    async with client_of(sandbox, auth=source, on_event=told.append) as client:
        await client.unread()
        sandbox.rotate_token("APP_USR-second")
        await client.unread()
        source.tokens.pop(0)
        sandbox.rotate_token("APP_USR-third")
        await client.unread()
    assert of(told, events.RefreshEvent) == [events.RefreshEvent(True), events.RefreshEvent(False)]
    assert "APP_USR" not in repr(told)


@on_virtual_clock
async def test_events_are_read_only_and_a_hook_that_raises_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Assignment raises; the exception of a hook is named once and ends no call."""
    calls = []

    def hook(event: Any) -> None:
        calls.append(event)
        raise ValueError(CANARY)

    async with client_of(Sandbox(packs=0), on_event=hook) as client:
        await client.unread()
        await client.unread()
    assert len(calls) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "on_event raised ValueError; what it raises later is not logged"
    ]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        calls[0].status = 5


def test_a_hook_must_be_callable() -> None:
    """A `ValueError` at once, not at the first event."""
    from mlmessages import MessagesClient

    with pytest.raises(ValueError, match="on_event"):
        MessagesClient("APP_USR-x", seller_id=1, on_event="print")  # type: ignore[arg-type]


@on_virtual_clock
async def test_opentelemetry_makes_spans_and_metrics_of_events(inbox_of: Any, handler: Any, running: Any) -> None:
    """A client span for each attempt, under the current one, a span for each delivery, and metrics that add up."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    hook = OpenTelemetry(tracers, meters)
    sandbox = Sandbox([Pack(messages=[Message(CANARY)]) for _ in range(3)], rules=[on("mark", nth=1).do(Reply(403))])
    async with inbox_of(sandbox, client={"on_event": hook}) as inbox, running(inbox, handler, interval=3600):
        await asyncio.sleep(100)
    async with client_of(sandbox, on_event=hook) as client:
        with tracers.get_tracer("test").start_as_current_span("caller") as caller:
            await client.unread()
    hook(events.RetryEvent(1, 0.5, "ServerError"))
    hook(events.PauseEvent(3.0))
    hook(events.RefreshEvent(True))
    spans = exporter.get_finished_spans()
    assert sum(span.name.startswith("GET ") for span in spans) == len(sandbox.log)
    [refused] = [span for span in spans if (span.attributes or {}).get("error.type")]
    assert (refused.name, (refused.attributes or {})["http.response.status_code"]) == (f"GET {ROUTE}", 403)
    assert [
        span.name for span in spans if span.parent and span.parent.span_id == caller.get_span_context().span_id
    ] == ["GET /marketplace/messages/unread"]
    assert sum(span.name == "mlmessages delivery" for span in spans) == len(handler.deliveries) == 2
    data = reader.get_metrics_data()
    assert data is not None
    sums: dict[str, Any] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        points: list[Any] = [*metric.data.data_points]
        sums[metric.name] = sum(getattr(point, "value", None) or getattr(point, "count", 0) for point in points)
    assert sums == {
        "http.client.request.duration": len(sandbox.log), "mlmessages.deliveries": 2, "mlmessages.delivered.messages": 2, "mlmessages.parked": 1,
        "mlmessages.retries": 1, "mlmessages.pause.seconds": 3.0, "mlmessages.token.refreshes": 1,
    }  # fmt: skip
    shown = "".join(span.to_json() for span in spans) + data.to_json()
    assert CANARY not in shown
    assert sandbox.token not in shown
    meters.shutdown()

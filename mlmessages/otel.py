"""Spans and metrics of OpenTelemetry, made from the events of a client and from nothing else (extra ``otel``).

``MessagesClient(..., on_event=OpenTelemetry())`` uses the providers that the program has set up. Attributes are those
of the events: no text of a message, no token, no id but a pack's on a delivery's span.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.util.types import AttributeValue
except ImportError as error:
    from .installing import how_to_install

    raise ImportError(f"mlmessages.otel needs OpenTelemetry: {how_to_install('mlmessages[otel]')}") from error

from .errors import JournalError
from .events import (
    DeliveryEvent,
    Event,
    HangEvent,
    ParkEvent,
    PauseEvent,
    RefreshEvent,
    RequestEvent,
    RetryEvent,
    SeatEvent,
    StopEvent,
)

if TYPE_CHECKING:
    from .http.limits import Limits
    from .postgres.database import Database, SellerOverview

__all__ = ["OpenTelemetry"]

_log: Final = logging.getLogger("mlmessages")

_NAME: Final = "mlmessages"


class OpenTelemetry:
    """A hook for `MessagesClient`.

    Each attempt is a client span of its own, under the span that is current, with the names of the HTTP conventions.
    Metrics: ``http.client.request.duration``, and counters ``mlmessages.retries``, ``mlmessages.pause.seconds``,
    ``mlmessages.token.refreshes``, ``mlmessages.deliveries``, ``mlmessages.delivered.messages`` and
    ``mlmessages.parked``. Of a fleet: ``mlmessages.seats`` (held by this process), ``mlmessages.lease.lost`` and
    ``mlmessages.stops``; and while `watch` runs, of all sellers of a database, the gauges ``mlmessages.owed``,
    ``mlmessages.parked.packs``, ``mlmessages.dead``, ``mlmessages.undelivered.age`` in seconds,
    ``mlmessages.sellers.stopped``, and of a budget ``mlmessages.permits.used``.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._durations = meter.create_histogram("http.client.request.duration", "s", "Attempts, by what came of them")
        self._retries = meter.create_counter("mlmessages.retries", "{retry}", "Requests that were sent again")
        self._pauses = meter.create_counter("mlmessages.pause.seconds", "s", "Pauses after a 429")
        self._refreshes = meter.create_counter("mlmessages.token.refreshes", "{refresh}", "New access tokens")
        self._deliveries = meter.create_counter("mlmessages.deliveries", "{delivery}", "Conversations handed over")
        self._messages = meter.create_counter("mlmessages.delivered.messages", "{message}", "Messages handed over")
        self._parked = meter.create_counter("mlmessages.parked", "{park}", "What was given up for now, or for good")

        self._seats = meter.create_up_down_counter("mlmessages.seats", "{seller}", "Sellers that this process holds")
        self._lost = meter.create_counter("mlmessages.lease.lost", "{seller}", "Sellers that another process took over")
        self._stops = meter.create_counter("mlmessages.stops", "{stop}", "Sellers that are not served for some time")
        self._hangs = meter.create_counter("mlmessages.handler.hangs", "{warning}", "Times that a handler was hanging")
        self._gauges = {
            name: meter.create_gauge(f"mlmessages.{name}", unit, text)
            for name, unit, text in (
                ("owed", "{conversation}", "Conversations to be read, of all sellers"),
                ("parked.packs", "{conversation}", "Conversations given up for now, of all sellers"),
                ("dead", "{message}", "Messages that the handler failed at too often"),
                ("undelivered.age", "s", "Age of the oldest message that no handler has acknowledged"),
                ("sellers.stopped", "{seller}", "Sellers that no process serves at this moment"),
                ("permits.used", "{request}", "Reads of the budget that this process's requests have used"),
            )
        }

    async def watch(self, database: Database, *, limits: Limits | None = None, every: float = 15.0) -> None:
        """Measure a database every so many seconds until cancelled; a database that is away is waited for."""
        while True:
            try:
                self._measure(await database.overview())
            except JournalError as error:
                _log.warning("the database cannot be measured: %s", error)
            if limits is not None:
                self._gauges["permits.used"].set(limits.used)
            await asyncio.sleep(every)

    def _measure(self, sellers: Sequence[SellerOverview]) -> None:
        now = datetime.now(UTC)
        oldest = min((row.oldest_undelivered for row in sellers if row.oldest_undelivered is not None), default=now)
        for name, value in (
            ("owed", sum(row.owed for row in sellers)),
            ("parked.packs", sum(row.parked for row in sellers)),
            ("dead", sum(row.dead for row in sellers)),
            ("undelivered.age", max((now - oldest).total_seconds(), 0.0)),
            ("sellers.stopped", sum(row.stopped is not None for row in sellers)),
        ):
            self._gauges[name].set(value)

    def __call__(self, event: Event) -> None:
        """Make a span and metrics of an event."""
        match event:
            case RequestEvent():
                self._request(event)
            case RetryEvent():
                self._retries.add(1, {"error.type": event.error})
            case PauseEvent():
                self._pauses.add(event.seconds)
            case RefreshEvent():
                self._refreshes.add(1, {"rejected": event.rejected})
            case DeliveryEvent():
                self._delivery(event)
            case ParkEvent():
                self._parked.add(1, {"what": event.what, "error.type": event.error})
            case SeatEvent():
                self._seats.add(1 if event.what == "taken" else -1)
                if event.what == "lost":
                    self._lost.add(1)
            case StopEvent():
                self._stops.add(1)
            case HangEvent():
                self._hangs.add(1)

    def _request(self, event: RequestEvent) -> None:
        attributes: dict[str, AttributeValue] = {
            "http.request.method": event.method,
            "url.template": event.route,
            "mlmessages.effect": event.effect,
        }
        if event.status is not None:
            attributes["http.response.status_code"] = event.status
        if event.error is not None:
            attributes["error.type"] = event.error
        self._durations.record(event.seconds, attributes)
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{event.method} {event.route}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=end - int(event.seconds * 1e9),
        )
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def _delivery(self, event: DeliveryEvent) -> None:
        attributes = {"redelivered": event.redelivered}
        self._deliveries.add(1, attributes)
        self._messages.add(event.messages, attributes)
        with self._tracer.start_as_current_span(
            "mlmessages delivery",
            kind=SpanKind.CONSUMER,
            attributes={**attributes, "pack_id": event.pack_id, "messages": event.messages, "attempt": event.attempt},
        ):
            pass

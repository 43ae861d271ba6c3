"""`Fleet`: every seller of a database, on as many machines as you like."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Literal

import aiohttp

from ..api.arguments import check_id, check_int, check_seconds, describe
from ..api.endpoints import Routes
from ..auth.oauth import OAuthToken
from ..auth.source import conceal
from ..client import MessagesClient
from ..events import Events, Hook
from ..http.limits import Limits
from ..http.retry import Retry
from ..http.transport import open_session
from ..inbox.dispatcher import Handler, OnError, Settings
from ..inbox.notified import CheckBudget
from ..inbox.service import stopping_on_sigterm
from ..inbox.slots import Slots
from ..journal.store import Seat
from ..models import FleetReport
from .database import SellerDatabase
from .missed import MissedNotifications
from .seller import LentClient, SellerService
from .supervisor import Supervisor

_LEAST_INTERVAL: Final = 60.0  # seconds between two listings of a seller that no notification asks for
_LISTINGS_SHARE: Final = 0.2  # of the budget of reads, for those


class Fleet:
    """The inboxes of many sellers of one application: run the same program on as many machines as you like.

    - `database`: a `Database` that has been entered; its sellers and their tokens are in it.
    - `client_id`, `client_secret`: the application's.
    - `api`, `base_url`, `retry`, `timeout`, `session`, `on_event`: as for `MessagesClient`.
    - `limits`: None is the budget that all processes share, `database.limits(client_id)`.
    - `sellers`: serve these alone; None: all that are in the database, also those that are added later.
    - `concurrency`: conversations of one seller that are read ahead at most; `handlers`: calls of the handler that run
      at a time, over all sellers of this process. Half of them are kept for sellers that have none at that moment, so
      that calls which never return, of one seller or a few, do not stop the others. What has not returned in five
      minutes is warned of, and told as a `HangEvent`, again and again.
    - `settle_time`: seconds after which a request of unknown outcome can no longer be executed.

    Each seller has one holder at a time. Where a process dies, others take its sellers over within the lease of the
    database (30 seconds). A seller whose tokens are dead, or whose listing is refused, is stopped for an hour, later up
    to a day, with the reason in `database.sellers()` and a warning; the others go on.

    Wrong arguments raise `ValueError`.
    """

    def __init__(
        self,
        database: SellerDatabase,
        client_id: int | str,
        client_secret: str,
        *,
        api: Literal["marketplace", "domestic"] | Routes = "marketplace",
        base_url: str = "https://api.mercadolibre.com",
        limits: Limits | None = None,
        sellers: Iterable[int | str] | None = None,
        concurrency: int = 4,
        handlers: int = 32,
        settle_time: float = 120.0,
        retry: Retry | None = None,
        timeout: float = 30.0,
        session: aiohttp.ClientSession | None = None,
        on_event: Hook | None = None,
    ) -> None:
        client_secret = conceal(client_secret)  # first: no traceback shows it
        self._supervisor: Supervisor | None = None
        self._last_report = FleetReport()
        for name in ("journals", "tokens", "limits"):
            if not hasattr(database, name):
                raise ValueError(f"database must be a Database, not {describe(database)}")
        self._database = database
        self._sellers = None if sellers is None else frozenset(check_id("seller", seller) for seller in sellers)
        self._concurrency = check_int("concurrency", concurrency, 1)
        self._handlers = check_int("handlers", handlers, 1)
        self._settle_time = check_seconds("settle_time", settle_time, zero=True)
        self._session = session
        self._events = Events(on_event)
        self._limits = database.limits(client_id) if limits is None else limits

        def new_client(seller_id: str, session: aiohttp.ClientSession | None) -> LentClient:
            return LentClient(
                OAuthToken(client_id, client_secret, database.tokens(seller_id)),
                seller_id=seller_id,
                api=api,
                base_url=base_url,
                limits=self._limits,
                retry=retry,
                timeout=timeout,
                session=session,
                on_event=on_event,
            )

        self._new_client = new_client
        new_client("0", session)  # a wrong argument is told here, and not by the service of a seller
        self._application_id = check_id("client_id", client_id)
        self._shared: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Fleet(sellers={len(self.report.sellers)})"

    def client(self, seller_id: int | str) -> MessagesClient:
        """Return a client of this seller, on the shared budget and tokens, such as to reply with in a handler.

        That of a seller who is served here is open as long as the seller is; entering and leaving it changes nothing.
        Any other one is entered with ``async with``, as always.
        """
        seller = check_id("seller_id", seller_id)
        service = None if self._supervisor is None else self._supervisor.services.get(seller)
        if service is not None and service.client.is_lent:
            return service.client
        return self._new_client(seller, self._shared or self._session)

    @property
    def report(self) -> FleetReport:
        """What this process has done so far, and what the sellers that it holds are owed."""
        return self._last_report if self._supervisor is None else self._supervisor.report

    async def run(
        self, handler: Handler, *, attempts: int = 12, grace: float = 10.0, on_error: OnError | None = None
    ) -> None:
        """Deliver for ever what the sellers of the database receive; the handler's return is the acknowledgement.

        Deliveries, repetitions, dead letters and `on_error` are those of `Inbox.run`; `Delivery.seller_id` says whose
        it is. Every seller is listed when its seat is taken, when a notification rings, and at the latest after a
        minute, or later where many sellers share the budget: such listings take at most a fifth of it. Missed
        notifications are asked for once for the application.

        SIGTERM (where nothing else handles it) and cancellation stop it: no conversation is claimed any more, what is
        in flight has `grace` seconds, and other machines take the sellers over at once. What passes is waited for: no
        connection, a server error, a database that is away. Raises `JournalError` if the database cannot be used from
        the start.
        """
        if self._supervisor is not None:
            raise RuntimeError("this fleet runs already")
        if not callable(handler):
            raise ValueError("handler must be callable")
        if on_error is not None and not callable(on_error):
            raise ValueError("on_error must be callable")
        settings = Settings(
            concurrency=self._concurrency,
            interval=self._interval,
            attempts=check_int("attempts", attempts, 1),
            grace=check_seconds("grace", grace, zero=True),
            slots=Slots(self._handlers),
            look_ups=CheckBudget(self._limits),
            stops_on_sigterm=False,
        )
        if self._session is None:
            async with open_session() as self._shared:
                await self._run(handler, settings, on_error)
        else:
            await self._run(handler, settings, on_error)

    async def _run(self, handler: Handler, settings: Settings, on_error: OnError | None) -> None:
        worker = self._database.journals.worker

        def serve(seat: Seat) -> SellerService:
            return SellerService(
                seat,
                worker,
                self._new_client(seat.seller_id, self._shared or self._session),
                settle_time=self._settle_time,
                handler=handler,
                settings=settings,
                on_error=on_error,
                events=self._events,
            )

        self._supervisor = supervisor = Supervisor(
            self._database.journals,
            serve,
            settle_time=self._settle_time,
            sellers=self._sellers,
            events=self._events,
        )
        stop = asyncio.Event()
        assert settings.slots is not None
        beside = [
            asyncio.create_task(MissedNotifications(self._database, self._application_id, supervisor.services).run()),
            asyncio.create_task(settings.slots.watch(self._events)),
        ]
        try:
            with stopping_on_sigterm(stop.set):
                await supervisor.run(stop)
        finally:
            for task in beside:
                task.cancel()
            self._last_report, self._supervisor, self._shared = supervisor.report, None, None

    def _interval(self) -> float:
        """Return the seconds between two listings of a seller that nothing rang for."""
        sellers = 1 if self._supervisor is None else self._supervisor.count
        return max(_LEAST_INTERVAL, sellers * self._limits.period / (self._limits.reads * _LISTINGS_SHARE))

"""`Inbox`: every unread conversation, with one GET each, delivered until it is acknowledged."""

from __future__ import annotations

from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from ..api.arguments import check_id, check_int, check_seconds
from ..api.notifications import Notification
from ..api.outcomes import SETTLE_TIME
from ..client import MessagesClient, pipeline_of, reader_of
from ..errors import JournalError, MessagesError
from ..journal.journal import Journal, Place, SqlitePlace
from ..models import InboxReport, PackFailure
from .dispatcher import Handler, OnError, Settings
from .drain import InboxDrain
from .ingest import Ingest
from .notified import Doorbell
from .service import Service
from .undelivered import Undelivered


class Places(Protocol):
    """Where the journals of many sellers are kept."""

    def place(self, seller_id: str, settle_time: float) -> Place:
        """Return the place of one seller's."""


def _place(where: str | PathLike[str] | Place | Places, seller_id: str, settle_time: float) -> Place:
    if isinstance(where, (str, PathLike)):
        path = Path(where)
        if not path.name:
            raise ValueError("path must name a file")
        return SqlitePlace(path, seller_id)
    if hasattr(where, "place"):
        return where.place(seller_id, settle_time)
    if not hasattr(where, "enter"):
        raise ValueError("path must be a path, or a Database")
    return where


class Inbox:
    """The unread conversations of one seller, one GET each, nothing lost: an async context manager.

    Wherever the process is killed, every message that it has marked is delivered by it or by the next one. The protocol
    and its rules stand in the docstring of `mlmessages.inbox`.

    - `path`: where the journal is. A path: an SQLite file of its own for each seller, readable by its owner alone. Or a
      `Database`, for many sellers on many machines.
    - `concurrency`: how many conversations are read at a time, and held ready, at most.
    - `limit`: messages asked for in a page.
    - `settle_time`: seconds after which a request of unknown outcome can no longer be executed, and its conversation is
      read again.
    - `park_after`: the most GETs that a refused conversation costs in one drain before it is parked.
    - `verify`: ``"always"`` reads each conversation a second time, for servers that do not mark atomically.

    Entering raises `JournalError` if the journal is another seller's, of a newer version, corrupt, in use, or cannot be
    written; nothing is marked then. A wrong argument is a `ValueError`.
    """

    def __init__(
        self,
        client: MessagesClient,
        path: str | PathLike[str] | Place | Places,
        *,
        concurrency: int = 8,
        limit: int = 50,
        settle_time: float = SETTLE_TIME,
        park_after: int = 3,
        verify: Literal["never", "always"] = "never",
    ) -> None:
        if verify not in ("never", "always"):
            raise ValueError("verify must be 'never' or 'always'")
        if not isinstance(client, MessagesClient):
            raise ValueError("client must be a MessagesClient")
        reader = reader_of(client)
        self._reader = reader
        self._pipeline = pipeline_of(client)
        self._concurrency = check_int("concurrency", concurrency, 1)
        settle_time = check_seconds("settle_time", settle_time, zero=True)
        self._journal = Journal(_place(path, reader.seller_id, settle_time))
        self._ingest = Ingest(
            reader,
            self._journal,
            Undelivered(self._journal, reader.seller_id, self._pipeline.events),
            events=self._pipeline.events,
            limits=self._pipeline.limits,
            limit=check_int("limit", limit, 1),
            settle_time=settle_time,
            park_after=check_int("park_after", park_after, 1),
            verify=verify == "always",
        )
        self._doorbell = Doorbell(self._journal)
        self._entered = False
        self._drain: InboxDrain | None = None
        self._service: Service | None = None

    async def __aenter__(self) -> Inbox:
        self._pipeline.check_open()
        if self._entered:
            raise RuntimeError("an inbox is entered once; make a new one")
        self._entered = True
        try:
            await self._journal.open()
        except BaseException:
            self._entered = False  # such as while another inbox uses the journal: it may be tried again
            raise
        try:
            self._journal.listen(self._heard)
            self._pipeline.limits.carry_over(await self._journal.spent())
            await self._ingest.recover()
        except BaseException:
            await self._journal.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._service is not None:
                await self._service.stopped()
            if self._drain is not None:
                await self._drain._leave()
            with suppress(JournalError):  # without it the next process may be answered 429, and pauses
                await self._journal.keep_spent(self._pipeline.limits.spent())
        finally:
            await self._journal.close()

    def _heard(self) -> None:
        """Take in, before the next delivery, what another process has written to the journal."""
        self._ingest.ring()
        self._doorbell.ring()

    @property
    def report(self) -> InboxReport:
        """What was done so far, and what is owed."""
        return self._ingest.report

    def drain(self) -> InboxDrain:
        """Deliver until a listing that was sent after the last read shows nothing left but parked packs.

        What an earlier process left unacknowledged comes first. A delivery that is not acknowledged is not repeated in
        this process, and delays no other.

        Iterating raises `DrainStalled` if parked packs fill the capped listing, `Forbidden` if the seller id is
        another user's, `JournalError`, and the error of a listing, of the token or of the connection. Each ends the
        drain, and what was owed is still owed. An inbox has one drain at a time: a new one takes over from one that was
        left open; `RuntimeError` while a consumer waits for the next delivery of that one.
        """
        self._check_open()
        if self._drain is not None:
            self._drain.replace()
        self._drain = InboxDrain(self._ingest, self._journal, self._concurrency, self._drain)
        return self._drain

    def _check_open(self) -> None:
        self._pipeline.check_open()
        if not self._journal.is_open:
            raise RuntimeError("the inbox is not open: use `async with`")

    # -- a service --

    async def run(
        self,
        handler: Handler,
        *,
        interval: float = 60.0,
        attempts: int = 12,
        grace: float = 10.0,
        app_id: int | str | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """Deliver until it is stopped: first what is unread, then what comes.

        Notifications (`notify`) tell of what comes, and a listing every `interval` seconds shows the rest.

        `handler`, a function or a coroutine function, is called for up to `concurrency` conversations at a time, one
        delivery of a conversation at a time. Its return is the acknowledgement. Where it raises, the delivery comes
        again, with `redelivered` and with what has come since, from the journal: after 5 s, 10 s, 20 s and so on, up to
        an hour; after `attempts` times it is one of the `dead_letters`. The others go on. The log names the pack, the
        type of the exception and the place in the handler, but not what the exception says: that may be a buyer's text.
        `on_error(exception, delivery)`, a function or a coroutine function, is given all of it after each failure.

        A handler that does not return holds one of the `concurrency` places. The log warns of it after five minutes.

        A notified message that is in no read of its conversation a minute later is looked up by its id. With `app_id`,
        the application's id, the notifications of the last two days that were not accepted are asked for every hour.

        SIGTERM (where the program does not handle it) and cancellation stop it: no conversation is claimed any more,
        what is in flight has `grace` seconds, and what was not acknowledged is delivered by the next run. Leaving the
        inbox stops it too, and `run` returns.

        What passes by itself is waited for: no connection, a server error, a listing that parked packs fill. Raises
        `JournalError`, and what does not pass: the refusal of a listing or of the token, `Forbidden` for a seller id
        that is another user's.
        """
        every = check_seconds("interval", interval)
        settings = Settings(
            self._concurrency,
            lambda: every,
            check_int("attempts", attempts, 1),
            check_seconds("grace", grace, zero=True),
            check_id("app_id", app_id) if app_id is not None else None,
        )
        await run_service(self, handler, settings, on_error)

    async def notify(self, notification: Notification) -> None:
        """Take a notification in: durable on return, without a request.

        It makes `run` ask for a listing, now or when it begins, and look up the message that it names, if no listing
        leads to it. A receipt (it only says that something was read), another topic, and a message that is known change
        nothing. Raises `JournalError` where it is not written down: answer with a 503 then, and Mercado Libre sends it
        again.
        """
        if not isinstance(notification, Notification):
            raise ValueError("notification must be a Notification")
        self._check_open()
        await self._doorbell.take(notification)

    @property
    def seller_id(self) -> str:
        """The id of the seller whose conversations these are."""
        return self._reader.seller_id

    async def dead_letters(self) -> tuple[PackFailure, ...]:
        """Return the packs with messages that the handler of `run` failed at too often, which it is not given any more.

        They are kept in the journal: `retry_dead_letters` gives them to the handler again, and `drain`, in a new
        process, delivers them with all else that is not acknowledged. Raises `JournalError`.
        """
        self._check_open()
        errors = dict((await self._journal.dead_letters()).values())
        return tuple(
            PackFailure(pack_id, MessagesError(f"the handler raised {error}")) for pack_id, error in errors.items()
        )

    async def retry_dead_letters(self) -> int:
        """Give the dead letters to the handler of the next `run` again; return how many messages they are.

        Raises `JournalError`, and `RuntimeError` while `run` is running.
        """
        self._check_open()
        if self._service is not None:
            raise RuntimeError("stop `run` first")
        return await self._journal.retry_dead_letters()


async def run_service(inbox: Inbox, handler: Handler, settings: Settings, on_error: OnError | None = None) -> None:
    """Do what `Inbox.run` does, with settings that many inboxes of one process may share."""
    if not callable(handler):
        raise ValueError("handler must be callable")
    if on_error is not None and not callable(on_error):
        raise ValueError("on_error must be callable")
    with inbox.drain().held() as drain:
        inbox._service = Service(
            drain=drain,
            doorbell=inbox._doorbell,
            ingest=inbox._ingest,
            journal=inbox._journal,
            reader=inbox._reader,
            handler=handler,
            on_error=on_error,
            settings=settings,
        )
        try:
            await inbox._service.run()
        finally:
            inbox._service = None


def stop_service(inbox: Inbox, grace: float | None = None) -> None:
    """Make `run_service` stop: it returns when what is in flight is finished, or its grace is over.

    `grace`: seconds instead of those of the settings.
    """
    if inbox._service is not None:
        inbox._service.stop(grace)

"""`Database`: many sellers in one PostgreSQL, for as many processes as there are."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from ..api.arguments import check_id, check_seconds
from ..api.notifications import Notification
from ..auth.source import conceal
from ..journal.journal import Place
from ..journal.seats import Worker
from ..journal.shared import SharedJournals
from ..journal.store import Seller
from ..models import Token
from . import statements as sql
from .address import Address
from .extra import missing
from .keys import Keys, conceal_keys
from .tokens import PostgresTokenStore

if TYPE_CHECKING:
    from ..auth.store import TokenStore
    from .connection import Statements
    from .permits import SharedLimits
    from .store import PostgresStore

_NOT_GIVEN: Final[Any] = ...  # no key is an error of its own: None is a decision


@frozen
class SellerOverview:
    """What the database holds of one seller: a row of the view ``overview``. Datetimes are aware.

    - `holder`: the worker that holds it, or held it last; `alive`: its lease has not ended.
    - `stopped`: why no worker takes it, or None.
    - `listed_at`: when its unread listing was last stored.
    - `owed`: packs to be read; `issued`: of those, being read; `waiting`: of those, not yet to be read; `parked`: given
      up for now.
    - `undelivered`: messages that no handler has acknowledged, and since when the oldest of them is stored.
    - `dead`: messages that the handler failed at too often.
    - `unknown_notifications`: messages that notifications named and that are not known yet.
    """

    seller_id: str
    holder: str | None
    alive: bool
    stopped: str | None
    listed_at: datetime | None
    owed: int
    issued: int
    waiting: int
    parked: int
    undelivered: int
    oldest_undelivered: datetime | None
    dead: int
    unknown_notifications: int


class Database:
    """The journals, seats, tokens and budget of many sellers: an async context manager.

    - `url`: of PostgreSQL 15 or newer, such as ``postgresql://user:password@host/database?sslmode=verify-full``. Beyond
      this machine the connection must be encrypted.
    - `key`: a Fernet key, or several (the first encrypts, all decrypt; one text may hold several, parted by commas):
      for tokens and for what buyers write. None, written out, stores both in clear text.
    - `schema`: a PostgreSQL schema of its own, which entering creates if it may.
    - `name`: what this process is called where people look; by default the machine's.
    - `lease`: seconds after which others take over what this process held when it died.

    Two connections are kept, each with a thread of its own. No error, repr or log line shows the URL's password.

    Raises `ValueError` for a URL or a key that cannot be used, `RuntimeError` without the extra ``postgres``; entering,
    `JournalError` for a server that cannot be reached, is too old, or acknowledges what is not on its disk.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | bytes | Sequence[str | bytes] | None = _NOT_GIVEN,
        schema: str = "mlmessages",
        name: str | None = None,
        lease: float = 30.0,
    ) -> None:
        url, key = conceal(url), conceal_keys(key)  # first: no traceback shows them
        self._address = Address(url)
        if key is _NOT_GIVEN:
            raise ValueError(
                "give key= (cryptography.fernet.Fernet.generate_key()), which encrypts tokens and messages,"
                " or write out key=None to store them in clear text"
            )
        self.keys: Final = Keys(key)
        try:
            from .connection import Statements, check_schema  # noqa: PLC0415 -- of the extra
        except ImportError:
            raise missing() from None
        self.schema: Final = check_schema(schema)
        name = socket.gethostname() if name is None else name
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError("name must be a text")
        self._journals = SharedJournals(self._open_store, name=name[:200], lease=check_seconds("lease", lease))
        self._statements = Statements(self._address, schema)
        self._budgets: list[SharedLimits] = []

    def __repr__(self) -> str:
        return f"Database({getattr(self, '_address', 'misused')})"

    def _open_store(self) -> PostgresStore:
        from . import schema  # noqa: PLC0415 -- psycopg
        from .store import PostgresStore  # noqa: PLC0415

        store = PostgresStore(self._address, self.schema, self.keys, metadata.version("mlmessages"))
        try:
            schema.migrate(store.connection, self.schema)
        except Exception as error:
            meaning = store.explain(error)
            store.close()
            raise (error if meaning is None else meaning) from None
        return store

    async def __aenter__(self) -> Database:
        if self._journals.engine.is_open:
            raise RuntimeError("the database is open already")
        await self._journals.open()
        try:
            await self._statements.open()
        except BaseException:
            await self._journals.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._journals.close()
        finally:
            budgets, self._budgets = self._budgets, []
            try:
                for budget in budgets:
                    await budget.close()
            finally:
                await self._statements.close()

    # -- sellers --

    async def add(self, token: Token) -> None:
        """Take a seller in, with the tokens of its consent; one that was stopped goes on.

        Newer tokens of that seller that are there already stay.

        Raises `ValueError` if `token.user_id` is None, `JournalError`, and `AuthError` if the tokens cannot be kept.
        """
        if not isinstance(token, Token) or token.user_id is None:
            raise ValueError("token must be a models.Token with the user_id of its seller")
        seller_id = check_id("user_id", token.user_id)
        await self.statements.run((sql.ADD_SELLER, {"seller": seller_id}))
        await PostgresTokenStore(self.statements, self.keys, seller_id).add(token)
        await self.statements.run((sql.RESUME, {"seller": seller_id}))

    async def remove(self, seller_id: int | str) -> bool:
        """Forget a seller and everything that is kept of it; return False if there is none. Raises `JournalError`.

        A worker that holds it hears of it within a second.
        """
        checked = check_id("seller_id", seller_id)
        return await self._journals.write(lambda store: store.remove_seller(checked))

    async def sellers(self) -> tuple[Seller, ...]:
        """Return every seller: who holds it, and why it is stopped, if it is. Raises `JournalError`."""
        return await self._journals.sellers()

    async def overview(self) -> tuple[SellerOverview, ...]:
        """Return what is kept of each seller, and who holds it. Raises `JournalError`."""
        [rows] = await self.statements.run((sql.OVERVIEW, {}))
        return tuple(SellerOverview(*row) for row in rows)

    async def notify(self, notification: Notification) -> bool:
        """Take a notification of any seller in, in any process: durable on return, no request is sent.

        The process that holds the seller hears of it within a second. One that only says that something was read, or
        that is known, changes nothing. Return False if its user is no seller of this database. Raises `JournalError`;
        it is to be sent again then.
        """
        if not isinstance(notification, Notification):
            raise ValueError("notification must be a Notification")
        if notification.user_id is None:
            return False
        return not notification.is_news or await self._journals.notice(notification.user_id, notification.message_id)

    async def check(self) -> None:
        """Raise `JournalError` if nothing can be written down."""
        await self.statements.run(("SELECT 1", {}))

    def tokens(self, seller_id: int | str) -> TokenStore:
        """Return the store of one seller's tokens, for `OAuthToken`."""
        return PostgresTokenStore(self.statements, self.keys, check_id("seller_id", seller_id))

    def limits(self, application_id: int | str, **options: Any) -> SharedLimits:
        """Return the budget of an application, one for all processes; `options` are those of `Limits`."""
        from .permits import limits  # noqa: PLC0415 -- psycopg

        budget = limits(self.statements, check_id("application_id", application_id), **options)
        self._budgets.append(budget)
        return budget

    # -- what an inbox and a fleet stand on --

    def place(self, seller_id: str, settle_time: float) -> Place:
        """Return where the journal of one seller is: entering takes its seat, leaving gives it back."""
        return self._journals.place(seller_id, settle_time)

    @property
    def address(self) -> Address:
        """Where the database is; it shows no password."""
        return self._address

    @property
    def journals(self) -> SharedJournals:
        """What this process shares with others."""
        return self._journals

    @property
    def worker(self) -> Worker:
        """What this process is among those that share the database."""
        return self._journals.worker

    @property
    def statements(self) -> Statements:
        """Single transactions, on a connection of their own."""
        return self._statements

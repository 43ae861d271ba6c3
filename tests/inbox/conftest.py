"""An inbox over a sandbox in memory, its journal in a temporary file, and a way to crash it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mlmessages import Delivery, Inbox, Limits, MessagesClient, failpoints
from mlmessages.testing import Sandbox
from worlds import PLENTY, client_of

settings.register_profile(  # of test_machine.py
    "inbox-thorough",
    max_examples=5000,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

InboxOf = Callable[..., AbstractAsyncContextManager[Inbox]]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "inbox.db"


@pytest.fixture
def inbox_of(journal: Path) -> InboxOf:
    """An inbox of a sandbox with a client of its own: each is another process's, and ends well."""

    @asynccontextmanager
    async def open_inbox(
        sandbox: Sandbox, *, client: dict[str, Any] | None = None, path: Path = journal, **options: Any
    ) -> AsyncIterator[Inbox]:
        async with client_of(sandbox, **(client or {})) as opened, Inbox(opened, path, **options) as inbox:
            yield inbox

    return open_inbox


class Consumer:
    """A consumer that takes deliveries and acknowledges them."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def empty(self, inbox: Inbox, *, ack: bool = True) -> list[Delivery]:
        """Drain to the end; what this drain delivered."""
        before = len(self.deliveries)
        async with inbox.drain() as drain:
            async for delivery in drain:
                self.deliveries.append(delivery)
                if ack:
                    await delivery.ack()
        return self.deliveries[before:]

    @property
    def ids(self) -> list[str]:
        """Every message that was handed over, in order, repeated where it was repeated."""
        return [message.id for delivery in self.deliveries for message in delivery.messages]

    @property
    def unread_ids(self) -> list[str]:
        """What a consumer has seen that looks at `.unread` alone."""
        return [message.id for delivery in self.deliveries for message in delivery.unread]


@pytest.fixture
def consumer() -> Consumer:
    """A consumer of deliveries."""
    return Consumer()


class Life:
    """One process with an inbox. `crash` ends it without a goodbye: the next one has what was on the disk then."""

    def __init__(self, sandbox: Sandbox, path: Path, options: dict[str, Any]) -> None:
        self._sandbox = sandbox
        self._path = path
        self._options = options
        self._ending = AsyncExitStack()

    async def begin(self, **client: Any) -> Inbox:
        """The process starts."""
        client = {"auth": self._sandbox.token, "limits": Limits(**PLENTY), **client}
        self._session = self._sandbox.session()
        self._ending.push_async_callback(self._session.close)
        opened = await self._ending.enter_async_context(
            MessagesClient(
                seller_id=self._sandbox.seller_id, base_url=self._sandbox.base_url, session=self._session, **client
            )
        )
        self.inbox = await self._ending.enter_async_context(Inbox(opened, self._path, **self._options))
        return self.inbox

    async def end(self) -> None:
        """It closes all."""
        await self._ending.aclose()

    async def crash(self, to: Path) -> None:
        """Nothing more leaves it; what was on the disk at this moment is at `to`."""
        copy_of(self._path, to)
        await self._session.close()
        await self._ending.aclose()


def copy_of(path: Path, to: Path) -> None:
    """The files as a crash would leave them: an open reader keeps a checkpoint from moving pages meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        for suffix in ("", "-wal"):
            if path.with_name(path.name + suffix).exists():
                shutil.copyfile(path.with_name(path.name + suffix), to.with_name(to.name + suffix))


@pytest.fixture
def life_of() -> Callable[..., Life]:
    """A process with an inbox of a sandbox on a journal."""
    return lambda sandbox, path, **options: Life(sandbox, path, options)


@pytest.fixture
def copy_files() -> Callable[[Path, Path], None]:
    """What a copy of a journal in use is."""
    return copy_of


class Disk:
    """The disk below every journal: from the `full_at`-th commit on there is no space; `commits` were tried."""

    def __init__(self) -> None:
        self.commits = 0
        self.full_at = float("inf")
        self.reached: list[str] = []

    def __call__(self, name: str) -> None:
        self.reached.append(name)
        if name == "before commit":
            self.commits += 1
            if self.commits >= self.full_at:
                raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that can be full."""
    installed = Disk()
    monkeypatch.setattr(failpoints, "hook", installed)
    return installed

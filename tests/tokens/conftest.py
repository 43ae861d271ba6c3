"""A seller's tokens in a file, a sandbox that grants new ones, and clients that use them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlmessages import FileTokenStore, Limits, MessagesClient, OAuthToken
from mlmessages.models import Token
from mlmessages.testing import Entry, Sandbox
from worlds import PLENTY

HOUR = timedelta(hours=1)


def hours(number: float) -> float:
    """In seconds."""
    return number * 3600


def first_token(sandbox: Sandbox, *, age: timedelta = 0 * HOUR, life: timedelta = 6 * HOUR) -> Token:
    """The tokens that the sandbox takes, as old as that by our clock."""
    issued = datetime.now(UTC) - age
    return Token(sandbox.oauth.access_token, sandbox.oauth.refresh_token, issued + life, issued, sandbox.seller_id)


async def stored(store: FileTokenStore) -> Token:
    """What is in the file."""
    token = await store.load()
    assert token is not None
    return token


def posts(sandbox: Sandbox) -> list[Entry]:
    """What came to the token endpoint."""
    return [entry for entry in sandbox.log if entry.kind == "token"]


def source_of(sandbox: Sandbox, store: Any, **changes: Any) -> OAuthToken:
    """The application's tokens in `store`: one process's, or one client's."""
    options = {"client_id": sandbox.oauth.client_id, "client_secret": sandbox.oauth.client_secret, **changes}
    return OAuthToken(store=store, **options)


@asynccontextmanager
async def client_with(sandbox: Sandbox, auth: Any, **options: Any) -> AsyncIterator[MessagesClient]:
    """A client of `sandbox` through memory."""
    async with (
        sandbox.session() as session,
        MessagesClient(
            auth,
            seller_id=sandbox.seller_id,
            base_url=sandbox.base_url,
            session=session,
            limits=Limits(**PLENTY),
            **options,
        ) as client,
    ):
        yield client


ClientWith = Callable[..., AbstractAsyncContextManager[MessagesClient]]


class MemoryStore:
    """A store that remembers what happened to it, and fails where it is told to."""

    def __init__(self, token: Token | None) -> None:
        self.token = token
        self.saved: list[Token] = []
        self.happened: list[str] = []
        self.failing: Callable[[int], bool] = lambda _: False
        """Whether the n-th `save`, from 1, fails."""
        self._lock = asyncio.Lock()

    async def load(self) -> Token | None:
        """What was saved last."""
        await asyncio.sleep(0)
        return self.token

    async def save(self, token: Token) -> None:
        """Keep it."""
        await asyncio.sleep(0)
        self.happened.append("save")
        self.saved.append(token)
        if self.failing(len(self.saved)):
            raise OSError(28, "No space left on device")
        self.token = token

    def lock(self) -> asyncio.Lock:
        """One at a time."""
        return self._lock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the tokens are."""
    return tmp_path / "seller.json"


@pytest.fixture
def store(file: Path) -> FileTokenStore:
    """The store in that file."""
    return FileTokenStore(file)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], list[str]]]:
    """`warnings(word)`: what the library has warned of that has this word in it."""
    with caplog.at_level(logging.INFO, "mlmessages"):

        def with_word(word: str) -> list[str]:
            said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            return [line for line in said if word in line]

        yield with_word

"""An inbox that runs as a service over a sandbox in memory, and a handler of its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mlmessages import Delivery, Inbox, Notification
from mlmessages.testing import Sandbox
from worlds import client_of

InboxOf = Callable[..., AbstractAsyncContextManager[Inbox]]


@pytest.fixture
def inbox_of(tmp_path: Path) -> InboxOf:
    """An inbox of a sandbox with a client of its own: each is another process's, on the same journal."""

    @asynccontextmanager
    async def open_inbox(
        sandbox: Sandbox, *, client: dict[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[Inbox]:
        async with (
            client_of(sandbox, **(client or {})) as opened,
            Inbox(opened, tmp_path / "inbox.db", **options) as inbox,
        ):
            yield inbox

    return open_inbox


class Handler:
    """Takes deliveries, and notes when; `failing` packs raise."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[float, Delivery]] = []
        self.taken: list[str] = []
        self.failing: set[str] = set()
        self.seconds = 0.0
        self.busy: list[str] = []  # packs in hand

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append((asyncio.get_running_loop().time(), delivery))
        assert delivery.pack_id not in self.busy
        self.busy.append(delivery.pack_id)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.busy.remove(delivery.pack_id)
        if delivery.pack_id in self.failing:
            raise ValueError("what a buyer wrote: CANARY")
        self.taken += [message.id for message in delivery.messages]

    def at(self, pack_id: str) -> list[float]:
        """When a pack was handed over."""
        return [round(at, 1) for at, delivery in self.deliveries if delivery.pack_id == pack_id]


@pytest.fixture
def handler() -> Handler:
    """A handler of deliveries."""
    return Handler()


class Running:
    """A service in a task of its own."""

    def __init__(self, inbox: Inbox, handler: Any, **options: Any) -> None:
        self.task = asyncio.ensure_future(inbox.run(handler, **options))

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
def running() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """`async with running(inbox, handler)`: it runs until the context is left."""

    @asynccontextmanager
    async def run(inbox: Inbox, handler: Any, **options: Any) -> AsyncIterator[Running]:
        service = Running(inbox, handler, **options)
        try:
            yield service
        finally:
            await service.stop()

    return run


@pytest.fixture
def named() -> Callable[..., Notification]:
    """A notification that names a message."""

    def make(message_id: str, **fields: Any) -> Notification:
        return Notification.parse(
            {"topic": "messages", "resource": message_id, "user_id": 700100200, "actions": ["created"], **fields}
        )

    return make

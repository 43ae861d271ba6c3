"""A small client for the sandbox, over memory on a virtual clock or over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
import pytest

from mlmessages.testing import Sandbox, virtual_run
from mlmessages.testing.plugin import mlmessages_sandbox, pytest_configure  # noqa: F401 - also without the entry point


@attrs.frozen
class Seen:
    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        return [message["id"] for message in self.json["messages"]]


@attrs.frozen
class Ask:
    """Asks as a client would; `get` takes any path."""

    session: aiohttp.ClientSession
    base_url: str
    sandbox: Sandbox

    async def get(self, path: str, token: str | None = None, method: str = "GET", **options: Any) -> Seen:
        bearer = self.sandbox.token if token is None else token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        async with self.session.request(
            method, self.base_url + path, headers=headers, allow_redirects=False, **options
        ) as response:
            return Seen(response.status, await response.read(), response.headers)

    async def listing(self, **options: Any) -> list[tuple[str, int]]:
        seen = await self.get("/marketplace/messages/unread?role=seller&tag=post_sale", **options)
        return [(row["resource"].split("/")[2], row["count"]) for row in seen.json["results"]]

    async def pack(self, pack_id: str, query: str = "", **options: Any) -> Seen:
        path = f"/messages/packs/{pack_id}/sellers/{self.sandbox.seller_id}?tag=post_sale{query}"
        return await self.get(path, **options)

    async def peek(self, pack_id: str, query: str = "") -> Seen:
        return await self.pack(pack_id, "&mark_as_read=false" + query)


Scenario = Callable[[Ask], Awaitable[None]]


@pytest.fixture
def in_memory() -> Callable[[Sandbox, Scenario], None]:
    """Plays a scenario over memory on a virtual clock."""

    def play(sandbox: Sandbox, scenario: Scenario) -> None:
        async def main() -> None:
            async with sandbox.session() as session:
                await scenario(Ask(session, sandbox.base_url, sandbox))

        virtual_run(main())

    return play


@asynccontextmanager
async def _over_a_socket(sandbox: Sandbox) -> AsyncIterator[Ask]:
    async with sandbox.serve() as server, aiohttp.ClientSession() as session:
        yield Ask(session, server.base_url, sandbox)


@pytest.fixture
def over_a_socket() -> Callable[[Sandbox], Any]:
    """An async context manager that serves a sandbox and yields a client."""
    return _over_a_socket

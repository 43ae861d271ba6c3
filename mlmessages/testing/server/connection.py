"""The server's side of a connection, which also says when its client has gone."""

from __future__ import annotations

import asyncio

from aiohttp import web


class Connection(web.RequestHandler):
    """One connection of a client."""

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(manager, loop=loop)
        self._gone: asyncio.Future[None] = loop.create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that the client has gone, or was sent away."""
        super().connection_lost(exc)
        if not self._gone.done():
            self._gone.set_result(None)

    async def client_gone(self) -> None:
        """Return when the connection is lost."""
        await asyncio.shield(self._gone)

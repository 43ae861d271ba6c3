"""A listening socket over an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..engine import Engine
from .frontend import HttpFrontend


@asynccontextmanager
async def listening(engine: Engine, host: str, port: int) -> AsyncIterator[str]:
    """Listen for as long as the context lasts; yield the base URL. Port 0 is a free one."""
    frontend = HttpFrontend(engine)
    listener = await asyncio.get_running_loop().create_server(frontend.connection, host, port, backlog=1024)
    try:
        address = listener.sockets[0].getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        yield f"http://{name}:{address[1]}"
    finally:
        listener.close()
        await frontend.stop()
        await listener.wait_closed()

"""The face in process: an aiohttp connector whose connections are pipes in memory, so that virtual clocks work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_proto import ResponseHandler

from .pipe import join

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

    from .frontend import HttpFrontend


class MemoryConnector(aiohttp.BaseConnector):
    """Connects every request to one frontend, whatever host it names."""

    def __init__(self, frontend: HttpFrontend) -> None:
        super().__init__()
        self._frontend = frontend

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> ResponseHandler:
        # the one method in which aiohttp's own connectors differ; it has a private name and no public twin
        client = ResponseHandler(self._loop)
        join(self._loop, client, self._frontend.connection())
        return client

"""The whole pipeline in front of a sandbox: what tests of the policy send through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mlmessages import Limits, Retry, StaticToken, TokenSource, errors
from mlmessages.api.calls import Call, Effect, Request, Response
from mlmessages.http.pipeline import Pipeline
from mlmessages.http.transport import Transport
from mlmessages.testing import Behaviour, Sandbox, on

READ, MARK, WRITE = Effect.READ, Effect.MARK, Effect.WRITE
PACK = Sandbox(packs=1).pack_ids()[0]  # which every sandbox of one pack has


class Renewable:
    """A token source that gets `fresh` when its token was rejected."""

    def __init__(self, token: str, fresh: str) -> None:
        self._token = token
        self._fresh = fresh

    async def token(self) -> str:
        return self._token

    async def rejected(self, token: str) -> None:
        self._token = self._fresh


@asynccontextmanager
async def session_of(
    sandbox: Sandbox,
    limits: Limits | None = None,
    retry: Retry | None = None,
    source: TokenSource | None = None,
    patience: float = 30.0,
) -> AsyncIterator[Pipeline]:
    """The pipeline in front of `sandbox`."""
    async with sandbox.session() as http:
        session = Pipeline(
            Transport(sandbox.base_url, http, patience),
            source or StaticToken(sandbox.token),
            limits or Limits(per_second=None),
            retry or Retry(),
        )
        await session.open()
        try:
            yield session
        finally:
            await session.close()


def call(effect: Effect = READ, read: Callable[[bytes], Any] = bytes) -> Call[Any]:
    """One request with that effect, the body of whose answer `read` reads."""

    def read_body(response: Response) -> Any:
        return read(response.body)

    if effect is WRITE:
        return Call(Request("/messages/action_guide", WRITE, "POST"), read_body)
    query = "?tag=post_sale" + ("" if effect is MARK else "&mark_as_read=false")
    return Call(Request(f"/marketplace/messages/packs/{PACK}{query}", effect), read_body)


def once(*steps: Any, latency: float = 0.0) -> Sandbox:
    """A sandbox that plays `steps` for the first request."""
    return Sandbox(packs=1, rules=[on("any", nth=1).do(*steps)], behaviour=Behaviour(latency=latency))


def refuse_html(body: bytes) -> bytes:
    """A reader that takes everything but HTML and nothing."""
    if body.startswith(b"<") or not body:
        raise errors.DecodeError("not JSON")
    return body

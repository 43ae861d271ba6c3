"""A sandbox in memory, a client over it, and a virtual clock: what the tests of behaviour are made of."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from mlmessages import Delivery, Limits, MessagesClient
from mlmessages.models import Conversation
from mlmessages.testing import Sandbox, virtual_run

PLENTY: dict[str, Any] = {"reads": 10**6, "per_second": None}


def on_virtual_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop whose clock jumps over every wait."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        virtual_run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def client_of(sandbox: Sandbox, **options: Any) -> AsyncIterator[MessagesClient]:
    """A client of `sandbox` through memory, with a budget that no test meets by accident."""
    options.setdefault("limits", Limits(**PLENTY))
    options.setdefault("auth", sandbox.token)
    async with (
        sandbox.session() as session,
        MessagesClient(seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session, **options) as client,
    ):
        yield client


def ids(conversations: Iterable[Conversation | Delivery]) -> list[str]:
    """Every message id that was handed over, in order, repeated where it was repeated."""
    return [message.id for conversation in conversations for message in conversation.messages]


def lost(sandbox: Sandbox, conversations: Iterable[Conversation | Delivery]) -> set[str]:
    """What the server shows as read because we marked it, and nobody was handed."""
    return sandbox.marked_ids() - set(ids(conversations))

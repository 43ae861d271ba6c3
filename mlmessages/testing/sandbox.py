"""The sandbox: one seller behind the documented API, misbehaving on request, and a log of what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from .application import ServedApplication
from .engine import Engine, Happened
from .faults import Rule
from .model.behaviour import Behaviour
from .model.conversations import Action
from .model.packs import Pack, Sender
from .seller import Seller
from .server.listener import listening

_TOKEN = "APP_USR-sandbox-700100200"  # noqa: S105 - it opens nothing but a sandbox


class Sandbox(ServedApplication, Seller):
    """The API for one seller, in process (`session`) or behind real HTTP (`serve`).

    `packs` is a number of conversations with `messages` messages each, of which the newest `unread` of the buyer's are
    unread (None: all of them), or an iterable of `Pack`, such as `lifelike(100)`. The methods may be called from any
    thread.

    `clock`: seconds from any beginning; None: those of the running loop. `begins`: the server's date at its first
    reading, in seconds since 1970; None: 2026-03-02 12:00 UTC.
    """

    def __init__(
        self,
        packs: int | Iterable[Pack] = 2500,
        *,
        messages: int = 1,
        unread: int | None = None,
        seller_id: int | str = 700100200,
        token: str = _TOKEN,
        behaviour: Behaviour | None = None,
        rules: Iterable[Rule] = (),
        clock: Callable[[], float] | None = None,
        begins: float | None = None,
    ) -> None:
        if isinstance(packs, int):
            packs = (Pack(messages=messages, unread=unread) for _ in range(packs))
        engine = Engine(Behaviour() if behaviour is None else behaviour, rules, clock, begins)
        ServedApplication.__init__(self, engine)
        Seller.__init__(self, engine, engine.add_seller(str(seller_id), token, packs))
        self._listeners: dict[Callable[[Action, str], None], Callable[[Happened], None]] = {}

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[Server]:
        """Serve the sandbox behind a real socket for as long as the context lasts; port 0 is a free one."""
        return self._serve(host, port)

    @asynccontextmanager
    async def _serve(self, host: str, port: int) -> AsyncIterator[Server]:
        async with listening(self._engine, host, port) as base_url:
            yield Server(base_url, self)

    def listen(self, listener: Callable[[Action, str], None]) -> None:
        """Call `listener`, from any thread, with what happens to which message."""
        self._listeners[listener] = told = lambda what: listener(what.action, what.message_id)
        self._engine.listen(told)

    def unlisten(self, listener: Callable[[Action, str], None]) -> None:
        """Call `listener` no more: the end of `listen`."""
        self._engine.unlisten(self._listeners.pop(listener))


@attrs.frozen
class Server:
    """A sandbox that is being served."""

    base_url: str
    sandbox: Sandbox

    @property
    def token(self) -> str:
        """The access token that the API takes now."""
        return self.sandbox.token

    @property
    def seller_id(self) -> str:
        """The id of the seller."""
        return self.sandbox.seller_id

    def add_pack(self, pack: Pack | None = None) -> str:
        """Let a conversation begin: see `Sandbox.add_pack`."""
        return self.sandbox.add_pack(pack)

    def send(
        self,
        pack_id: int | str,
        text: str = "Test message",
        sender: Sender = "buyer",
        *,
        age: float = 0.0,
        **overrides: object,
    ) -> str:
        """Let a message arrive; return its id: see `Sandbox.send`."""
        return self.sandbox.send(pack_id, text, sender, age=age, **overrides)

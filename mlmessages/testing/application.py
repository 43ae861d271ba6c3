"""What a test does with a whole sandbox, of one seller or of a thousand: serve it, break it, look at its log."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal

import aiohttp

from .engine import Engine
from .faults import Rule, refuse
from .gates import Gates
from .log import Entry
from .model.behaviour import Behaviour
from .model.conversations import Action
from .model.requests import Kind
from .server.frontend import HttpFrontend
from .server.memory import MemoryConnector
from .server.notifier import Notifier, Target, notifying


class ServedApplication:
    """An engine with its faces. The methods may be called from any thread."""

    base_url = "http://127.0.0.1"
    """For clients over `session()`; a server has a `base_url` of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._frontends: weakref.WeakSet[HttpFrontend] = weakref.WeakSet()

    @property
    def behaviour(self) -> Behaviour:
        """How the server behaves."""
        return self._engine.behaviour

    @property
    def gates(self) -> Gates:
        """The gates at which `Hold` keeps requests."""
        return self._engine.gates

    @property
    def calendar(self) -> float:
        """The date of the server, in seconds since 1970."""
        return self._engine.calendar.today

    # -- the faces

    def session(self) -> aiohttp.ClientSession:
        """Return a session that reaches the sandbox through memory, on the running loop; the caller closes it."""
        return aiohttp.ClientSession(connector=self.connector())

    def connector(self) -> aiohttp.BaseConnector:
        """Return the connector of `session()`, for a session with options of its own."""
        frontend = self.open_face()
        self._frontends.add(frontend)
        return MemoryConnector(frontend)

    def open_face(self) -> HttpFrontend:
        """Return what plays requests on the running loop; the sandbox's own clock starts with the first."""
        return HttpFrontend(self._engine)

    async def aclose(self) -> None:
        """End the requests that are still held after their session was closed; `serve` needs no such call."""
        for frontend in list(self._frontends):
            await frontend.stop()

    # -- rules

    def add(self, rule: Rule) -> Rule:
        """Add a rule after those that are there; return it, for `remove`."""
        self._engine.add_rule(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """End a rule: it is played for no further request."""
        self._engine.remove_rule(rule)

    def refuse(self, pack_ids: Iterable[int | str], status: int = 403, body: object = None) -> Rule:
        """Refuse every read of these packs from now on; return the rule, for `remove`."""
        return self.add(refuse(pack_ids, status, body))

    def release(self, gate: str) -> None:
        """Open a gate: what `Hold` keeps there goes on, and nothing is held there any more."""
        self.gates.release(gate)

    def held(self, gate: str) -> int:
        """Return how many requests wait at a gate."""
        return self.gates.waiting(gate)

    # -- notifications

    def notify(
        self,
        target: Target,
        *,
        topic: Literal["marketplace_messages", "messages"] = "marketplace_messages",
        application_id: int = 5503910054140000,
        copies: int = 1,
        receipts: bool = True,
        resource: str | None = None,
        actions: Mapping[Action, object] | None = None,
    ) -> AbstractAsyncContextManager[Notifier]:
        """Post a notification of everything that happens while the context lasts, as often as the real one does.

        `target` is a URL, or a coroutine function from the body to the status. `copies`: duplicates. `receipts`: of
        what is read too. Eight attempts within an hour; then it is one of the missed ones.

        `resource` is another form of it, with {message}, {pack} and {seller} in their places: integrators have met
        ``messages/{message}``, ``/messages/{message}?tag=post_sale``, ``/messages/{message}/``,
        ``/packs/{pack}/sellers/{seller}``, ``/messages/packs/{pack}`` and absolute URLs. `actions` replaces what is
        told of "created" and "read"; None leaves `actions` out. ValueError: `resource` has another place.
        """
        notifier = Notifier(
            target, topic, application_id, copies, receipts, resource=resource, actions=dict(actions or {})
        )
        return notifying(self._engine, notifier)

    def missed(self, entry: Mapping[str, object]) -> None:
        """Give a notification up: it is listed as missed for two days."""
        self._engine.miss(entry)

    # -- what happened

    @property
    def log(self) -> list[Entry]:
        """Every request so far, in the order of arrival."""
        return self._engine.log

    def follow(self, follower: Callable[[Entry], None]) -> None:
        """Call `follower` with each request when its status goes out, on the loop that answers it."""
        self._engine.followers.append(follower)

    def count(self, kind: Kind) -> int:
        """Return how many requests of a kind came. ValueError: there is no such kind, and the list of them."""
        return self._engine.count(kind)

    @property
    def throttled(self) -> int:
        """How many requests were answered 429 by the rate window."""
        return self._engine.api.throttled

"""The sandbox: a world behind the documented API, misbehaving on request, and a log of what was asked."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal

import aiohttp
import attrs

from . import http, memory
from .answers import Answer
from .api import Api
from .asked import Kind, ParsedRequest
from .behaviour import Behaviour
from .clock import LoopClock
from .faults import ArmedRule, Effect, Execute, HideIt, MarkAll, RevealIt, Rule, Send, Snapshot, refuse
from .gates import Gates
from .log import Entry
from .notifications import Action, Notifier, Target, notifying
from .oauth import TokenEndpoint
from .packs import Pack, Sender
from .world import World
from .writing import posted

_TOKEN = "APP_USR-sandbox-700100200"  # noqa: S105 - it opens nothing but a sandbox


class Sandbox:
    """The API for one seller, in process (`session`) or behind real HTTP (`serve`).

    `packs` is a number of conversations with `messages` messages each, of which the newest `unread` of the buyer's are
    unread (None: all of them), or an iterable of `Pack`. The methods may be called from any thread.
    """

    base_url = "http://127.0.0.1"
    """For clients over `session()`; a server has a `base_url` of its own."""

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
    ) -> None:
        self.seller_id = str(seller_id)
        self.behaviour = behaviour = Behaviour() if behaviour is None else behaviour
        if isinstance(packs, int):
            packs = (Pack(messages=messages, unread=unread) for _ in range(packs))
        self._lock = threading.RLock()
        self._world = World(packs, clock=LoopClock() if clock is None else clock, lag=behaviour.lag)
        self._api = Api(self._world, behaviour, seller_id=self.seller_id, token=token)
        self._rules = [ArmedRule(rule) for rule in rules]
        self._log: list[Entry] = []
        self._counts: dict[Kind, int] = {}
        self._faces: weakref.WeakSet[http.HttpFrontend] = weakref.WeakSet()
        self.gates = Gates()

    # -- the two faces

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[http.Server]:
        """The sandbox behind a real socket, for as long as the context lasts."""
        return http.serve(self, host, port)

    def session(self) -> aiohttp.ClientSession:
        """A session that reaches the sandbox through memory, on the running loop; the caller closes it."""
        return aiohttp.ClientSession(connector=self.connector())

    def connector(self) -> aiohttp.BaseConnector:
        """The connector of `session()`, for a session with options of its own."""
        face = self.open_face()
        self._faces.add(face)
        return memory.MemoryConnector(face)

    async def aclose(self) -> None:
        """End the requests that are still held after their session was closed; `serve` needs no such call."""
        for face in list(self._faces):
            await face.stop()

    # -- the seller's and the world's side

    @property
    def calendar(self) -> float:
        """What the server's clock says, in POSIX seconds."""
        return self._world.calendar

    @property
    def token(self) -> str:
        """The access token that the API takes; the newest, where it takes several."""
        return self._api.oauth.access_token

    @property
    def oauth(self) -> TokenEndpoint:
        """The application's side of the tokens: its id and secret, the refresh token, consent, expiry."""
        return self._api.oauth

    def rotate_token(self, new: str) -> None:
        """From now on only the new token is taken; the old one gets a 401."""
        self._api.oauth.replace(new)

    def send(
        self, pack_id: int | str, text: str = "Test message", sender: Sender = "buyer", **overrides: object
    ) -> str:
        """A message arrives; its id. `overrides` replace keys of its JSON."""
        with self._lock:
            return self._world.send(str(pack_id), text, sender, overrides)

    def hide(self, message_id: str) -> None:
        """A message is moderated: no read shows or marks it, and `count` keeps counting it."""
        with self._lock:
            self._world.hide(message_id)

    def reveal(self, message_id: str) -> None:
        """A hidden message becomes visible, at its old place."""
        with self._lock:
            self._world.reveal(message_id)

    def read_elsewhere(self, pack_id: int | str) -> None:
        """The seller reads the conversation on the site."""
        with self._lock:
            self._world.mark(self._world.thread(str(pack_id)).messages)

    def refuse(self, pack_ids: Iterable[int | str], status: int = 403, body: object = None) -> Rule:
        """From now on every read of these packs is refused; the rule, for `remove`."""
        return self.add(refuse(pack_ids, status, body))

    def add(self, rule: Rule) -> Rule:
        """One more rule, after those that are there; the same rule, for `remove`."""
        with self._lock:
            self._rules.append(ArmedRule(rule))
        return rule

    def remove(self, rule: Rule) -> None:
        """The rule ends."""
        with self._lock:
            self._rules = [armed for armed in self._rules if armed.rule is not rule]

    def release(self, gate: str) -> None:
        """Open a gate: whatever `Hold` keeps there goes on, and nothing is held there any more."""
        self.gates.release(gate)

    def held(self, gate: str) -> int:
        """How many requests wait at a gate."""
        return self.gates.waiting(gate)

    def notify(
        self,
        target: Target,
        *,
        topic: Literal["marketplace_messages", "messages"] = "marketplace_messages",
        application_id: int = 5503910054140000,
        copies: int = 1,
        receipts: bool = True,
    ) -> AbstractAsyncContextManager[Notifier]:
        """Post a notification of everything that happens while the context lasts, as often as the real one does.

        `target` is a URL, or a coroutine function from the body to the status. `copies`: duplicates. `receipts`: of
        what is read too. Eight attempts within an hour; then it is one of the missed ones.
        """
        return notifying(self, Notifier(target, topic, application_id, copies, receipts))

    def missed(self, entry: Mapping[str, object]) -> None:
        """A notification was given up: it is listed as missed for two days."""
        with self._lock:
            self._api.missed.add(self._world.now, dict(entry))

    def listen(self, listener: Callable[[Action, str], None]) -> None:
        """Call `listener` with what happens to which message."""
        with self._lock:
            self._world.listeners.append(listener)

    def unlisten(self, listener: Callable[[Action, str], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._world.listeners.remove(listener)

    def add_file(self, content: bytes, filename: str = "file.pdf", content_type: str = "application/pdf") -> str:
        """A file of the buyer's; its id, for the `filename` of a message's attachment."""
        with self._lock:
            return self._api.writing.add_file(content, filename, content_type, used=True)

    # -- what happened

    def content_of(self, file_id: str) -> bytes:
        """What was uploaded under an id."""
        with self._lock:
            return self._api.writing.content_of(file_id)

    def undelivered(self) -> set[str]:
        """The seller's messages that were taken with a 2xx, and that nobody receives."""
        with self._lock:
            return set(self._api.writing.undelivered)

    @property
    def log(self) -> list[Entry]:
        """Every request so far, in the order of arrival."""
        with self._lock:
            return list(self._log)

    def count(self, kind: Kind) -> int:
        """How many requests of a kind came."""
        return self._counts.get(kind, 0)

    @property
    def throttled(self) -> int:
        """How many requests were answered 429 by the rate window."""
        return self._api.throttled

    @property
    def unread(self) -> int:
        """How many conversations hold something unread, visible or hidden."""
        return self._world.unread_conversations()

    def unread_ids(self) -> set[str]:
        """The buyers' messages that are unread, visible or hidden."""
        with self._lock:
            return self._world.unread_ids()

    def marked_ids(self) -> set[str]:
        """The buyers' messages that are read because of a marking GET; those never delivered are lost."""
        with self._lock:
            return self._world.marked_ids()

    def message_ids(self) -> set[str]:
        """Every message."""
        with self._lock:
            return self._world.message_ids()

    def pack_ids(self) -> list[str]:
        """Every conversation, in the order of creation."""
        with self._lock:
            return self._world.pack_ids()

    # -- for the faces

    def open_face(self) -> http.HttpFrontend:
        """What plays requests on the running loop; the sandbox's own clock starts with the first."""
        self._world.start_clock()
        return http.HttpFrontend(self)

    def arrive(self, asked: ParsedRequest) -> Exchange:
        """A request is here: it is logged, and its rule is chosen."""
        with self._lock:
            entry = Entry(
                self._world.now, asked.kind, asked.method, asked.path, asked.query, asked.pack_id, body=posted(asked)
            )
            self._log.append(entry)
            self._counts[asked.kind] = self._counts.get(asked.kind, 0) + 1
            chosen = None
            for armed in self._rules:  # every rule counts the request, the first that is for it plays
                if armed.picks(asked) and chosen is None:
                    chosen = armed
            if chosen is not None:
                chosen.played += 1
            return Exchange(asked, None if chosen is None else chosen.rule, len(self._log) - 1)

    def carry_out(self, visit: Exchange, effect: Effect) -> None:
        """Something happens to a request on the server's side."""
        with self._lock:
            match effect:
                case Execute():
                    self._answered(visit, self._api.execute(visit.asked))
                case Snapshot():
                    self._answered(visit, self._api.snapshot(visit.asked))
                case MarkAll():
                    self._api.mark_all(visit.asked)
                case Send(pack, text, sender):
                    self.send(visit.asked.pack_id or "" if pack is None else pack, text, sender)
                case HideIt(message_id):
                    self._world.hide(message_id)
                case RevealIt(message_id):
                    self._world.reveal(message_id)

    def _answered(self, visit: Exchange, answer: Answer) -> None:
        visit.answer = answer
        self._log[visit.index] = attrs.evolve(
            self._log[visit.index], at=self._world.now, executed=200 <= answer.status < 300, ids=answer.ids
        )

    def told(self, visit: Exchange, status: int) -> None:
        """A status goes out to the client."""
        with self._lock:
            self._log[visit.index] = attrs.evolve(self._log[visit.index], status=status)


@attrs.define
class Exchange:
    """One request between its arrival and its answer."""

    asked: ParsedRequest
    rule: Rule | None
    index: int
    """Its place in the log."""
    answer: Answer | None = None

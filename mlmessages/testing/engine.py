"""The engine below the faces: every request is logged, meets its rule, and acts on the model. No loop, no socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import get_args

import attrs

from .clock import LoopClock
from .faults import ArmedRule, Effect, Execute, HideIt, MarkAll, RevealIt, Rule, Send, Snapshot, Stale
from .gates import Gates
from .log import Entry
from .model.account import Account
from .model.answers import Answer
from .model.api import Api
from .model.attachments import Attachments
from .model.behaviour import Behaviour
from .model.calendar import START, Calendar
from .model.conversations import FIRST_PACK, Action, Conversations, StoredMessage
from .model.oauth import Application
from .model.packs import Pack, Sender
from .model.requests import Kind, ParsedRequest
from .model.sending import posted


@attrs.frozen
class Happened:
    """What a notification can tell of: a buyer's message arrived, or was read."""

    seller_id: str
    action: Action
    message_id: str
    pack_id: str


Listener = Callable[[Happened], None]


@attrs.define
class Exchange:
    """One request between its arrival and its answer."""

    request: ParsedRequest
    rule: Rule | None
    index: int
    """Its place in the log."""
    answer: Answer | None = None


class Engine:
    """The API of one application with its log and its rules. The methods may be called from any thread."""

    def __init__(
        self,
        behaviour: Behaviour,
        rules: Iterable[Rule],
        clock: Callable[[], float] | None,
        begins: float | None = None,
    ) -> None:
        self.behaviour = behaviour
        self.calendar = Calendar(LoopClock() if clock is None else clock, START if begins is None else begins)
        self.application = Application(lambda: self.calendar.now)
        self.accounts: dict[str, Account] = {}
        self.gates = Gates()
        self.lock = threading.RLock()
        self.api = Api(self.accounts, self.application, behaviour, self.calendar)
        self._message_numbers: Iterator[int] = count()
        self._rules = [ArmedRule(rule) for rule in rules]
        self._log: list[Entry] = []
        self._counts: dict[Kind, int] = {}
        self._listeners: list[Listener] = []
        self.followers: list[Callable[[Entry], None]] = []
        """Called with each request when its status goes out."""

    # -- the sellers

    def add_seller(self, seller_id: str, token: str, packs: Iterable[Pack], *, first_pack: int = FIRST_PACK) -> Account:
        """Add a seller with conversations, who has given the application their consent.

        `first_pack`: the id of the first conversation that names none. ValueError: the seller is there already.
        """
        if seller_id in self.accounts:
            raise ValueError(f"seller {seller_id} is there twice")
        conversations = Conversations(
            packs,
            calendar=self.calendar,
            lag=self.behaviour.lag,
            numbers=self._message_numbers,
            first_pack=first_pack,
        )
        account = Account(
            seller_id,
            conversations,
            self.application.add_seller(seller_id, token),
            Attachments(seller_id, self.calendar),
        )
        conversations.listeners.append(partial(self._tell, seller_id))
        with self.lock:
            self.accounts[seller_id] = account
        return account

    def send(self, pack_id: str, text: str, sender: Sender, *, age: float = 0.0) -> str:
        """Add a message to a conversation of any seller; return its id. LookupError: there is no such conversation."""
        with self.lock:
            for account in self.accounts.values():
                if account.conversations.find_thread(pack_id) is not None:
                    return account.conversations.send(pack_id, text, sender, {}, age=age)
        raise LookupError(f"no pack {pack_id} in this sandbox")

    # -- what is told

    def listen(self, listener: Listener) -> None:
        """Call `listener`, from any thread, with everything that happens."""
        with self.lock:
            self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Call `listener` no more: the end of `listen`."""
        with self.lock:
            self._listeners.remove(listener)

    def _tell(self, seller_id: str, action: Action, message: StoredMessage) -> None:
        for listener in self._listeners:
            listener(Happened(seller_id, action, message.id, message.thread.pack_id))

    def miss(self, entry: Mapping[str, object]) -> None:
        """Give a notification up: it is listed as missed for two days."""
        with self.lock:
            self.api.missed.add(self.calendar.now, dict(entry))

    # -- the rules and the log

    def add_rule(self, rule: Rule) -> None:
        """Add a rule after those that are there."""
        with self.lock:
            self._rules.append(ArmedRule(rule))

    def remove_rule(self, rule: Rule) -> None:
        """End a rule: it is played for no further request."""
        with self.lock:
            self._rules = [armed for armed in self._rules if armed.rule is not rule]

    @property
    def log(self) -> list[Entry]:
        """Every request so far, in the order of arrival."""
        with self.lock:
            return list(self._log)

    def count(self, kind: Kind) -> int:
        """Return how many requests of a kind came. ValueError: there is no such kind."""
        if kind not in get_args(Kind):
            raise ValueError(f"unknown kind of request: {kind!r}; the kinds are: {', '.join(get_args(Kind))}")
        return self._counts.get(kind, 0)

    # -- a request on its way

    def arrive(self, request: ParsedRequest) -> Exchange:
        """Log a request and choose its rule: each rule counts it, the first that picks it plays."""
        with self.lock:
            seller_id = self.application.seller_of(request.token) if request.token else None
            entry = Entry(
                self.calendar.now,
                request.kind,
                request.method,
                request.path,
                request.query,
                request.pack_id,
                body=posted(request),
                seller_id=seller_id,
            )
            self._log.append(entry)
            self._counts[request.kind] = self._counts.get(request.kind, 0) + 1
            chosen = None
            for armed in self._rules:
                if armed.picks(request, seller_id) and chosen is None:
                    chosen = armed
            if chosen is not None:
                chosen.played += 1
            return Exchange(request, None if chosen is None else chosen.rule, len(self._log) - 1)

    def carry_out(self, exchange: Exchange, effect: Effect) -> None:
        """Let something happen on the server's side of a request."""
        with self.lock:
            match effect:
                case Execute():
                    self._answer(exchange, self.api.execute(exchange.request))
                case Stale(seconds):
                    self._answer(exchange, self.api.execute(exchange.request, lag=seconds))
                case Snapshot():
                    self._answer(exchange, self.api.snapshot(exchange.request))
                case MarkAll():
                    self.api.mark_all(exchange.request)
                case Send(pack, text, sender, age):
                    self.send(str(exchange.request.pack_id if pack is None else pack), text, sender, age=age)
                case HideIt(message_id):
                    self._conversations_with(message_id).hide(message_id)
                case RevealIt(message_id):
                    self._conversations_with(message_id).reveal(message_id)

    def told(self, exchange: Exchange, status: int) -> None:
        """Log the status that goes out to the client."""
        with self.lock:
            entry = self._log[exchange.index] = attrs.evolve(self._log[exchange.index], status=status)
        for follower in self.followers:
            follower(entry)

    def _answer(self, exchange: Exchange, answer: Answer) -> None:
        exchange.answer = answer
        self._log[exchange.index] = attrs.evolve(
            self._log[exchange.index],
            at=self.calendar.now,
            executed=200 <= answer.status < 300,
            ids=answer.ids,
        )

    def _conversations_with(self, message_id: str) -> Conversations:
        for account in self.accounts.values():
            if account.conversations.has_message(message_id):
                return account.conversations
        raise LookupError(f"no message {message_id} in this sandbox")

"""What an inbox hands over: `Delivery`, and `InboxDrain`, the iterator over deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar, Final

from ..api.outcomes import Outcome, outcome
from ..conversations.backlog import Pack
from ..conversations.drain_loop import DrainLoop
from ..conversations.single_consumer import SingleConsumer
from ..errors import APIError, AuthError, JournalError, TransportError
from ..journal.journal import Journal
from ..models import ConversationStatus, Message
from .ingest import Ingest, ReadResult
from .undelivered import NewMessages, Undelivered

_GRACE: Final = 5.0  # seconds that closing waits for requests that have left
_LONGEST_NAME: Final = 200  # characters of a name of `Delivery.once`


class Delivery:
    """New messages of one conversation, to be acknowledged with `ack`.

    - `seller_id`: the seller whose conversation it is.
    - `pack_id`, `status`: the conversation's. `pack_id` is empty for a message that was looked up by its id and names
      no conversation.
    - `messages`: everything of it that was not delivered before, oldest first, by either side.
    - `unread`: those of the counterparty that were not provably read before the pack was listed: it errs on the side of
      new.
    - `redelivered`: it may have been delivered before: the process ended before its acknowledgement, or the handler of
      `Inbox.run` failed.
    """

    __slots__ = ("_news", "_undelivered", "messages", "pack_id", "redelivered", "seller_id", "status", "unread")

    def __init__(self, undelivered: Undelivered, news: NewMessages) -> None:
        self._undelivered = undelivered
        self._news = news
        self.seller_id: Final[str] = undelivered.seller_id
        self.pack_id: Final[str] = news.pack_id
        self.messages: Final[tuple[Message, ...]] = news.messages
        self.unread: Final[tuple[Message, ...]] = tuple(row for row in news.messages if row.id in news.unread)
        self.status: Final[ConversationStatus | None] = news.status
        self.redelivered: Final[bool] = news.redelivered

    def __repr__(self) -> str:
        messages = "1 message" if len(self.messages) == 1 else f"{len(self.messages)} messages"
        return f"Delivery(pack_id={self.pack_id!r}, {messages}, redelivered={self.redelivered})"

    async def ack(self) -> None:
        """Tell the journal that the consumer has it: durable on return, and it is not delivered again.

        A second call changes nothing. Raises `JournalError`.
        """
        await self._undelivered.acknowledge(self._news)

    def once(self, name: str) -> Once:
        """Do something once for these messages, such as an answer, although the delivery may come again.

        Enter it with ``async with``: the block is told True the first time, and False ever after::

            async with delivery.once("thanks") as first:
                if first:
                    await client.send(delivery.pack_id, "Thank you, we will look at it today.")

        That is durable before the block begins, so that its one request is sent *at most once* for each message: also
        where the handler fails after `send` and the delivery comes again, alone or together with newer messages, and
        where the process is killed and started again. Where the block raises an error of this library that says that
        nothing was executed, such as `NotSent` or a refusal, the next delivery is told True again. Where it raises
        anything else, or the process is killed in it, the answer may not have been sent, and is not sent later.

        ``await delivery.once("thanks")`` is the bare answer, True or False, which nothing takes back. Both speak for
        this journal alone: another program, or a journal that was deleted, knows nothing of it.

        Raises `JournalError`; `ValueError` if `name` is not a text of 1 to 200 printable characters.
        """
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise ValueError(f"name must be a text of 1 to {_LONGEST_NAME} printable characters")
        return Once(self._undelivered, self._news, name)


class Once:
    """What `Delivery.once` returns: to be entered with ``async with``, or awaited."""

    def __init__(self, undelivered: Undelivered, news: NewMessages, name: str) -> None:
        self._undelivered = undelivered
        self._news = news
        self._name = name
        self._first = False

    def __await__(self) -> Generator[Any, None, bool]:
        return self._undelivered.once(self._news, self._name).__await__()

    def __bool__(self) -> bool:
        raise TypeError("`delivery.once(...)` has to be awaited, or entered with `async with`")

    async def __aenter__(self) -> bool:
        self._first = await self
        return self._first

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._first or not isinstance(exc, (TransportError, APIError, AuthError)):
            return
        if outcome(exc) is Outcome.NOT_EXECUTED:
            await self._undelivered.undo_once(self._news, self._name)


class InboxDrain(SingleConsumer[Delivery]):
    """The deliveries of one `Inbox.drain`: an async iterator and async context manager of `Delivery`."""

    _NAME: ClassVar[str] = "a drain"
    _OWNER: ClassVar[str] = "the inbox"

    def __init__(self, ingest: Ingest, journal: Journal, concurrency: int, before: InboxDrain | None) -> None:
        super().__init__()
        self._ingest = ingest
        self._undelivered = ingest.undelivered
        self._journal = journal
        self._concurrency = concurrency
        self._before = before  # it may have been left open by a `break`
        self._replaced = False
        self._is_late = False  # what has left was not stored in time, and is not waited for again
        ingest.begin()
        self.loop: Final[DrainLoop[ReadResult]] = DrainLoop(
            ingest.backlog,
            list_unread=ingest.list_unread,
            read=ingest.read,
            on_read=ingest.on_read,
            on_failure=ingest.on_failure,
            refusals=lambda: ingest.refusals,
            seller_id=ingest.seller_id,
        )

    @contextmanager
    def held(self) -> Iterator[InboxDrain]:
        """Let a service do what a consumer would."""
        self._busy = True
        try:
            yield self
        finally:
            self._busy = False

    def replace(self) -> None:
        """Let another drain take over. `RuntimeError` where a consumer waits for this one's next delivery."""
        if self._busy:
            raise RuntimeError("an inbox has one drain at a time: close the other one first")
        self._replaced = not self.loop.closed

    def _is_closed(self) -> bool:
        return self.loop.closed or self._replaced

    def _check(self) -> None:
        pass  # what is closed says so when it is used

    def _end(self) -> Exception:
        if self._replaced:
            return RuntimeError("another drain of this inbox has taken over")
        return super()._end()

    async def _next(self) -> Delivery | None:
        await self._close_before()
        while not self.loop.closed:
            await self._ingest.reload()
            if (news := await self._undelivered.left_over()) is not None:
                return self._hand_over(news)
            if (news := await self._undelivered.just_read()) is not None:
                self.loop.read_ahead(self._concurrency - self._undelivered.read_ahead)
                return self._hand_over(news)
            if not await self.loop.advance(self._concurrency):
                break
        return None

    def _hand_over(self, news: NewMessages) -> Delivery:
        self._undelivered.record(news)
        return Delivery(self._undelivered, news)

    async def _close_before(self) -> None:
        if self._before is not None:
            await self._before.aclose()
            self._before = None

    async def aclose(self) -> None:
        """End the drain: no pack is claimed any more, and what has left gets 5 s to be answered, and 5 to be stored.

        What was stored and not handed over comes in the next drain.
        """
        await self._close_before()
        if self.loop.closed and not self.loop.reads_in_flight:
            return
        self.loop.close()
        reads = dict(self.loop.reads_in_flight)  # a copy: a consumer that is waiting meanwhile takes out those that end
        for task, pack in reads.items():
            if not self._ingest.in_doubt(pack):
                task.cancel()
        if reads and not self._is_late:
            await asyncio.wait(reads, timeout=_GRACE)
        if late := [task for task in reads if not task.done()]:
            for task in late:
                task.cancel()
            # What is being stored is waited for, and not for as long as the database is away: its claim stands.
            await asyncio.wait(late, timeout=0 if self._is_late else _GRACE)
        self._is_late = not all(task.done() for task in reads)
        await asyncio.gather(*(self._settle(task, pack) for task, pack in reads.items() if task.done()))
        with suppress(JournalError):  # closing the inbox raises it
            await self._journal.purge()

    async def _settle(self, task: asyncio.Task[ReadResult], pack: Pack) -> None:
        # The pack is owed again, or parked, whatever it was; if the journal is broken, it has the claim, as of a dead
        # process. Why the drain ended was raised already.
        with suppress(Exception):
            if task.cancelled():
                self.loop.reads_in_flight.pop(task, None)
                await self._ingest.give_up(pack)
            else:
                await self.loop.finish(task)

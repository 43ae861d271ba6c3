"""What an inbox hands over: `Delivery`, and `InboxDrain`, the iterator over them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

from ..conversations.backlog import Pack
from ..conversations.drain_loop import DrainLoop
from ..errors import JournalError
from ..journal.journal import Journal
from ..models import ConversationStatus, Message
from .ingest import Ingest, NewMessages, ReadResult

_GRACE: Final = 5.0  # seconds that closing waits for requests that have left


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

    __slots__ = ("_intake", "_news", "messages", "pack_id", "redelivered", "seller_id", "status", "unread")

    def __init__(self, intake: Ingest, news: NewMessages) -> None:
        self._intake = intake
        self._news = news
        self.seller_id: Final[str] = intake.seller_id
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
        await self._intake.acknowledge(self._news)

    async def once(self, name: str) -> bool:
        """Return True the first time that it is called with this `name` for these messages, and False ever after.

        For what must not happen twice although a delivery may come again, such as an answer::

            if await delivery.once("thanks"):
                await client.send(delivery.pack_id, "Thank you, we will look at it today.")

        It is durable before it returns True, so that what follows happens *at most once* for each message: also where
        the handler fails after `send` and the delivery comes again, alone or together with newer messages, and where
        the process is killed and started again. What it does not do: where the handler fails, or is killed, between
        `once` and the end of `send`, the answer may not have been sent, and the next delivery does not send it.
        It speaks for this journal alone: another program, or a journal that was deleted, knows nothing of it.

        Raises `JournalError`; `ValueError` if `name` is not a text of 1 to 200 characters.
        """
        if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
            raise ValueError("name must be a text of 1 to 200 printable characters")
        return await self._intake.once(self._news, name)


class InboxDrain:
    """The deliveries of one `Inbox.drain`: an async iterator and async context manager."""

    def __init__(self, intake: Ingest, journal: Journal, concurrency: int, before: InboxDrain | None) -> None:
        self._intake = intake
        self._journal = journal
        self._concurrency = concurrency
        self._before = before  # it may have been left open by a `break`
        self._busy = self._replaced = self._left = False
        intake.begin()
        self._rounds: DrainLoop[ReadResult] = DrainLoop(
            intake.backlog,
            unread=intake.unread,
            look=intake.look,
            looked=intake.looked,
            failed=intake.failed,
            refusals=lambda: intake.refusals,
            seller_id=intake.seller_id,
        )

    @property
    def rounds(self) -> DrainLoop[ReadResult]:
        """The engine."""
        return self._rounds

    @contextmanager
    def held(self) -> Iterator[InboxDrain]:
        """A service does what a consumer would."""
        self._busy = True
        try:
            yield self
        finally:
            self._busy = False

    @property
    def closed(self) -> bool:
        """True if it is over."""
        return self._rounds.closed

    def replace(self) -> None:
        """Another drain takes over. `RuntimeError` where somebody waits for this one's next delivery."""
        if self._busy:
            raise RuntimeError("an inbox has one drain at a time: close the other one first")
        self._replaced = not self.closed

    def __aiter__(self) -> InboxDrain:
        return self

    async def __anext__(self) -> Delivery:
        if self._busy:
            raise RuntimeError("a drain has one consumer at a time")
        if self._replaced:
            raise RuntimeError("another drain of this inbox has taken over")
        if self.closed:
            raise self._end()
        self._busy = True
        try:
            news = await self._next()
        except Exception:
            await self.aclose()
            if self._left:  # whatever failed because of that
                raise self._end() from None
            raise
        finally:
            self._busy = False
        if news is None:
            await self.aclose()
            raise self._end()
        self._intake.record_delivery(news)
        return Delivery(self._intake, news)

    def _end(self) -> Exception:
        return RuntimeError("the inbox is closed") if self._left else StopAsyncIteration()

    async def leave(self) -> None:
        """Close it because the inbox is left: to whoever iterates, that is not the end, but a `RuntimeError`."""
        self._left = self._left or not self.closed
        await self.aclose()

    async def _close_before(self) -> None:
        if self._before is not None:
            await self._before.aclose()
            self._before = None

    async def _next(self) -> NewMessages | None:
        await self._close_before()
        if (news := await self._intake.left_over()) is not None:
            return news
        while not self.closed:
            if (news := await self._intake.just_read()) is not None:
                self._rounds.look_ahead(self._concurrency - len(self._intake.ready))
                return news
            if not await self._rounds.advance(self._concurrency):
                break
        return None

    async def aclose(self) -> None:
        """End the drain: no pack is claimed any more, and what has left gets a few seconds to be answered and stored.

        What was stored and not handed over comes in the next drain.
        """
        await self._close_before()
        if self.closed and not self._rounds.looks:
            return
        self._rounds.close()
        looks = dict(self._rounds.looks)  # all of them: a consumer that is waiting meanwhile takes out those that end
        for task, pack in looks.items():
            if not self._intake.in_doubt(pack):
                task.cancel()
        if looks:
            await asyncio.wait(looks, timeout=_GRACE)
        for task, pack in looks.items():
            await self._settle(task, pack)
        with suppress(JournalError):  # closing the inbox says so
            await self._journal.purge()

    async def _settle(self, task: asyncio.Task[ReadResult], pack: Pack) -> None:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        # The pack is owed again, or parked, whatever it was; if the journal is broken, it has the claim, as of a dead
        # process. Why the drain ended is told already.
        with suppress(Exception):
            if task.cancelled():
                self._rounds.looks.pop(task, None)
                await self._intake.given_up(pack)
            else:
                await self._rounds.settle(task)

    async def __aenter__(self) -> InboxDrain:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

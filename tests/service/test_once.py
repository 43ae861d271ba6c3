"""`Delivery.once`: what must not happen twice although a delivery may come again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cases import case
from mlmessages import Delivery, MessagesClient, Retry
from mlmessages.errors import JournalError
from mlmessages.testing import DROP, EXECUTE, Pack, Reply, Sandbox, on
from worlds import client_of, on_virtual_clock

FIRST = "2000000000000001"


class Bot:
    """Answers once, and fails after the answer until `mended`."""

    def __init__(self, client: MessagesClient) -> None:
        self.client = client
        self.mended = False
        self.said: list[bool] = []

    async def __call__(self, delivery: Delivery) -> None:
        async with delivery.once("thanks") as first:
            self.said.append(first)
            if first:
                await self.client.send(delivery.pack_id, "thank you")
        if not self.mended:
            raise LookupError


@case("R3")
@on_virtual_clock
async def test_a_bot_that_fails_after_its_answer_does_not_answer_twice(inbox_of: Any, running: Any) -> None:
    """Neither in the repetition, nor in the next process, nor when a newer message comes along; a new one gets its own."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        bot = Bot(client)
        async with inbox_of(sandbox) as inbox, running(inbox, bot, interval=6):
            await asyncio.sleep(7)
            assert bot.said == [True, False]
        sandbox.send(FIRST)
        async with inbox_of(sandbox) as inbox, running(inbox, bot, interval=6):
            await asyncio.sleep(20)
            bot.mended = True
            await asyncio.sleep(100)
            assert bot.said[1:] == [False] * (len(bot.said) - 1)
            assert sandbox.count("send") == 1
            sandbox.send(FIRST)
            await asyncio.sleep(20)
    assert bot.said[-1] is True
    assert sandbox.count("send") == 2


@case("R3")
@on_virtual_clock
async def test_names_are_apart_and_so_are_conversations(inbox_of: Any, tmp_path: Any) -> None:
    """Each name happens once for each delivery; a drain's deliveries have it too."""
    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        said = [[await delivery.once(name) for name in ("a", "b", "a")] async for delivery in drain]
    assert said == [[True, True, False]] * 2


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\ud800", None, 5], ids=ascii)
@on_virtual_clock
async def test_a_name_that_is_none_is_refused(name: Any, inbox_of: Any) -> None:
    """A `ValueError`."""
    async with inbox_of(Sandbox(packs=1)) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            with pytest.raises(ValueError, match="name must be"):
                await delivery.once(name)


@on_virtual_clock
async def test_a_delivery_names_its_seller(inbox_of: Any) -> None:
    """With a journal in a file too."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        assert [delivery.seller_id async for delivery in drain] == [str(sandbox.seller_id)]


@case("R3")
@pytest.mark.parametrize(
    ("steps", "again"),
    [((Reply(403),), True), ((Reply(429),), True), ((EXECUTE, DROP), False), ((EXECUTE, Reply(502)), False)],
    ids=["refused", "too many", "answer lost", "server error"],
)
@on_virtual_clock
async def test_what_was_certainly_not_sent_is_sent_by_the_next_delivery(
    steps: tuple[Any, ...], again: bool, inbox_of: Any, running: Any
) -> None:
    """A refused answer is tried again; one that may have been sent is not."""
    sandbox = Sandbox(packs=1)
    sandbox.add(on("send").do(*steps))
    async with client_of(sandbox, retry=Retry(attempts=1)) as client:
        bot = Bot(client)
        async with inbox_of(sandbox) as inbox, running(inbox, bot):
            await asyncio.sleep(3)
            assert bot.said == [True]
            await asyncio.sleep(300)
            assert bot.said[1] is again


@case("R3")
@on_virtual_clock
async def test_other_errors_in_the_block_take_nothing_back(inbox_of: Any) -> None:
    """They say nothing about the request: it may have been sent before."""
    async with inbox_of(Sandbox(packs=1)) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            for error in (JournalError("full"), LookupError()):
                with pytest.raises(type(error)):
                    async with delivery.once("thanks"):
                        raise error
                assert not await delivery.once("thanks")


@case("R3")
@on_virtual_clock
async def test_it_cannot_be_taken_for_an_answer_without_an_await(inbox_of: Any) -> None:
    """`if delivery.once("thanks"):` would be true each time: a `TypeError`."""
    async with inbox_of(Sandbox(packs=1)) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            with pytest.raises(TypeError, match="awaited"):
                bool(delivery.once("thanks"))


@case("N5")
@on_virtual_clock
async def test_a_delivery_counts_its_messages_in_words(inbox_of: Any) -> None:
    """One message, two messages: and no word of theirs."""
    sandbox = Sandbox([Pack(messages=count) for count in (1, 2)])
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        said = sorted(repr(delivery).partition(", ")[2] for delivery in [delivery async for delivery in drain])
    assert said == ["1 message, redelivered=False)", "2 messages, redelivered=False)"]

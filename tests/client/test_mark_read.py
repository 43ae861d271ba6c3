"""`client.mark_read`: marks a conversation, and shows what its marks may have hidden."""

from __future__ import annotations

from typing import Any

import pytest

from mlmessages.errors import AnswerLost, NotFound
from mlmessages.testing import DROP, EXECUTE, Behaviour, Message, Pack, Sandbox, Send, on
from worlds import client_of, on_virtual_clock

FIRST = 2000000000000001


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("count", [1, 3, 120])
@on_virtual_clock
async def test_a_server_that_marks_the_whole_pack_is_asked_once(order: Any, count: int) -> None:
    """One marking request; the whole conversation comes back, newest first."""
    sandbox = Sandbox([Pack(messages=[Message()] * count)], behaviour=Behaviour(order=order))
    async with client_of(sandbox) as client:
        conversation = await client.mark_read(FIRST)
    assert sandbox.count("mark") == 1
    assert sandbox.unread == 0
    assert [message.id for message in conversation.messages] == sorted(sandbox.message_ids(), reverse=True)
    assert conversation.pack_id == str(FIRST)
    assert conversation.marked
    assert conversation.status is not None


@pytest.mark.parametrize("order", ["newest", "oldest"])
@on_virtual_clock
async def test_a_server_that_marks_what_it_returns_is_marked_page_by_page(order: Any) -> None:
    """120 unread messages on a server that marks no more than a page: all of them are marked in the end."""
    sandbox = Sandbox([Pack(messages=[Message()] * 120)], behaviour=Behaviour(marks="page", order=order))
    async with client_of(sandbox) as client:
        conversation = await client.mark_read(FIRST)
    assert sandbox.unread == 0
    assert len(conversation.messages) == 120
    assert len(conversation.unread) == 120
    assert sandbox.count("mark") == 3


@on_virtual_clock
async def test_pages_that_are_already_read_are_not_marked() -> None:
    """Only the newest message is unread: a server that marks pages gets one marking request for three pages."""
    sandbox = Sandbox([Pack(messages=[*[Message(read=True)] * 119, Message()])], behaviour=Behaviour(marks="page"))
    async with client_of(sandbox) as client:
        conversation = await client.mark_read(FIRST)
    assert sandbox.count("mark") == 1
    assert len(conversation.unread) == 1


@on_virtual_clock
async def test_what_came_since_the_last_look_is_shown() -> None:
    """A message that arrives just before the mark is in `messages` and in `unread`: it was shown nowhere before."""
    sandbox = Sandbox([Pack(messages=2)])
    async with client_of(sandbox) as client:
        page = await client.page(FIRST)
        late = sandbox.send(FIRST)
        conversation = await client.mark_read(FIRST)
    assert late not in [message.id for message in page.messages]
    assert conversation.messages[0].id == late
    assert conversation.unread[-1].id == late
    assert sandbox.marked_ids() <= {message.id for message in conversation.messages}


@on_virtual_clock
async def test_what_comes_while_pages_are_marked_is_shown() -> None:
    """An arrival between the marks of two pages is not marked unseen."""
    rules = [on("mark", nth=[2, 3]).do(Send(), EXECUTE)]
    sandbox = Sandbox([Pack(messages=[Message()] * 120)], behaviour=Behaviour(marks="page"), rules=rules)
    async with client_of(sandbox) as client:
        conversation = await client.mark_read(FIRST)
    assert sandbox.marked_ids() <= {message.id for message in conversation.messages}
    assert len(conversation.messages) == 122


@on_virtual_clock
async def test_messages_of_one_second_keep_the_servers_order() -> None:
    """The marketplace's dates are whole seconds: where they are equal, `mark_read` and `page` agree."""
    date = {"message_date": {"created": "2026-01-02T03:04:05Z"}}
    sandbox = Sandbox([Pack(messages=[Message(overrides=date)] * 5)])
    async with client_of(sandbox) as client:
        page = await client.page(FIRST)
        assert (await client.mark_read(FIRST)).messages == page.messages


@on_virtual_clock
async def test_a_sellers_own_message_is_not_unread() -> None:
    """`unread` holds the counterparty's messages alone, oldest first."""
    messages = [Message(), Message(sender="seller"), Message()]
    sandbox = Sandbox([Pack(messages=messages)])
    async with client_of(sandbox) as client:
        conversation = await client.mark_read(FIRST)
    assert [message.id for message in conversation.unread] == [
        conversation.messages[2].id,
        conversation.messages[0].id,
    ]


@on_virtual_clock
async def test_a_mark_of_unknown_outcome_is_raised_and_not_repeated() -> None:
    """`AnswerLost`, after one request."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(EXECUTE, DROP)])
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.mark_read(FIRST)
    assert len(sandbox.log) == 1


@on_virtual_clock
async def test_an_unknown_pack_is_not_found() -> None:
    """404, with what to do."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(NotFound) as missing:
            await client.mark_read(7)
    assert missing.value.hint

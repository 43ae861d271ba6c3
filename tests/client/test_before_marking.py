"""What is awaited before a marking request leaves, for who writes it down first."""

from __future__ import annotations

from mlmessages.client import reader_of
from mlmessages.conversations.reader import ConversationRead
from mlmessages.testing import Behaviour, Garbage, Pack, Sandbox, on
from worlds import client_of, on_virtual_clock


@on_virtual_clock
async def test_each_marking_request_waits_for_it_and_no_other_does() -> None:
    """A walk that marks, and marks page by page: once before each marking request, whatever is read besides."""
    sandbox = Sandbox(
        [Pack(messages=12, unread=12)],
        behaviour=Behaviour(marks="page"),
        rules=[on("mark", nth=1).do(Garbage())],
    )
    marks_before: list[int] = []

    async def before_marking() -> None:
        marks_before.append(sandbox.count("mark"))

    async with client_of(sandbox) as client:
        reader, (pack_id,), read = reader_of(client), sandbox.pack_ids(), ConversationRead()
        await reader.walk(read, pack_id, 5, mark=True, before_marking=before_marking)
        assert read.mark_unreadable
        await reader.mark_pages(read, pack_id, 5, [4, 8], known=set(), total=None, before_marking=before_marking)
    assert marks_before == [0, 1, 2]
    assert sandbox.count("mark") == 3

"""Test a program of yours against the sandbox: `pytest test_my_bot.py` (needs pytest-asyncio).

The fixture `mlmessages_sandbox` comes with the package: a real server in a thread, five conversations by default.
"""

import pytest

from mlmessages import MessagesClient
from mlmessages.testing import DROP, EXECUTE, Message, Pack, Server, on


async def unread_texts(client: MessagesClient) -> list[str | None]:
    """The program under test."""
    async with client.drain(settle_time=0.0) as drain:
        return [message.text async for conversation in drain for message in conversation.unread]


@pytest.mark.mlmessages_sandbox(packs=[Pack(messages=[Message("¿Cuándo llega?")])])
@pytest.mark.asyncio
async def test_every_message_is_read(mlmessages_sandbox: Server) -> None:
    server = mlmessages_sandbox
    async with MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url) as client:
        assert await unread_texts(client) == ["¿Cuándo llega?"]
        server.sandbox.send(server.sandbox.pack_ids()[0], "¿Y bien?")
        assert await unread_texts(client) == ["¿Y bien?"]
    assert server.sandbox.unread == 0


@pytest.mark.mlmessages_sandbox(packs=2)
@pytest.mark.asyncio
async def test_a_lost_answer_loses_no_message(mlmessages_sandbox: Server) -> None:
    server = mlmessages_sandbox
    server.sandbox.add(on("mark", nth=1).do(EXECUTE, DROP))  # marked as read, and the answer is lost
    async with MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url) as client:
        assert len(await unread_texts(client)) == 2
    assert server.sandbox.unread == 0

"""Nothing is left: no task, no socket, no file, no warning, whatever happened."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edges.sockets import PACK, client_at, repeating, saying, server, within
from mlmessages import Limits
from mlmessages.errors import MessagesError
from mlmessages.testing import Sandbox

OK = b"HTTP/1.1 200 OK\r\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in development mode: every warning is an error, and asyncio watches itself.

    Its reports of slow callbacks are the one thing that a busy machine brings about: programs switch them off.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONASYNCIODEBUG": "1"}
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_storm_leaves_nothing_behind() -> None:
    """2,000 requests, errors and cancellations: no task, socket or file is left, nothing unclosed or unretrieved."""
    done = run(str(Path(__file__).with_name("storm.py")))
    assert done.stderr == ""
    assert done.stdout == "nothing is left\n"
    assert done.returncode == 0


LEFT_OPEN = """
import asyncio
from mlmessages import MessagesClient
from mlmessages.testing import Sandbox

async def main():
    asyncio.get_running_loop().slow_callback_duration = float("inf")  # which says nothing but that the machine is busy
    sandbox = Sandbox(packs=20, messages=30)
    async with sandbox.serve() as served:
        client = MessagesClient(served.token, seller_id=served.seller_id, base_url=served.base_url)
        async with client:
            [pack, *_] = sandbox.pack_ids()
            async for _ in client.messages(pack, limit=5):
                break
            async for _ in client.pages(pack, limit=5):
                break
            async for _ in client.drain():
                break
            client.drain(), client.messages(pack), client.pages(pack)  # never begun
            under_way = asyncio.ensure_future(client.page(pack))
            under_way.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise ZeroDivisionError

try:
    asyncio.run(main())
except ZeroDivisionError:
    print("as expected")
"""


def test_a_client_that_is_left_in_the_middle_of_everything_complains_of_nothing() -> None:
    """Generators and drains left open, an exception: no "never retrieved", no "Unclosed", no warning."""
    done = run("-c", LEFT_OPEN)
    assert done.stderr == ""
    assert done.stdout == "as expected\n"


@pytest.mark.parametrize(
    "answer",
    [
        saying(b"", close=False),
        saying(OK + b"Content-Length: 10\r\n\r\nhello", close=False),
        repeating(OK + b"Content-Length: 99999\r\n\r\n", b" ", 0.01),
        repeating(OK, b"X: y\r\n", 0.01),
    ],
    ids=["no answer", "half a body", "a trickle", "headers for ever"],
)
@within(5)
async def test_a_connection_is_given_up_with_its_request(answer: Callable[..., object]) -> None:
    """Timed out or cancelled: the server sees the connection end, and no later request meets what was left in it."""
    async with server(answer) as wire, client_at(wire.base_url, timeout=0.1) as client:  # type: ignore[arg-type]
        with pytest.raises(MessagesError):
            await client.page(PACK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await client.unread()
        with pytest.raises(MessagesError):
            await client.page(PACK)
        assert wire.connections == len(wire.requests)


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
if importlib.util.find_spec("uvloop"):  # the event loop is the host's affair: this package never asks for it
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


@pytest.mark.parametrize("loop_factory", LOOPS, ids=lambda factory: factory.__module__)
def test_a_drain_runs_on_the_hosts_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Over real sockets, on asyncio's own loop and on uvloop: every conversation, nothing left, nothing unclosed."""

    async def main() -> None:
        sandbox = Sandbox(packs=100)
        async with (
            sandbox.serve() as served,
            client_at(served.base_url, auth=served.token, timeout=10, limits=Limits(per_second=None)) as client,
            client.drain() as drain,
        ):
            found = [conversation async for conversation in drain]
        assert len({conversation.pack_id for conversation in found}) == len(found) == 100
        assert sandbox.unread == 0

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main(), 20))

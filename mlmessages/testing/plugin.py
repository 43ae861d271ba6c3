"""The pytest plugin: the fixture `mlmessages_sandbox`, a server that behaves like the real one, for tests of any kind.

The fixture is a sandbox behind real HTTP on 127.0.0.1, in a thread of its own, so that plain tests, pytest-asyncio and
anyio can use it. It has `base_url`, `token`, `seller_id` and `sandbox`, and five conversations with one unread message
each::

    async def test_my_bot_answers(mlmessages_sandbox):
        server = mlmessages_sandbox
        async with MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url) as client:
            await answer_everything(client)
        assert server.sandbox.unread == 0

The mark passes its arguments to `mlmessages.testing.Sandbox`: how many conversations, or which, and how the server
misbehaves::

    @pytest.mark.mlmessages_sandbox(packs=1200)
    @pytest.mark.mlmessages_sandbox(packs=[Pack(messages=[Message("¿Cuándo llega?")])])
    @pytest.mark.mlmessages_sandbox(packs=3, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    @pytest.mark.mlmessages_sandbox(packs=3, behaviour=Behaviour(rate=RateWindow(reads=10)))

More can happen while the test runs, from any thread: ``server.add_pack(Pack(...))`` begins a conversation,
``server.send(pack_id, "¿Hola?")`` lets a message arrive, ``server.sandbox.add(rule)`` breaks the next requests,
``server.sandbox.hide(message_id)`` moderates one away. Afterwards, ``server.sandbox.log``, ``marked_ids()``,
``unread_ids()`` and ``undelivered()`` tell what the server has seen.

Nothing but pytest is imported until a test asks for the fixture.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .. import testing  # lazy, and imported already: it is this module's package

if TYPE_CHECKING:
    from .sandbox import Server

_MARK = "mlmessages_sandbox"
_PACKS = 5


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark `mlmessages_sandbox`."""
    config.addinivalue_line(
        "markers", f"{_MARK}(packs={_PACKS}, **options): what the sandbox of this test is made of, see `Sandbox`"
    )


@pytest.fixture
def mlmessages_sandbox(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve a sandbox in a thread of its own: `base_url`, `token`, `seller_id`, `sandbox`, `send`, `add_pack`.

    ``@pytest.mark.mlmessages_sandbox(packs=3)`` passes its arguments to `Sandbox`; without it there are five packs.
    """
    mark = request.node.get_closest_marker(_MARK)
    args, options = (mark.args, mark.kwargs) if mark is not None else ((), {})
    defaults = {"clock": time.monotonic} if args else {"clock": time.monotonic, "packs": _PACKS}
    with testing.serve_in_thread(testing.Sandbox(*args, **{**defaults, **options})) as server:
        yield server

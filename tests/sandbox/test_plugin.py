"""The pytest fixture: a server in a thread of its own, in any kind of test."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from cases import case
from mlmessages.testing import Message, Pack, Sandbox, serve_in_thread


def get(server, path):
    request = urllib.request.Request(server.base_url + path, headers={"Authorization": f"Bearer {server.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.mlmessages_sandbox(packs=3, messages=2)
def test_in_a_plain_test(mlmessages_sandbox):
    server = mlmessages_sandbox
    assert len(get(server, "/marketplace/messages/unread")["results"]) == 3
    pack = server.sandbox.pack_ids()[0]
    new = server.send(pack, "more")
    seen = get(server, f"/messages/packs/{pack}/sellers/{server.seller_id}?tag=post_sale")
    assert seen["messages"][0]["id"] == new
    assert new in server.sandbox.marked_ids()


@pytest.mark.asyncio
async def test_in_an_asyncio_test(mlmessages_sandbox):
    server = mlmessages_sandbox
    headers = {"Authorization": f"Bearer {server.token}"}
    async with aiohttp.ClientSession(server.base_url, headers=headers) as session:
        async with session.get("/marketplace/messages/unread") as response:
            assert len((await response.json())["results"]) == 5
        assert server.sandbox.unread == 5


@pytest.mark.anyio
async def test_in_an_anyio_test(mlmessages_sandbox, anyio_backend_name):
    assert anyio_backend_name == "asyncio"
    assert mlmessages_sandbox.sandbox.unread == 5


@pytest.mark.mlmessages_sandbox(2)
def test_packs_can_be_given_by_position(mlmessages_sandbox):
    assert mlmessages_sandbox.sandbox.unread == 2


@case("R41")
@pytest.mark.mlmessages_sandbox(packs=0)
def test_conversations_and_messages_are_added_from_many_threads_while_it_runs(mlmessages_sandbox):
    server = mlmessages_sandbox

    def write(number):
        for n in range(20):
            pack = server.add_pack(Pack(1000 * number + n, [Message("¿Hola?")]))
            server.send(pack, "again")
            seen = get(server, f"/messages/packs/{pack}/sellers/{server.seller_id}?tag=post_sale")
            assert [message["text"] for message in seen["messages"]] == ["again", "¿Hola?"]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(1, 5)))
    assert len(server.sandbox.pack_ids()) == 80
    assert server.sandbox.marked_ids() == server.sandbox.message_ids()
    assert len(server.sandbox.message_ids()) == 160


def test_a_conversation_of_one_message_is_the_default(mlmessages_sandbox):
    new = mlmessages_sandbox.add_pack()
    assert mlmessages_sandbox.sandbox.pack_ids()[-1] == new
    assert mlmessages_sandbox.sandbox.unread == 6
    with pytest.raises(ValueError, match=new):
        mlmessages_sandbox.add_pack(Pack(new))


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_the_thread_ends_with_its_context():
    before = threading.active_count()
    with serve_in_thread(Sandbox(1)):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_server_that_cannot_start_says_why():
    with serve_in_thread(Sandbox(1)) as server:
        port = int(server.base_url.rsplit(":", 1)[1])
        with pytest.raises(OSError), serve_in_thread(Sandbox(1), port=port):
            pytest.fail("two servers on one port")


def test_the_plugin_costs_nothing_until_it_is_used():
    code = (
        "import sys, mlmessages.testing.plugin; "
        "print(sorted({'aiohttp', 'attrs', 'asyncio', 'orjson'} & set(sys.modules) - set(sys.argv[1:])))"
    )
    baseline = [name for name in ("asyncio", "attrs") if _imported_by("pytest", name)]
    done = subprocess.run([sys.executable, "-c", code, *baseline], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _imported_by(module, name):
    code = f"import sys, {module}; print({name!r} in sys.modules)"
    return (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "True"
    )

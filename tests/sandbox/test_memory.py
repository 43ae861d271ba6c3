"""The in-memory session behaves as a connection does, on any loop."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    RESET,
    Behaviour,
    Gzip,
    Hold,
    Sandbox,
    Trickle,
    Truncate,
    on,
    virtual_run,
)


def test_faults_look_as_they_do_over_a_socket(in_memory):
    sandbox = Sandbox(
        5,
        rules=[  # aiohttp asks again when nothing has come
            on("peek", nth=[1, 2]).do(EXECUTE, DROP),
            on("peek", nth=[3, 4]).do(RESET),
            on("peek", nth=5).do(EXECUTE, Truncate(10)),
            on("peek", nth=6).do(HANG),
            on("peek", nth=7).do(EXECUTE, Trickle(10)),
            on("peek", nth=8).do(Gzip(2_000_000)),
        ],
    )
    (pack, *_) = sandbox.pack_ids()

    async def scenario(ask):
        loop = asyncio.get_running_loop()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask.peek(pack)
        with pytest.raises(aiohttp.ClientOSError):
            await ask.peek(pack)
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask.peek(pack)
        with pytest.raises(TimeoutError):
            await ask.pack(pack, "&mark_as_read=false", timeout=aiohttp.ClientTimeout(total=30))
        assert loop.time() == pytest.approx(30, abs=0.01)
        whole = await ask.peek(pack)
        assert loop.time() == pytest.approx(30 + len(whole.body) / 10, abs=1)
        assert len((await ask.peek(pack)).body) == 2_000_000
        assert sandbox.count("peek") == 8

    in_memory(sandbox, scenario)


def test_two_hundred_requests_at_once_take_one_latency(in_memory):
    sandbox = Sandbox(200, behaviour=Behaviour(latency=0.12))

    async def scenario(ask):
        await asyncio.gather(*(ask.pack(pack) for pack in sandbox.pack_ids()))
        assert asyncio.get_running_loop().time() == pytest.approx(0.24)  # aiohttp opens a hundred connections
        assert sandbox.unread == 0

    in_memory(sandbox, scenario)


def test_a_client_that_reads_slowly_holds_the_server_back():
    sandbox = Sandbox(1, rules=[on("peek").do(Gzip(100_000_000))])

    async def main():
        async with sandbox.session() as session:
            url = f"{sandbox.base_url}/messages/packs/{sandbox.pack_ids()[0]}/sellers/{sandbox.seller_id}"
            async with session.get(url + "?mark_as_read=false") as response:
                assert len(await response.content.readexactly(1_000_000)) == 1_000_000
                response.close()
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1

    virtual_run(main())


def test_what_is_held_outlives_the_session_and_ends_with_the_sandbox():
    sandbox = Sandbox(2, rules=[on("mark", nth=1).do(Hold("z"), EXECUTE), on("mark", nth=2).do(Hold("y"), EXECUTE)])

    async def main():
        headers = {"Authorization": f"Bearer {sandbox.token}"}
        urls = [f"{sandbox.base_url}/messages/packs/{p}/sellers/{sandbox.seller_id}" for p in sandbox.pack_ids()]
        async with sandbox.session() as session:
            for url in urls:
                with pytest.raises(TimeoutError):
                    await session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=1))
        assert (sandbox.held("z"), sandbox.held("y")) == (1, 1)
        sandbox.release("z")
        await asyncio.sleep(1)
        assert (sandbox.unread, sandbox.log[0].executed) == (1, True)
        await sandbox.aclose()
        assert len(asyncio.all_tasks()) == 1
        assert sandbox.unread == 1

    virtual_run(main())


@pytest.mark.asyncio
async def test_a_session_works_on_a_real_loop_too():
    sandbox = Sandbox(1)
    async with aiohttp.ClientSession(connector=sandbox.connector(), cookie_jar=aiohttp.DummyCookieJar()) as session:
        headers = {"Authorization": f"Bearer {sandbox.token}"}
        for _ in range(3):
            async with session.get(sandbox.base_url + "/marketplace/messages/unread", headers=headers) as response:
                assert len((await response.json())["results"]) == 1


def test_the_clock_goes_on_from_one_loop_to_the_next():
    sandbox = Sandbox(1)

    async def main():
        async with sandbox.session() as session:
            async with session.get(sandbox.base_url + "/nothing") as response:
                assert response.status == 404
            await asyncio.sleep(10)
            await session.get(sandbox.base_url + "/nothing")

    virtual_run(main())
    virtual_run(main())
    assert [entry.at for entry in sandbox.log] == pytest.approx([0, 10, 10, 20])


def test_the_same_scenario_gives_the_same_log():
    def play():
        delays = iter([0.3, 0.1, 0.2] * 20)
        sandbox = Sandbox(20, behaviour=Behaviour(latency=delays.__next__))

        async def main():
            async with sandbox.session() as session:
                headers = {"Authorization": f"Bearer {sandbox.token}"}
                urls = [
                    f"{sandbox.base_url}/messages/packs/{p}/sellers/{sandbox.seller_id}" for p in sandbox.pack_ids()
                ]
                await asyncio.gather(*(session.get(url, headers=headers) for url in urls))

        virtual_run(main())
        return sandbox.log

    assert play() == play()

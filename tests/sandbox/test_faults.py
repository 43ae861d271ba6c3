"""Each fault, as a client over a real socket sees it."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import aiohttp
import pytest

from cases import case
from mlmessages.testing import (
    DROP,
    ENDLESS_HEADERS,
    EXECUTE,
    HANG,
    MARK_ALL,
    RESET,
    SNAPSHOT,
    ContentType,
    Delay,
    Garbage,
    Gzip,
    HideIt,
    Hold,
    Redirect,
    Reply,
    RevealIt,
    Sandbox,
    Send,
    Slice,
    Trickle,
    Truncate,
    on,
    refuse,
)
from mlmessages.testing.faults import Drop

pytestmark = pytest.mark.asyncio


async def until(condition):
    """Turns the loop until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def raw_answer(ask, path, *, stop_after=None):
    """What comes over the socket, byte for byte."""
    host, port = ask.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ask.sandbox.token}\r\n\r\n".encode())
        return await (reader.read() if stop_after is None else reader.readexactly(stop_after))
    finally:
        writer.close()
        await writer.wait_closed()


def pack_path(sandbox):
    return f"/messages/packs/{sandbox.pack_ids()[0]}/sellers/{sandbox.seller_id}?tag=post_sale"


async def test_executed_and_dropped(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with over_a_socket(sandbox) as ask:
        assert await raw_answer(ask, pack_path(sandbox)) == b""
        (entry,) = sandbox.log
        assert (entry.status, entry.executed, set(entry.ids)) == (None, True, sandbox.marked_ids())
        assert sandbox.unread == 0


async def test_dropped_and_never_executed(over_a_socket):
    sandbox = Sandbox(2, rules=[on("mark", pack=2000000000000001, nth=1).do(DROP)])
    async with over_a_socket(sandbox) as ask:
        assert (await ask.pack("2000000000000002")).status == 200
        assert await raw_answer(ask, pack_path(sandbox)) == b""
        assert sandbox.log[1].executed is False
        assert sandbox.unread == 1
        assert (await ask.pack("2000000000000001")).status == 200


async def test_a_dropped_request_on_a_reused_connection_is_sent_again_by_aiohttp(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark", nth=1).do(EXECUTE, DROP)])
    async with over_a_socket(sandbox) as ask:
        await ask.listing()
        await ask.pack(sandbox.pack_ids()[0])
        assert sandbox.count("mark") == 2


async def test_a_reset_is_a_reset(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark").do(RESET)])
    async with over_a_socket(sandbox) as ask:
        with pytest.raises(ConnectionResetError):
            await raw_answer(ask, pack_path(sandbox))
        assert sandbox.unread == 1


async def test_a_hanging_request_ends_when_its_client_goes(over_a_socket):
    sandbox = Sandbox(1, rules=[on("listing").do(HANG)])
    async with over_a_socket(sandbox) as ask:
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            await ask.listing(timeout=aiohttp.ClientTimeout(total=0.05))
        assert sandbox.log[0].status is None
        await until(lambda: asyncio.all_tasks() <= before)


async def test_a_hanging_request_ends_with_the_server(over_a_socket):
    sandbox = Sandbox(1, rules=[on("listing").do(HANG)])
    async with aiohttp.ClientSession() as session:
        async with sandbox.serve() as server:
            asking = asyncio.ensure_future(session.get(server.base_url + "/marketplace/messages/unread"))
            await until(lambda: sandbox.log)
        with pytest.raises(aiohttp.ClientConnectionError):  # aiohttp sends it again, to a closed port
            await asking


async def test_a_zombie_executes_after_its_client_has_gone(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark", nth=1).do(Hold("z"), EXECUTE, DROP)])
    (pack,) = sandbox.pack_ids()
    async with over_a_socket(sandbox) as ask:
        with pytest.raises(TimeoutError):
            await ask.pack(pack, timeout=aiohttp.ClientTimeout(total=0.05))
        assert sandbox.held("z") == 1
        await ask.pack(pack)
        late = sandbox.send(pack)
        sandbox.release("z")
        await until(lambda: sandbox.log[0].executed)
        assert late in sandbox.marked_ids()
        assert sandbox.log[0].at > sandbox.log[1].at
        assert sandbox.held("z") == 0


async def test_what_is_held_ends_with_the_server(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark").do(Hold("never"), EXECUTE)])
    before = asyncio.all_tasks()
    async with over_a_socket(sandbox) as ask:
        with pytest.raises(TimeoutError):
            await ask.pack(sandbox.pack_ids()[0], timeout=aiohttp.ClientTimeout(total=0.05))
    assert asyncio.all_tasks() == before
    assert (sandbox.unread, sandbox.held("never")) == (1, 0)


async def test_a_reply_instead_of_the_answer(over_a_socket):
    rules = [
        on("listing", nth=1).do(Reply(503, {"message": "later"}, {"Retry-After": "3"})),
        on("listing", nth=2).do(EXECUTE, Reply(502, "bad gateway", {"Content-Type": "text/plain"})),
        on("listing", nth=3).do(Garbage()),
        on("listing", nth=4).do(Redirect("http://169.254.169.254/latest")),
        on("listing", nth=5).do(EXECUTE, ContentType("text/html")),
    ]
    sandbox = Sandbox(1, rules=rules)
    async with over_a_socket(sandbox) as ask:
        seen = [await ask.get("/marketplace/messages/unread") for _ in range(6)]
    assert [one.status for one in seen] == [503, 502, 200, 302, 200, 200]
    assert (seen[0].json, seen[0].headers["Retry-After"]) == ({"message": "later"}, "3")
    assert seen[1].body == b"bad gateway"
    assert seen[2].body.startswith(b"<html>")
    assert seen[3].headers["Location"] == "http://169.254.169.254/latest"
    assert seen[4].headers["Content-Type"] == "text/html"
    assert seen[4].body == seen[5].body
    assert [entry.status for entry in sandbox.log] == [one.status for one in seen]
    assert [entry.executed for entry in sandbox.log] == [False, True, False, False, True, True]


async def test_a_truncated_answer_promised_more(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark").do(EXECUTE, Truncate(40))])
    async with over_a_socket(sandbox) as ask:
        head, _, body = (await raw_answer(ask, pack_path(sandbox))).partition(b"\r\n\r\n")
        assert b"200 OK" in head
        assert len(body) == 40
        promised = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert promised > 40
        assert sandbox.unread == 0
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask.pack(sandbox.pack_ids()[0])


async def test_a_sliced_and_a_trickled_answer_are_whole(over_a_socket):
    sandbox = Sandbox(
        1,
        rules=[
            on("peek", nth=1).do(EXECUTE, Slice(100)),
            on("peek", nth=2).do(EXECUTE, Trickle(1_000_000)),
            on("peek", nth=3).do(EXECUTE, Trickle(1)),
        ],
    )
    (pack,) = sandbox.pack_ids()
    async with over_a_socket(sandbox) as ask:
        sliced, trickled = await ask.peek(pack), await ask.peek(pack)
        with pytest.raises(TimeoutError):
            await ask.pack(pack, "&mark_as_read=false", timeout=aiohttp.ClientTimeout(total=0.05))
        assert sliced.body == trickled.body == (await ask.peek(pack)).body


async def test_a_gzip_bomb_decodes_to_its_size(over_a_socket):
    sandbox = Sandbox(1, rules=[on("peek").do(Gzip(3_000_000))])
    async with over_a_socket(sandbox) as ask:
        seen = await ask.peek(sandbox.pack_ids()[0])
        assert len(seen.body) == 3_000_000
        assert seen.json["messages"] == []
        raw = await raw_answer(ask, pack_path(sandbox) + "&mark_as_read=false", stop_after=1000)
        assert b"Content-Encoding: gzip" in raw
        assert gzip.compress(b"")[:2] in raw


async def test_headers_without_end(over_a_socket):
    sandbox = Sandbox(1, rules=[on("listing").do(ENDLESS_HEADERS)])
    async with over_a_socket(sandbox) as ask:
        raw = await raw_answer(ask, "/marketplace/messages/unread", stop_after=500_000)
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in raw
        with pytest.raises(aiohttp.ClientError):
            await ask.listing()


async def test_a_server_that_reads_and_marks_in_two_steps_marks_what_it_did_not_show(over_a_socket):
    sandbox = Sandbox(1, rules=[on("mark").do(SNAPSHOT, Send(), MARK_ALL)])
    async with over_a_socket(sandbox) as ask:
        seen = await ask.pack(sandbox.pack_ids()[0])
        assert len(seen.ids) == 1
        assert sandbox.marked_ids() - set(seen.ids) == sandbox.message_ids() - set(seen.ids) != set()


async def test_things_that_happen_between_two_requests(over_a_socket):
    sandbox = Sandbox(2, messages=2)
    first, second = sandbox.pack_ids()
    async with over_a_socket(sandbox) as ask:
        oldest = (await ask.peek(first)).ids[-1]
        sandbox.add(on("peek", nth=1).do(HideIt(oldest), Send(second, "hello"), EXECUTE))
        sandbox.add(on("peek", nth=2).do(RevealIt(oldest), Delay(0.001), EXECUTE))
        assert oldest not in (await ask.peek(first)).ids
        assert oldest in (await ask.peek(first)).ids
        assert len((await ask.peek(second)).ids) == 3


async def test_the_first_rule_that_is_for_a_request_plays_and_each_counts_for_itself(over_a_socket):
    rules = [
        on("listing", every=3, times=2).do(Reply(503)),
        on("any", nth=range(2, 4)).do(Reply(500)),
        on("pack", path="offset=50").do(Reply(502)),
    ]
    sandbox = Sandbox(1, rules=rules)
    (pack,) = sandbox.pack_ids()
    async with over_a_socket(sandbox) as ask:
        listings = [(await ask.get("/marketplace/messages/unread")).status for _ in range(9)]
        assert listings == [200, 500, 503, 200, 200, 503, 200, 200, 200]
        assert (await ask.peek(pack, "&offset=50")).status == 502
        assert (await ask.peek(pack)).status == 200


async def test_refused_packs_are_refused_however_they_are_read(over_a_socket):
    sandbox = Sandbox(2)
    first, second = sandbox.pack_ids()
    sandbox.add(refuse([first], status=404, body={"message": "no"}))
    async with over_a_socket(sandbox) as ask:
        assert [(await ask.pack(first)).status, (await ask.peek(first)).status] == [404, 404]
        assert (await ask.peek(second)).status == 200


@case("R40")
async def test_a_rule_that_makes_no_sense_is_refused():
    for steps in [(), (Delay(1),), (DROP, EXECUTE), (EXECUTE, DROP, RESET), (Truncate(3),), (Send(),)]:
        with pytest.raises(ValueError, match=r"rule|EXECUTE"):
            on("mark").do(*steps)
    with pytest.raises(ValueError, match="the kinds are: any, pack, listing, probe, mark"):
        on("marks")  # type: ignore[arg-type] # that is the point
    wrong: list[Any] = ["DROP", on("mark"), Drop]
    for step in wrong:
        with pytest.raises(ValueError, match="the steps are: ContentType, Delay, Drop"):
            on("mark").do(EXECUTE, step)


@case("R40")
async def test_what_is_no_rule_is_refused_at_once():
    wrongs: list[Any] = [on("mark"), EXECUTE, "mark"]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"on\(\.\.\.\)\.do"):
            Sandbox(0, rules=[wrong])
        with pytest.raises(ValueError, match=r"on\(\.\.\.\)\.do"):
            Sandbox(0).add(wrong)

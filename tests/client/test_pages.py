"""`client.page`, `pages`, `messages` and `message_by_id`: reading one conversation."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from attrs import evolve

from mlmessages import Limits, Routes
from mlmessages.errors import AnswerLost, DecodeError, Forbidden, NotFound, RateLimited, ServerError
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    Behaviour,
    Delay,
    Garbage,
    HideIt,
    Pack,
    Reply,
    Sandbox,
    Send,
    Truncate,
    on,
)
from mlmessages.testing.faults import Action
from worlds import client_of, on_virtual_clock

FIRST = 2000000000000001


def newest_first(sandbox: Sandbox) -> list[str]:
    """The ids of a sandbox of one conversation: they are time-ordered."""
    return sorted(sandbox.message_ids(), reverse=True)


# -- page --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [False, True])
@on_virtual_clock
async def test_only_a_page_that_asks_for_it_marks(mark: bool) -> None:
    """`mark_as_read=false` is on the wire by default; with True it is left out, and the pack is marked."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        page = await client.page(FIRST, limit=7, offset=0, mark_as_read=mark) if mark else await client.page(FIRST)
    [entry] = sandbox.log
    assert entry.query.get("mark_as_read") == (None if mark else "false")
    assert sandbox.marked_ids() == (sandbox.message_ids() if mark else set())
    assert [message.id for message in page.messages] == newest_first(sandbox)
    assert page.pack_id == str(FIRST)


@on_virtual_clock
async def test_a_page_is_where_it_was_asked_to_be() -> None:
    """`limit` and `offset` go out as given; paging, status and rows come back."""
    sandbox = Sandbox([Pack(messages=20)], behaviour=Behaviour(shape="domestic"))
    async with client_of(sandbox) as client:
        page = await client.page(str(FIRST), limit=5, offset=10)
    assert sandbox.log[0].query == {"tag": "post_sale", "limit": "5", "offset": "10", "mark_as_read": "false"}
    assert (page.paging.limit, page.paging.offset, page.paging.total) == (5, 10, 20)
    assert [message.id for message in page.messages] == newest_first(sandbox)[10:15]
    assert page.conversation is not None
    assert page.conversation.can_reply
    assert page.seller_max_message_length == 350
    assert {message.pack_id for message in page.messages} == {str(FIRST)}


@on_virtual_clock
async def test_a_blocked_conversation_says_why() -> None:
    """A page of a blocked pack is read like any other, and tells why one cannot write."""
    sandbox = Sandbox([Pack(status="blocked", substatus="blocked_by_buyer")])
    async with client_of(sandbox) as client:
        status = (await client.page(FIRST)).conversation
    assert status is not None
    assert status.blocked
    assert not status.can_reply
    assert status.blocked_reason == "the buyer blocked it"


@pytest.mark.parametrize(
    ("steps", "error", "executed"),
    [
        ((EXECUTE, DROP), AnswerLost, True),
        ((DROP,), AnswerLost, False),
        ((EXECUTE, HANG), AnswerLost, True),
        ((EXECUTE, Reply(500)), ServerError, True),
        ((EXECUTE, Reply(504, "<html>")), ServerError, True),
        ((Reply(403),), Forbidden, False),
    ],
    ids=["executed, lost", "never executed", "executed, no answer", "executed, 500", "executed, 504", "403"],
)
@on_virtual_clock
async def test_a_marking_request_is_sent_once_whatever_becomes_of_it(
    steps: tuple[Action, ...], error: type[Exception], executed: bool
) -> None:
    """What may have been executed is not repeated: the error says so, and the wire saw one request."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(*steps)])
    async with client_of(sandbox) as client:
        with pytest.raises(error):
            await client.page(FIRST, mark_as_read=True)
    assert len(sandbox.log) == 1
    assert bool(sandbox.marked_ids()) is executed


@on_virtual_clock
async def test_a_marking_request_that_was_refused_for_the_moment_is_repeated() -> None:
    """429 means not executed: it is sent again, and executed once."""
    sandbox = Sandbox(packs=1, rules=[on("mark", nth=1).do(Reply(429))])
    async with client_of(sandbox) as client:
        await client.page(FIRST, mark_as_read=True)
    assert [entry.executed for entry in sandbox.log] == [False, True]


@on_virtual_clock
async def test_a_retry_after_beyond_the_deadline_ends_the_retries() -> None:
    """The server asks for an hour: `RateLimited` at once, and it says how long."""
    sandbox = Sandbox(packs=1, rules=[on("pack").do(Reply(429, headers={"Retry-After": "3600"}))])
    async with client_of(sandbox) as client:
        with pytest.raises(RateLimited) as limited:
            await client.page(FIRST)
    assert limited.value.retry_after == 3600
    assert asyncio.get_running_loop().time() < 1


@pytest.mark.parametrize(
    "ending", [Garbage(), Truncate(40), Garbage(b""), Garbage(b"{}"), Reply(200, {"messages": [{"text": "no id"}]})]
)
@on_virtual_clock
async def test_an_unreadable_marking_answer_is_read_again_without_marking(ending: Action) -> None:
    """2xx means executed: the page comes from a second request that marks nothing."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(EXECUTE, ending)])
    async with client_of(sandbox) as client:
        page = await client.page(FIRST, mark_as_read=True)
    assert [entry.kind for entry in sandbox.log] == ["mark", "peek"]
    assert [message.id for message in page.messages] == newest_first(sandbox)
    assert asyncio.get_running_loop().time() < 1


@pytest.mark.parametrize("second", [Garbage(), Reply(403), Reply(404)])
@on_virtual_clock
async def test_an_answer_that_stays_unreadable_is_no_refusal(second: Action) -> None:
    """If the second read fails too, the error is the first one's: nothing that sounds like "not executed"."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(EXECUTE, Garbage()), on("peek").do(second)])
    async with client_of(sandbox) as client:
        with pytest.raises(DecodeError):
            await client.page(FIRST, mark_as_read=True)
    assert sandbox.count("mark") == 1


@on_virtual_clock
async def test_a_plain_read_is_repeated() -> None:
    """Dropped, reset by a 502 and cut off: three failures, a fourth request, one page."""
    sandbox = Sandbox(
        packs=1,
        rules=[
            on("peek", nth=1).do(DROP),
            on("peek", nth=2).do(Reply(502)),
            on("peek", nth=3).do(EXECUTE, Truncate(9)),
        ],
    )
    async with client_of(sandbox) as client:
        page = await client.page(FIRST)
    assert len(page.messages) == 1
    assert sandbox.count("peek") == 4


@on_virtual_clock
async def test_a_hanging_server_is_given_up_within_the_timeout() -> None:
    """No answer to a marking request: `AnswerLost` after `timeout` seconds."""
    sandbox = Sandbox(packs=1, rules=[on("mark").do(HANG)])
    async with client_of(sandbox, timeout=7) as client:
        with pytest.raises(AnswerLost, match="7 s"):
            await client.page(FIRST, mark_as_read=True)
    assert 7 <= asyncio.get_running_loop().time() < 7.1


@on_virtual_clock
async def test_a_message_is_found_by_its_id() -> None:
    """`message_by_id` is one request that marks nothing; its pack is the one that its resources name."""
    sandbox = Sandbox([Pack(messages=3)])
    [wanted, *_] = newest_first(sandbox)
    for api in ("marketplace", "domestic"):
        async with client_of(sandbox, api=api) as client:
            message = await client.message_by_id(wanted)
            assert (message.id, message.pack_id) == (wanted, str(FIRST))
            with pytest.raises(NotFound) as missing:
                await client.message_by_id("no-such_message")
            assert missing.value.hint
    assert [entry.path for entry in sandbox.log[::2]] == [
        f"/marketplace/messages/{wanted}",
        f"/messages/{wanted}",
    ]
    assert not sandbox.marked_ids()


# -- pages and messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 14])
@on_virtual_clock
async def test_messages_come_newest_first_and_once(order: Any, limit: int, count: int) -> None:
    """Whatever order the server has and whatever page is asked for: each message once, the newest first."""
    sandbox = Sandbox([Pack(messages=count)], behaviour=Behaviour(order=order))
    async with client_of(sandbox) as client:
        found = [message.id async for message in client.messages(FIRST, limit=limit)]
    assert found == newest_first(sandbox)
    assert not sandbox.marked_ids()


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(max_limit=50),
        Behaviour(max_limit=50, echo_limit="asked"),
        Behaviour(max_limit=3, order="oldest"),
        Behaviour(total_lies=-100),
        Behaviour(total_lies=+40),
        Behaviour(total_lies=lambda total: 0),
        Behaviour(total_lies=lambda total: 10**12),
        Behaviour(paging=False),
        Behaviour(paging=False, max_limit=7),
        Behaviour(shape="pending"),
    ],
    ids=[
        "50 of 100 asked",
        "50 of 100 and says 100",
        "3, oldest first",
        "total too small",
        "total too large",
        "total 0",
        "total absurd",
        "paging null",
        "paging null, 7 of 100",
        "the shapes of the Pending messages page",
    ],
)
@on_virtual_clock
async def test_no_row_is_lost_to_a_server_that_pages_in_its_own_way(behaviour: Behaviour) -> None:
    """130 messages, 100 asked for at a time: all come, each once, in a bounded number of requests."""
    sandbox = Sandbox([Pack(messages=130)], behaviour=behaviour)
    async with client_of(sandbox) as client:
        found = [message.id async for message in client.messages(FIRST, limit=100)]
    assert found == newest_first(sandbox)
    assert len(sandbox.log) <= 130 // ((behaviour.max_limit or 100) - 1) + 3


@on_virtual_clock
async def test_messages_that_come_while_the_pack_is_read_hide_none_that_were_there() -> None:
    """A message comes before every second page: those that were there all come, each once."""
    sandbox = Sandbox([Pack(messages=60)], rules=[on("peek", every=2, times=8).do(Send(), EXECUTE)])
    before = sandbox.message_ids()
    async with client_of(sandbox) as client:
        found = [message.id async for message in client.messages(FIRST, limit=10)]
    assert len(found) == len(set(found))
    assert before <= set(found)


@on_virtual_clock
async def test_a_message_that_is_hidden_between_two_pages_hides_no_other() -> None:
    """Rows move to the left while the pack is read: the overlap notices, and the walk begins again."""
    sandbox = Sandbox([Pack(messages=30)])
    ids = newest_first(sandbox)
    sandbox.add(on("peek", nth=2).do(*(HideIt(id_) for id_ in ids[:2]), EXECUTE))
    async with client_of(sandbox) as client:
        found = [message.id async for message in client.messages(FIRST, limit=10)]
    assert sorted(found, reverse=True) == ids
    assert len(found) == 30


@on_virtual_clock
async def test_pages_are_each_what_no_page_before_showed() -> None:
    """Together the pages hold every message once; each keeps its own paging."""
    sandbox = Sandbox([Pack(messages=25)])
    async with client_of(sandbox) as client:
        pages = [page async for page in client.pages(FIRST, limit=10)]
    assert [message.id for page in pages for message in page.messages] == newest_first(sandbox)
    assert [page.paging.offset for page in pages] == [0, 9, 18]


@on_virtual_clock
async def test_a_conversation_without_messages_is_one_empty_page() -> None:
    """`pages` yields what the server said of it, `messages` nothing."""
    sandbox = Sandbox([Pack(messages=0)])
    async with client_of(sandbox) as client:
        [page] = [page async for page in client.pages(FIRST)]
        assert page.messages == ()
        assert [message async for message in client.messages(FIRST)] == []


@pytest.mark.parametrize("read", ["pages", "messages"])
@on_virtual_clock
async def test_only_the_first_page_of_a_conversation_marks(read: str) -> None:
    """With `mark_as_read`, one marking request; the pages behind it are read without."""
    sandbox = Sandbox([Pack(messages=25)])
    async with client_of(sandbox) as client:
        async for _ in getattr(client, read)(FIRST, limit=10, mark_as_read=True):
            pass
    assert [entry.kind for entry in sandbox.log] == ["mark", "peek", "peek"]
    assert sandbox.unread == 0


@on_virtual_clock
async def test_pages_are_read_as_they_are_needed() -> None:
    """Nothing is asked before the first `anext`, and a page's last message does not ask for the next page."""
    sandbox = Sandbox([Pack(messages=30)])
    async with client_of(sandbox) as client, aclosing(client.messages(FIRST, limit=10)) as messages:
        assert sandbox.log == []
        for _ in range(10):
            await anext(messages)
        assert len(sandbox.log) == 1
        await anext(messages)
        assert len(sandbox.log) == 2


@pytest.mark.parametrize("read", ["pages", "messages"])
@on_virtual_clock
async def test_an_early_break_leaks_nothing(read: str) -> None:
    """`break` without a context manager: no task is left, every permit is back, and the client goes on."""
    sandbox = Sandbox([Pack(messages=30)])
    async with client_of(sandbox, limits=Limits(concurrency=1)) as client:
        for _ in range(5):
            async for _ in getattr(client, read)(FIRST, limit=10):
                break
        assert len((await client.page(FIRST)).messages) == 30
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_cancelling_a_read_at_every_await_leaves_the_client_usable() -> None:
    """`page` and `messages` are cancelled at their k-th step, for every k, on a budget of one request at a time."""
    for k in range(40):
        sandbox = Sandbox([Pack(messages=9)], rules=[on("peek", nth=2).do(Reply(429))])
        async with client_of(sandbox, limits=Limits(concurrency=1)) as client:

            async def read() -> None:
                await client.page(FIRST)
                async for _ in client.messages(FIRST, limit=5):
                    pass

            task = asyncio.ensure_future(read())
            for _ in range(k):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found = [message.id async for message in client.messages(FIRST, limit=5)]
            assert found == newest_first(sandbox)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_clock
async def test_a_timeout_of_the_callers_own_still_works() -> None:
    """`asyncio.timeout` around a call ends it in time, and leaves no cancellation behind."""
    sandbox = Sandbox(packs=1, rules=[on("peek", nth=1).do(Delay(20), EXECUTE)])
    async with client_of(sandbox) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await client.page(FIRST)
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.01)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert len((await client.page(FIRST)).messages) == 1


# -- paths -------------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_the_paths_are_data() -> None:
    """An evolved `Routes` is what the wire sees; the rest of the paths stays."""
    api = evolve(
        Routes.DOMESTIC, pack="/marketplace/messages/packs/{pack}?tag=post_sale", unread="/messages/unread?x=1"
    )
    sandbox = Sandbox([Pack(messages=2)])
    async with client_of(sandbox, api=api) as client:
        await client.unread()
        await client.page(FIRST)
        await client.page(FIRST, mark_as_read=True)
        await client.unread_count(FIRST)
    assert [(entry.path, dict(entry.query)) for entry in sandbox.log] == [
        ("/messages/unread", {"x": "1", "role": "seller", "tag": "post_sale"}),
        (
            f"/marketplace/messages/packs/{FIRST}",
            {"tag": "post_sale", "limit": "50", "offset": "0", "mark_as_read": "false"},
        ),
        (f"/marketplace/messages/packs/{FIRST}", {"tag": "post_sale", "limit": "50", "offset": "0"}),
        (f"/messages/unread/packs/{FIRST}/sellers/{sandbox.seller_id}", {"tag": "post_sale"}),
    ]


@pytest.mark.parametrize("api", ["marketplace", "domestic"])
@on_virtual_clock
async def test_a_pack_is_read_at_the_same_path_in_both_families(api: Any) -> None:
    """As the "Pending messages" page prints it, with the seller and the tag."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox, api=api) as client:
        await client.page(FIRST)
    assert sandbox.log[0].path == f"/messages/packs/{FIRST}/sellers/{sandbox.seller_id}"
    assert sandbox.log[0].query["tag"] == "post_sale"

"""Reading, marking, hiding and arriving, as a client sees them."""

from __future__ import annotations

import pytest

from mlmessages.testing import Behaviour, Message, Pack, Sandbox


def read_dates(seen):
    return [message["message_date"]["read"] is not None for message in seen.json["messages"]]


def from_buyer(sandbox, seen):
    return [str(message["from"]["user_id"]) != sandbox.seller_id for message in seen.json["messages"]]


def test_reading_a_conversation_marks_it_and_takes_it_off_the_listing(in_memory):
    sandbox = Sandbox(2)
    first, second = sandbox.pack_ids()

    async def scenario(ask):
        assert await ask.listing() == [(second, 1), (first, 1)]
        seen = await ask.pack(first)
        assert read_dates(seen) == [False]  # the answer was taken before the mark
        assert await ask.listing() == [(second, 1)]
        assert read_dates(await ask.pack(first)) == [True]
        assert sandbox.marked_ids() == set(seen.ids)
        assert sandbox.unread_ids() == sandbox.message_ids() - set(seen.ids)
        assert sandbox.unread == 1

    in_memory(sandbox, scenario)


def test_a_peek_a_probe_a_listing_and_a_message_mark_nothing(in_memory):
    sandbox = Sandbox(1, messages=3)
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        seen = await ask.peek(pack)
        await ask.get(f"/messages/unread/packs/{pack}/sellers/{sandbox.seller_id}?tag=post_sale")
        await ask.get(f"/messages/{seen.ids[0]}?tag=post_sale")
        assert await ask.listing() == [(pack, 2)]
        assert not sandbox.marked_ids()
        assert [entry.kind for entry in sandbox.log] == ["peek", "probe", "message", "listing"]
        assert sandbox.log[0].ids == tuple(seen.ids)

    in_memory(sandbox, scenario)


@pytest.mark.parametrize("value", ["False", "0", "no", "true", ""])
def test_only_a_lower_case_false_is_a_peek(in_memory, value):
    sandbox = Sandbox(1)

    async def scenario(ask):
        await ask.pack(sandbox.pack_ids()[0], f"&mark_as_read={value}")
        assert sandbox.log[0].kind == "mark"
        assert sandbox.unread == 0

    in_memory(sandbox, scenario)


def test_a_server_may_mark_although_it_was_asked_not_to(in_memory):
    sandbox = Sandbox(1, behaviour=Behaviour(honours_peek=False, shows_read=True))

    async def scenario(ask):
        assert read_dates(await ask.peek(sandbox.pack_ids()[0])) == [True]
        assert sandbox.unread == 0

    in_memory(sandbox, scenario)


@pytest.mark.parametrize(("cap", "rows"), [(1000, 1000), (500, 500), (None, 1200)])
def test_the_listing_is_capped_and_says_a_total_only_if_told_to(in_memory, cap, rows):
    sandbox = Sandbox(1200, behaviour=Behaviour(cap=cap, total=True))

    async def scenario(ask):
        seen = await ask.get("/marketplace/messages/unread?role=seller")
        assert len(seen.json["results"]) == rows
        assert seen.json["total"] == 1200

    in_memory(sandbox, scenario)


def test_the_listing_has_an_order(in_memory):
    for order in ("newest", "oldest", "shuffled"):
        sandbox = Sandbox(20, behaviour=Behaviour(listing_order=order))
        ids = sandbox.pack_ids()

        async def scenario(ask, sandbox=sandbox, order=order, ids=ids):
            sandbox.send(ids[3])
            rows = [pack for pack, _ in await ask.listing()]
            latest_last = [pack for pack in ids if pack != ids[3]] + [ids[3]]
            assert sorted(rows) == ids
            assert (rows == latest_last) is (order == "oldest")
            assert (rows == latest_last[::-1]) is (order == "newest")

        in_memory(sandbox, scenario)


def test_pages_go_from_newest_to_oldest_by_default(in_memory):
    sandbox = Sandbox(1, messages=25)
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        pages = [await ask.peek(pack, f"&offset={offset}") for offset in (0, 10, 20, 30)]
        assert [len(page.ids) for page in pages] == [10, 10, 5, 0]
        assert pages[1].json["paging"] == {"limit": 10, "offset": 10, "total": 25}
        walked = [message_id for page in pages for message_id in page.ids]
        assert walked == sorted(sandbox.message_ids(), reverse=True)
        assert from_buyer(sandbox, pages[0])[:3] == [True, False, True]

    in_memory(sandbox, scenario)


def test_a_server_may_be_oldest_first(in_memory):
    sandbox = Sandbox(1, messages=5, behaviour=Behaviour(order="oldest"))

    async def scenario(ask):
        assert (await ask.peek(sandbox.pack_ids()[0], "&limit=3")).ids == sorted(sandbox.message_ids())[:3]

    in_memory(sandbox, scenario)


@pytest.mark.parametrize(("echo", "told"), [("given", 10), ("asked", 50)])
def test_a_page_may_be_shorter_than_asked(in_memory, echo, told):
    sandbox = Sandbox(1, messages=30, behaviour=Behaviour(max_limit=10, echo_limit=echo))

    async def scenario(ask):
        seen = await ask.peek(sandbox.pack_ids()[0], "&limit=50")
        assert (len(seen.ids), seen.json["paging"]["limit"]) == (10, told)

    in_memory(sandbox, scenario)


@pytest.mark.parametrize(("lie", "told"), [(7, 10), (-3, 0), (lambda total: 99, 99)])
def test_the_total_may_lie_and_paging_may_be_null(in_memory, lie, told):
    async def scenario(ask):
        seen = await ask.peek(ask.sandbox.pack_ids()[0])
        assert seen.json["paging"]["total"] == told

    in_memory(Sandbox(1, messages=3, behaviour=Behaviour(total_lies=lie)), scenario)

    async def without(ask):
        assert (await ask.peek(ask.sandbox.pack_ids()[0])).json["paging"] is None

    in_memory(Sandbox(1, behaviour=Behaviour(paging=False)), without)


@pytest.mark.parametrize(("scope", "left"), [("pack", 0), ("page", 4)])
def test_a_mark_reaches_the_whole_conversation_or_the_page(in_memory, scope, left):
    sandbox = Sandbox(1, messages=11, behaviour=Behaviour(marks=scope))
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        await ask.pack(pack, "&limit=3")
        assert len(sandbox.unread_ids()) == left
        assert await ask.listing() == ([(pack, left)] if left else [])

    in_memory(sandbox, scenario)


def test_a_hidden_message_counts_and_is_neither_returned_nor_marked(in_memory):
    sandbox = Sandbox([Pack(messages=[Message("one"), Message("two", hidden=True), Message("three")])])
    (pack,) = sandbox.pack_ids()

    async def scenario(ask):
        seen = await ask.pack(pack)
        assert [message["text"] for message in seen.json["messages"]] == ["three", "one"]
        assert seen.json["paging"]["total"] == 2
        assert await ask.listing() == [(pack, 1)]
        (hidden,) = sandbox.unread_ids()
        assert (await ask.get(f"/messages/{hidden}?tag=post_sale")).status == 404
        sandbox.reveal(hidden)
        assert (await ask.pack(pack)).ids[1] == hidden
        assert await ask.listing() == []
        sandbox.hide(hidden)
        sandbox.hide(hidden)
        assert hidden not in (await ask.peek(pack)).ids

    in_memory(sandbox, scenario)


def test_an_arrival_is_unread_newest_and_put_first_on_the_listing(in_memory):
    sandbox = Sandbox(3)
    packs = sandbox.pack_ids()

    async def scenario(ask):
        await ask.pack(packs[0])
        new = sandbox.send(packs[0], "Where is it?", status="moderated", message_date={"notified": None})
        assert (await ask.listing())[0] == (packs[0], 1)
        (message, _) = (await ask.pack(packs[0])).json["messages"]
        assert (message["id"], message["text"], message["status"]) == (new, "Where is it?", "moderated")
        assert message["message_date"]["notified"] is None
        assert message["message_date"]["created"] is not None
        assert sandbox.send(packs[0], sender="seller") not in sandbox.unread_ids()
        assert max(sandbox.message_ids()) == (await ask.peek(packs[0])).ids[0]

    in_memory(sandbox, scenario)


def test_reading_on_the_site_marks_without_a_marking_get(in_memory):
    sandbox = Sandbox(1)

    async def scenario(ask):
        sandbox.read_elsewhere(sandbox.pack_ids()[0])
        assert (sandbox.unread, sandbox.marked_ids(), await ask.listing()) == (0, set(), [])

    in_memory(sandbox, scenario)


def test_a_lagging_listing_shows_what_was(in_memory):
    import asyncio

    sandbox = Sandbox(2, behaviour=Behaviour(lag=5.0))
    first, second = sandbox.pack_ids()

    async def scenario(ask):
        await asyncio.sleep(10)
        await ask.pack(first)
        sandbox.send(second)
        assert sorted(await ask.listing()) == [(first, 1), (second, 1)]
        await asyncio.sleep(4.9)
        assert sorted(await ask.listing()) == [(first, 1), (second, 1)]
        await asyncio.sleep(0.2)
        assert await ask.listing() == [(second, 2)]

    in_memory(sandbox, scenario)


def test_packs_are_described_by_values(in_memory):
    sandbox = Sandbox(
        [
            Pack(7, messages=5, unread=1, buyer_id=9, buyer_name='A "B"', site_id="MLB"),
            Pack("8", messages=[Message(), Message(sender="seller"), Message("né\n\ud800")], unread=1),
            Pack(messages=0),
            Pack(messages=4, unread=0),
        ]
    )

    async def scenario(ask):
        assert sorted(await ask.listing()) == [("7", 1), ("8", 1)]
        seen = await ask.get("/marketplace/messages/packs/7?mark_as_read=false")
        assert seen.json["messages"][0]["from"] == {"user_id": 9, "name": 'A "B"'}
        assert seen.json["messages"][0]["site_id"] == "MLB"
        assert (await ask.peek("8")).json["messages"][0]["text"] == "né\n\ud800"
        assert len(sandbox.unread_ids()) == 2

    in_memory(sandbox, scenario)


def test_a_pack_or_a_message_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Sandbox([Pack(1), Pack("1")])
    with pytest.raises(ValueError, match="twice"):
        Sandbox([Pack(1, [Message(overrides={"id": "a"}), Message(overrides={"id": "a"})])])
    with pytest.raises(LookupError):
        Sandbox(1).send(5)


def test_two_sandboxes_are_alike():
    one, other = Sandbox(50, messages=4), Sandbox(50, messages=4)
    assert (one.pack_ids(), one.message_ids()) == (other.pack_ids(), other.message_ids())
    assert all(len(i) == 32 and i.startswith("019") and set(i) <= set("0123456789abcdef") for i in one.message_ids())
    assert all(len(i) == 16 for i in one.pack_ids())


def test_a_token_can_be_rotated_and_a_pack_refused(in_memory):
    sandbox = Sandbox(2)
    first, second = sandbox.pack_ids()

    async def scenario(ask):
        old = sandbox.token
        sandbox.rotate_token("APP_USR-new")
        assert (await ask.pack(first, token=old)).status == 401
        rule = sandbox.refuse([first])
        assert ((await ask.pack(first)).status, (await ask.pack(second)).status) == (403, 200)
        sandbox.remove(rule)
        assert (await ask.pack(first)).status == 200
        assert [entry.executed for entry in sandbox.log] == [False, False, True, True]

    in_memory(sandbox, scenario)


def test_a_hundred_thousand_conversations_can_be_made():
    assert Sandbox(100_000).unread == 100_000


def test_a_listener_hears_of_arrivals_and_reads_until_it_is_taken_away(in_memory):
    sandbox = Sandbox(2)
    first, second = sandbox.pack_ids()
    heard = []

    def listener(action, message_id):
        heard.append((action, message_id))

    sandbox.listen(listener)
    new = sandbox.send(first)
    sandbox.read_elsewhere(first)
    assert heard[0] == ("created", new)
    assert heard[1:]
    assert {action for action, _ in heard[1:]} == {"read"}
    sandbox.unlisten(listener)
    sandbox.send(second)
    assert len(heard) == 3
    begun = sandbox.add_pack()
    assert begun not in (first, second)


def test_what_is_not_there_is_told_by_name():
    sandbox = Sandbox(1)
    for call in (sandbox.send, sandbox.read_elsewhere, sandbox.content_of):
        with pytest.raises(LookupError, match="77"):
            call("77")


def test_two_conversations_or_messages_of_one_id_are_refused():
    with pytest.raises(ValueError, match="pack 5 is there twice"):
        Sandbox([Pack(5), Pack("5")])
    with pytest.raises(ValueError, match="message aa is there twice"):
        Sandbox([Pack(messages=[Message(overrides={"id": "aa"})] * 2)])


def test_a_request_is_followed_when_its_status_goes_out(in_memory):
    sandbox = Sandbox(1)
    followed = []
    sandbox.follow(lambda entry: followed.append((entry.kind, entry.status, len(entry.ids))))

    async def scenario(ask):
        await ask.listing()
        await ask.pack(sandbox.pack_ids()[0])

    in_memory(sandbox, scenario)
    assert followed == [("listing", 200, 0), ("mark", 200, 1)]

"""`client.unread` and `client.unread_count`: what is asked on the wire, and what comes back."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cases import case
from mlmessages.errors import DecodeError, Forbidden, ServerError
from mlmessages.testing import EXECUTE, Behaviour, Garbage, Pack, Reply, Sandbox, on
from worlds import client_of, on_virtual_clock

FAMILIES = {"marketplace": "/marketplace/messages/unread", "domestic": "/messages/unread"}


@pytest.mark.parametrize("api", FAMILIES)
@pytest.mark.parametrize("shape", [None, "marketplace", "domestic", "pending"])
@on_virtual_clock
async def test_a_listing_comes_to_the_same_values_in_every_shape(api: Any, shape: Any) -> None:
    """Either URL family, `userId` or `user_id`, `/packs/1` or `/packs/1/sellers/2`: the same packs, counts and user."""
    sandbox = Sandbox([Pack(messages=3), Pack(messages=1)], behaviour=Behaviour(shape=shape))
    async with client_of(sandbox, api=api) as client:
        listing = await client.unread()
    assert listing.user_id == sandbox.seller_id
    assert {row.pack_id for row in listing.packs} == set(sandbox.pack_ids())
    assert sorted(row.count for row in listing.packs) == [1, 2]
    assert not listing.capped
    [entry] = sandbox.log
    assert entry.path == FAMILIES[api]
    assert entry.query == {"role": "seller", "tag": "post_sale"}
    assert not sandbox.marked_ids()


@pytest.mark.parametrize("api", FAMILIES)
@on_virtual_clock
async def test_nothing_unread_is_an_empty_listing(api: Any) -> None:
    """The empty answer, where one family sends the user's id as a text: no packs, and not capped."""
    sandbox = Sandbox(packs=0)
    async with client_of(sandbox, api=api) as client:
        listing = await client.unread()
    assert (listing.user_id, listing.packs, listing.capped) == (sandbox.seller_id, (), False)


@pytest.mark.parametrize("user_id", [700100200, "700100200"])
@on_virtual_clock
async def test_role_and_user_id_go_out_as_given(user_id: int | str) -> None:
    """`role="buyer"` and `user_id` are sent as they are, beside the tag."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        await client.unread("buyer", user_id=user_id)
    assert sandbox.log[0].query == {"role": "buyer", "tag": "post_sale", "user_id": "700100200"}


@on_virtual_clock
async def test_another_users_id_is_refused_with_what_to_do() -> None:
    """`Can not identify the user.` is `Forbidden`, and its hint names `user_id`."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(Forbidden) as refused:
            await client.unread(user_id=7)
    assert "user_id" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("packs", "behaviour", "capped"),
    [
        (499, Behaviour(), False),
        (500, Behaviour(), True),
        (501, Behaviour(), False),
        (999, Behaviour(), False),
        (1000, Behaviour(), True),
        (1200, Behaviour(), True),
        (600, Behaviour(cap=500), True),
        (300, Behaviour(cap=200, total=True), True),
        (200, Behaviour(cap=200, total=True), False),
    ],
)
@on_virtual_clock
async def test_a_listing_that_may_be_cut_off_says_so(packs: int, behaviour: Behaviour, capped: bool) -> None:
    """Exactly 500 or 1,000 rows, or a `total` above the rows: there may be more."""
    sandbox = Sandbox(packs=packs, behaviour=behaviour)
    async with client_of(sandbox) as client:
        assert (await client.unread()).capped is capped


@on_virtual_clock
async def test_a_listing_of_another_user_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A `userId` that is not the seller's: shown in the listing, one WARNING in the log, never an error."""
    sandbox = Sandbox(packs=0, rules=[on("listing").do(Reply(200, {"userId": 42, "results": []}))])
    with caplog.at_level(logging.WARNING, "mlmessages"):
        async with client_of(sandbox) as client:
            listings = [await client.unread() for _ in range(3)]
    assert [listing.user_id for listing in listings] == ["42"] * 3
    [record] = caplog.records
    assert "42" in record.getMessage()
    assert sandbox.seller_id in record.getMessage()


@pytest.mark.parametrize("user", ["1\n2026-01-01 ERROR forged", "\x1b[2J", "x" * 10_000])
@on_virtual_clock
async def test_a_listing_cannot_write_lines_of_its_own_into_the_log(
    caplog: pytest.LogCaptureFixture, user: str
) -> None:
    """Whatever stands in `userId`, the warning is one short printable line."""
    sandbox = Sandbox(packs=0, rules=[on("listing").do(Reply(200, {"userId": user, "results": []}))])
    with caplog.at_level(logging.WARNING, "mlmessages"):
        async with client_of(sandbox) as client:
            await client.unread()
    [record] = caplog.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 200


@on_virtual_clock
async def test_a_user_id_that_was_asked_for_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Who names another user wants that user's listing."""
    sandbox = Sandbox(packs=0, rules=[on("listing").do(Reply(200, {"userId": 42, "results": []}))])
    with caplog.at_level(logging.WARNING, "mlmessages"):
        async with client_of(sandbox) as client:
            assert (await client.unread(user_id=42)).user_id == "42"
    assert not caplog.records


@on_virtual_clock
async def test_a_listing_is_repeated_when_that_is_safe(caplog: pytest.LogCaptureFixture) -> None:
    """503 twice, then an answer: one call, three requests, an INFO line for each retry."""
    sandbox = Sandbox(packs=1, rules=[on("listing", nth=[1, 2]).do(Reply(503))])
    with caplog.at_level(logging.INFO, "mlmessages"):
        async with client_of(sandbox) as client:
            assert len((await client.unread()).packs) == 1
    assert sandbox.count("listing") == 3
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


@pytest.mark.parametrize("body", [{}, {"results": None}, {"total": 0}, [], "ok"])
@on_virtual_clock
async def test_an_answer_without_results_is_no_empty_listing(body: object) -> None:
    """200 without `results` is a `DecodeError`: silence is not the same as nothing unread."""
    sandbox = Sandbox(packs=1, rules=[on("listing").do(Reply(200, body))])
    async with client_of(sandbox) as client:
        with pytest.raises(DecodeError):
            await client.unread()


@pytest.mark.parametrize("api", FAMILIES)
@on_virtual_clock
async def test_the_probe_counts_without_marking(api: Any) -> None:
    """`unread_count` is one request for one pack, gives its count, and marks nothing."""
    sandbox = Sandbox([Pack(messages=5, unread=3), Pack(messages=1)])
    [pack_id, _] = sandbox.pack_ids()
    async with client_of(sandbox, api=api) as client:
        assert await client.unread_count(pack_id) == await client.unread_count(int(pack_id)) == 3
        sandbox.read_elsewhere(pack_id)
        assert await client.unread_count(pack_id) == 0
    assert sandbox.count("probe") == len(sandbox.log) == 3
    assert {entry.query["tag"] for entry in sandbox.log} == {"post_sale"}
    assert {entry.path for entry in sandbox.log} == {f"{FAMILIES[api]}/packs/{pack_id}/sellers/{sandbox.seller_id}"}
    assert not sandbox.marked_ids()


@on_virtual_clock
async def test_an_unreadable_listing_is_an_error_and_spent_retries_are_the_servers() -> None:
    """HTML for ever is a `DecodeError`, 503 for ever is the `ServerError` itself: after six requests each."""
    html = on("listing", nth=range(1, 7)).do(EXECUTE, Garbage())
    sandbox = Sandbox(packs=1, rules=[html, on("listing").do(Reply(503))])
    async with client_of(sandbox) as client:
        with pytest.raises(DecodeError):
            await client.unread()
        with pytest.raises(ServerError):
            await client.unread()
    assert sandbox.count("listing") == 6 + 6


@case("K19")
@on_virtual_clock
async def test_rows_that_name_no_pack_are_left_out_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The packs around such rows are returned; the log names their places once, and nothing that stood in them."""
    odd = [{"resource": "/packs/11", "count": 1}, None, {"resource": "/orders/canary", "count": 9}]
    sandbox = Sandbox(packs=1, rules=[on("listing").do(Reply(200, {"user_id": 700100200, "results": odd}))])
    async with client_of(sandbox) as client:
        listing = await client.unread()
        again = await client.unread()
    assert [pack.pack_id for pack in listing.packs] == ["11"]
    assert len(listing.problems) == 2
    assert again == listing
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "2 of 3 rows" in record.getMessage()
    assert "results[1]" in record.getMessage()
    assert "canary" not in record.getMessage()

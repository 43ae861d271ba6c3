"""When a token is refreshed, and by whom: expiry, half-life, one at a time, cancellation (F1 to F3, F8). Virtual clock throughout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import attrs
import pytest

from cases import case
from mlmessages import FileTokenStore, Limits, MessagesClient
from mlmessages.models import Token
from mlmessages.testing import DROP, EXECUTE, Behaviour, Hold, Sandbox, on
from policy.cancelling import Cancel, cancelled_at
from tokens.conftest import HOUR, MemoryStore, client_with, first_token, hours, posts, source_of, stored
from worlds import PLENTY, on_virtual_clock

Warned = Callable[[str], list[str]]


# -- F1: expiry in the middle ----------------------------------------------------------------------------------------


@case("F1")
@on_virtual_clock
async def test_a_token_that_expires_under_sixteen_calls_is_refreshed_once(store: FileTokenStore) -> None:
    """Sixteen in flight meet a 401: one POST, each call is sent once more, and every one is answered."""
    sandbox = Sandbox(packs=16, behaviour=Behaviour(latency=0.1))
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        calls = [asyncio.ensure_future(client.page(pack, mark_as_read=True)) for pack in sandbox.pack_ids()]
        await asyncio.sleep(0.01)
        sandbox.oauth.expire()
        pages = await asyncio.gather(*calls)
    assert all(len(page.messages) == 1 for page in pages)
    assert sandbox.unread == 0
    assert len(posts(sandbox)) == 1
    assert sorted(entry.status or 0 for entry in sandbox.log if entry.kind == "mark") == [200] * 16 + [401] * 16


@case("F1")
@on_virtual_clock
async def test_a_drain_survives_one_expiry_after_another(store: FileTokenStore) -> None:
    """Every token is good for a hundred requests: all conversations are delivered, with one refresh each time."""
    sandbox = Sandbox(packs=250, behaviour=Behaviour(latency=0.05))
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client, client.drain() as drain:
        found = []
        async for conversation in drain:
            found.append(conversation)
            if len(found) in (50, 100, 150):
                sandbox.oauth.expire()
    assert len(found) == 250
    assert drain.report.set_aside == ()
    assert sandbox.unread == 0
    assert len(posts(sandbox)) == 3


@case("F1")
@on_virtual_clock
async def test_tokens_expire_under_two_clients_of_one_source(store: FileTokenStore) -> None:
    """Two clients that share an `OAuthToken` share the refresh too; it outlives the one that closes first."""
    sandbox = Sandbox(packs=1)
    await store.save(first_token(sandbox))
    auth = source_of(sandbox, store)
    async with client_with(sandbox, auth, api="domestic") as one:
        async with client_with(sandbox, auth) as other:
            sandbox.oauth.expire()
            await asyncio.gather(one.unread(), other.unread())
        sandbox.oauth.expire()
        await one.unread()
    assert len(posts(sandbox)) == 2


@case("F1")
async def test_sixteen_in_flight_over_real_sockets(store: FileTokenStore) -> None:
    """The same over TCP, in real time: held until all of them are there, refused, refreshed once, answered."""
    sandbox = Sandbox(packs=16, rules=[on("peek", times=16).do(Hold("all"), EXECUTE)])
    await store.save(first_token(sandbox))
    async with (
        sandbox.serve() as server,
        MessagesClient(
            source_of(sandbox, store), seller_id=server.seller_id, base_url=server.base_url, limits=Limits(**PLENTY)
        ) as client,
        asyncio.timeout(20),
    ):
        calls = [asyncio.ensure_future(client.page(pack)) for pack in sandbox.pack_ids()]
        while sandbox.held("all") < 16:
            await asyncio.sleep(0)
        sandbox.oauth.expire()
        sandbox.release("all")
        pages = await asyncio.gather(*calls)
    assert [len(page.messages) for page in pages] == [1] * 16
    assert len(posts(sandbox)) == 1
    assert sandbox.count("peek") == 32


# -- F2: half-life ---------------------------------------------------------------------------------------------------


@case("F2")
@pytest.mark.parametrize("off", [-10, 0, 10])
@on_virtual_clock
async def test_it_is_refreshed_at_half_of_its_life_with_a_clock_that_is_wrong(
    store: FileTokenStore, off: float
) -> None:
    """Ten minutes wrong either way: no 401 in a day, a refresh every three hours, and three hours left each time."""
    sandbox = Sandbox(packs=0)
    issued = datetime.now(UTC) + timedelta(minutes=off)
    await store.save(attrs.evolve(first_token(sandbox), issued_at=issued, expires_at=issued + 6 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(24 * 12):
            await client.unread()
            await asyncio.sleep(300)
    assert {entry.status for entry in sandbox.log} == {200}
    assert len(posts(sandbox)) in (7, 8)
    asked = [entry.at for entry in posts(sandbox)]
    assert asked[0] >= hours(3) - 601
    assert all(hours(3) <= later - earlier <= hours(3) + 301 for earlier, later in pairwise(asked))


@case("F2")
@on_virtual_clock
async def test_not_before_half_of_its_life(store: FileTokenStore) -> None:
    """One second before it no refresh is sent; one second after, the call already has the new token."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.keeps_old = False
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await asyncio.sleep(hours(3) - 2)
        await client.unread()
        assert posts(sandbox) == []
        await asyncio.sleep(4)
        await client.unread()
    assert [(entry.kind, entry.status) for entry in sandbox.log] == [("listing", 200), ("token", 200), ("listing", 200)]


@case("F2")
@pytest.mark.parametrize(("left", "due"), [(3.1, False), (2.9, True)])
@on_virtual_clock
async def test_without_issued_at_it_is_refreshed_three_hours_before_the_end(
    store: FileTokenStore, left: float, due: bool
) -> None:
    """Nobody knows how long it has lived: the last three hours are for the refresh."""
    sandbox = Sandbox(packs=0)
    await store.save(attrs.evolve(first_token(sandbox, life=left * HOUR), issued_at=None))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert len(posts(sandbox)) == due


@case("F2")
@on_virtual_clock
async def test_an_expired_token_is_not_sent(store: FileTokenStore) -> None:
    """A program that starts after a week refreshes before its first request."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=168 * HOUR))
    sandbox.oauth.expire()
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert [entry.kind for entry in sandbox.log] == ["token", "listing"]
    kept = await stored(store)
    assert (kept.access_token, kept.refresh_token) == (sandbox.token, sandbox.oauth.refresh_token)
    assert kept.user_id == sandbox.seller_id
    assert kept.issued_at is not None
    assert kept.expires_at - kept.issued_at == 6 * HOUR
    assert kept.refresh_sent_at is None


# -- F3: once, over all tasks (over processes: test_processes.py) ----------------------------------------------------


@case("F3")
@on_virtual_clock
async def test_four_sources_on_one_store_send_one_refresh(file: Path) -> None:
    """Each with a store and a client of its own, as four processes have: one POST, and the others find the answer."""
    sandbox = Sandbox(packs=0, behaviour=Behaviour(latency=0.2))
    await FileTokenStore(file).save(first_token(sandbox, age=4 * HOUR))

    async def process() -> None:
        async with client_with(sandbox, source_of(sandbox, FileTokenStore(file))) as client:
            await client.unread()

    await asyncio.gather(*(process() for _ in range(4)))
    assert len(posts(sandbox)) == 1


class SlowFirstLook(MemoryStore):
    """A store whose first reader gets what was there when it asked, long after."""

    def __init__(self, token: Token) -> None:
        super().__init__(token)
        self.looks = 0

    async def load(self) -> Token | None:
        self.looks += 1
        token = self.token
        if self.looks == 1:
            await asyncio.sleep(10)
        return token


@case("F3")
@on_virtual_clock
async def test_a_look_that_comes_late_does_not_bring_the_old_token_back() -> None:
    """One call reads the store slowly while another refreshes: both end with the new token, after one POST."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.keeps_old = False
    store = SlowFirstLook(first_token(sandbox, age=4 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await asyncio.gather(client.unread(), client.unread())
    assert [(entry.kind, entry.status) for entry in sandbox.log] == [("token", 200), ("listing", 200), ("listing", 200)]


# -- F8: cancellation ------------------------------------------------------------------------------------------------


@case("F8")
@pytest.mark.parametrize("cancel", Cancel)
@pytest.mark.parametrize("step", range(14))
@on_virtual_clock
async def test_cancelling_the_call_that_refreshes_loses_nothing(
    store: FileTokenStore, step: int, cancel: Cancel
) -> None:
    """Whatever the caller waits for when it is cancelled: the refresh goes on, and its answer is in the store."""
    sandbox = Sandbox(packs=0, behaviour=Behaviour(latency=0.2))
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        call = asyncio.ensure_future(cancelled_at(client.unread(), step, cancel))
        await asyncio.wait({call})
        await client.unread()
    assert len(posts(sandbox)) == 1
    assert (await stored(store)).access_token == sandbox.token
    assert (await stored(store)).refresh_token == sandbox.oauth.refresh_token


@case("F8")
@pytest.mark.parametrize("after", [0.01, 0.05, 0.15, 0.19])
@on_virtual_clock
async def test_cancelling_every_call_while_the_refresh_is_under_way(store: FileTokenStore, after: float) -> None:
    """However far the refresh is: all who wait for it are cancelled, and it is finished and saved without them."""
    sandbox = Sandbox(packs=0, behaviour=Behaviour(latency=0.2))
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        calls = [asyncio.ensure_future(client.unread()) for _ in range(3)]
        await asyncio.sleep(after)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await asyncio.sleep(1)
        assert (await stored(store)).access_token == sandbox.token
        await client.unread()
    assert [entry.kind for entry in sandbox.log] == ["token", "listing"]


@case("F8")
@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.15, 0.3])
@on_virtual_clock
async def test_leaving_the_client_waits_for_the_refresh(store: FileTokenStore, after: float) -> None:
    """The block is left by an exception while the refresh is under way: nobody has it, but the store does."""
    sandbox = Sandbox(packs=0, behaviour=Behaviour(latency=0.2))
    await store.save(first_token(sandbox, age=7 * HOUR))
    with pytest.raises(TimeoutError):
        async with client_with(sandbox, source_of(sandbox, store)) as client, asyncio.timeout(after):
            await client.unread()
    kept = await stored(store)
    assert kept.refresh_token == sandbox.oauth.refresh_token
    assert kept.refresh_sent_at is None
    left = repr(asyncio.all_tasks())
    assert "mlmessages-refresh" not in left
    assert "Event.wait" not in left


@case("F8")
@on_virtual_clock
async def test_leaving_the_client_does_not_wait_for_two_minutes(store: FileTokenStore) -> None:
    """A lost answer is waited for, but not at the end of the program: the note in the store remembers."""
    sandbox = Sandbox(packs=0, rules=[on("token", nth=1).do(DROP)])
    await store.save(first_token(sandbox, age=4 * HOUR))
    started = asyncio.get_running_loop().time()
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert asyncio.get_running_loop().time() - started < 10
    assert (await stored(store)).refresh_sent_at is not None
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await asyncio.sleep(0)
        await client.unread()
        await asyncio.sleep(130)
    assert len(posts(sandbox)) == 2
    assert (await stored(store)).access_token == sandbox.token


@case("F8")
@on_virtual_clock
async def test_a_call_that_waits_for_a_token_when_the_client_closes_is_told_so(store: FileTokenStore) -> None:
    """The answer was lost, the access token has expired, and another task leaves the client: `RuntimeError`."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(DROP)])
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        call = asyncio.ensure_future(client.unread())
        await asyncio.sleep(60)
    with pytest.raises(RuntimeError, match="closed while it waited"):
        await call


@case("F8")
@on_virtual_clock
async def test_a_second_event_loop_can_use_the_same_source(store: FileTokenStore) -> None:
    """One `OAuthToken` for one client after another."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=4 * HOUR))
    auth = source_of(sandbox, store)
    for _ in range(2):
        async with client_with(sandbox, auth) as client:
            await client.unread()
    assert len(posts(sandbox)) == 1

"""Answers that nobody has, stores that cannot be written, other processes that were faster (F4 to F7). Virtual clock throughout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from cases import case
from mlmessages import FileTokenStore
from mlmessages.errors import AuthError, ReauthorizationRequired
from mlmessages.testing import DROP, EXECUTE, Delay, Garbage, Reply, Sandbox, on
from tokens.conftest import HOUR, MemoryStore, client_with, first_token, hours, posts, source_of, stored
from worlds import on_virtual_clock

Warned = Callable[[str], list[str]]


# -- F4, F6: a refresh whose answer nobody has -----------------------------------------------------------------------


@case("F6")
@on_virtual_clock
async def test_a_lost_answer_is_waited_for_and_asked_again_once(store: FileTokenStore, warnings: Warned) -> None:
    """The refresh never reached the server: two minutes later it is sent again, and nobody had to wait for that."""
    sandbox = Sandbox(packs=0, rules=[on("token", nth=1).do(DROP)])
    await store.save(first_token(sandbox, age=4 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        await asyncio.sleep(60)
        await client.unread()
        assert [entry.kind for entry in sandbox.log] == ["token", "listing", "listing"]
        await asyncio.sleep(120)
        await client.unread()
    assert sandbox.log[1].at < 1
    first, second = posts(sandbox)
    assert 120 <= second.at - first.at < 130
    assert (await stored(store)).access_token == sandbox.token
    assert len(warnings("lost")) == 1


@case("F6")
@pytest.mark.parametrize("fault", [DROP, Reply(500, {"message": "x"}), Garbage(), Reply(200, {"token_type": "Bearer"})])
@on_virtual_clock
async def test_a_refresh_that_was_executed_and_lost_needs_the_seller(
    store: FileTokenStore, warnings: Warned, fault: Any
) -> None:
    """The refresh token is spent: two POSTs in all, the access token is used to its end, loudly, then the error."""
    sandbox = Sandbox(packs=0, rules=[on("token", nth=1).do(EXECUTE, fault)])
    await store.save(first_token(sandbox, age=3.1 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(28):
            await client.unread()
            await asyncio.sleep(360)
        assert len(warnings("NOT RENEWED")) > 5
        await asyncio.sleep(360)
        with pytest.raises(ReauthorizationRequired, match="authorise again") as refused:
            await client.unread()
    assert refused.value.hint
    assert len(posts(sandbox)) == 2
    assert {entry.status for entry in sandbox.log if entry.kind == "listing"} == {200}


@case("F6")
@on_virtual_clock
async def test_two_lost_answers_are_enough(store: FileTokenStore) -> None:
    """It is not sent a third time: who knows how often it was executed."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(DROP)])
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(3):
            with pytest.raises(ReauthorizationRequired, match="lost twice"):
                await client.unread()
            await asyncio.sleep(600)
    assert len(posts(sandbox)) == 2


@case("F6")
@on_virtual_clock
async def test_whoever_has_no_good_token_waits_for_the_second_attempt(store: FileTokenStore) -> None:
    """The access token has expired too: the call takes two minutes, and is answered."""
    sandbox = Sandbox(packs=0, rules=[on("token", nth=1).do(DROP)])
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert [entry.kind for entry in sandbox.log] == ["token", "token", "listing"]


@case("F4")
@on_virtual_clock
async def test_after_a_crash_in_a_refresh_it_is_sent_once_more(store: FileTokenStore, warnings: Warned) -> None:
    """The note of a refresh without an answer: the rest of the two minutes is waited, then one POST, then the seller."""
    sandbox = Sandbox(packs=0)
    token = first_token(sandbox, age=3.1 * HOUR)
    sandbox.oauth.refresh_elsewhere()  # the process that died had sent it, and it was executed
    await store.save(attrs.evolve(token, refresh_sent_at=datetime.now(UTC) - timedelta(seconds=20)))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        for _ in range(25):
            await client.unread()
            await asyncio.sleep(360)
        await asyncio.sleep(hours(1))
        with pytest.raises(ReauthorizationRequired):
            await client.unread()
    (post,) = posts(sandbox)
    assert 99 < post.at < 102
    assert warnings("its answer never saved")
    assert warnings("NOT RENEWED")


@case("F4")
@on_virtual_clock
async def test_after_a_crash_before_it_was_sent_the_token_is_still_good(store: FileTokenStore) -> None:
    """The note is there and the refresh never left: the one attempt succeeds, and the note is gone."""
    sandbox = Sandbox(packs=0)
    token = first_token(sandbox, age=3.1 * HOUR)
    await store.save(attrs.evolve(token, refresh_sent_at=datetime.now(UTC) - timedelta(days=9)))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert [(entry.kind, entry.status) for entry in sandbox.log] == [("token", 200), ("listing", 200)]
    assert (await stored(store)).refresh_sent_at is None


@case("F4")
@on_virtual_clock
async def test_a_clock_that_was_set_back_does_not_lengthen_the_wait(store: FileTokenStore) -> None:
    """A note from the future is waited for two minutes, and not for an hour."""
    sandbox = Sandbox(packs=0)
    await store.save(attrs.evolve(first_token(sandbox, age=7 * HOUR), refresh_sent_at=datetime.now(UTC) + HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
    assert posts(sandbox)[0].at < 121


@case("F4")
@on_virtual_clock
async def test_a_new_authorisation_is_found_without_a_restart(store: FileTokenStore) -> None:
    """While the service says that the seller must authorise again, somebody does: the next call works."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=7 * HOUR))
    sandbox.oauth.refresh_elsewhere()
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(ReauthorizationRequired):
            await client.unread()
        await asyncio.sleep(5)
        await store.save(first_token(sandbox))
        await client.unread()
    assert len(posts(sandbox)) == 1


# -- F5: a store that cannot be written ------------------------------------------------------------------------------


@case("F5")
@on_virtual_clock
async def test_a_store_that_cannot_be_written_sends_no_refresh(warnings: Warned) -> None:
    """Disk full: no POST; the access token is used to its end, with a warning, and then the store's error is raised."""
    sandbox = Sandbox(packs=0)
    store = MemoryStore(first_token(sandbox, age=5 * HOUR))
    store.failing = lambda _: True
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        assert warnings("NOT RENEWED")
        await asyncio.sleep(hours(1))
        with pytest.raises(OSError, match="No space"):
            await client.unread()
        store.failing = lambda _: False
        await asyncio.sleep(2)
        await client.unread()
    assert [entry.kind for entry in sandbox.log] == ["listing", "token", "listing"]


@case("F5")
@on_virtual_clock
async def test_a_directory_that_is_gone_sends_no_refresh(tmp_path: Path) -> None:
    """The same with a file: neither its lock nor a new file can be made there."""
    sandbox = Sandbox(packs=0)
    (tmp_path / "keys").mkdir()
    file = tmp_path / "keys" / "seller.json"
    await FileTokenStore(file).save(first_token(sandbox, age=7 * HOUR))
    auth = source_of(sandbox, FileTokenStore(file))
    async with client_with(sandbox, auth) as client:
        with pytest.raises(AuthError):
            file.rename(tmp_path / "elsewhere")
            (tmp_path / "keys").rmdir()
            await client.unread()
    assert sandbox.log == []


@case("F5")
@on_virtual_clock
async def test_the_store_is_written_before_the_refresh_and_before_the_new_token_is_used() -> None:
    """Save, POST, save, and only then the request with the new token."""
    sandbox = Sandbox(packs=0)
    store = MemoryStore(first_token(sandbox, age=4 * HOUR))
    sandbox.add(on("token").do(Delay(1.0), EXECUTE))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        listing = asyncio.ensure_future(client.unread())
        await asyncio.sleep(0.5)
        assert (len(store.saved), len(posts(sandbox)), sandbox.count("listing")) == (1, 1, 0)
        assert store.saved[0].refresh_sent_at is not None
        await listing
    assert len(store.saved) == 2
    assert store.saved[1].access_token == sandbox.token
    assert store.saved[1].refresh_sent_at is None


@case("F5")
@on_virtual_clock
async def test_new_tokens_that_cannot_be_saved_are_not_thrown_away(warnings: Warned) -> None:
    """The disk fills up during the refresh: they work, the log shouts, and they are saved as soon as that is possible."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.keeps_old = False
    store = MemoryStore(first_token(sandbox, age=4 * HOUR))
    store.failing = lambda number: 2 <= number < 5
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        assert store.token is not None
        assert store.token.access_token != sandbox.token
        assert warnings("THIS PROCESS ALONE") or warnings("this process alone")
        for _ in range(60):
            await asyncio.sleep(30)
            await client.unread()
        assert store.token.access_token == sandbox.token
        assert store.token.refresh_token == sandbox.oauth.refresh_token
    assert len(posts(sandbox)) == 1
    assert warnings("are saved now")


@case("F5")
@pytest.mark.parametrize(
    ("reply", "error", "note"),
    [
        (Reply(403, {"error": "forbidden"}), AuthError, "was not executed stays"),
        (Reply(400, {"error": "invalid_grant"}), ReauthorizationRequired, "was refused could not be saved"),
    ],
    ids=["not executed", "refused"],
)
@on_virtual_clock
async def test_a_note_that_cannot_be_written_is_told_and_the_refusal_raised(
    warnings: Warned, reply: Any, error: type[Exception], note: str
) -> None:
    """The disk fills up between the note and the refusal: the refusal is what matters, and the log says the rest."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(reply)])
    store = MemoryStore(first_token(sandbox, age=7 * HOUR))
    store.failing = lambda number: number == 2
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        with pytest.raises(error):
            await client.unread()
    assert warnings(note)


# -- F7: somebody else was faster ------------------------------------------------------------------------------------


class Unlocked(MemoryStore):
    """A store whose lock holds nobody back, as on two machines."""

    def lock(self) -> asyncio.Lock:
        return asyncio.Lock()


@case("F7")
@pytest.mark.parametrize("later", [0.0, 0.3, 1.5])
@on_virtual_clock
async def test_invalid_grant_because_another_process_rotated(later: float) -> None:
    """The refresh token was spent by somebody whose answer is saved a little later: it is found, and nothing fails."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.keeps_old = False
    store = Unlocked(first_token(sandbox, age=7 * HOUR))

    async def another_machine() -> None:
        sandbox.oauth.refresh_elsewhere()
        await asyncio.sleep(later)
        store.token = first_token(sandbox)

    sandbox.add(on("token", nth=1).do(Delay(0.1), EXECUTE))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        listing = asyncio.ensure_future(client.unread())
        await asyncio.sleep(0.05)
        await another_machine()
        await listing
    assert [(entry.kind, entry.status) for entry in sandbox.log] == [("token", 400), ("listing", 200)]
    assert store.token is not None
    assert store.token.refresh_token == sandbox.oauth.refresh_token


@case("F7")
@on_virtual_clock
async def test_another_process_rotates_while_we_wait_to_try_again() -> None:
    """Our refresh was lost, and in those two minutes somebody else has saved a newer token: ours is not sent again."""
    sandbox = Sandbox(packs=0, rules=[on("token", nth=1).do(DROP)])
    store = Unlocked(first_token(sandbox, age=7 * HOUR))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        listing = asyncio.ensure_future(client.unread())
        await asyncio.sleep(60)
        sandbox.oauth.refresh_elsewhere()
        store.token = first_token(sandbox)
        await listing
    assert len(posts(sandbox)) == 1
    assert store.token.refresh_token == sandbox.oauth.refresh_token


@case("F7")
@on_virtual_clock
async def test_a_rejected_token_is_looked_for_in_the_store_first(store: FileTokenStore) -> None:
    """Another process has refreshed, and the server takes the old token no more: no POST, the new one is found."""
    sandbox = Sandbox(packs=0)
    sandbox.oauth.keeps_old = False
    await store.save(first_token(sandbox))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        sandbox.oauth.refresh_elsewhere()
        await store.save(first_token(sandbox))
        await client.unread()
    assert [entry.status for entry in sandbox.log] == [200, 401, 200]


@case("F7")
@on_virtual_clock
async def test_what_another_process_saved_serves_while_no_refresh_succeeds(store: FileTokenStore) -> None:
    """Ours has expired, the store has one that is due and good, and the token endpoint refuses: that one is used."""
    sandbox = Sandbox(packs=0, rules=[on("token").do(Reply(403, {"error": "forbidden"}))])
    await store.save(attrs.evolve(first_token(sandbox, life=HOUR), issued_at=datetime.now(UTC) - timedelta(minutes=1)))
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        await asyncio.sleep(hours(2))
        sandbox.oauth.refresh_elsewhere()
        await store.save(attrs.evolve(first_token(sandbox, life=4 * HOUR), issued_at=datetime.now(UTC) - 2 * HOUR))
        await client.unread()
        await client.unread()
    assert [entry.status for entry in sandbox.log if entry.kind == "listing"] == [200, 200, 200]
    assert len(posts(sandbox)) == 1


# -- K37: one more try at the end ----------------------------------------------------------------------------------------


@case("K37")
@pytest.mark.parametrize("fails", [1, 100])
@on_virtual_clock
async def test_new_tokens_that_could_not_be_saved_are_saved_when_the_client_closes(
    warnings: Warned, fails: int
) -> None:
    """The disk is full during the refresh and free at the end: saved. Still full: the last line says what is lost."""
    sandbox = Sandbox(packs=0)
    store = MemoryStore(first_token(sandbox, age=4 * HOUR))
    store.failing = lambda number: 2 <= number < 2 + fails
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        assert store.token is not None
        assert store.token.access_token != sandbox.token
    assert (store.token.access_token == sandbox.token) is (fails == 1)
    assert len(posts(sandbox)) == 1
    said = warnings("saved now") if fails == 1 else warnings("the seller has to authorise again")
    assert len(said) == 1


@case("K37")
@on_virtual_clock
async def test_what_another_process_saved_meanwhile_is_not_replaced_at_the_end() -> None:
    """The store has a newer generation than the one that ours came from: that one stays."""
    sandbox = Sandbox(packs=0)
    store = MemoryStore(first_token(sandbox, age=4 * HOUR))
    store.failing = lambda number: number == 2
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        newer = attrs.evolve(first_token(sandbox), refresh_token="TG-newer")
        store.token = newer
    assert store.token == newer


@case("K37")
@on_virtual_clock
async def test_a_lock_that_is_held_does_not_keep_the_client_from_closing(warnings: Warned) -> None:
    """Ten seconds are enough."""
    sandbox = Sandbox(packs=0)
    store = MemoryStore(first_token(sandbox, age=4 * HOUR))
    store.failing = lambda number: number == 2
    async with client_with(sandbox, source_of(sandbox, store)) as client:
        await client.unread()
        await store.lock().acquire()
        closing = asyncio.get_running_loop().time()
    assert 9 < asyncio.get_running_loop().time() - closing < 11
    assert warnings("the seller has to authorise again")


@case("P3")
@on_virtual_clock
async def test_the_lock_of_a_stopped_holder_is_not_waited_for_for_ever(store: FileTokenStore, file: Path) -> None:
    """It holds the lock and does not work: after five minutes an error that says so; a good token is used meanwhile."""
    sandbox = Sandbox(packs=0)
    await store.save(first_token(sandbox, age=7 * HOUR))
    async with FileTokenStore(file).lock():
        async with client_with(sandbox, source_of(sandbox, store)) as client:
            started = asyncio.get_running_loop().time()
            with pytest.raises(AuthError, match="held the lock of the token store for too long"):
                await client.unread()
            assert 299 < asyncio.get_running_loop().time() - started < 310
            await store.save(first_token(sandbox, age=4 * HOUR))
        async with client_with(sandbox, source_of(sandbox, store)) as client:
            started = asyncio.get_running_loop().time()
            await client.unread()
            assert asyncio.get_running_loop().time() - started < 6
    assert posts(sandbox) == []

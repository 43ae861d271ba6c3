"""F11: the token file is its owner's alone, whole or not there, and never somebody else's."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from cases import case
from mlmessages import FileTokenStore, TokenStore, failpoints
from mlmessages.errors import AuthError
from mlmessages.models import Token

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TOKEN = Token("APP_USR-canary-1", "TG-canary-1", NOON + timedelta(hours=6), NOON, "700100200", NOON, NOON)
POSIX = sys.platform != "win32"


def save(file: Path, token: Token = TOKEN) -> None:
    asyncio.run(FileTokenStore(file).save(token))


def load(file: Path) -> Token | None:
    return asyncio.run(FileTokenStore(file).load())


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@case("F11")
def test_what_is_saved_is_loaded(file: Path) -> None:
    """All fields come back, also those that may be missing; a store is a `TokenStore`; no file is no token."""
    assert isinstance(FileTokenStore(file), TokenStore)
    assert load(file) is None
    for token in (TOKEN, attrs.evolve(TOKEN, refresh_token=None, issued_at=None, user_id=None, refresh_sent_at=None)):
        save(file, token)
        loaded = load(file)
        assert loaded == token
        assert "canary" not in repr(loaded) + repr(FileTokenStore(file)) + repr(attrs.astuple(loaded))


@case("F11")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o377, 0o777], ids=oct)
def test_it_is_0600_under_any_umask(file: Path, umask: None, mask: int) -> None:
    """Wide or narrow: the file and its lock are for their owner, and can be read again."""
    save(file)
    file.unlink()
    os.umask(mask)
    save(file)
    if POSIX:
        assert mode(file) == 0o600
    assert load(file) == TOKEN


@case("F11")
def test_it_is_never_wider_not_even_for_a_moment(file: Path, umask: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file in the directory is 0600 at every step of the writing, and the old one is whole until the new one is."""
    save(file)
    new, seen = attrs.evolve(TOKEN, access_token="APP_USR-canary-2"), []

    def look(name: str) -> None:
        seen.append(name)
        if POSIX:
            assert {mode(path) for path in file.parent.iterdir()} == {0o600}
        loaded = load(file)
        assert loaded == (new if name in ("file replaced", "folder synced") else TOKEN)

    monkeypatch.setattr(failpoints, "hook", look)
    save(file, new)
    assert seen == ["file created", "file written", "file synced", "file replaced", "folder synced"]


@case("F11")
def test_it_is_replaced_and_not_written_over(file: Path) -> None:
    """Whoever has opened it before reads the old tokens to their end: no moment has half of each."""
    save(file)
    before = file.read_bytes()
    if POSIX:
        with file.open("rb") as opened:
            save(file, attrs.evolve(TOKEN, user_id="2"))
            assert opened.read() == before
    assert not [path for path in file.parent.iterdir() if path.suffix == ".tmp"]


@case("F11")
@pytest.mark.parametrize("step", ["created", "written", "synced"])
def test_a_full_disk_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """`AuthError` that says so, the old tokens, and no temporary file."""
    save(file)

    def full(name: str) -> None:
        if name == f"file {step}":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failpoints, "hook", full)
    with pytest.raises(AuthError, match=r"seller\.json cannot be written: No space left"):
        save(file, attrs.evolve(TOKEN, user_id="2"))
    monkeypatch.undo()
    assert load(file) == TOKEN
    assert list(file.parent.iterdir()) == [file]


@case("F11")
@pytest.mark.parametrize("wide", [0o640, 0o604, 0o660, 0o666, 0o620, 0o610], ids=oct)
def test_a_file_that_others_may_use_is_refused(file: Path, wide: int) -> None:
    """`AuthError` that says what to do; after that it is read."""
    if not POSIX:
        return  # it has no such modes
    save(file)
    file.chmod(wide)
    with pytest.raises(AuthError, match=r"chmod 600 seller\.json"):
        load(file)
    file.chmod(0o600)
    assert load(file) == TOKEN


@case("F11")
def test_a_symbolic_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    """Neither read nor replaced, nor is its lock made through one: whoever made it chose the place."""
    if not POSIX:
        return  # it takes rights that a test does not have
    target = tmp_path / "elsewhere"
    save(target)
    file.symlink_to(target)
    with pytest.raises(AuthError, match="symbolic link"):
        load(file)
    with pytest.raises(AuthError, match="symbolic link"):
        save(file, attrs.evolve(TOKEN, user_id="2"))
    assert load(target) == TOKEN
    file.with_name("seller.json.lock").symlink_to(target)
    with pytest.raises(AuthError, match=r"seller\.json\.lock"):
        asyncio.run(held(FileTokenStore(file)))


async def held(store: FileTokenStore) -> None:
    async with store.lock():
        pass


@case("F11")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"APP_USR-canary",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 50_000,
        b"x" * 100_000,
        json.dumps({"version": 1, "access_token": "canary"}).encode(),
        json.dumps({"version": 1, "access_token": 5, "refresh_token": None, "expires_at": NOON.isoformat()}).encode(),
        json.dumps({"version": 1, "access_token": "a", "refresh_token": None, "expires_at": "canary"}).encode(),
        json.dumps({"version": 1, "access_token": "a", "refresh_token": None, "expires_at": "2026-03-02"}).encode(),
        json.dumps({"version": 9, "access_token": "a", "refresh_token": None, "expires_at": NOON.isoformat()}).encode(),
    ],
    ids=lambda content: ascii(content[:40]),
)
def test_another_programs_file_is_refused(file: Path, content: bytes) -> None:
    """What is no token file is an `AuthError` that quotes nothing of it; it is not taken for an empty store."""
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(AuthError, match=r"seller\.json") as refused:
        load(file)
    assert "canary" not in str(refused.value)
    assert file.read_bytes() == content


@case("F11")
def test_what_is_no_file_is_refused_at_once(file: Path) -> None:
    """A directory, or a pipe that nobody writes to: an error, and no waiting."""
    file.mkdir(mode=0o700)
    with pytest.raises(AuthError):
        load(file)
    with pytest.raises(AuthError):
        save(file)
    file.rmdir()
    if POSIX:
        os.mkfifo(file, 0o600)
        with pytest.raises(AuthError, match="regular file"):
            load(file)


@case("F11")
def test_a_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    """It is not made: perhaps the path is wrong."""
    file = tmp_path / "missing" / "seller.json"
    assert load(file) is None
    with pytest.raises(AuthError, match="No such file"):
        save(file)


@case("F11")
@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_path_without_a_name_is_misuse(path: str) -> None:
    """`ValueError` at once."""
    with pytest.raises(ValueError, match="path"):
        FileTokenStore(path)


@case("F11")
async def test_the_lock_holds_back_tasks_stores_and_cancelled_ones(file: Path) -> None:
    """One at a time, in one process too; whoever is cancelled while waiting leaves nothing behind."""
    inside: list[int] = []

    async def one(number: int, store: FileTokenStore) -> None:
        async with store.lock():
            inside.append(number)
            assert len(inside) == 1
            await asyncio.sleep(0)
            inside.remove(number)

    shared = FileTokenStore(file)
    async with shared.lock():
        waiting = asyncio.ensure_future(one(0, FileTokenStore(file)))
        await asyncio.wait({waiting}, timeout=0.01)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(one(number, shared if number % 2 else FileTokenStore(file)))


@case("F11")
async def test_a_cancelled_save_is_finished_before_the_lock_is_free(file: Path) -> None:
    """The write goes on in its thread, and its canceller waits for that: nobody else writes meanwhile."""
    store = FileTokenStore(file)
    saving = asyncio.ensure_future(store.save(TOKEN))
    await asyncio.sleep(0)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert await store.load() == TOKEN


@case("F11")
async def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """Temporary files of long ago go when somebody holds the lock; fresh ones, and other files, stay."""
    file = tmp_path / "seller[1].json"
    store = FileTokenStore(file)
    await store.save(TOKEN)
    old, fresh, other = (
        tmp_path / name for name in (".seller[1].json.a.tmp", ".seller[1].json.b.tmp", ".seller1.json.c.tmp")
    )
    for path in (old, fresh, other):
        path.write_text("canary")
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))
    async with store.lock():
        pass
    assert (old.exists(), fresh.exists(), other.exists()) == (False, True, True)
    assert await store.load() == TOKEN

"""F11: the token file is its owner's alone, whole or not there, and never somebody else's."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from cases import case
from mlmessages import FileTokenStore, TokenStore, failpoints
from mlmessages.errors import AuthError
from mlmessages.files import FileLock
from mlmessages.models import Token
from worlds import on_virtual_clock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TOKEN = Token("APP_USR-canary-1", "TG-canary-1", NOON + timedelta(hours=6), NOON, "700100200", NOON, NOON)


def save(file: Path, token: Token = TOKEN) -> None:
    asyncio.run(FileTokenStore(file).save(token))


def load(file: Path) -> Token | None:
    return asyncio.run(FileTokenStore(file).load())


@case("F11")
def test_what_is_saved_is_loaded(file: Path) -> None:
    """All fields come back, also those that may be missing; a store is a `TokenStore`; no file is no token."""
    assert isinstance(FileTokenStore(file), TokenStore)
    assert load(file) is None
    for token in (TOKEN, attrs.evolve(TOKEN, refresh_token=None, issued_at=None, user_id=None, refresh_sent_at=None)):
        save(file, token)
        loaded = load(file)
        assert loaded is not None
        assert loaded == token
        assert "canary" not in repr(loaded) + repr(FileTokenStore(file))
        assert f"{loaded.access_token}" == token.access_token  # it is the user's now


@case("F11")
def test_the_old_file_is_whole_until_the_new_one_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step of the writing a reader finds the old tokens or the new ones."""
    save(file)
    new, seen = attrs.evolve(TOKEN, access_token="APP_USR-canary-2"), []

    def look(name: str) -> None:
        seen.append(name)
        loaded = load(file)
        assert loaded == (new if name in ("file replaced", "folder synced") else TOKEN)

    monkeypatch.setattr(failpoints, "hook", look)
    save(file, new)
    assert seen == ["file created", "file written", "file synced", "file replaced", "folder synced"]


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
        json.dumps({"version": 1, "access_token": "a", "refresh_token": 5, "expires_at": NOON.isoformat()}).encode(),
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
def test_a_folder_in_its_place_is_refused(file: Path) -> None:
    """For reading and for writing."""
    file.mkdir(mode=0o700)
    with pytest.raises(AuthError):
        load(file)
    with pytest.raises(AuthError):
        save(file)


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
@on_virtual_clock
async def test_a_lock_is_asked_for_often_enough_and_not_too_often(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for ten seconds has it a quarter of a second after it is free, and has asked some fifty times."""
    asked = 0
    try_acquire = FileLock.try_acquire

    def counted(lock: FileLock) -> bool:
        nonlocal asked
        asked += 1
        return try_acquire(lock)

    monkeypatch.setattr(FileLock, "try_acquire", counted)
    loop = asyncio.get_running_loop()

    async def waiting() -> float:
        async with FileTokenStore(file).lock():
            return loop.time()

    async with FileTokenStore(file).lock():
        waiter = asyncio.ensure_future(waiting())
        await asyncio.sleep(10)
        free = loop.time()
    assert await waiter - free <= 0.26
    assert 40 < asked < 65


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


# -- odd systems ---------------------------------------------------------------------------------------------------------


@case("K23")
def test_a_file_that_is_mounted_by_itself_is_told_as_that(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bind mount of one file cannot be replaced: EBUSY, and the hint is to mount the folder."""
    save(file)

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(AuthError, match=r"seller\.json cannot be written: Device or resource busy") as refused:
        save(file, attrs.evolve(TOKEN, user_id="2"))
    assert "mount its folder" in (refused.value.hint or "")
    assert load(file) == TOKEN


@case("K37")
def test_every_error_of_the_system_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a `PermissionError`, whose words alone say nothing."""
    save(file)
    real_open = os.open

    def refused(path: Any, *rest: Any) -> int:
        if str(path).startswith(str(file)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *rest)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(AuthError, match=r"token file seller\.json cannot be read: Permission denied"):
        load(file)
    with pytest.raises(AuthError, match=r"lock file seller\.json\.lock cannot be used: Permission denied"):
        asyncio.run(held(FileTokenStore(file)))

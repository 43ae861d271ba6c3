"""`mlmessages.files`: what is private, whole and durable, and what a lock means, on good file systems and on odd ones."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cases import case
from mlmessages.files import (
    FileLock,
    NotPrivate,
    PendingFile,
    open_private,
    read_private,
    reason,
    remove_abandoned,
    replace_private,
    sync,
    sync_folder,
    try_lock,
)
from needs import needs

pytestmark = needs("modes", "symlinks")

Calls = list[tuple[str, object]]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """`umask(mask)` until the end of the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is asked of the system, in its order: fsync of a file or of a folder, rename, link."""
    seen: Calls = []
    fsync, replace, link = os.fsync, os.replace, os.link

    def watched_fsync(fd: int) -> None:
        seen.append(("fsync", "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else os.fstat(fd).st_ino))
        fsync(fd)

    def watched_replace(source: Any, target: Any) -> None:
        seen.append(("rename", Path(target).name))
        replace(source, target)

    def watched_link(source: Any, target: Any, **options: Any) -> None:
        seen.append(("link", Path(target).name))
        link(source, target, **options)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "link", watched_link)
    return seen


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The code runs as on Windows, where nothing else holds a file; the seconds that it waited."""
    waited: list[float] = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


# -- whole and durable -------------------------------------------------------------------------------------------------


@case("P2")
def test_a_replacement_is_synced_then_renamed_then_its_folder_is_synced(tmp_path: Path, calls: Calls) -> None:
    """In any other order a power cut could leave a new name with nothing in it, or the old file."""
    replace_private(tmp_path / "a", b"new")
    assert calls == [("fsync", (tmp_path / "a").stat().st_ino), ("rename", "a"), ("fsync", "folder")]
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@case("P2")
@pytest.mark.parametrize("step", ["link", "rename that replaces nothing", "rename"])
def test_a_new_file_is_synced_before_it_has_its_name(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """And its folder after that; a name that is taken is an error that names it, and nothing is left over."""
    if step != "link":
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    if step == "rename":
        monkeypatch.setattr("ctypes.CDLL", refusing(errno.ENOSYS))
    with PendingFile(tmp_path / "a") as pending:
        pending.file.write(b"new")
        pending.publish()
    named = [(step, "a")] if step in ("link", "rename") else []  # the other one is libc's
    assert calls == [("fsync", (tmp_path / "a").stat().st_ino), *named, ("fsync", "folder")]
    assert mode(tmp_path / "a") == 0o600
    with PendingFile(tmp_path / "a") as pending:
        pending.file.write(b"other")
        with pytest.raises(FileExistsError) as taken:
            pending.publish()
    assert taken.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@case("P2")
def test_a_publication_that_fails_leaves_its_name_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes two steps, the name is taken before the file is put there: an empty file must not stay behind."""
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    monkeypatch.setattr("ctypes.CDLL", refusing(errno.ENOSYS))
    with monkeypatch.context() as broken, PendingFile(tmp_path / "a") as pending:
        broken.setattr(os, "replace", refusing(errno.EIO))
        broken.setattr(Path, "replace", refusing(errno.EIO))
        pending.file.write(b"new")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            pending.publish()
    assert list(tmp_path.iterdir()) == []


@case("T5")
def test_a_new_file_has_its_name_in_one_step_without_hard_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on FAT and exFAT: a kill leaves no empty file under the name, because none is ever made there."""
    opened: list[str] = []
    system_open = os.open

    def watched_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        opened.append(Path(path).name)
        return system_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    with PendingFile(tmp_path / "a") as pending:
        pending.file.write(b"new")
        monkeypatch.setattr(os, "open", watched_open)
        pending.publish()
    assert "a" not in opened
    assert (tmp_path / "a").read_bytes() == b"new"


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@case("K34")
def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EINVAL of a folder's fsync (CIFS, VirtualBox) is ignored: the file is there. EIO, and EINVAL of a file, are not."""
    fsync = os.fsync
    failing: dict[str, int] = {"folder": errno.EINVAL}

    def odd(fd: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        if kind in failing:
            raise OSError(failing[kind], os.strerror(failing[kind]))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", odd)
    replace_private(tmp_path / "a", b"1")
    sync_folder(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"1"
    failing["folder"] = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        replace_private(tmp_path / "a", b"2")
    failing["file"] = errno.EINVAL
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        replace_private(tmp_path / "a", b"3")
    assert (tmp_path / "a").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@case("O6")
def test_macos_is_asked_to_empty_the_drives_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`F_FULLFSYNC`; where a file system has none, `fsync`."""
    import fcntl

    asked: list[object] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", lambda fd: asked.append("fsync"))
    with (tmp_path / "a").open("wb") as file:
        sync(file.fileno())
        assert asked == [51]
        monkeypatch.setattr(fcntl, "fcntl", refusing(errno.ENOTSUP))
        sync(file.fileno())
    assert asked == [51, "fsync"]


def test_what_killed_processes_left_goes_when_it_is_old(tmp_path: Path) -> None:
    """Also that of a name as long as names may be."""
    path = tmp_path / ("n" * 255)
    pending = PendingFile(path)
    (left,) = tmp_path.iterdir()
    remove_abandoned(path)
    assert left.exists()
    os.utime(left, (1, 1))
    remove_abandoned(path)
    assert not left.exists()
    pending.discard()


# -- private -----------------------------------------------------------------------------------------------------------


@case("O8")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_every_file_is_0600_under_any_umask(tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
    """Replaced, published, opened or a lock; an existing file keeps its own mode."""
    umask(mask)
    replace_private(tmp_path / "replaced", b"")
    with PendingFile(tmp_path / "published") as pending:
        pending.publish()
    os.close(open_private(tmp_path / "opened", os.O_RDWR | os.O_CREAT))
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("replaced", "published", "opened", "lock"), 0o600
    )
    (tmp_path / "opened").chmod(0o640)
    os.close(open_private(tmp_path / "opened", os.O_RDWR | os.O_CREAT))
    assert mode(tmp_path / "opened") == 0o640


@case("K34")
def test_a_file_system_without_modes_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every file there is 0777 whatever is asked for: it is used, and one line says what that means."""
    fstat = os.fstat

    def wide(fd: int) -> os.stat_result:
        mode, *others = fstat(fd)
        return os.stat_result((int(mode) | 0o777, *others))

    monkeypatch.setattr(os, "fchmod", refusing(errno.EPERM))
    monkeypatch.setattr(os, "fstat", wide)
    path = tmp_path / "tokens"
    replace_private(path, b"1")
    assert len(caplog.records) == 1
    for data in (b"2", b"3"):
        replace_private(path, data)
        assert read_private(path) == data
    (record,) = caplog.records
    assert f"the file system of {tmp_path} keeps no permissions" in record.getMessage()


def test_a_file_that_others_may_read_is_not_read(tmp_path: Path) -> None:
    """On a file system that keeps modes."""
    path = tmp_path / "tokens"
    replace_private(path, b"1")
    path.chmod(0o640)
    with pytest.raises(NotPrivate, match=r"others may read or write it \(mode 0640\)"):
        read_private(path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_a_wide_file_is_not_read_where_nothing_can_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder takes no new file: then its file system is taken for one that keeps modes."""
    path, real_open = tmp_path / "tokens", os.open
    replace_private(path, b"1")
    path.chmod(0o644)

    def full(target: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(target, flags, *rest)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(NotPrivate):
        read_private(path)


def test_what_is_read_shows_itself_in_no_repr_and_no_slice(tmp_path: Path) -> None:
    """Single bytes, comparisons and decoding are as ever."""
    replace_private(tmp_path / "tokens", b"a secret of a file")
    body = read_private(tmp_path / "tokens")
    for shown in (repr(body), str(body), repr(body[2:8]), repr([body[:5]])):
        assert "secret" not in shown
        assert "a s" not in shown
    assert (body[2:8], body[2], body.decode()) == (b"secret", ord("s"), "a secret of a file")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Neither of what succeeds nor of what is refused."""

    def descriptors() -> set[int]:
        return {fd for fd in range(512) if is_open(fd)}

    def is_open(fd: int) -> bool:
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True

    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    refused: list[Callable[[], object]] = [
        lambda: read_private(tmp_path / "file"),
        lambda: read_private(tmp_path / "pipe"),
        lambda: read_private(tmp_path / "folder"),
        lambda: read_private(tmp_path / "private", 0),
        lambda: replace_private(tmp_path / "folder", b""),
    ]
    before, lock = descriptors(), FileLock(tmp_path / "lock")
    for _ in range(2):
        for name in ("file", "private"):
            replace_private(tmp_path / name, b"1")
            assert read_private(tmp_path / name) == b"1"
        (tmp_path / "file").chmod(0o640)
        for one in refused:
            with pytest.raises(OSError):
                one()
        sync_folder(tmp_path)
        assert lock.acquire()
        assert not FileLock(tmp_path / "lock").acquire()
        lock.release()
    assert descriptors() == before


def test_a_reason_is_never_empty() -> None:
    """Where the system says nothing, the kind of the error is told."""
    assert reason(OSError()) == "OSError"
    assert reason(PermissionError(13, "Permission denied")) == "Permission denied"


def test_what_is_no_file_of_ones_own_is_refused(tmp_path: Path) -> None:
    """A link, a folder and a pipe, for reading, writing, replacing and locking; and a file that is too large."""
    replace_private(tmp_path / "file", b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    said_of = {"link": "which is not followed", "folder": "regular|directory", "pipe": "regular"}
    for name, said in said_of.items():
        with pytest.raises(OSError, match=said):
            read_private(tmp_path / name)
        with pytest.raises(OSError, match=said):
            open_private(tmp_path / name, os.O_RDWR | os.O_CREAT)
        with pytest.raises(OSError, match=said):
            FileLock(tmp_path / name).try_acquire()
        if name != "pipe":  # that may be replaced
            with pytest.raises(OSError, match=said):
                replace_private(tmp_path / name, b"")
    with pytest.raises(OSError, match="too large"):
        read_private(tmp_path / "file", most_bytes=4)
    assert read_private(tmp_path / "file", most_bytes=5) == b"12345"


# -- locks -------------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """Released, it is free; released twice, nothing happens."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not first.is_effective
    assert first.acquire()
    assert first.is_effective
    assert not second.acquire()
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """The system frees it."""
    program = (
        "import sys; from pathlib import Path; from mlmessages.files import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    lock = FileLock(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not lock.acquire()
        holder.kill()
        holder.wait()
    assert lock.acquire()
    lock.release()


def test_a_lock_file_that_is_deleted_locks_nothing(tmp_path: Path) -> None:
    """Its holder can see it, and who comes next locks a file that has the name."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    (tmp_path / "lock").unlink()
    assert not first.is_effective
    assert second.acquire()
    assert second.is_effective
    assert not first.is_effective
    first.release()
    second.release()


def test_a_lock_file_that_is_deleted_while_it_is_taken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking: the lock is taken on the file that has the name."""
    import fcntl

    flock = fcntl.flock

    def deleted_meanwhile(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / "lock").unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", deleted_meanwhile)
    lock = FileLock(tmp_path / "lock")
    assert lock.try_acquire()
    assert lock.is_effective
    assert not FileLock(tmp_path / "lock").try_acquire()
    lock.release()


@case("K34")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_lock_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Not as a lock that is held: EWOULDBLOCK and EACCES alone mean that."""
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with pytest.raises(OSError, match="cannot lock files .* use a local disk") as refused:
        FileLock(tmp_path / "lock").acquire()
    assert refused.value.errno == number
    for held in (errno.EWOULDBLOCK, errno.EACCES):
        monkeypatch.setattr(fcntl, "flock", refusing(held))
        assert not FileLock(tmp_path / "lock").acquire()


@case("O8")
def test_a_lock_file_of_mode_0_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version under umask 0777 left one; the superuser may open it anyway, so the refusal is made here."""
    path, real_open = tmp_path / "lock", os.open
    path.touch()
    path.chmod(0)

    def as_a_user(target: Any, flags: int, *rest: Any) -> int:
        if Path(target) == path and path.exists() and not flags & os.O_EXCL and not mode(path) & 0o600:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(target, flags, *rest)

    monkeypatch.setattr(os, "open", as_a_user)
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()
    assert mode(path) == 0o600


# -- Windows, simulated ------------------------------------------------------------------------------------------------


@case("K37")
def test_a_file_that_another_program_holds_is_replaced_some_seconds_later(
    tmp_path: Path, windows: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virus scanner holds it for two seconds: waited for. One that never lets go: an error after some five."""
    replace, path = os.replace, tmp_path / "tokens"

    def held(source: Any, target: Any) -> None:
        if sum(windows) < 2:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", held)
    replace_private(path, b"new")
    assert path.read_bytes() == b"new"
    monkeypatch.setattr(os, "replace", refusing(errno.EACCES))
    windows.clear()
    with pytest.raises(PermissionError):
        replace_private(path, b"newer")
    assert 4 < sum(windows) < 7
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


@case("K37")
def test_a_reader_that_meets_the_replacement_tries_again(
    tmp_path: Path, windows: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a file cannot be opened in the moment in which it is replaced."""
    real_open, path = os.open, tmp_path / "tokens"
    replace_private(path, b"1")

    def busy(*arguments: Any) -> int:
        if sum(windows) < 1:
            raise PermissionError(errno.EACCES, "Access is denied")
        return real_open(*arguments)

    monkeypatch.setattr(os, "open", busy)
    assert read_private(path) == b"1"


@case("O5")
def test_the_lock_of_a_process_that_was_just_killed_is_waited_for(
    tmp_path: Path, windows: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two seconds: there the system frees it a moment after the end."""
    frees_after = [1.0]

    def locking(fd: int, operation: int, length: int) -> None:
        if sum(windows) < frees_after[0]:
            raise PermissionError(errno.EACCES, "Permission denied")

    msvcrt: Any = ModuleType("msvcrt")
    msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()
    frees_after[0] = 60
    windows.clear()
    assert not lock.acquire()
    assert 1.5 < sum(windows) < 2.5
    with (tmp_path / "lines").open("wb") as file:
        assert not try_lock(file.fileno(), 1 << 40)
        assert file.tell() == 1 << 40


def test_a_symbolic_link_is_refused_without_o_nofollow(tmp_path: Path, windows: list[float]) -> None:
    """Windows has no such flag; `chmod` means nothing there and is not tried."""
    replace_private(tmp_path / "file", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic link") as refused:
        open_private(tmp_path / "link", os.O_RDONLY)
    assert "link" in reason(refused.value)
    (tmp_path / "file").chmod(0o666)
    assert read_private(tmp_path / "file") == b"1"
    sync_folder(tmp_path)

"""F11 where files have modes, links and pipes: what is not its owner's alone is refused."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from cases import case
from mlmessages import FileTokenStore, failpoints
from mlmessages.errors import AuthError
from needs import needs
from tokens.test_file import TOKEN, held, load, save

pytestmark = needs("modes", "symlinks")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@case("F11")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o377, 0o777], ids=oct)
def test_it_is_0600_under_any_umask(file: Path, umask: None, mask: int) -> None:
    """Wide or narrow: the file and its lock are for their owner, and can be read again."""
    save(file)
    file.unlink()
    os.umask(mask)
    save(file)
    asyncio.run(held(FileTokenStore(file)))
    assert {path.name: mode(path) for path in file.parent.iterdir()} == {
        "seller.json": 0o600,
        "seller.json.lock": 0o600,
    }
    assert load(file) == TOKEN


@case("F11")
@pytest.mark.parametrize("wide", [0o640, 0o604, 0o660, 0o666, 0o620, 0o610], ids=oct)
def test_a_file_that_others_may_use_is_refused(file: Path, wide: int) -> None:
    """`AuthError` that says what to do; after that it is read."""
    save(file)
    file.chmod(wide)
    with pytest.raises(AuthError, match=r"chmod 600 seller\.json"):
        load(file)
    file.chmod(0o600)
    assert load(file) == TOKEN


@case("F11")
def test_a_symbolic_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    """Neither read nor replaced, nor is its lock made through one: whoever made it chose the place."""
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


@case("K34")
def test_a_file_system_that_cannot_lock_is_told_as_that(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOLCK of `flock`: an `AuthError` at once, not a wait for a holder that does not exist."""

    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(AuthError, match=r"seller\.json\.lock cannot be used: its file system cannot lock"):
        asyncio.run(held(FileTokenStore(file)))


@case("F11")
def test_it_is_never_wider_not_even_for_a_moment(file: Path, umask: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file in the folder is 0600 at every step of the writing, under a umask that takes nothing away."""
    modes: list[set[int]] = []
    monkeypatch.setattr(failpoints, "hook", lambda _: modes.append({mode(path) for path in file.parent.iterdir()}))
    save(file)
    save(file)
    assert modes == [{0o600}] * 10


@case("F11")
def test_it_is_replaced_and_not_written_over(file: Path) -> None:
    """Whoever has opened it before reads the old tokens to their end: no moment has half of each."""
    save(file)
    before = file.read_bytes()
    with file.open("rb") as opened:
        save(file, attrs.evolve(TOKEN, user_id="2"))
        assert opened.read() == before
    assert not [path for path in file.parent.iterdir() if path.suffix == ".tmp"]


@case("F11")
def test_a_pipe_in_its_place_is_refused_at_once(file: Path) -> None:
    """Nothing writes to it: an error, and no waiting."""
    os.mkfifo(file, 0o600)
    with pytest.raises(AuthError, match="regular file"):
        load(file)

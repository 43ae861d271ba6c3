"""What can be seen on this machine: files, modes, file systems, the environment. Nothing is sent."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies_environment

import click

import mlmessages

from ...errors import AuthError, JournalError
from ..settings import TOKEN, TOKEN_FILE, Settings
from .check import Check, bad, good, look

if TYPE_CHECKING:
    from ...models import Token

# Of Linux's names. A lock or a write-ahead log is not safe on the first ones; the others keep no modes.
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})
_CORRECT_IT: Final = "correct it: see mlmessages doctor --help"
_HAS_MODES: Final = os.name == "posix"
_WITHOUT_MODES: Final = frozenset({"vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk", "vboxsf", "drvfs"})


def checks(settings: Settings, journal: Path | None) -> Iterator[Check]:
    """Yield what this machine shows."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield good("program", f"mlmessages {mlmessages.__version__}, {system}")
    yield _settings(settings)
    if settings.reads_token_file:
        assert settings.token_file is not None
        yield from _token_file(settings.token_file)
    elif os.environ.get(TOKEN):
        yield good("token source", f"from {TOKEN}")
    elif sys.stdin.isatty():
        yield good("token source", "typed in")
    if journal is not None:
        yield from _journal(journal, settings.seller_id)
    yield _proxy(settings)


def _settings(settings: Settings) -> Check:
    """Return whether the seller and the server can be so; a URL that cannot be shown is not: it may hold a password."""
    from ...api.arguments import check_base_url, check_id

    try:
        check_id("seller_id", settings.seller_id)
        shown = check_base_url(settings.base_url)
    except ValueError as error:
        return bad("settings", str(error), _CORRECT_IT)
    return good("settings", f"seller {settings.seller_id}, {settings.api}, {shown}")


def token_owner(settings: Settings) -> str | None:
    """Return the seller whom the token file names; None where there is none, or it does not say."""
    if not settings.reads_token_file or settings.token_file is None:
        return None
    try:
        token = _load(settings.token_file)
    except (AuthError, OSError, ValueError):
        return None
    return token.user_id if token is not None else None


def _load(file: Path) -> Token | None:
    """Return the tokens in `file`; None where it is a text file with an access token."""
    import asyncio

    from ...auth.store import FileTokenStore

    if not file.read_bytes().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return None
    return asyncio.run(FileTokenStore(file).load())


def _token_file(file: Path) -> Iterator[Check]:
    name = "token file"
    try:
        mode = file.stat().st_mode
        token = _load(file)
    except FileNotFoundError:
        yield bad(name, f"{click.format_filename(file)} does not exist", f"mlmessages auth url, or set {TOKEN_FILE}")
        return
    except OSError as error:
        yield bad(name, f"it cannot be read: {error.strerror}", f"look at {click.format_filename(file)}")
        return
    except AuthError as error:
        yield bad(name, str(error), error.hint or "mlmessages auth url")
        return
    yield _access(name, file, mode)
    if token is None:
        yield look(
            "token life", "an access token alone: it ends after some hours", "mlmessages auth url, for one that renews"
        )
    else:
        yield _lifetime(token)


def _lifetime(token: Token) -> Check:
    from ...auth.grants import NOTICE, end_of_refresh

    now, end = datetime.now(UTC), end_of_refresh(token)
    hours = (token.expires_at - now).total_seconds() / 3600
    access = f"the access token is good for {hours:.1f} h" if hours > 0 else "the access token has expired"
    if token.refresh_token is None:
        return bad("token life", f"{access}, and there is none to renew it", "mlmessages auth url, with offline_access")
    if end <= now:
        return bad("token life", f"the refresh token ended on {end:%Y-%m-%d}", "mlmessages auth url")
    if token.refresh_sent_at is not None:
        return look("token life", f"{access}; the answer to a refresh was never kept", "mlmessages auth refresh")
    if end - now < NOTICE:
        return look("token life", f"{access}; the refresh token ends on {end:%Y-%m-%d}", "mlmessages auth url")
    return good("token life", f"{access}; it renews itself until {end:%Y-%m-%d} at the latest")


def _access(name: str, file: Path, mode: int) -> Check:
    """Return who may read a file with secrets, and where it is."""
    kind = file_system(file)
    where = f" on {kind}" if kind else ""
    if not _HAS_MODES:
        return look(name, "Windows has no mode 0600: the folder's access list decides", "keep it in your user's folder")
    if kind in _WITHOUT_MODES:
        return look(name, f"its file system, {kind}, keeps no modes", "put it on a file system that does")
    if mode & 0o077:
        return bad(
            name,
            f"mode {stat.S_IMODE(mode):04o}{where}: others may read it",
            f"chmod 600 {click.format_filename(file)}",
        )
    return good(name, f"mode {stat.S_IMODE(mode):04o}{where}")


def _journal(file: Path, seller_id: str) -> Iterator[Check]:
    from ...journal.sqlite import contents

    name = "journal"
    folder = file.parent
    if not folder.is_dir():
        yield bad(name, f"the folder {click.format_filename(folder)} does not exist", "make it, or name another one")
        return
    kind = file_system(folder)
    if kind in _NETWORK:
        yield bad(name, f"its file system is {kind}, where a lock may not hold", "put it on a local disk")
        return
    if not os.access(folder, os.W_OK):
        yield bad(name, f"the folder {click.format_filename(folder)} cannot be written to", "change its rights")
        return
    if not file.exists():
        yield good(name, f"there is none yet{f', on {kind}' if kind else ''}: the first drain makes it")
        return
    yield _access(name, file, file.stat().st_mode)
    try:
        found = contents(file)
    except JournalError as error:
        yield bad("journal's content", str(error), "name another file, or restore a copy of it")
        return
    if found.seller_id != seller_id:
        says = f"it is of seller {found.seller_id}, not of {seller_id}"
        yield bad("journal's content", says, "name another file: each seller has one")
        return
    parked = sum(row.state == "parked" for row in found.rows)
    if parked or found.dead:
        says = f"{parked:,} parked, {len(found.dead):,} with dead letters"
        yield look("journal's content", says, f"mlmessages journal {click.format_filename(file)}")
    else:
        yield good("journal's content", f"{found.done:,} done, {len(found.rows):,} not yet")


def _proxy(settings: Settings) -> Check:
    from ...api.arguments import check_proxy_url

    if settings.proxy is not None:
        try:
            check_proxy_url(settings.proxy)
        except ValueError as error:
            return bad("proxy", str(error), _CORRECT_IT)
        return good("proxy", "requests go through the one that --proxy names")
    named = getproxies_environment()
    if "https" in named or "all" in named:
        return look("proxy", "the environment names one, and it is not used", "--proxy environment, if it is needed")
    return good("proxy", "none")


def file_system(path: Path) -> str | None:
    """Return the kind of file system that `path` is on, as Linux calls it; None elsewhere."""
    if sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    best, kind = -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind

"""The weakened variants of the protocol, as changes of the real library in a process of its own.

Each replaces public methods of the reader or the journal, and is what a programmer might write without the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmessages.conversations.reader import ConversationRead, Reader
from mlmessages.errors import AnswerLost
from mlmessages.journal.journal import Journal
from mlmessages.journal.store import Stored


def install(name: str | None, journal: Path) -> None:
    """Weaken the library; None leaves it as it is."""
    if name is not None:
        _MUTANTS[name](journal)


def _no_journal(journal: Path) -> None:
    """What one process wrote down, the next one does not have."""
    for file in journal.parent.glob(f"{journal.name}*"):
        file.unlink()


def _peek_then_mark(_: Path) -> None:
    """Read without marking, then mark, and do not look at the answer."""
    walk = Reader.walk

    async def mutant(self: Reader, read: ConversationRead, pack_id: str, limit: int, **options: Any) -> None:
        await walk(self, read, pack_id, limit, **{**options, "mark": False})
        await self.page(
            pack_id, limit, mark=True, count=options.get("count"), before_marking=options.get("before_marking")
        )

    Reader.walk = mutant  # type: ignore[method-assign]


def _new_by_read(_: Path) -> None:
    """What shows as read is not new."""
    walk = Reader.walk

    async def mutant(self: Reader, read: ConversationRead, *args: Any, **options: Any) -> None:
        await walk(self, read, *args, **options)
        read.messages = [row for row in read.messages if row.read is None]

    Reader.walk = mutant  # type: ignore[method-assign]


def _immediate_retry(_: Path) -> None:
    """What timed out is sent again at once."""
    walk = Reader.walk

    async def mutant(self: Reader, read: ConversationRead, *args: Any, **options: Any) -> None:
        try:
            await walk(self, read, *args, **options)
        except AnswerLost:
            await walk(self, read, *args, **options)

    Reader.walk = mutant  # type: ignore[method-assign]


def _every_page_marks(_: Path) -> None:
    """Every page is asked for as the first one is."""
    page = Reader.page

    async def mutant(self: Reader, *args: Any, **options: Any) -> Any:
        return await page(self, *args, **{**options, "mark": True})

    Reader.page = mutant  # type: ignore[method-assign]


def _done_before_the_ids(_: Path) -> None:
    """Two transactions where there has to be one."""
    read = Journal.read

    async def mutant(self: Journal, pack_id: str, entries: Any, status: bytes | None, **options: Any) -> Stored:
        await read(self, pack_id, [], status, **options)
        return await read(self, pack_id, entries, status, **options)

    Journal.read = mutant  # type: ignore[method-assign]


def _no_claim(_: Path) -> None:
    """No claim is written, and no lock is held."""
    import fcntl

    fcntl.flock = lambda *_: None  # type: ignore[assignment]

    async def claim(self: Journal, pack_id: str) -> None:
        pass

    Journal.claim = claim  # type: ignore[method-assign]


def _dead_claims_are_free(_: Path) -> None:
    """After a crash the pack is read again at once."""
    reopen_claims = Journal.reopen_claims

    async def mutant(self: Journal, settle_time: float) -> int:
        return await reopen_claims(self, 0.0)

    Journal.reopen_claims = mutant  # type: ignore[method-assign]


def _no_second_read(_: Path) -> None:
    """The re-read of an unreadable answer is taken for all there is."""
    read = Journal.read

    async def mutant(self: Journal, *args: Any, **options: Any) -> Stored:
        return await read(self, *args, **{**options, "again": None})

    Journal.read = mutant  # type: ignore[method-assign]


_MUTANTS: dict[str, Callable[[Path], None]] = {
    "no journal": _no_journal,
    "peek then mark, answer dropped": _peek_then_mark,
    "newness by `read`": _new_by_read,
    "immediate retry after a timeout": _immediate_retry,
    "marking every page": _every_page_marks,
    "DONE before the ids": _done_before_the_ids,
    "two workers without a claim": _no_claim,
    "a dead claim is free": _dead_claims_are_free,
    "done with a re-read that may be behind": _no_second_read,
    "acknowledged before it is handled": lambda _: None,  # the consumer's: see `program.Consumer`
}
NAMES = tuple(_MUTANTS)

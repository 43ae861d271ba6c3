"""``mlmessages fetch``: many conversations into a file of JSON lines, resumable."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Container
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ...errors import AnswerLost, AuthError, MessagesError, NotSent, RateLimited, ServerError, Unauthorized
from .. import json_lines, options, pack_ids
from ..interruptible import run
from ..line_file import LineFile
from ..settings import Settings, patience
from ..terminal import MOST_NAMED, counted, named_failures, note, stderr

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...models import Conversation, PackFailure
    from ..progress import Frame

_PAGE: Final = 50  # messages asked for in a page
_EVERY: Final = 10.0
_HOPELESS: Final = 20  # packs in a row that a broken server or network failed
# The beginning of a line: all that resuming looks at, so that 40,000 conversations take a second.
_CONVERSATION: Final = re.compile(rb'\{"pack_id": ?"(?P<pack>[0-9]{1,20})", ?"status":')
_MESSAGE: Final = re.compile(rb'\{"pack_id": ?"(?P<pack>[0-9]{1,20})", ?"last": ?(?P<last>true|false),')


@click.command(short_help="Write many conversations into a file of JSON lines; goes on where it was killed.")
@click.option(
    "--packs",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    metavar="FILE",
    help="The ids of the packs, one a line; # begins a comment; - is standard input.",
)
@click.option(
    "--out",
    type=options.FILE,
    required=True,
    metavar="FILE.jsonl",
    help="Where the conversations go; what is in it already is not asked for again.",
)
@click.option("--messages", is_flag=True, help="A line for each message instead of one for each conversation.")
@click.option(
    "--failed",
    type=options.FILE,
    metavar="FILE.jsonl",
    help="Where the packs that failed in this run go, and why; it is written anew.",
)
@click.option("--mark-as-read", is_flag=True, help="Mark what is read; for unread conversations, `drain` is made.")
@options.concurrency(8, "How many conversations are read at a time.")
@json_lines.schema_option("fetch")
@options.with_settings
def fetch(
    settings: Settings,
    *,
    packs: Path,
    out: Path,
    messages: bool,
    failed: Path | None,
    mark_as_read: bool,
    concurrency: int,
) -> None:
    """Read the conversations whose ids are in a file; they stay unread, unless you say --mark-as-read.

    \b
    A line is an object:
      pack_id    the conversation
      status     whether the seller can write
      seller_id  the seller
      messages   oldest first: unread (is it new?), raw (as the server sent it)
    With --messages:
      pack_id    the conversation
      last       true in its last line
      seller_id  the seller
      unread     is it new?
      raw        as the server sent it; null if the conversation is empty

    However a run ends, run the same command again: it goes on, and tries those that failed again. The files are
    readable by you alone.
    """
    if "-" in (str(out), str(failed)):
        raise click.UsageError("--out and --failed must be files, not -: what is in them is not asked for again")
    _check_different({"--packs": packs, "--out": out, "--failed": failed})
    wanted = None if str(packs) == "-" else pack_ids.in_file(packs)
    with ExitStack() as stack:
        file = stack.enter_context(LineFile(out, "last" if messages else "status"))
        failures = stack.enter_context(LineFile(failed, "error")) if failed is not None else None
        done = _resume(file, by_message=messages)
        fetching = _Fetching(file, failures, settings.seller_id, by_message=messages)
        source: list[str] | AsyncIterator[str]
        if wanted is None:
            source = fetching.not_in(done)
        else:
            source = [pack_id for pack_id in wanted if pack_id not in done]
            fetching.total, fetching.before = len(wanted), len(wanted) - len(source)
            done.clear()
        client = settings.client(fetching.limits, patience()) if source else None
        if failures is not None:
            failures.cut(0)
        try:
            if client is not None:
                run(fetching.run(client, source, concurrency, mark=mark_as_read))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{fetching.summary()} Run the same command again to go on.") from None
        except (MessagesError, click.UsageError):
            note(f"{fetching.summary()} Run the same command again to go on.")
            raise
    note(fetching.summary())
    if fetching.failures:
        fetching.name_failures()
        raise click.exceptions.Exit(3)


def _check_different(files: dict[str, Path | None]) -> None:
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is not None and str(path) != "-" and (other := seen.setdefault(path.resolve(), option)) != option:
            raise click.UsageError(f"{other} and {option} must be two files")


def _resume(file: LineFile, *, by_message: bool) -> set[str]:
    """Return the packs that are in the file as a whole, and cut off what is in it of another one.

    The lines of a conversation are written together, so only the last one can be in parts.
    """
    pattern = _MESSAGE if by_message else _CONVERSATION
    done: set[str] = set()
    end = whole = 0
    for number, line in enumerate(file.lines(), 1):
        if not line.endswith(b"\n"):
            break
        found = pattern.match(line)
        if found is None:
            raise click.UsageError(f"line {number:,} of {file.name} was not written by this command: name another file")
        end += len(line)
        if not by_message or found["last"] == b"true":
            done.add(found["pack"].decode())
            whole = end
    if whole < file.size:
        file.cut(whole)
    return done


class _Fetching:
    """Bulk reading into a file, and how far it is.

    `total`: how many ids there are; None while they still come. `before`: how many of them earlier runs have done.
    """

    def __init__(self, file: LineFile, failed: LineFile | None, seller_id: str, *, by_message: bool) -> None:
        from ...http.limits import Limits

        self.limits: Final = Limits()
        self.total: int | None = None
        self.before = 0
        self.failures = 0
        self._file = file
        self._failed = failed
        self._seller_id = seller_id
        self._by_message = by_message
        self._conversations = self._messages = self._pages = 0
        self._in_a_row = 0
        self._named: list[tuple[str, str]] = []
        self._began = 0.0

    async def not_in(self, done: Container[str]) -> AsyncIterator[str]:
        """Yield the ids on standard input but for those that are done."""
        async for pack_id in pack_ids.on_stdin():
            if pack_id not in done:
                yield pack_id

    async def run(
        self, client: MessagesClient, source: list[str] | AsyncIterator[str], concurrency: int, *, mark: bool
    ) -> None:
        """Read all of `source`.

        Raises what is not the fault of one pack: a token or a network that does not work, a server that is broken.
        """
        from ...models import PackFailure
        from ..progress import shown

        self._began = time.monotonic()
        try:
            async with client:
                fetched = client.fetch(source, concurrency=concurrency, limit=_PAGE, mark_as_read=mark)
                async with shown(stderr(), self._finished, self._frame, every=_EVERY), aclosing(fetched):
                    async for item in fetched:
                        if isinstance(item, PackFailure):
                            self._fail(item)
                        else:
                            self._keep(item)
        finally:
            self._file.sync()

    def _keep(self, conversation: Conversation) -> None:
        lines_of = json_lines.by_message if self._by_message else json_lines.conversation
        lines = lines_of(conversation, self._seller_id)
        self._file.append(b"".join(map(json_lines.line, lines)))  # at once: a kill leaves parts of one alone
        messages = len(conversation.messages)
        self._conversations += 1
        self._messages += messages
        self._pages += max(1, -(-messages // _PAGE))
        self._in_a_row = 0

    def _fail(self, failure: PackFailure) -> None:
        error = failure.error
        if isinstance(error, (AuthError, NotSent, RateLimited, Unauthorized)):
            raise error
        if isinstance(error, (AnswerLost, ServerError)):
            self._in_a_row += 1
            if self._in_a_row >= _HOPELESS:
                raise error
        self.failures += 1
        if self._failed is None:
            if len(self._named) < MOST_NAMED:
                self._named.append((failure.pack_id, str(error)))
            return
        self._failed.append(json_lines.line(json_lines.failure(failure, self._seller_id)))

    def _finished(self) -> int:
        return self._conversations + self.failures

    def _frame(self, rate: float) -> Frame:
        from ...report.wording import ENGLISH
        from ..progress import Frame, budget

        done = self.before + self._finished()
        figures = [counted(self._messages, "message"), f"{rate:,.0f} a second", budget(self.limits)]
        if self.failures:
            figures.append(f"{self.failures:,} failed")
        if self.total is None:
            return Frame(counted(done, "conversation"), None, tuple(figures))
        if (left := self._time_left()) is not None:
            figures.append(f"about {ENGLISH.duration(left)} left")
        label = f"{done:,} of {counted(self.total, 'conversation')}"
        return Frame(label, done / self.total if self.total else 1.0, tuple(figures))

    def _time_left(self) -> float | None:
        """Return the seconds left at the rate so far, or at the budget's where that is slower."""
        finished, elapsed = self._finished(), time.monotonic() - self._began
        left = (self.total or 0) - self.before - finished
        if not left or not finished or elapsed < 0.4:
            return None
        limits = self.limits
        requests = left * max(self._pages / finished, 1.0) - (limits.reads - limits.used)
        return max(elapsed / finished * left, requests * limits.period / limits.reads)

    def summary(self) -> str:
        """Return how far it is, in a sentence."""
        done = f"{self.before + self._conversations:,}"
        of = counted(self.total, "conversation") if self.total is not None else ""
        what = f"{done} of {of}" if of else counted(self._conversations, "conversation")
        said = f"{what} in {self._file.name}"
        if self.before:
            said += f", {self.before:,} of them from before"
        return said + (f"; {self.failures:,} failed." if self.failures else ".")

    def name_failures(self) -> None:
        """Say which packs failed, or where that stands."""
        if self._failed is not None:
            note(f"Failed: see {self._failed.name}; the next run tries them again.")
        else:
            named_failures("Failed", self._named, self.failures, "--failed FILE.jsonl")

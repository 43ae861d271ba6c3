"""``mlmessages drain``: every unread conversation into a file of JSON lines, wherever it is killed."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ...api.outcomes import SETTLE_TIME
from ...errors import MessagesError
from .. import json_lines, options
from ..interruptible import run
from ..line_file import LineFile
from ..settings import Settings, check_folder, patience
from ..terminal import counted, named_failures, note, stderr

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...http.limits import Limits
    from ...inbox.drain import Delivery
    from ...inbox.inbox import Inbox
    from ...models import InboxReport
    from ..progress import Frame

_GRACE: Final = 8.0  # seconds; an inbox gives requests that have left 5 of them, which saves the wait at the next start
_EVERY: Final = 10.0
_GO_ON: Final = "Nothing is lost: keep the journal, and run the same command again to go on."


@click.command(short_help="Write every unread conversation into a file of JSON lines, losing none.")
@options.journal
@click.option(
    "--out", type=options.FILE, required=True, metavar="FILE.jsonl", help="Where the conversations go; lines are added."
)
@options.concurrency(8, "How many conversations are read ahead at most.")
@options.seconds(
    "--settle-time",
    SETTLE_TIME,
    "Seconds after which a request whose answer was lost can no longer be executed.",
    least=0,
)
@json_lines.schema_option("drain")
@options.with_settings
def drain(settings: Settings, *, journal: Path, out: Path, concurrency: int, settle_time: float) -> None:
    """Read every unread conversation, past the cap of the unread list; each is marked as read and becomes one line.

    \b
    A line is an object:
      pack_id      the conversation
      redelivered  true if a run that was killed may have written it before
      seller_id    the seller
      status       whether one can write
      messages     oldest first: unread (is it new?), raw (as the server sent it)

    However a run ends, nothing is lost: run the same command again and it goes on. Both files are readable by you
    alone. Do not delete the journal, also not while it waits: it knows what was marked and is not in the file yet.

    A pack that the server refuses, or fails at, again and again is parked: left for a later run, and named at the end.
    """
    if str(out) == "-":
        raise click.UsageError("--out must be a file, not -: a line is on the disk before it is acknowledged")
    check_folder("--journal", journal)
    if journal.resolve() == out.resolve():
        raise click.UsageError("--journal and --out must be two files")
    with LineFile(out, "redelivered") as file:
        file.cut_torn_line()
        draining = _Draining(file)
        client = settings.client(draining.limits, patience())
        inbox = draining.inbox(client, journal, concurrency=concurrency, settle_time=settle_time)
        try:
            run(draining.run(client, inbox), _GRACE)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{draining.summary()} {_GO_ON}") from None
        except (MessagesError, click.ClickException):
            if draining.began:
                draining.name_parked(journal)
                note(f"{draining.summary()} {_GO_ON}")
            raise
    draining.name_parked(journal)
    note(draining.summary())
    if draining.report.parked:
        raise click.exceptions.Exit(3)
    note("Nothing is left unread.")


class _Draining:
    """A drain into a file, and how far it is."""

    def __init__(self, file: LineFile) -> None:
        from ...http.limits import Limits
        from ...models import InboxReport

        self.limits: Final = Limits()
        self.report = InboxReport()
        self.began = False  # the journal is open
        self._file = file
        self._conversations = self._messages = self._again = 0

    def inbox(self, client: MessagesClient, journal: Path, *, concurrency: int, settle_time: float) -> Inbox:
        """Return an inbox, not entered yet."""
        from ...inbox.inbox import Inbox

        try:
            return Inbox(client, journal, concurrency=concurrency, settle_time=settle_time)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    async def run(self, client: MessagesClient, inbox: Inbox) -> None:
        """Write every delivery of a drain."""
        from ..progress import shown

        def frame(rate: float) -> Frame:
            return _frame(inbox.report, self.limits, rate)

        async with client, inbox:
            self.began = True
            self._file.sync_name()
            progress = shown(stderr(), lambda: inbox.report.requests, frame, every=_EVERY)
            try:
                async with progress, inbox.drain() as deliveries:
                    async for delivery in deliveries:
                        await self._keep(delivery)
            finally:
                self.report = inbox.report

    async def _keep(self, delivery: Delivery) -> None:
        """Write a line; it is on the disk before it is acknowledged."""
        self._file.append(json_lines.line(json_lines.delivery(delivery)))
        self._file.sync()  # not in a thread: a Ctrl-C could not wait for that one
        self._conversations += 1
        self._messages += len(delivery.messages)
        self._again += delivery.redelivered
        await delivery.ack()

    def summary(self) -> str:
        """Return what this run has written, in a sentence."""
        written = f"{counted(self._conversations, 'conversation')}, {counted(self._messages, 'message')}"
        again = f" ({self._again:,} of them perhaps for the second time)" if self._again else ""
        return f"{written} written to {self._file.name}{again}."

    def name_parked(self, journal: Path) -> None:
        """Say which packs are parked, and why."""
        parked = self.report.parked
        others = f"`mlmessages journal {click.format_filename(journal)}`"
        named_failures("Parked", [(row.pack_id, str(row.error)) for row in parked], len(parked), others)


def _frame(report: InboxReport, limits: Limits, rate: float) -> Frame:
    from ...report.wording import ENGLISH
    from ..progress import Frame, budget

    figures = [
        counted(report.messages, "message"),
        counted(report.listings, "listing"),
        f"{counted(report.requests, 'request')}, {rate:,.0f} a second",
        budget(limits),
        f"{report.owed:,} owed",
    ]
    notice = ""
    if report.waiting and report.waits_until is not None:
        left = ENGLISH.duration(max(math.ceil((report.waits_until - datetime.now(UTC)).total_seconds()), 0))
        figures.append(f"{report.waiting:,} waiting, {left} at most")
        if report.waiting >= report.owed:
            waiting = f"Waiting {left} at most for {counted(report.waiting, 'conversation')}"
            notice = f"{waiting}: an earlier request may still arrive at the server. Keep the journal: it knows them."
    if report.parked:
        figures.append(f"{len(report.parked):,} parked")
    return Frame(counted(report.conversations, "conversation"), None, tuple(figures), notice)

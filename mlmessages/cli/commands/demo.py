"""``mlmessages demo``: the main job with nothing to configure, checked against the sandbox's own records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Final

import attrs
import click

from ...installing import how_to_install
from ..database import with_database
from ..interruptible import run
from ..terminal import counted, stderr, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from ...models import DrainReport
    from ...testing import Marketplace, Sandbox
    from ..progress import Frame

_FASTER: Final = 100
_BUDGET: Final = 500  # requests a minute, as the documentation has it
_PERIOD: Final = 60 / _FASTER
_MESSAGES: Final = 3  # in a conversation: the buyer's, the seller's, the buyer's again


@attrs.define
class Delivered:
    """The ids of what the drain handed over, and its report."""

    packs: set[str] = attrs.field(factory=set)
    messages: set[str] = attrs.field(factory=set)
    report: DrainReport | None = None
    seconds: float = 0.0


@attrs.frozen
class Finding:
    """One thing that the demo proves: whether it is so, and the figures."""

    what: str
    ok: bool
    figures: str


@click.command(short_help="See the main job done: no account, no network, seconds.")
@click.option(
    "--packs",
    type=click.IntRange(1, 1_000_000),
    default=2500,
    show_default=True,
    metavar="N",
    help="How many unread conversations there are.",
)
@click.option(
    "--fleet",
    is_flag=True,
    help="Many sellers on many machines: three workers on PostgreSQL, one is killed (extra `demo`).",
)
@with_database
def demo(*, packs: int, fleet: bool, database: str | None) -> None:
    """Drain thousands of unread conversations, past the cap of the unread list, and check that none was lost.

    It starts the sandbox, a server on this machine that behaves like the real one: no account, no network. With
    --fleet the conversations are those of sixty sellers; without --database PostgreSQL is started too, in a temporary
    folder.
    """
    if fleet:
        _fleet(packs, database)
        return
    from ...testing import Behaviour, RateWindow, Sandbox

    window = RateWindow(reads=_BUDGET, writes=_BUDGET, period=_PERIOD, kind="sliding")
    sandbox = Sandbox(packs=packs, messages=_MESSAGES, behaviour=Behaviour(rate=window))
    delivered = Delivered()
    try:
        run(_drain(sandbox, packs, delivered))
    except KeyboardInterrupt:
        far = f"{len(delivered.packs):,} of {counted(packs, 'conversation')} were delivered"
        raise KeyboardInterrupt(f"{far}; the others are still unread.") from None
    findings = list(check(sandbox, delivered.packs, delivered.messages))
    _conclude(findings, _costs(sandbox, delivered))


def _fleet(packs: int, database: str | None) -> None:
    try:
        from .. import fleet_demo
        from ..local_postgres import NoServer

        for module in ("psycopg", "cryptography"):
            import_module(module)
    except ImportError:
        raise click.UsageError(
            f"PostgreSQL's client is missing; install it with: {how_to_install('mlmessages[demo]')}"
        ) from None
    from ...testing import Behaviour, Marketplace, RateWindow

    window = RateWindow(reads=fleet_demo.READS, writes=fleet_demo.READS, period=fleet_demo.PERIOD, kind="sliding")
    each = max(packs // fleet_demo.SELLERS, 1)
    marketplace = Marketplace(
        sellers=fleet_demo.SELLERS, packs=each, messages=_MESSAGES, behaviour=Behaviour(rate=window)
    )
    try:
        show = run(fleet_demo.run_show(marketplace, database))
    except NoServer as error:
        raise click.UsageError(f"{error}; install one with: {how_to_install('mlmessages[demo]')}") from None
    findings = list(check(marketplace, show.packs, show.messages))
    _conclude(findings, fleet_demo.figures(show, marketplace))


def _conclude(findings: list[Finding], costs: Iterator[tuple[str, str]]) -> None:
    _print_summary(stdout(), findings, costs)
    if not all(finding.ok for finding in findings):
        raise click.ClickException("the sandbox's records disagree with what was delivered: please report this.")


async def _drain(sandbox: Sandbox, packs: int, delivered: Delivered) -> None:
    """Drain, as a user of the library writes it, with a progress bar around it."""
    from ...client import MessagesClient
    from ...http.limits import Limits
    from ..progress import shown

    def frame(rate: float) -> Frame:
        return _frame(drain.report, packs, rate)

    console = stderr()
    limits = Limits(reads=_BUDGET, writes=_BUDGET, period=_PERIOD, per_second=None)
    async with (
        sandbox.serve() as server,
        MessagesClient(server.token, seller_id=server.seller_id, base_url=server.base_url, limits=limits) as client,
        client.drain() as drain,
    ):
        _introduce(console, server.base_url, packs, cap=sandbox.behaviour.cap)
        started = time.monotonic()
        try:
            async with shown(console, lambda: drain.report.requests, frame):
                async for conversation in drain:
                    delivered.packs.add(conversation.pack_id)
                    delivered.messages.update(message.id for message in conversation.messages)
        finally:
            delivered.report, delivered.seconds = drain.report, time.monotonic() - started


def _frame(report: DrainReport, packs: int, rate: float) -> Frame:
    from ..progress import Frame

    figures = [
        counted(report.messages, "message"),
        counted(report.listings, "listing"),
        counted(report.requests, "request"),
        f"{rate:,.0f} a second",
    ]
    if report.waiting:
        figures.append(f"{report.waiting:,} waiting")
    if report.set_aside:
        figures.append(f"{len(report.set_aside):,} set aside")
    done = f"{report.conversations:,} of {counted(packs, 'conversation')}"
    return Frame(done, report.conversations / packs, tuple(figures))


def _introduce(console: Console, base_url: str, packs: int, cap: int | None) -> None:
    from rich.text import Text

    shows = f", {cap:,} a listing" if cap and packs > cap else ""
    pace = f"{_BUDGET} requests in {_PERIOD:g} s instead of in a minute"
    console.print(Text("Reading every unread conversation, past the cap, losing none.", "bold"))
    console.print(Text(f"Sandbox at {base_url}: {counted(packs, 'unread conversation')}{shows}."))
    console.print(Text(f"Time runs {_FASTER} times faster: {pace}."))
    console.print()


def check(sandbox: Sandbox | Marketplace, packs: set[str], messages: set[str]) -> Iterator[Finding]:
    """Compare the ids that were delivered with the sandbox's own records."""
    all_packs, all_messages = set(sandbox.pack_ids()), sandbox.message_ids()
    yield Finding(
        "delivered",
        packs == all_packs and messages == all_messages,
        f"{len(packs & all_packs):,} of {counted(len(all_packs), 'conversation')},"
        f" {len(messages & all_messages):,} of {counted(len(all_messages), 'message')}",
    )
    unread = sandbox.unread
    yield Finding("left unread", not unread, counted(unread, "conversation") if unread else "none")
    unseen = len(sandbox.marked_ids() - messages)
    yield Finding("marked unseen", not unseen, counted(unseen, "message") if unseen else "none")


def _print_summary(console: Console, findings: list[Finding], costs: Iterator[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark = Text("✓", "bold green") if finding.ok else Text("✗", "bold red")
        table.add_row(mark, Text(finding.what, "bold"), Text(finding.figures, "" if finding.ok else "red"))
    for what, figures in costs:
        table.add_row("", Text(what, "dim"), Text(figures, "dim"))
    console.print()
    console.print(table)
    console.print()
    if all(finding.ok for finding in findings):
        verdict = "Nothing left, nothing lost: checked against the sandbox's own records."
        console.print(Text(verdict, "green"))


def _costs(sandbox: Sandbox, delivered: Delivered) -> Iterator[tuple[str, str]]:
    """Yield what it took, as the server counted it."""
    requests = len(sandbox.log)
    kinds = ", ".join(
        (
            counted(sandbox.count("listing"), "listing"),
            counted(sandbox.count("peek"), "read"),
            counted(sandbox.count("mark"), "mark"),
        )
    )
    refused = f"{sandbox.throttled:,} of them 429" if sandbox.throttled else "no 429"
    yield "requests", f"{requests:,}: {kinds}; {refused}"
    minutes = (requests - 1) // _BUDGET
    really = f"about {counted(minutes, 'minute')}" if minutes else "within a minute"
    yield "time", f"{delivered.seconds:.1f} s; at the real pace, {really}"

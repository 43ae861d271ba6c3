"""``mlmessages doctor``: is everything set up, and what does the API do that is not documented?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

import mlmessages

from .. import json_lines, options
from ..interruptible import run
from ..settings import Settings
from ..terminal import counted, note, stdout

if TYPE_CHECKING:
    from ...api.endpoints import Endpoints
    from ...auth.source import TokenSource
    from ..doctor.asker import Asker
    from ..doctor.check import Check
    from ..doctor.probe import Findings


@click.command(short_help="Check the settings, the token and what the API answers; it marks nothing.")
@click.option("--journal", type=options.FILE, metavar="FILE", help="Look at this journal too.")
@click.option(
    "--probe",
    "pack",
    metavar="PACK",
    help="Find out on this conversation what is not documented. It is MARKED AS READ.",
)
@click.option("--yes", is_flag=True, help="Do not ask before --probe.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.with_settings
def doctor(settings: Settings, *, journal: Path | None, pack: str | None, yes: bool, as_json: bool) -> None:
    """Check the settings, files, clock, token, paths and ids, and say what to do about each.

    At most ten requests, which mark nothing. Exit code 1 if something is bad.

    With --probe it goes on, with some twenty requests more and a minute of waiting at most: what a marking request
    marks, the largest page, the order of a page, and so on. It prints a block without ids, names or texts: please put
    it into an issue. Take a conversation that may be marked as read, best with several unread messages.
    """
    from ..doctor import local

    checked = _checked_pack(pack) if pack is not None else None
    if checked is not None and not yes and not _agreed():
        note("Nothing was sent.")
        return
    looking = _Looking(settings, list(local.checks(settings, journal)))
    source = looking.source()
    if source is not None:
        run(looking.run(source, local.token_owner(settings), checked))
    checks, findings, requests = looking.checks, looking.findings, looking.requests
    if as_json:
        json_lines.write(
            {
                "checks": [check.as_json() for check in checks],
                "requests": requests,
                "probe": attrs.asdict(findings) if findings else None,
            }
        )
    else:
        _print(checks)
        if findings:
            _print_block(settings, findings)
    note(f"{counted(requests, 'request')} sent; {'the conversation is marked' if findings else 'nothing was marked'}.")
    if any(check.verdict.value == "bad" for check in checks):
        raise click.exceptions.Exit(1)


def _checked_pack(pack: str) -> str:
    from ...api.arguments import check_id

    try:
        return check_id("PACK", pack)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("--probe marks the conversation as read: add --yes")
    return click.confirm("The conversation will be marked as read, which cannot be undone. Go on?", err=True)


class _Looking:
    """A visit: what was found so far, and how many requests it took."""

    def __init__(self, settings: Settings, checks: list[Check]) -> None:
        self.checks = checks
        self.findings: Findings | None = None
        self.requests = 0
        self._settings = settings

    def source(self) -> TokenSource | None:
        """Return where the token comes from; None, with a check that says why, where nothing can be sent."""
        from ..doctor.check import bad

        if self._is_bad("settings", "proxy"):
            return None
        try:
            return self._settings.source()
        except (ValueError, click.UsageError) as error:
            if not self._is_bad("token file"):  # else it is said already
                said = error.message if isinstance(error, click.UsageError) else str(error)
                self.checks.append(bad("token", said, "mlmessages auth --help"))
        return None

    def _is_bad(self, *names: str) -> bool:
        from ..doctor.check import Verdict

        return any(check.name in names and check.verdict is Verdict.BAD for check in self.checks)

    async def run(self, source: TokenSource, owner: str | None, pack: str | None) -> None:
        from ...api.endpoints import Endpoints, routes
        from ..doctor import remote
        from ..doctor.asker import asking

        settings = self._settings
        async with asking(settings, source) as asker:
            self.checks.extend([check async for check in remote.checks(settings, asker, owner)])
            if pack is not None:
                await self._probe(asker, Endpoints(routes(settings.api), settings.seller_id), pack)
            self.requests = asker.requests

    async def _probe(self, asker: Asker, endpoints: Endpoints, pack: str) -> None:
        from ..doctor.check import bad, without_hint
        from ..doctor.probe import Prober, Refused

        prober = Prober(asker, endpoints, pack, self._settings.seller_id)
        try:
            await prober.run()
        except Refused as refused:
            hint = refused.error.hint or "name a conversation that `mlmessages unread` lists"
            self.checks.append(bad("probe", without_hint(refused.error), hint))
        else:
            self.findings = prober.findings


def _print(checks: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ...escaping import one_line

    styles = {"good": "green", "look": "yellow", "bad": "bold red", "unknown": "dim"}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("next step", overflow="fold")
    for check in checks:
        verdict = Text(check.verdict.value, styles[check.verdict.value])
        table.add_row(check.name, verdict, Text(one_line(check.found)), Text(one_line(check.next_step)))
    stdout().print(table)


def _print_block(settings: Settings, findings: Findings) -> None:
    """Print what can be pasted into an issue."""
    click.echo()
    click.echo("```")
    click.echo(f"mlmessages doctor --probe · {mlmessages.__version__} · {settings.api} · {datetime.now(UTC):%Y-%m-%d}")
    for question, answer in findings.rows():
        click.echo(f"{question + ':':<22}{answer}")
    click.echo("```")

"""The commands as one program: its exit codes, and every failure as one clear line on stderr.

0 done · 1 failed · 2 misuse · 3 done, but some packs were set aside · 130 Ctrl-C.
"""

from __future__ import annotations

from typing import NoReturn

import click

import mlmessages

from ..errors import MessagesError
from ..escaping import one_line
from .commands.auth import auth
from .commands.demo import demo
from .commands.drain import drain
from .commands.fetch import fetch
from .commands.journal import journal
from .commands.messages import messages
from .commands.report import report
from .commands.sandbox import sandbox
from .commands.send import send
from .commands.serve import serve
from .commands.unread import unread
from .narration import narrate
from .terminal import prepare_streams

INTERRUPTED = 130

# A group without a command: click shows its help.
_ASKS_FOR_HELP: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


class _Misuse(click.ClickException):
    """A `click.UsageError` on one line."""

    exit_code = 2


class Program(click.Group):
    """A group whose failures are lines, not tracebacks; a command of it may raise `MessagesError` and `OSError`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What stands before the name of the command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if isinstance(error, _ASKS_FOR_HELP):
                raise
            raise _misuse(error) from None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what it raises becomes a line and an exit code."""
        prepare_streams()
        try:
            with narrate():
                return super().invoke(ctx)
        except click.UsageError as error:
            if isinstance(error, _ASKS_FOR_HELP):
                raise
            raise _misuse(error) from None
        except MessagesError as error:
            raise click.ClickException(_explained(error)) from None
        except (KeyboardInterrupt, click.Abort) as interrupt:
            _interrupted(str(interrupt))
        except BrokenPipeError:  # click knows what to do: whoever read our output has had enough
            raise
        except OSError as error:
            raise click.ClickException(one_line(error.strerror or str(error))) from None


def _misuse(error: click.UsageError) -> _Misuse:
    helped = f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""
    return _Misuse(one_line(error.format_message()).rstrip(".") + helped)


def _explained(error: MessagesError) -> str:
    """What went wrong and what to do, on one line: some of it was written by the server."""
    said = str(error) or type(error).__name__
    if error.hint and error.hint not in said:
        said = f"{said.rstrip('.')}. {error.hint}"
    return one_line(said)


def _interrupted(how_far: str) -> NoReturn:
    click.echo(f"Interrupted: {how_far}" if how_far else "Interrupted.", err=True)
    raise click.exceptions.Exit(INTERRUPTED)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"mlmessages {mlmessages.__version__}")
        ctx.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Messages that buyers send to Mercado Libre sellers: every conversation, past the cap, none lost.

    New here? `mlmessages demo` shows the main job; it needs no account and no network.

    \b
    The access token is never an option: it comes from
      MLMESSAGES_TOKEN        the token itself,
      MLMESSAGES_TOKEN_FILE   the file of `mlmessages auth`, which is refreshed with
                              MLMESSAGES_CLIENT_ID and MLMESSAGES_CLIENT_SECRET;
                              or a text file with the token, or
      a hidden prompt.

    \b
    Exit codes: 0 done, 1 failed, 2 misuse, 3 done but some packs were set aside,
    130 interrupted.
    """


for _command in (demo, unread, messages, send, drain, journal, fetch, report, serve, auth, sandbox):
    cli.add_command(_command)

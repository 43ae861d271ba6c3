"""The commands as one program: its exit codes, and every failure as one line on stderr.

0 done · 1 failed · 2 misuse · 3 done, but some packs or files failed · 130 Ctrl-C.
"""

from __future__ import annotations

from typing import NoReturn

import click

import mlmessages

from ..errors import MessagesError
from ..escaping import one_line
from .commands.auth import auth
from .commands.database import database
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.download import download
from .commands.drain import drain
from .commands.fetch import fetch
from .commands.journal import journal
from .commands.messages import messages
from .commands.report import report
from .commands.sandbox import sandbox
from .commands.sellers import sellers
from .commands.send import send
from .commands.serve import serve
from .commands.unread import unread
from .narration import narrate
from .terminal import note, prepare_streams

INTERRUPTED = 130

# A group without a command: click shows its help.
_ASKS_FOR_HELP: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


class _Told(click.ClickException):
    """What went wrong, on one line in which nothing acts on the terminal: strangers may have written some of it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code  # type: ignore[misc] # click reads it from the instance


class Program(click.Group):
    """A group whose failures are lines, not tracebacks; a command of it may raise `MessagesError` and `OSError`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what stands before the name of the command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _told(error) from None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what it raises becomes a line and an exit code."""
        prepare_streams()
        try:
            with narrate():
                return super().invoke(ctx)
        except click.ClickException as error:
            raise _told(error) from None
        except MessagesError as error:
            raise _Told(_explained(error), 1) from None
        except (KeyboardInterrupt, click.Abort) as interrupt:
            _interrupted(str(interrupt))
        except BrokenPipeError:  # click ends the program in silence: the reader of our output has gone
            raise
        except OSError as error:
            raise _Told(error.strerror or str(error), 1) from None


def _told(error: click.ClickException) -> click.ClickException:
    if isinstance(error, _ASKS_FOR_HELP):
        return error
    said = error.format_message()
    if isinstance(error, click.UsageError):
        helped = f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""
        said = said.rstrip(".") + helped
    return _Told(said, error.exit_code)


def _explained(error: MessagesError) -> str:
    """Return what went wrong and what to do."""
    said = str(error) or type(error).__name__
    if error.hint and error.hint not in said:
        said = f"{said.rstrip('.')}. {error.hint}"
    return said


def _interrupted(how_far: str) -> NoReturn:
    note(f"Interrupted: {how_far}" if how_far else "Interrupted.")
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
    Exit codes: 0 done, 1 failed, 2 misuse, 3 done but some packs (or files) failed,
    130 interrupted.

    \b
    Completion: eval "$(_MLMESSAGES_COMPLETE=bash_source mlmessages)", or zsh_source,
    fish_source; in the shell's start file, to keep it.
    """


_COMMANDS = (
    demo,
    doctor,
    unread,
    messages,
    send,
    download,
    drain,
    journal,
    fetch,
    report,
    serve,
    auth,
    sellers,
    database,
)
for _command in (*_COMMANDS, sandbox):
    cli.add_command(_command)

"""``mlmessages serve``: one seller or all of a database as a service, for a command or a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from .. import json_lines, options, serving
from ..database import opened_database, with_database
from ..handlers import print_traceback, to_command, to_url
from ..interruptible import run
from ..settings import FORWARD, NOTIFICATION_SECRET, Settings, application, check_folder, patience
from ..terminal import note

APP_ID: Final = "MLMESSAGES_APP_ID"
_GRACE: Final = 20.0  # seconds after Ctrl-C: longer than a service's own
_AN_EXAMPLE: Final = "python -c 'import secrets; print(secrets.token_urlsafe(24))'"


@click.command(short_help="Run as a service: hand each delivery to a command, or post it to a URL.")
@click.option(
    "--journal",
    type=options.FILE,
    metavar="FILE",
    help="The journal: what is still to be read or written. One file for each seller. Keep it.",
)
@with_database
@click.option("--exec", "command", metavar="COMMAND", help="A program and its arguments; no shell reads them.")
@click.option(
    "--pass-env",
    "passed_on",
    multiple=True,
    metavar="NAME",
    help="Pass this variable on to the command, although it holds a secret.",
)
@click.option(
    "--forward",
    envvar=FORWARD,
    show_envvar=True,
    metavar="URL",
    help="Post to this URL: https, or http on this machine. A URL with a key belongs in the variable.",
)
@click.option("--plain-http", is_flag=True, help="Let --forward be http to another machine, in a private network.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Where notifications are taken.")
@options.port("--port", 8080, "0: a free one.")
@click.option(
    "--no-web",
    "--no-notifications",
    "no_web",
    is_flag=True,
    help="Open no port: another process takes the notifications, or the unread list is asked for at intervals alone.",
)
@click.option("--only-web", is_flag=True, help="Only take notifications: other processes on the --database deliver.")
@click.option("--app-id", envvar=APP_ID, show_envvar=True, metavar="ID", help="The application's.")
@options.seconds("--interval", 60.0, "With --journal: seconds between two listings when no notification comes.")
@options.concurrency(4, "How many deliveries are handed over at a time; with --database, of each seller.")
@click.option(
    "--handlers",
    type=click.IntRange(1, 1000),
    default=32,
    show_default=True,
    metavar="N",
    help="With --database: how many deliveries are handed over at a time in all.",
)
@options.seconds(
    "--timeout", 300.0, "Seconds that one delivery may take; then the command is killed, with all that it has started."
)
@click.option("--retry-dead", is_flag=True, help="Hand over again what was given up before.")
@click.option("--debug", is_flag=True, help="Print the traceback where handing over fails in an unexpected way.")
@json_lines.schema_option("serve")
@options.with_settings_of_many
def serve(
    settings: Settings,
    *,
    journal: Path | None,
    database: str | None,
    command: str | None,
    passed_on: tuple[str, ...],
    forward: str | None,
    host: str,
    port: int,
    no_web: bool,
    only_web: bool,
    app_id: str | None,
    interval: float,
    concurrency: int,
    handlers: int,
    timeout: float,
    retry_dead: bool,
    plain_http: bool,
    debug: bool,
) -> None:
    """Read what is unread and what comes, for ever, and hand it over until it is acknowledged.

    \b
    A delivery is one JSON object, on the command's standard input or in a POST:
      pack_id      the conversation
      redelivered  true if it may have been handed over before
      seller_id    the seller
      status       whether the seller can write
      messages     oldest first: unread (is it new?), raw (as the server sent it)

    The exit code 0, or a 2xx status, is the acknowledgement. Anything else: the delivery comes again, later each time,
    for some hours; then it stays in the journal as a dead letter.

    The command gets the environment without the token, the client secret, the notification secret and the database's
    URL and key, and a process group of its own: Ctrl-C lets it end its work.

    Notifications are taken at http://HOST:PORT/notifications/SECRET, where SECRET is in MLMESSAGES_NOTIFICATION_SECRET,
    16 letters, digits, - or _ at least; GET .../notifications/health answers whether the journal can be read. Put a
    proxy that ends TLS before it. Ctrl-C and SIGTERM end the service in good order.

    With --database all sellers of the database are served, on as many machines as run this command; the application
    comes from MLMESSAGES_CLIENT_ID and MLMESSAGES_CLIENT_SECRET.
    """
    if journal is not None and _from_environment("database"):
        database = None
    if (journal is None) == (database is None):
        raise click.UsageError("one of --journal and --database")
    if only_web and (database is None or no_web):
        raise click.UsageError("--only-web goes with --database, and not with --no-web")
    if journal is not None and not settings.seller_id:
        raise click.UsageError("Missing option '--seller-id'")
    if only_web:
        assert database is not None
        run(serving.web_alone(opened_database(database), _web(host, port, app_id)), _GRACE, terminated=False)
        note("Stopped.")
        return
    if command is not None and _from_environment("forward"):
        forward = None
    if (command is None) == (forward is None):
        raise click.UsageError("one of --exec and --forward")
    handler = (
        to_command(command, timeout, passed_on)
        if command is not None
        else to_url(forward or "", timeout, plain_http=plain_http)
    )
    web = None if no_web else _web(host, port, app_id)
    handing_over = serving.HandingOver(handler, concurrency, print_traceback if debug else None)
    if journal is not None:
        check_folder("--journal", journal)
        main = serving.one_seller(
            settings.client(retry=patience()),
            journal,
            handing_over,
            web,
            interval=interval,
            retry_dead=retry_dead,
            app_id=app_id,
        )
    else:
        assert database is not None
        if retry_dead:
            raise click.UsageError("--retry-dead goes with --journal: see `mlmessages journal show --help`")
        main = serving.all_sellers(
            opened_database(database), application(), settings, handing_over, web, handlers=handlers
        )
    run(main, _GRACE, terminated=False)  # SIGTERM is the service's own
    note("Stopped; what was not acknowledged comes again.")


def _web(host: str, port: int, app_id: str | None) -> serving.Web:
    secret = _secret()
    if app_id is None:
        missing = f"--app-id or {APP_ID} is missing: notifications of another application are refused"
        raise click.UsageError(f"{missing}; or --no-web")
    return serving.Web(secret, app_id, host, port)


def _from_environment(parameter: str) -> bool:
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.ENVIRONMENT


def _secret() -> str:
    secret = os.environ.get(NOTIFICATION_SECRET)
    if not secret:
        how = f"set {NOTIFICATION_SECRET}, for instance to what {_AN_EXAMPLE} prints"
        raise click.UsageError(f"There is no secret path: {how}; or --no-web")
    return secret

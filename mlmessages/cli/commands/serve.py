"""``mlmessages serve``: the inbox as a service; each delivery goes to a command, or is posted to a URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from .. import json_lines, options
from ..handlers import HandlerContext, NotTaken, print_traceback, to_command, to_url
from ..interruptible import run
from ..settings import FORWARD, NOTIFICATION_SECRET, Settings, check_folder, patience
from ..terminal import counted, not_opened, note

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...inbox.drain import Delivery
    from ...inbox.inbox import Inbox

APP_ID: Final = "MLMESSAGES_APP_ID"
_GRACE: Final = 20.0  # seconds after Ctrl-C: longer than a service's own
_AN_EXAMPLE: Final = "python -c 'import secrets; print(secrets.token_urlsafe(24))'"


@click.command(short_help="Run as a service: hand each delivery to a command, or post it to a URL.")
@options.journal
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
@click.option("--no-notifications", is_flag=True, help="Open no port: the unread list is asked for at intervals alone.")
@click.option("--app-id", envvar=APP_ID, show_envvar=True, metavar="ID", help="The application's.")
@options.seconds("--interval", 60.0, "Seconds between two listings when no notification comes.")
@options.concurrency(4, "How many deliveries are handed over at a time.")
@options.seconds(
    "--timeout", 300.0, "Seconds that one delivery may take; then the command is killed, with all that it has started."
)
@click.option("--retry-dead", is_flag=True, help="Hand over again what was given up before.")
@click.option("--debug", is_flag=True, help="Print the traceback where handing over fails in an unexpected way.")
@json_lines.schema_option("serve")
@options.with_settings
def serve(
    settings: Settings,
    *,
    journal: Path,
    command: str | None,
    passed_on: tuple[str, ...],
    forward: str | None,
    host: str,
    port: int,
    no_notifications: bool,
    app_id: str | None,
    interval: float,
    concurrency: int,
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

    Notifications are taken at http://HOST:PORT/notifications/SECRET, where SECRET is in MLMESSAGES_NOTIFICATION_SECRET:
    put a proxy that ends TLS before it. Ctrl-C and SIGTERM end the service in good order.
    """
    if command is not None and _from_environment("forward"):
        forward = None
    if (command is None) == (forward is None):
        raise click.UsageError("one of --exec and --forward")
    handler = (
        to_command(command, timeout, passed_on)
        if command is not None
        else to_url(forward or "", timeout, plain_http=plain_http)
    )
    secret = None if no_notifications else _secret()
    if secret is not None and app_id is None:
        missing = f"--app-id or {APP_ID} is missing: notifications of another application are refused"
        raise click.UsageError(f"{missing}; or --no-notifications")
    check_folder("--journal", journal)
    client = settings.client(retry=patience())
    try:
        from ...inbox.inbox import Inbox

        inbox = Inbox(client, journal, concurrency=concurrency)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    run(
        _serve(
            client=client,
            inbox=inbox,
            handler=handler,
            secret=secret,
            app_id=app_id,
            host=host,
            port=port,
            interval=interval,
            retry_dead=retry_dead,
            debug=debug,
        ),
        _GRACE,
        terminated=False,  # SIGTERM is `Inbox.run`'s
    )
    note("Stopped; what was not acknowledged comes again.")


async def _serve(
    *,
    client: MessagesClient,
    inbox: Inbox,
    handler: Callable[[], HandlerContext],
    secret: str | None,
    app_id: str | None,
    host: str,
    port: int,
    interval: float,
    retry_dead: bool,
    debug: bool,
) -> None:
    from ... import web

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        await stack.enter_async_context(inbox)
        if retry_dead:
            note(f"{counted(await inbox.retry_dead_letters(), 'dead message')} will be handed over again.")
        elif dead := await inbox.dead_letters():
            note(f"{counted(len(dead), 'conversation')} with dead letters in the journal: see --retry-dead.")
        hand_over = await stack.enter_async_context(handler())

        async def tell_refusals(delivery: Delivery) -> None:
            try:
                await hand_over(delivery)
            except NotTaken as error:  # its text is ours; that of other exceptions may quote a buyer
                note(f"Pack {delivery.pack_id} was not taken: {error}")
                raise

        if secret is not None and app_id is not None:
            try:
                taking = web.serve(inbox, secret=secret, application_id=app_id, host=host, port=port)
                root = await stack.enter_async_context(taking)
            except ValueError as error:
                raise click.UsageError(f"{NOTIFICATION_SECRET} or --app-id: {error}") from None
            except OSError as error:
                raise not_opened(host, port, error) from None
            note(f"Notifications are taken at {root}/notifications/SECRET (of {NOTIFICATION_SECRET}).")
        note(f"Serving seller {inbox.seller_id}; Ctrl-C ends it.")
        try:
            on_error = print_traceback if debug else None
            await inbox.run(tell_refusals, interval=interval, app_id=app_id, on_error=on_error)
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def _from_environment(parameter: str) -> bool:
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.ENVIRONMENT


def _secret() -> str:
    secret = os.environ.get(NOTIFICATION_SECRET)
    if not secret:
        how = f"set {NOTIFICATION_SECRET}, for instance to what {_AN_EXAMPLE} prints"
        raise click.UsageError(f"There is no secret path: {how}; or --no-notifications")
    return secret

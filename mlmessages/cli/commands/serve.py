"""``mlmessages serve``: the inbox as a service; each delivery goes to a command, or is posted to a URL."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from ...escaping import one_line
from .. import json_lines
from ..interruptible import run
from ..settings import Settings, check_folder, patience, with_settings
from ..terminal import counted, not_opened, note

if TYPE_CHECKING:
    from ...client import MessagesClient
    from ...inbox.drain import Delivery
    from ...inbox.inbox import Inbox

SECRET: Final = "MLMESSAGES_NOTIFICATION_SECRET"  # noqa: S105 - the name of the variable
APP_ID: Final = "MLMESSAGES_APP_ID"
_GRACE: Final = 20.0  # seconds after Ctrl-C: longer than a service's own
_AN_EXAMPLE: Final = "python -c 'import secrets; print(secrets.token_urlsafe(24))'"

Handler: TypeAlias = Callable[["Delivery"], Awaitable[None]]
HandingOver: TypeAlias = Callable[[], AbstractAsyncContextManager[Handler]]


class NotTaken(Exception):
    """The command, or whoever is behind the URL, did not take a delivery; it comes again."""


@click.command(short_help="Run as a service: hand each delivery to a command, or post it to a URL.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="What is owed; one file a seller. Keep it.",
)
@click.option("--exec", "command", metavar="COMMAND", help="A program and its arguments; no shell reads them.")
@click.option("--forward", metavar="URL", help="https, or this machine.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Where notifications are taken.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, metavar="N", help="0: a free one."
)
@click.option("--no-notifications", is_flag=True, help="Open no port: the unread list is asked for at intervals alone.")
@click.option("--app-id", envvar=APP_ID, show_envvar=True, metavar="ID", help="The application's.")
@click.option(
    "--interval",
    type=click.FloatRange(1, 86_400),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds between two listings when no notification comes.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    metavar="N",
    help="How many deliveries are handed over at a time.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86_400),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds that one delivery may take; then the command is killed.",
)
@click.option("--retry-dead", is_flag=True, help="Hand over again what was given up before.")
@with_settings
def serve(
    settings: Settings,
    *,
    journal: Path,
    command: str | None,
    forward: str | None,
    host: str,
    port: int,
    no_notifications: bool,
    app_id: str | None,
    interval: float,
    concurrency: int,
    timeout: float,
    retry_dead: bool,
) -> None:
    """Read what is unread and what comes, for ever, and hand it over until it is acknowledged.

    \b
    A delivery is one JSON object, on the command's standard input or in a POST:
      pack_id      the conversation
      redelivered  true if it may have been handed over before
      status       whether one can write
      messages     oldest first: unread (is it new?), raw (as the server sent it)

    The exit code 0, or a 2xx status, is the acknowledgement. Anything else: the delivery comes again, later each time,
    for some hours; then it stays in the journal as a dead letter.

    Notifications are taken at http://HOST:PORT/notifications/SECRET, where SECRET is in MLMESSAGES_NOTIFICATION_SECRET:
    put a proxy that ends TLS before it. Ctrl-C and SIGTERM end the service in good order.
    """
    if (command is None) == (forward is None):
        raise click.UsageError("one of --exec and --forward")
    handing_over = _exec(command, timeout) if command is not None else _forward(forward or "", timeout)
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
            handing_over=handing_over,
            secret=secret,
            app_id=app_id,
            host=host,
            port=port,
            interval=interval,
            retry_dead=retry_dead,
        ),
        _GRACE,
    )
    note("Stopped; what was not acknowledged comes again.")


async def _serve(
    *,
    client: MessagesClient,
    inbox: Inbox,
    handing_over: HandingOver,
    secret: str | None,
    app_id: str | None,
    host: str,
    port: int,
    interval: float,
    retry_dead: bool,
) -> None:
    from ... import web

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        await stack.enter_async_context(inbox)
        if retry_dead:
            note(f"{counted(await inbox.retry_dead_letters(), 'dead message')} will be handed over again.")
        elif dead := await inbox.dead_letters():
            note(f"{counted(len(dead), 'conversation')} with dead letters in the journal: see --retry-dead.")
        hand_over = await stack.enter_async_context(handing_over())

        async def handler(delivery: Delivery) -> None:
            try:
                await hand_over(delivery)
            except NotTaken as error:  # its words are ours; of other exceptions nobody knows
                note(f"Pack {delivery.pack_id} was not taken: {error}")
                raise

        if secret is not None and app_id is not None:
            try:
                taking = web.serve(inbox, secret=secret, application_id=app_id, host=host, port=port)
                root = await stack.enter_async_context(taking)
            except ValueError as error:
                raise click.UsageError(f"{SECRET} or --app-id: {error}") from None
            except OSError as error:
                raise not_opened(host, port, error) from None
            note(f"Notifications are taken at {root}/notifications/SECRET (of {SECRET}).")
        note(f"Serving seller {inbox.seller_id}; Ctrl-C ends it.")
        try:
            await inbox.run(handler, interval=interval, app_id=app_id)
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def _secret() -> str:
    secret = os.environ.get(SECRET)
    if not secret:
        raise click.UsageError(
            f"There is no secret path: set {SECRET}, for instance to what {_AN_EXAMPLE} prints; or --no-notifications"
        )
    return secret


def _as_json(delivery: Delivery) -> bytes:
    return json_lines.line(
        {
            "pack_id": delivery.pack_id,
            "redelivered": delivery.redelivered,
            "status": json_lines.status(delivery.status),
            "messages": json_lines.messages(delivery.messages, delivery.unread),
        }
    )


# -- to a command ------------------------------------------------------------------------------------------------------


def _exec(command: str, timeout: float) -> HandingOver:
    arguments = _split(command)

    @asynccontextmanager
    async def handing_over() -> AsyncIterator[Handler]:
        async def hand_over(delivery: Delivery) -> None:
            await _told(arguments, _as_json(delivery), timeout)

        yield hand_over

    return handing_over


def _split(command: str) -> list[str]:
    try:
        arguments = shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise click.UsageError(f"--exec: {error}") from None
    if not arguments:
        raise click.UsageError("--exec: there is no command")
    if os.name == "nt":
        arguments = [each.strip('"') for each in arguments]
    if shutil.which(arguments[0]) is None:  # before anything is marked that nobody would be handed
        raise click.UsageError(f"--exec: there is no program {one_line(arguments[0])} that can be run")
    return arguments


async def _told(arguments: list[str], line: bytes, seconds: float) -> None:
    """Run the command with `line` as its input; `NotTaken` unless its exit code is 0."""
    # Its output is ours; the secret path is none of its business.
    environment = {name: value for name, value in os.environ.items() if name != SECRET}
    try:
        process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE, env=environment)
    except OSError as error:
        raise NotTaken(error.strerror) from None
    try:
        async with asyncio.timeout(seconds):
            await process.communicate(line)
    except TimeoutError:
        raise NotTaken("it took too long") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise NotTaken(f"exit code {process.returncode}")


# -- to a URL ----------------------------------------------------------------------------------------------------------


def _forward(url: str, timeout: float) -> HandingOver:
    from ...api.arguments import base_url

    try:
        base_url(url.partition("?")[0])
    except ValueError as error:
        raise click.UsageError(f"--forward: {str(error).replace('base_url', 'the URL')}") from None

    @asynccontextmanager
    async def handing_over() -> AsyncIterator[Handler]:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(
            timeout=limit, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session:

            async def hand_over(delivery: Delivery) -> None:
                body, headers = _as_json(delivery), {"Content-Type": "application/json"}
                try:
                    async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                        status = answer.status
                except (aiohttp.ClientError, OSError) as error:
                    raise NotTaken(type(error).__name__) from None
                if not 200 <= status < 300:
                    raise NotTaken(f"status {status}")

            yield hand_over

    return handing_over

"""``mlmessages sandbox``: the sandbox as a server, to try things against."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shlex
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlencode, urlsplit

import attrs
import click

from ...escaping import one_line
from ..interruptible import run
from ..settings import BASE_URL, CLIENT_ID, CLIENT_SECRET, SELLER_ID, TOKEN
from ..terminal import counted, not_opened, note
from .auth.url import AUTH_HOST, REDIRECT_URI
from .serve import APP_ID

if TYPE_CHECKING:
    from ...testing import Entry, Sandbox, Server

_NOTIFIED_A_MINUTE: Final = 6.0


@attrs.frozen
class Settings:
    """What the options say."""

    port: int
    packs: int
    messages: int | None
    rate: int | None
    arrivals: float
    notify: str | None
    domestic: bool
    log: bool
    client_id: str | None
    client_secret: str | None = attrs.field(repr=False)


def _digits(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[0-9]{1,18}", value):
        raise click.BadParameter("the id of an application is a number")
    return value


@click.command(short_help="Run a server that behaves like the real one, to try things against.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="The port on 127.0.0.1; without it, or with 0, a free one is taken.",
)
@click.option(
    "--packs",
    type=click.IntRange(0, 1_000_000),
    default=2500,
    show_default=True,
    metavar="N",
    help="How many unread conversations there are.",
)
@click.option(
    "--messages",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="How many messages each conversation has; without it, one to nine.",
)
@click.option(
    "--rate",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Answer 429 to more than N reads or N writes a minute; Mercado Libre documents 500. Without it, there is no"
    " limit.",
)
@click.option(
    "--arrivals",
    type=click.FloatRange(0, 60_000),
    metavar="N",
    help=f"How many messages buyers write in a minute; without it none, or {_NOTIFIED_A_MINUTE:g} with --notify.",
)
@click.option(
    "--notify",
    metavar="URL",
    help="Post a notification of every message that arrives or is read to this address, such as that of"
    " `mlmessages serve`.",
)
@click.option(
    "--domestic",
    is_flag=True,
    help="Notifications of the topic `messages`, which sellers outside of Global Selling get.",
)
@click.option("--log", is_flag=True, help="Print each request on stderr.")
@click.option(
    "--client-id",
    metavar="ID",
    callback=_digits,
    help="The id of the application whose requests for tokens are taken; without it, an invented one.",
)
@click.option("--client-secret", metavar="TEXT", help="Its secret; without it, an invented one.")
def sandbox(
    *,
    port: int,
    packs: int,
    messages: int | None,
    rate: int | None,
    arrivals: float | None,
    notify: str | None,
    domestic: bool,
    log: bool,
    client_id: str | None,
    client_secret: str | None,
) -> None:
    """Run the documented API with invented conversations on this machine, until Ctrl-C.

    What to set in another terminal is printed on stdout, as commands of its shell. The seller agrees on a page of the
    sandbox, so that `mlmessages auth url` and `auth exchange` can be tried too.

    \b
    mlmessages sandbox --packs 50
    mlmessages sandbox --packs 50 --rate 500 --log
    mlmessages sandbox --packs 0 --arrivals 30 --notify http://127.0.0.1:8080/notifications/SECRET
    """
    if notify is not None:
        _check_url(notify)
    if arrivals is None:
        arrivals = 0.0 if notify is None else _NOTIFIED_A_MINUTE
    run(_serve(Settings(port, packs, messages, rate, arrivals, notify, domestic, log, client_id, client_secret)))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not url.isprintable():
        raise click.UsageError("--notify must be an http or https address.")


async def _serve(settings: Settings) -> None:
    sandbox = _made(settings)
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(sandbox.serve(port=settings.port))
        except OSError as error:
            raise not_opened("127.0.0.1", settings.port, error) from None
        _introduce(server)
        if settings.log:
            sandbox.follow(lambda entry: note(_line(sandbox, entry)))
        if settings.notify is not None:
            topic: Literal["messages", "marketplace_messages"]
            topic = "messages" if settings.domestic else "marketplace_messages"
            await stack.enter_async_context(
                sandbox.notify(settings.notify, topic=topic, application_id=int(sandbox.oauth.client_id))
            )
        if settings.arrivals:
            await _let_buyers_write(sandbox, 60.0 / settings.arrivals)
        else:
            await asyncio.Event().wait()


def _made(settings: Settings) -> Sandbox:
    from ...testing import Behaviour, RateWindow, Sandbox, lifelike

    now = time.time()
    window = None if settings.rate is None else RateWindow(reads=settings.rate, writes=settings.rate, kind="sliding")
    packs = lifelike(settings.packs, messages=settings.messages, begins=now)
    sandbox = Sandbox(packs, behaviour=Behaviour(rate=window), begins=now)
    sandbox.oauth.client_id = settings.client_id or sandbox.oauth.client_id
    sandbox.oauth.client_secret = settings.client_secret or sandbox.oauth.client_secret
    return sandbox


async def _let_buyers_write(sandbox: Sandbox, seconds: float) -> None:
    """Let a message arrive from time to time: some begin a conversation, the others go on with one."""
    from ...testing import Message, Pack
    from ...testing.model.life import question

    for number in count():
        await asyncio.sleep(seconds)
        packs = sandbox.pack_ids()
        if not packs or number % 5 == 0:
            sandbox.add_pack(Pack(messages=[Message(question(number))]))
        else:
            sandbox.send(random.choice(packs), question(number))


def _line(sandbox: Sandbox, entry: Entry) -> str:
    """Return one request as a line of the log."""
    at = datetime.fromtimestamp(sandbox.calendar, UTC).strftime("%H:%M:%S")
    codes = entry.kind in ("consent", "callback")  # their queries hold what is good for tokens
    query = f"?{urlencode(entry.query)}" if entry.query and not codes else ""
    messages = f" · {counted(len(entry.ids), 'message')}" if entry.ids else ""
    return f"{at} {entry.status} {entry.method} {one_line(entry.path + query)}{messages}"


def _introduce(server: Server) -> None:
    sandbox = server.sandbox
    has = counted(sandbox.unread, "unread conversation")
    note(f"The sandbox is at {server.base_url}; its seller {server.seller_id} has {has}.")
    note("In another terminal:")
    note("")
    _print_settings({BASE_URL: server.base_url, SELLER_ID: server.seller_id, TOKEN: server.token})
    note("mlmessages unread")
    note("")
    note("To try `mlmessages auth url`, `auth exchange` and `serve` as well:")
    note("")
    _print_settings(
        {
            CLIENT_ID: sandbox.oauth.client_id,
            CLIENT_SECRET: sandbox.oauth.client_secret,
            APP_ID: sandbox.oauth.client_id,
            REDIRECT_URI: f"{server.base_url}/callback",
            AUTH_HOST: server.base_url,
        }
    )
    note("")
    note("Ctrl-C ends it.")


def _print_settings(settings: Mapping[str, str]) -> None:
    """Print the settings of a client, as the usual shell of the system sets them."""
    form = '$env:{} = "{}"' if os.name == "nt" else "export {}={}"
    for name, value in settings.items():
        click.echo(form.format(name, shlex.quote(value) if os.name != "nt" else value))

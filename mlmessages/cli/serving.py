"""What `mlmessages serve` runs: one seller over a journal, all sellers of a database, or the webhook alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from .handlers import Handler, HandlerContext, NotTaken
from .settings import NOTIFICATION_SECRET, Settings, patience
from .terminal import counted, not_opened, note

if TYPE_CHECKING:
    from ..auth.source import Secret
    from ..client import MessagesClient
    from ..inbox.dispatcher import OnError
    from ..inbox.drain import Delivery
    from ..inbox.inbox import Inbox
    from ..postgres.database import Database


@attrs.frozen
class Web:
    """Where notifications are taken, and of which application."""

    secret: str = attrs.field(repr=False)
    app_id: str
    host: str
    port: int


@attrs.frozen
class HandingOver:
    """What becomes of a delivery: `handler` makes what takes it, `concurrency` of a seller at a time."""

    handler: Callable[[], HandlerContext]
    concurrency: int
    on_error: OnError | None


async def one_seller(
    client: MessagesClient,
    journal: Path,
    handing_over: HandingOver,
    web: Web | None,
    *,
    interval: float,
    retry_dead: bool,
    app_id: str | None,
) -> None:
    """Serve the seller of `client` until stopped."""
    from ..inbox.inbox import Inbox

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        inbox = await stack.enter_async_context(Inbox(client, journal, concurrency=handing_over.concurrency))
        if retry_dead:
            note(f"{counted(await inbox.retry_dead_letters(), 'dead message')} will be handed over again.")
        elif dead := await inbox.dead_letters():
            note(f"{counted(len(dead), 'conversation')} with dead letters in the journal: see --retry-dead.")
        hand_over = await stack.enter_async_context(handing_over.handler())
        await _open_web(stack, inbox, web)
        note(f"Serving seller {inbox.seller_id}; Ctrl-C ends it.")
        try:
            await inbox.run(
                _telling_refusals(hand_over), interval=interval, app_id=app_id, on_error=handing_over.on_error
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None


async def all_sellers(
    database: Database,
    application: tuple[str, Secret],
    settings: Settings,
    handing_over: HandingOver,
    web: Web | None,
    *,
    handlers: int,
) -> None:
    """Serve the sellers of `database`, together with other processes, until stopped."""
    from ..api.arguments import check_proxy_url
    from ..auth.source import Secret
    from ..fleet.fleet import Fleet
    from ..http.transport import open_session

    async with AsyncExitStack() as stack:
        try:
            session = None
            if settings.proxy is not None:
                session = await stack.enter_async_context(open_session(Secret(check_proxy_url(settings.proxy))))
            fleet = Fleet(
                database,
                *application,
                api=settings.api,
                base_url=settings.base_url,
                sellers=[settings.seller_id] if settings.seller_id else None,
                concurrency=handing_over.concurrency,
                handlers=handlers,
                retry=patience(),
                session=session,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        await stack.enter_async_context(database)
        sellers = len(await database.sellers())
        hand_over = await stack.enter_async_context(handing_over.handler())
        await _open_web(stack, database, web)
        note(f"Serving {counted(sellers, 'seller')} of the database with others; Ctrl-C ends it.")
        await fleet.run(_telling_refusals(hand_over), on_error=handing_over.on_error)


async def web_alone(database: Database, web: Web) -> None:
    """Take the notifications of all sellers of `database` until stopped."""
    from ..inbox.service import stopping_on_sigterm

    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(stopping_on_sigterm(stop.set))
        await stack.enter_async_context(database)
        await _open_web(stack, database, web)
        await stop.wait()


async def _open_web(stack: AsyncExitStack, target: Inbox | Database, web: Web | None) -> None:
    if web is None:
        return
    from .. import web as webhook

    try:
        taking = webhook.serve(target, secret=web.secret, application_id=web.app_id, host=web.host, port=web.port)
        root = await stack.enter_async_context(taking)
    except ValueError as error:
        raise click.UsageError(f"{NOTIFICATION_SECRET} or --app-id: {error}") from None
    except OSError as error:
        raise not_opened(web.host, web.port, error) from None
    note(f"Notifications are taken at {root}/notifications/SECRET (of {NOTIFICATION_SECRET}).")


def _telling_refusals(hand_over: Handler) -> Handler:
    async def handler(delivery: Delivery) -> None:
        try:
            await hand_over(delivery)
        except NotTaken as error:  # its text is ours; that of other exceptions may quote a buyer
            note(f"Pack {delivery.pack_id} was not taken: {error}")
            raise

    return handler

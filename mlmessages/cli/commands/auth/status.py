"""``mlmessages auth status``: whose tokens there are and how long they last."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ....escaping import one_line
from ...interruptible import run
from ...terminal import note
from .places import BEGIN_AGAIN, token_file

if TYPE_CHECKING:
    from ....auth.store import FileTokenStore
    from ....models import Token


@click.command(short_help="Say how long the tokens last.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; times in UTC.")
@token_file
def status(token_file: Path, *, as_json: bool) -> None:
    """Say whose tokens there are and how long they last; never the tokens. Nothing is sent.

    The exit code is 1 when the seller must authorise again.
    """
    print_status(run(loaded(file_store(token_file))), as_json=as_json)


def file_store(token_file: Path) -> FileTokenStore:
    from ....auth.store import FileTokenStore

    return FileTokenStore(token_file)


async def loaded(store: FileTokenStore) -> Token:
    token = await store.load()
    if token is None:
        raise click.ClickException(f"There are no tokens in this file. {BEGIN_AGAIN}")
    return token


def print_status(token: Token, *, as_json: bool = False) -> None:
    from ....auth import grants

    now, end = datetime.now(UTC), grants.end_of_refresh(token)
    usable = token.refresh_token is not None and end > now and token.refresh_refused_at is None
    if as_json:
        click.echo(
            json.dumps(
                {
                    "seller_id": token.user_id,
                    "access_token_until": _moment(token.expires_at),
                    "refresh_due": _moment(grants.half_life(token)),
                    "refresh_token_until": _moment(end) if token.refresh_token is not None else None,
                    "refresh_unanswered_since": _moment(token.refresh_sent_at) if token.refresh_sent_at else None,
                    "refresh_refused_at": _moment(token.refresh_refused_at) if token.refresh_refused_at else None,
                    "must_authorise_again": not usable,
                }
            )
        )
    else:
        left = (token.expires_at - now).total_seconds() / 3600
        click.echo(f"seller         {one_line(token.user_id or 'not known')}")
        good = (
            f"good until {_moment(token.expires_at)} ({left:.1f} h)" if left > 0 else "expired; refreshed when needed"
        )
        click.echo(f"access token   {good}")
        click.echo(f"refresh token  {_refresh_token(token, end, now)}")
    if token.refresh_sent_at is not None:
        note(
            f"A refresh was sent at {_moment(token.refresh_sent_at)} and its answer never kept: the next one finds out"
            " whether these tokens are still good."
        )
    if not usable:
        raise click.ClickException(f"The seller must authorise again. {BEGIN_AGAIN}")
    if end - now < grants.NOTICE:
        note(f"The seller should authorise again soon: {max((end - now).days, 0)} days are left. {BEGIN_AGAIN}")


def _refresh_token(token: Token, end: datetime, now: datetime) -> str:
    if token.refresh_token is None:
        return "none: was the application granted offline_access?"
    if token.refresh_refused_at is not None:
        return f"refused by the server on {_moment(token.refresh_refused_at)}: it is spent or revoked"
    if end <= now:
        return f"ended on {_moment(end)}"
    return f"good until {_moment(end)} at the latest, if it is not used before"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""``mlmessages auth url``: the address where the seller agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from ...settings import client_id
from ...terminal import note
from .pending import Pending
from .places import pending_beside, token_file_or_database

REDIRECT_URI: Final = "MLMESSAGES_REDIRECT_URI"
AUTH_HOST: Final = "MLMESSAGES_AUTH_HOST"
_SITES: Final = (
    *("CBT", "MLA", "MLB", "MLM", "MLC", "MCO", "MLU", "MPE", "MEC", "MLV"),
    *("MCR", "MPA", "MRD", "MBO", "MPY", "MGT", "MHN", "MNI", "MSV"),
)


@click.command(short_help="Print the address where the seller agrees.")
@click.option(
    "--redirect-uri",
    envvar=REDIRECT_URI,
    show_envvar=True,
    required=True,
    metavar="URI",
    help="Where the browser is sent then, exactly as the application's settings have it.",
)
@click.option(
    "--site",
    type=click.Choice(_SITES, case_sensitive=False),
    default="CBT",
    show_default=True,
    metavar="SITE",
    help=f"The site of the seller's account: {', '.join(_SITES)}; CBT is Global Selling.",
)
@click.option(
    "--host",
    envvar=AUTH_HOST,
    show_envvar=True,
    metavar="HOST",
    help="The host where the seller agrees, such as auth.mercadolibre.com.ar, instead of the one of --site; or"
    " http://127.0.0.1:PORT for the sandbox.",
)
@token_file_or_database
def url(place: Path | str, *, redirect_uri: str, site: str, host: str | None) -> None:
    """Print the address where the seller agrees, and remember what must come back.

    Nothing is sent.
    """
    from ....auth import grants

    parts = urlsplit(redirect_uri)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.fragment or not redirect_uri.isprintable():
        raise click.UsageError(
            "--redirect-uri must be a URL without a fragment, as the application's settings have it."
        )
    origin = _origin(grants.HOSTS[site.upper()] if host is None else host)
    pending = Pending.new(client_id(), redirect_uri)
    pending.save(pending_beside(place))
    click.echo(grants.authorization_url(origin, pending.client_id, redirect_uri, pending.state, pending.verifier))
    note(
        "Open it as the seller, agree, and give the address where the browser is sent then to: mlmessages auth exchange"
    )


def _origin(host: str) -> str:
    from ....api.arguments import check_base_url

    try:
        return check_base_url(host if "://" in host else f"https://{host}")
    except ValueError:
        raise click.UsageError(
            "--host must be the name of a host, such as auth.mercadolibre.com.ar (or http://127.0.0.1:PORT)."
        ) from None

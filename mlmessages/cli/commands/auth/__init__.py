"""``mlmessages auth``: get a seller's consent, keep the tokens, and see how long they last.

The address (`url`) and the code (`exchange`) belong together by a state and by PKCE; both are kept, 0600, until then
(`pending`). `places` has the options that say where tokens are kept.
"""

from __future__ import annotations

import click

from .exchange import exchange
from .refresh import refresh
from .status import status
from .url import url


@click.group(short_help="Get and keep a seller's tokens.")
def auth() -> None:
    """Get a seller's consent once, and keep the tokens alive.

    \b
    mlmessages auth url        prints the address where the seller agrees
    mlmessages auth exchange   takes the address where the browser is sent then
    mlmessages auth status     says how long the tokens last
    mlmessages auth refresh    refreshes now; every other command does it when it is due

    \b
    The application comes from MLMESSAGES_CLIENT_ID and MLMESSAGES_CLIENT_SECRET, or
    a prompt. The tokens are kept in MLMESSAGES_TOKEN_FILE, readable by you alone; or,
    those of many sellers, in MLMESSAGES_DATABASE, encrypted by MLMESSAGES_KEY.
    """


for _command in (url, exchange, status, refresh):
    auth.add_command(_command)

"""Messages that buyers send to Mercado Libre sellers: every conversation, past the cap, none lost.

The whole public surface is `__all__`. A name is imported from its home on first use, so that the pytest plugin and
``mlmessages --help`` do not pay for aiohttp.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors, models
    from .api.endpoints import Routes
    from .api.notifications import Notification
    from .auth.oauth import OAuthToken
    from .auth.source import StaticToken, TokenSource
    from .auth.store import FileTokenStore, TokenStore
    from .client import MessagesClient
    from .conversations.drain import Drain
    from .errors import MessagesError
    from .fleet.fleet import Fleet
    from .http.limits import Limits
    from .http.retry import Retry
    from .inbox.drain import Delivery
    from .inbox.inbox import Inbox
    from .postgres.database import Database

    __version__: str

__all__ = [
    "Database",
    "Delivery",
    "Drain",
    "FileTokenStore",
    "Fleet",
    "Inbox",
    "Limits",
    "MessagesClient",
    "MessagesError",
    "Notification",
    "OAuthToken",
    "Retry",
    "Routes",
    "StaticToken",
    "TokenSource",
    "TokenStore",
    "errors",
    "models",
]

_HOMES = {
    "Database": "postgres.database",
    "Delivery": "inbox.drain",
    "Drain": "conversations.drain",
    "FileTokenStore": "auth.store",
    "Fleet": "fleet.fleet",
    "Inbox": "inbox.inbox",
    "Limits": "http.limits",
    "MessagesClient": "client",
    "MessagesError": "errors",
    "Notification": "api.notifications",
    "OAuthToken": "auth.oauth",
    "Retry": "http.retry",
    "Routes": "api.endpoints",
    "StaticToken": "auth.source",
    "TokenSource": "auth.source",
    "TokenStore": "auth.store",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    elif name in __all__:
        value = importlib.import_module(f".{name}", __name__)
    elif name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 -- 30 ms, only where it is asked for

        value = version(__name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]

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
    from .auth import StaticToken, TokenSource
    from .client import MessagesClient
    from .drain import Drain
    from .endpoints import Routes
    from .errors import MessagesError
    from .inbox import Delivery, Inbox
    from .limits import Limits
    from .notifications import Notification
    from .oauth import OAuthToken, TokenStore
    from .retry import Retry
    from .tokenstore import FileTokenStore

    __version__: str

__all__ = [
    "Delivery",
    "Drain",
    "FileTokenStore",
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
    "Delivery": "inbox",
    "Drain": "drain",
    "FileTokenStore": "tokenstore",
    "Inbox": "inbox",
    "Limits": "limits",
    "MessagesClient": "client",
    "MessagesError": "errors",
    "Notification": "notifications",
    "OAuthToken": "oauth",
    "Retry": "retry",
    "Routes": "endpoints",
    "StaticToken": "auth",
    "TokenSource": "auth",
    "TokenStore": "oauth",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    elif name in __all__:
        value = importlib.import_module(f".{name}", __name__)
    elif name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 -- 30 ms that nobody else pays

        value = version(__name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]

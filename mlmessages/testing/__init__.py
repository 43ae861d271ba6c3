"""The documented API in process or behind real HTTP, misbehaving on request: for tests, demos and benchmarks.

Begin reading at `sandbox` (one seller) or `marketplace` (many). From the wire to the state: `server` has the HTTP faces
(real sockets, a connector in memory, wire faults, notifications), `engine` logs each request and plays the rules of
`faults` on it, `model` is the API as a state machine. `clock` is a loop whose time jumps, `plugin` the pytest fixture,
`threaded` a server in a thread.

The sandbox is a second implementation of the documentation: it imports nothing from the rest of `mlmessages`. Its
public names are `__all__`; each is imported from its home on first use, so that the pytest plugin, which lives in this
package, does not make every pytest run pay for aiohttp.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import NothingToWaitFor, VirtualClockLoop, virtual_run
    from .faults import (
        DROP,
        ENDLESS_HEADERS,
        EXECUTE,
        HANG,
        MARK_ALL,
        RESET,
        SNAPSHOT,
        ContentType,
        Delay,
        Garbage,
        Gzip,
        HideIt,
        Hold,
        Redirect,
        Reply,
        RevealIt,
        Rule,
        Send,
        Slice,
        Stale,
        Trickle,
        Truncate,
        on,
        refuse,
    )
    from .log import Entry
    from .marketplace import Marketplace
    from .model.behaviour import Behaviour, RateWindow
    from .model.life import lifelike
    from .model.packs import Message, Pack
    from .sandbox import Sandbox, Server
    from .seller import Seller
    from .server.notifier import Notifier
    from .threaded import serve_in_thread

_HOMES = {
    "sandbox": ["Sandbox", "Server"],
    "marketplace": ["Marketplace"],
    "seller": ["Seller"],
    "model.packs": ["Message", "Pack"],
    "model.life": ["lifelike"],
    "model.behaviour": ["Behaviour", "RateWindow"],
    "threaded": ["serve_in_thread"],
    "log": ["Entry"],
    "server.notifier": ["Notifier"],
    "clock": ["NothingToWaitFor", "VirtualClockLoop", "virtual_run"],
    "faults": [
        *("DROP", "ENDLESS_HEADERS", "EXECUTE", "HANG", "MARK_ALL", "RESET", "SNAPSHOT"),
        *("ContentType", "Delay", "Garbage", "Gzip", "HideIt", "Hold", "Redirect", "Reply", "RevealIt"),
        *("Rule", "Send", "Slice", "Stale", "Trickle", "Truncate", "on", "refuse"),
    ],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DROP",
    "ENDLESS_HEADERS",
    "EXECUTE",
    "HANG",
    "MARK_ALL",
    "RESET",
    "SNAPSHOT",
    "Behaviour",
    "ContentType",
    "Delay",
    "Entry",
    "Garbage",
    "Gzip",
    "HideIt",
    "Hold",
    "Marketplace",
    "Message",
    "NothingToWaitFor",
    "Notifier",
    "Pack",
    "RateWindow",
    "Redirect",
    "Reply",
    "RevealIt",
    "Rule",
    "Sandbox",
    "Seller",
    "Send",
    "Server",
    "Slice",
    "Stale",
    "Trickle",
    "Truncate",
    "VirtualClockLoop",
    "lifelike",
    "on",
    "refuse",
    "serve_in_thread",
    "virtual_run",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]

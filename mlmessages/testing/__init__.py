"""The documented API in process or behind real HTTP, misbehaving on request: for tests, demos and benchmarks.

The public surface is `__all__`. A name is imported from its home on first use, so that the pytest plugin, which
lives in this package, does not make every pytest run pay for aiohttp.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .behaviour import Behaviour, RateWindow
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
        Trickle,
        Truncate,
        on,
        refuse,
    )
    from .http import Server
    from .log import Entry
    from .notifications import Notifier
    from .packs import Message, Pack
    from .sandbox import Sandbox
    from .threaded import serve_in_thread

_HOMES = {
    "sandbox": ["Sandbox"],
    "packs": ["Message", "Pack"],
    "behaviour": ["Behaviour", "RateWindow"],
    "http": ["Server"],
    "threaded": ["serve_in_thread"],
    "log": ["Entry"],
    "notifications": ["Notifier"],
    "clock": ["NothingToWaitFor", "VirtualClockLoop", "virtual_run"],
    "faults": [
        *("DROP", "ENDLESS_HEADERS", "EXECUTE", "HANG", "MARK_ALL", "RESET", "SNAPSHOT"),
        *("ContentType", "Delay", "Garbage", "Gzip", "HideIt", "Hold", "Redirect", "Reply", "RevealIt"),
        *("Rule", "Send", "Slice", "Trickle", "Truncate", "on", "refuse"),
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
    "Send",
    "Server",
    "Slice",
    "Trickle",
    "Truncate",
    "VirtualClockLoop",
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

"""What the tests of writing share: one pack, the documented bodies, and what went over the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlmessages.testing import Entry, Sandbox

PAYLOADS = Path(__file__).parents[1] / "payloads"
FIRST = 2000000000000001
BUYER = "800300001"
SELLER = "700100200"


def payload(name: str) -> Any:
    """A documented body, by the name of its file."""
    return json.loads((PAYLOADS / f"{name}.json").read_text(encoding="utf-8"))


def posts(sandbox: Sandbox) -> list[Entry]:
    """Every POST that reached the server."""
    return [entry for entry in sandbox.log if entry.method == "POST"]


def executed(sandbox: Sandbox) -> int:
    """How many of them were executed."""
    return sum(entry.executed for entry in posts(sandbox))

"""The recorded payloads, and how an answer differs from one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAYLOADS = Path(__file__).parents[1] / "payloads"


def sample(name: str) -> Any:
    return json.loads((PAYLOADS / f"{name}.json").read_text(encoding="utf-8"))


def differences(mine: Any, documented: Any, path: str = "$") -> list[str]:
    """Where keys or types differ; null fits every type: a field is printed with a value here and null there."""
    if mine is None or documented is None:
        return []
    if type(mine) is not type(documented):
        return [f"{path}: {type(mine).__name__}, documented {type(documented).__name__}"]
    if isinstance(mine, dict):
        found = [f"{path}: keys {sorted(mine.keys() ^ documented.keys())}"] if mine.keys() != documented.keys() else []
        return found + [
            d for k in mine.keys() & documented.keys() for d in differences(mine[k], documented[k], f"{path}.{k}")
        ]
    if isinstance(mine, list) and mine and documented:
        return [d for item in mine for d in differences(item, documented[0], f"{path}[]")]
    return []

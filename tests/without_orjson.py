"""Run tests as if orjson were not installed: `PYTHONPATH=tests pytest -p without_orjson`."""

from __future__ import annotations

import sys

sys.modules["orjson"] = None  # type: ignore[assignment] # what Python documents for "cannot be imported"

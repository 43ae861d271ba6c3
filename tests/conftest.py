"""What all tests share: failure cases that `-k` finds by their number."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `pytest -k A13` find the tests that are marked with `@case("A13")`."""
    for item in items:
        for marker in item.iter_markers("case"):
            item.extra_keyword_matches.update(marker.args)

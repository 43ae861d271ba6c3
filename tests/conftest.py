"""What all tests share: failure cases that `-k` finds by their number, and what tests need of the system."""

from __future__ import annotations

import pytest

import needs


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of `tests/needs.py`."""
    needs.configure(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `pytest -k A13` find the tests that are marked with `@case("A13")`, and leave out what cannot run here."""
    needs.deselect(config, items)
    for item in items:
        for marker in item.iter_markers("case"):
            item.extra_keyword_matches.update(marker.args)

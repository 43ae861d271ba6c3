"""What all tests share: failure cases that `-k` finds by their number, and what tests need of the system."""

from __future__ import annotations

import os

import pytest

import needs
from sweep import pytest_addoption, pytest_terminal_summary, sweep_of

__all__ = ["pytest_addoption", "pytest_terminal_summary", "sweep_of"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of `tests/needs.py`; a pytest that a test starts is not to inherit this one's options."""
    needs.configure(config)
    if hasattr(config, "workerinput"):  # the options have reached the workers of xdist by now
        os.environ.pop("PYTEST_ADDOPTS", None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `pytest -k "[A13]"` find the tests marked with `@case("A13")`, and leave out what cannot run here.

    Without the brackets it finds them too, and whatever else has A13 in its name.
    """
    needs.deselect(config, items)
    for item in items:
        for marker in item.iter_markers("case"):
            item.extra_keyword_matches.update(f"[{number}]" for number in marker.args)

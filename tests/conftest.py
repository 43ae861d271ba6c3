"""What all tests share: failure cases that `-k` finds by their number, and what tests need of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

import needs

HERE = Path(__file__).parent
# Folders whose tests start programs by the hundred: coverage measures them by the tests in this process alone.
MANY_PROGRAMS = {"edges", "fleet", "inbox", "journal", "postgres", "tokens"}


@pytest.fixture(autouse=True)
def _programs_without_coverage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.relative_to(HERE).parts[0] in MANY_PROGRAMS:
        monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of `tests/needs.py`."""
    needs.configure(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `pytest -k A13` find the tests that are marked with `@case("A13")`, and leave out what cannot run here."""
    needs.deselect(config, items)
    for item in items:
        for marker in item.iter_markers("case"):
            item.extra_keyword_matches.update(marker.args)

"""Say which failure case a test proves: `@case("A13")`. `pytest -k "[A13]"` finds it; tests/README.md lists the cases."""

from __future__ import annotations

import pytest


def case(*numbers: str) -> pytest.MarkDecorator:
    """Mark a test with the failure cases that it proves."""
    return pytest.mark.case(*numbers)

"""Both JSON parsers, for the tests that must not depend on which one is installed."""

from __future__ import annotations

import pytest
from hypothesis import settings

from mlmessages.api import json

settings.register_profile("core", deadline=None, max_examples=150, derandomize=True)
settings.load_profile("core")


@pytest.fixture(params=["orjson", "stdlib"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The `speed` extra installed, and not installed."""
    if request.param == "stdlib":
        monkeypatch.setattr(json, "orjson", None)
    else:
        assert json.orjson is not None, "the tests need the `speed` extra, to prove both paths"
    return str(request.param)

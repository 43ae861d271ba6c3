"""Both JSON parsers, and machines far from UTC: what is read must depend on neither."""

from __future__ import annotations

import time
from collections.abc import Iterator

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


@pytest.fixture(params=["XYZ3", "XYZ-5:45"])
def far_from_utc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine three hours west of UTC and one in the east, where the system lets a process say so."""
    set_zone = getattr(time, "tzset", lambda: None)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        set_zone()
        yield
    set_zone()

"""The pytest plugin: the fixture `mlmessages_sandbox`. Nothing but pytest is imported until a test asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .. import testing  # lazy, and imported already: it is this module's package

if TYPE_CHECKING:
    from .sandbox import Server

_MARK = "mlmessages_sandbox"


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", f"{_MARK}(packs=2500, **options): what the sandbox of this test is made of")


@pytest.fixture
def mlmessages_sandbox(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A sandbox behind real HTTP in a thread of its own: `base_url`, `token`, `seller_id`, `sandbox`.

    ``@pytest.mark.mlmessages_sandbox(packs=3)`` passes its arguments to `Sandbox`.
    """
    mark = request.node.get_closest_marker(_MARK)
    args, options = (mark.args, mark.kwargs) if mark is not None else ((), {})
    with testing.serve_in_thread(testing.Sandbox(*args, **{"clock": time.monotonic, **options})) as server:
        yield server

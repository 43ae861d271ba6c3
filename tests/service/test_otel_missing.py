"""`mlmessages.otel` where OpenTelemetry is not installed."""

from __future__ import annotations

import subprocess
import sys

from cases import case
from mlmessages.installing import how_to_install


@case("N5")
def test_a_missing_extra_is_named() -> None:
    """The error names the extra to install, not a module that the user has never heard of."""
    program = "import sys; sys.modules['opentelemetry'] = None\nimport mlmessages.otel"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"ImportError: mlmessages.otel needs OpenTelemetry: {how_to_install('mlmessages[otel]')}" in done.stderr

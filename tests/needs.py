"""What a test needs of the system: `@needs("signals")`. Elsewhere such a test is deselected, and says so."""

from __future__ import annotations

import os
import shutil
import signal
from importlib.util import find_spec

import pytest

_HERE = {
    "signals": os.name == "posix",  # SIGTERM and SIGKILL that can be sent to another process
    "modes": os.name == "posix",  # file modes such as 0600
    "symlinks": os.name == "posix",  # without administrator's rights
    "limits": find_spec("resource") is not None,  # of file descriptors, and how much memory was used
    "terminal": find_spec("pty") is not None,
    "pgbouncer": shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None,
}


def needs(*what: str) -> pytest.MarkDecorator:
    """Mark a test with what it needs: signals, modes, symlinks, limits, terminal, pgbouncer."""
    assert set(what) <= _HERE.keys()
    return pytest.mark.needs(*what)


def configure(config: pytest.Config) -> None:
    """Register the mark, and let Ctrl-C tests work where SIGINT is ignored on entry, as under `nohup`."""
    config.addinivalue_line("markers", "needs(what): what a test needs of the system, see tests/needs.py")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the children of the tests inherit that


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose needs this system does not meet."""
    out = [item for item in items if any(not _HERE[what] for mark in item.iter_markers("needs") for what in mark.args)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]

"""The command line `mlmessages`: the only reader of the environment. Quick to import, also without the extra `cli`."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command that the arguments of the process name, and leave with its exit code."""
    try:
        missing = [name for name in ("click", "rich") if find_spec(name) is None]
        if missing:
            needs = f"mlmessages: the command line needs {' and '.join(missing)}"
            sys.stderr.write(f"{needs}; install it with: pip install 'mlmessages[cli]'\n")
            sys.exit(2)
        from .app import cli

        cli.main(prog_name="mlmessages")
    except KeyboardInterrupt:  # while it was still starting
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)

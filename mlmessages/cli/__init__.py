"""The command line `mlmessages`. It may import everything below it; nothing imports it.

Begin with `app`: the commands as one program, and how a failure becomes one line. `commands/` has a file for each
command. They share `options` (each option once), `settings` (the only reader of the environment), `interruptible`
(Ctrl-C and SIGTERM), `terminal`, `progress` and `narration` (what reaches the screen, with everything escaped),
`json_lines` and `line_file` (what `drain` and `fetch` write, and `serve` hands over), `pack_ids`, `input_text` and
`blocking` (what they read), `handlers` and `command_line` (where `serve` hands over), `doctor/`.

Importing this file is quick, and needs nothing of the extra `cli`.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib.util import find_spec

from ..installing import how_to_install


def main() -> None:
    """Run the command that the arguments of the process name, and leave with its exit code."""
    _open_missing_streams()
    try:
        missing = [name for name in ("click", "rich") if find_spec(name) is None]
        if missing:
            needs = f"mlmessages: the command line needs {' and '.join(missing)}"
            sys.stderr.write(f"{needs}; install it with: {how_to_install('mlmessages[cli]')}\n")
            sys.exit(2)
        from .app import cli

        cli.main(prog_name="mlmessages")
    except OSError as error:  # outside of a command: --help or --version on a closed standard output
        sys.stderr.write(f"Error: {error.strerror}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # while it was still starting
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


def _open_missing_streams() -> None:
    """Let no file get the descriptor of a standard stream that was closed on entry, and no print end in a traceback."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one, which is `fd`
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8")


class _Closed(io.TextIOBase):
    """A standard output that was closed on entry: what is written to it is not lost without a word."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "standard output is closed")

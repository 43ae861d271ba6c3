"""The line that installs a missing extra: one that works for the Python that runs, in the shell of its system."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec


def how_to_install(what: str) -> str:
    """Return what to type to install `what`, such as ``mlmessages[report]``, for this interpreter."""
    python = _quoted(sys.executable or "python3")
    if find_spec("pip") is not None:
        return f"{python} -m pip install {_quoted(what)}"
    if find_spec("ensurepip") is not None:
        return f"{python} -m ensurepip, and then {python} -m pip install {_quoted(what)}"
    return (
        f"python3 -m pip --python {python} install {_quoted(what)} (this Python has no pip, so another one's is used)"
    )


def _quoted(word: str) -> str:
    if os.name == "nt":
        return f'"{word}"' if " " in word or "[" in word else word
    return f"'{word}'" if any(char in word for char in " []") else word

"""``python -m mlmessages`` is ``mlmessages``, where scripts are not on the path."""

from __future__ import annotations

from .cli import main

main()

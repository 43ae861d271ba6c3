"""``python -m mlmessages.cli`` is ``mlmessages``, where scripts are not on the path."""

from __future__ import annotations

from . import main

main()

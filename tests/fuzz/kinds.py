"""The kinds of worlds, and how a seed is lived through."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from .drains import drain
from .inboxes import inbox
from .reads import read
from .walks import walk
from .world import Outcome


def _walk(seed: int) -> Outcome:
    walked = walk(seed)
    wrong = ("refused, although it stood still",) if walked.outcome == "refused, still" else ()
    return Outcome(walked.kind, walked.outcome, walked.requests, lost=walked.missing, wrong=wrong)


KINDS: Final[dict[str, Callable[[int], Outcome]]] = {"walks": _walk, "reads": read, "drains": drain, "inboxes": inbox}


def live(kind: str, seed: int) -> Outcome:
    """Live through one world; a seed is always the same one."""
    random.seed(seed)  # the retries' jitter
    return KINDS[kind](seed)

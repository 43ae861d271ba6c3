"""One line of the doctor's table."""

from __future__ import annotations

import enum

import attrs

from ...errors import MessagesError


class Verdict(enum.Enum):
    """What a check came to; only BAD makes the doctor's exit code 1."""

    GOOD = "good"
    LOOK = "look"  # it works, or may work; something about it is worth knowing
    BAD = "bad"
    UNKNOWN = "unknown"


@attrs.frozen
class Check:
    """What was looked at, what was found, and what to do next; `next_step` is empty where nothing is to be done."""

    name: str
    verdict: Verdict
    found: str
    next_step: str = ""

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {"check": self.name, "verdict": self.verdict.value, "found": self.found, "next": self.next_step or None}


def good(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, Verdict.GOOD, found)


def look(name: str, found: str, next_step: str = "") -> Check:
    """Return a check whose result is worth a look."""
    return Check(name, Verdict.LOOK, found, next_step)


def bad(name: str, found: str, next_step: str) -> Check:
    """Return a check that failed, and what to do."""
    return Check(name, Verdict.BAD, found, next_step)


def unknown(name: str, found: str, next_step: str = "") -> Check:
    """Return a check that could not be made."""
    return Check(name, Verdict.UNKNOWN, found, next_step)


def without_hint(error: MessagesError) -> str:
    """Return what went wrong: of a check, the hint is the next step."""
    return str(error).removesuffix(f". {error.hint}")

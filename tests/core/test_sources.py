"""A rule of the vendor's names its source, and every source that is named stands in one list."""

from __future__ import annotations

import re
from pathlib import Path

import mlmessages
from mlmessages import api

PACKAGE = Path(mlmessages.__file__).parent
MARK = re.compile(r"\[((?:documented|observed)\b[^\]]*)\]")


def listed() -> dict[str, set[str]]:
    """The sources in the docstring of `mlmessages.api`, by kind."""
    assert api.__doc__ is not None
    parts = re.split(r"^(documented|observed):$", api.__doc__, flags=re.MULTILINE)
    return {
        kind: set(re.findall(r"^- ([a-z0-9 ]+):", part, re.MULTILINE)) for kind, part in zip(parts[1::2], parts[2::2])
    }


def marks() -> list[tuple[str, str]]:
    """Every mark of a source in the package, with its file."""
    files = [file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "fleet"]
    return [
        (str(file.relative_to(PACKAGE)), " ".join(mark.replace("#", " ").split()))
        for file in files
        for mark in MARK.findall(file.read_text("utf-8"))
        if "…" not in mark
    ]


def test_the_list_of_sources_is_there() -> None:
    """Pages of the documentation and what was observed, each with a word on what it says."""
    assert len(listed()["documented"]) >= 10
    assert listed()["observed"] == {"answers", "integrators"}


def test_every_mark_names_a_source_of_the_list() -> None:
    """``[documented: messages, reasons; observed: answers]`` and the like: no name is missing in the list."""
    known = listed()
    found = marks()
    assert len(found) > 30
    for file, mark in found:
        for part in mark.split("; "):
            kind, colon, names = part.partition(": ")
            assert colon, f"{file}: [{mark}] names no source"
            assert set(names.split(", ")) <= known[kind], f"{file}: [{mark}]"


def test_every_source_of_the_list_is_named_somewhere() -> None:
    """A source that no rule points to is not in the list."""
    named = {name for _, mark in marks() for part in mark.split("; ") for name in part.partition(": ")[2].split(", ")}
    assert named == {name for names in listed().values() for name in names}

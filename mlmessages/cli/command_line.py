"""The command of `serve --exec`: split by the rules of the system, found, and refused if it cannot be started."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

_WINDOWS: Final = os.name == "nt"
_STARTED_BY_WINDOWS: Final = (".exe", ".com")  # CreateProcess; batch files would be read by a shell


def parsed(command: str) -> list[str]:
    """Return the program, as the path that was found, and its arguments; `click.UsageError` if it cannot be started.

    Checked before anything is sent: a conversation that is marked and handed to nothing becomes a dead letter.
    """
    try:
        arguments = list(split_on_windows(command)) if _WINDOWS else shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--exec: {error}") from None
    if not arguments:
        raise click.UsageError("--exec: there is no command")
    name = arguments[0]
    found = shutil.which(arguments[0])
    if found is None:
        raise click.UsageError(f"--exec: there is no program {name} that can be run")
    if reason := (why_not_on_windows(found) if _WINDOWS else _why_not(found)):
        raise click.UsageError(f"--exec: {name} cannot be started: {reason}")
    return [found, *arguments[1:]]


def split_on_windows(command: str) -> Iterator[str]:
    r"""Yield the arguments in `command`, by the rules of Windows' own programs (``CommandLineToArgvW``).

    Double quotes alone hold blanks together. Backslashes are themselves, but before a double quote: two are one, and an
    odd one makes the quote a character.
    """
    word, quoted, begun, slashes = "", False, False, 0
    for char in command:
        if char == "\\":
            slashes += 1
            begun = True
            continue
        if char == '"':
            word += "\\" * (slashes // 2)
            if slashes % 2:
                word += char
            else:
                quoted = not quoted
            begun = True
        else:
            word += "\\" * slashes
            if char in " \t" and not quoted:
                if begun:
                    yield word
                word, begun = "", False
            else:
                word += char
                begun = True
        slashes = 0
    if quoted:
        raise ValueError("No closing quotation")  # as shlex says it
    if begun:
        yield word + "\\" * slashes


def why_not_on_windows(program: str) -> str | None:
    """Return why Windows cannot start the file `program` without a shell; None if it can."""
    if program.lower().endswith(_STARTED_BY_WINDOWS):
        return None
    return "it is a script: name the program that runs it before it, such as python"


def _why_not(program: str) -> str | None:
    """Return why the system cannot start the executable file `program`; None if nothing speaks against it."""
    try:
        with Path(program).open("rb") as file:
            start = file.read(1024)
    except OSError:  # it may be run and not read
        return None
    first, _, _ = start.partition(b"\n")
    if first.startswith(b"#!"):
        words = first[2:].split()
        interpreter = os.fsdecode(words[0]) if words else ""
        if Path(interpreter).is_file() and os.access(interpreter, os.X_OK):
            return None
        return f"its first line names {interpreter or 'nothing'}, which is no program here"
    if b"\0" in start:  # a binary
        return None
    return "it is a script without a first line such as #!/bin/sh"

"""What error reporters would show of an exception: every frame up its traceback, with its locals.

rich is run as it is; structlog shortens as rich does. `slices` is what any other one may do: it takes the beginning and
the end of each text, formats it, and looks into containers and attrs objects.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import attrs
import click.testing
from rich.console import Console
from rich.pretty import traverse
from rich.traceback import Traceback

_TESTS = Path(__file__).parent
_RUNNER = Path(click.testing.__file__)  # it holds what a test typed
_RUN = 16  # characters: a shorter run may be a word


def assert_hidden(error: BaseException, *secrets: str) -> None:
    """No run of 16 characters of a secret is in anything that would be shown."""
    runs = {secret[i : i + _RUN] for secret in secrets for i in range(len(secret) - _RUN + 1)}
    assert runs, "a secret of less than 16 characters is none"
    for where, text in shown(error):
        for run in runs:
            assert run not in text, f"{run!r} in {where}: {text[max(0, text.index(run) - 100) :][:300]}"


def shown(error: BaseException) -> Iterator[tuple[str, str]]:
    """Where, and what is shown there."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        waiting += [link.__cause__, link.__context__]  # also one that is suppressed: not every reporter minds
        waiting += getattr(link, "exceptions", ())
        yield "error", f"{link} {link!r} {link.args!r} {vars(link)!r}"
        for frame in frames(link):
            name = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            for variable, value in frame.f_locals.items():
                for text in slices(value):
                    yield f"{name}: {variable}", text
                yield f"{name}: {variable} (structlog)", str(traverse(value, max_length=10, max_string=80))
        yield "rich", rich_report(link)


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of the traceback, but for those of the tests, whose locals are theirs to hide."""
    traceback = error.__traceback__
    while traceback is not None:
        if not _is_test(traceback.tb_frame.f_code.co_filename):
            yield traceback.tb_frame
        traceback = traceback.tb_next


def slices(value: object, depth: int = 3) -> Iterator[str]:
    """What may be shown of a value: its repr, parts of it, and the same of what it contains."""
    if isinstance(value, (str, bytes)):
        yield from (repr(value[:80]), repr(value[-40:]), repr(list(value[:80])), format(value, ""), f"{value!r:.80}")
    else:
        yield repr(value)
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from slices(key, depth - 1)
            yield from slices(item, depth - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from slices(item, depth - 1)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):  # type: ignore[arg-type] # any class that has them
            if field.repr and hasattr(value, field.name):
                yield from slices(getattr(value, field.name), depth - 1)


def rich_report(error: BaseException) -> str:
    """rich's traceback with locals, without the frames of the tests."""
    traceback = error.__traceback__
    while traceback is not None and _is_test(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    out = io.StringIO()
    extracted = Traceback.extract(type(error), error, traceback, show_locals=True, locals_max_string=80)
    for stack in extracted.stacks:
        stack.frames = [frame for frame in stack.frames if not _is_test(frame.filename)]
        for frame in stack.frames:
            out.write("\n".join(f"{name} = {node}" for name, node in (frame.locals or {}).items()))
    Console(file=out, width=100_000).print(Traceback(extracted, show_locals=True, locals_max_string=80))
    return out.getvalue()


def _is_test(filename: str) -> bool:
    return Path(filename).is_relative_to(_TESTS) or Path(filename) == _RUNNER

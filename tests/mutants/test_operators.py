"""The mutation run itself: wrongs are found, named stably, and put in at import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mutants.operators import mutants, mutated
from mutants.targets import TARGETS

ROOT = Path(__file__).parents[2]
SOURCE = '''
LIMIT = 5

class Box:
    """Holds things."""

    size: int = 3

    def add(self, thing: object, *, often: bool = False) -> int:
        """Add it."""
        if thing is not None and not often or self.size < 3:
            self.things = [thing] * 2
        log.warning("added %d", 3)
        try:
            self.count += 1
            return min(self.count, 7)
        except ValueError:
            raise RuntimeError(f"no {1 + 1}") from None
        except KeyError:
            self.reset(True)
        finally:
            self.done()
            self.count = 0
'''


def test_each_kind_of_wrong_is_found_once_for_each_place():
    found = {mutant.key.removeprefix("Box.add:"): mutant.after for mutant in mutants(ast.parse(SOURCE))}
    assert found == {
        "and/or:1": "(thing is not None and (not often)) and self.size < 3",
        "drop a condition:1": "self.size < 3",
        "drop a condition:2": "thing is not None and (not often)",
        "and/or:2": "thing is not None or not often",
        "drop a condition:3": "not often",
        "drop a condition:4": "thing is not None",
        "comparison:1": "thing is None",
        "drop the not:1": "often",
        "comparison:2": "self.size <= 3",
        "number:1": "4",
        "drop the assignment:1": "pass",
        "arithmetic:1": "[thing] / 2",
        "number:2": "3",
        "do not catch:1": "except KeyError: raise",
        "do not clean up:1": "finally: pass",
        "drop the assignment:2": "pass",
        "arithmetic:2": "self.count -= 1",
        "number:3": "2",
        "return None:1": "return None",
        "min/max:1": "max(self.count, 7)",
        "number:4": "8",
        "drop the error:1": "pass",
        "drop the call:1": "pass",
        "true/false:1": "False",
        "drop the call:2": "pass",
        "drop the assignment:3": "pass",
        "number:5": "1",
    }


def test_every_mutant_differs_and_compiles():
    whole = ast.unparse(ast.parse(SOURCE))
    texts = {ast.unparse(mutated(SOURCE, mutant.key)) for mutant in mutants(ast.parse(SOURCE))}
    assert whole not in texts
    assert len(texts) == len(mutants(ast.parse(SOURCE)))
    for text in texts:
        compile(text, "box", "exec")
    with pytest.raises(LookupError):
        mutated(SOURCE, "Box.add:comparison:9")


def test_the_wrong_is_there_in_every_process_that_imports_the_module():
    code = (
        "import subprocess, sys; from mlmessages.api.scalars import *; import mlmessages.api.outcomes as o;"
        "print(type(o.__loader__).__name__);"
        "sys.argv[1:] and subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    source = (ROOT / "mlmessages" / "api" / "outcomes.py").read_text(encoding="utf-8")
    key = mutants(ast.parse(source))[0].key
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "hook"), str(ROOT)]),
        "MUTANT": f"mlmessages.api.outcomes:{key}",
    }
    done = subprocess.run([sys.executable, "-c", code, code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["_MutatingLoader", "_MutatingLoader"]


def test_the_modules_and_the_tests_of_the_table_are_there():
    for module, tests in TARGETS.items():
        assert (ROOT / "mlmessages" / module).is_file(), module
        for name in tests:
            assert list(ROOT.glob(name)), name

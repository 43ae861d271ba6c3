"""Mutation run over the core: make a small wrong, run the few tests that concern it, and list what no test notices.

    python tests/mutants/run.py                         300 mutants, chosen by the hash of their keys
    python tests/mutants/run.py --sample 1000           more of them; --sample 0 is all
    python tests/mutants/run.py --only api/paging.py    of one module
    python tests/mutants/run.py --mutant 'api/paging.py:Walk.add:comparison:2'
    python tests/mutants/run.py --mutant NAME --tests tests/client tests/tokens
    python tests/mutants/run.py --list                  how many there are

Two processes at a time, at a low priority, each with a time limit of some times what the unharmed code takes; one
that reaches it counts as noticed. The wrong is put in at import, in every process that a test starts
(hook/sitecustomize.py), so that nothing is copied or written. What survives and is no fault is listed in equivalent.txt,
with its reason. Exit code 1: something else survived. A tool such as mutmut runs every test that touches a line, within
one process and without a time limit of its own; here a table (targets.py) names the files, and kills and children count.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from mutants.operators import mutants  # noqa: E402 - it is found by the line above
from mutants.targets import TARGETS  # noqa: E402

ROOT = HERE.parents[1]
PACKAGE = ROOT / "mlmessages"
PATIENCE = 4.0  # times what the unharmed code takes


@dataclass(frozen=True)
class Case:
    """One mutant of one module."""

    module: str
    key: str
    line: int
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.module}:{self.key}"


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a mutant: "killed", "timed out" or "survived"."""

    case: Case
    word: str
    seconds: float


def main() -> int:
    """Run, print, and return the exit code."""
    options = _options()
    if options.tests:
        TARGETS.update(dict.fromkeys(TARGETS, options.tests))
    cases = _chosen(options)
    if options.list:
        for module in TARGETS:
            print(f"{sum(case.module == module for case in cases):5} {module}")
        print(f"{len(cases):5} in all")
        return 0
    groups = {tuple(TARGETS[case.module]) for case in cases}
    limits = {tests: _limit(tests) for tests in groups}
    equivalent = _equivalent()
    survivors = []
    words: dict[str, int] = {}
    with ThreadPoolExecutor(options.jobs) as threads:
        for verdict in threads.map(lambda case: _judged(case, limits[tuple(TARGETS[case.module])]), cases):
            word, case = verdict.word, verdict.case
            if word == "survived" and case.name in equivalent:
                word = "equivalent"
            words[word] = words.get(word, 0) + 1
            if word == "survived":
                survivors.append(case)
                print(f"survived  {case.name}\n    {case.module}:{case.line}\n  - {case.before}\n  + {case.after}")
            elif options.verbose:
                print(f"{word:9} {case.name} ({verdict.seconds:.0f} s)")
            sys.stdout.flush()
    print(", ".join(f"{number} {word}" for word, number in sorted(words.items())))
    for name in sorted(equivalent - {case.name for case in _all()}):
        print(f"equivalent.txt names what is not there: {name}")
    return 1 if survivors else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many mutants; 0: all")
    parser.add_argument("--only", action="append", help="a module of targets.py; can be repeated")
    parser.add_argument("--mutant", action="append", help="one mutant by its name; can be repeated")
    parser.add_argument("--tests", nargs="+", help="these test files and folders, instead of those of targets.py")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", "-v", action="store_true")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Case]:
    cases = [case for case in _all() if not options.only or case.module in options.only]
    if options.mutant:
        return [case for case in cases if case.name in options.mutant]
    if not options.sample or options.list:
        return cases
    sampled = sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())[: options.sample]
    return sorted(sampled, key=lambda case: (list(TARGETS).index(case.module), case.line))


def _all() -> list[Case]:
    return [
        Case(module, mutant.key, mutant.line, mutant.before, mutant.after)
        for module in TARGETS
        for mutant in mutants(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
    ]


def _equivalent() -> set[str]:
    lines = (HERE / "equivalent.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def _limit(tests: Sequence[str]) -> float:
    """Return the seconds that a mutant gets for these tests, from what the unharmed code takes."""
    begun = time.monotonic()
    failed = _run(tests, {}, None)
    if failed:
        sys.exit(f"{' '.join(tests)}: they fail without a mutant")
    return 10.0 + PATIENCE * (time.monotonic() - begun)


def _judged(case: Case, limit: float) -> Verdict:
    begun = time.monotonic()
    dotted = "mlmessages." + case.module.removesuffix(".py").replace("/", ".")
    try:
        failed = _run(TARGETS[case.module], {"MUTANT": f"{dotted}:{case.key}"}, limit)
        word = "killed" if failed else "survived"
    except subprocess.TimeoutExpired:
        word = "timed out"
    return Verdict(case, word, time.monotonic() - begun)


def _run(tests: Sequence[str], environment: dict[str, str], limit: float | None) -> bool:
    """Return whether a test fails. TimeoutExpired: they take longer than `limit` seconds."""
    # pytest rewrites the asserts of a package that has a plugin, and would read its files past the hook
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--assert=plain"]
    paths = [str(path) for name in tests for path in sorted(ROOT.glob(name))]
    command += ["-p", "no:xdist", "--hypothesis-seed=0", *paths]
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(HERE / "hook"), str(ROOT)])}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            return process.wait(limit) != 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)


if __name__ == "__main__":
    os.nice(10)
    sys.exit(main())

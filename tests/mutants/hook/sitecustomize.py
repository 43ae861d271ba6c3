"""Put one wrong into one module of every process that is started: MUTANT=package.module:key."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType


class _MutatingLoader(SourceFileLoader):
    key = ""

    def get_code(self, fullname: str) -> CodeType:  # never from the cache of compiled files, nor into it
        sys.path.insert(0, str(Path(__file__).parents[2]))
        try:
            from mutants.operators import mutated
        finally:
            sys.path.pop(0)
        return compile(mutated(self.get_data(self.path).decode(), self.key), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, name: str, key: str) -> None:
        self._name = name
        self._key = key

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = _MutatingLoader(name, spec.origin)
        loader.key = self._key
        packages = spec.submodule_search_locations
        return importlib.util.spec_from_file_location(
            name, spec.origin, loader=loader, submodule_search_locations=packages
        )


if "MUTANT" in os.environ:
    sys.meta_path.insert(0, _Finder(*os.environ["MUTANT"].split(":", 1)))

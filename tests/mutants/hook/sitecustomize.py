"""Put one wrong into one module of every process that is started: MUTANT=package.module:key."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path


class _MutatingLoader(SourceFileLoader):
    key = ""

    def get_code(self, fullname):  # never from the cache of compiled files, nor into it
        sys.path.insert(0, str(Path(__file__).parents[1]))
        try:
            from operators import mutated
        finally:
            sys.path.pop(0)
        return compile(mutated(self.get_data(self.path).decode(), self.key), self.path, "exec", dont_inherit=True)


class _Finder:
    def __init__(self, name: str, key: str) -> None:
        self._name = name
        self._key = key

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = _MutatingLoader(name, spec.origin)
        loader.key = self._key
        packages = spec.submodule_search_locations
        return importlib.util.spec_from_file_location(name, spec.origin, loader=loader, submodule_search_locations=packages)


if "MUTANT" in os.environ:
    sys.meta_path.insert(0, _Finder(*os.environ["MUTANT"].split(":", 1)))

"""Breadth first through everything that can happen: the shortest way to a bad end, or the proof that there is none."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from attrs import frozen

from inbox.model import leases
from inbox.model.protocol import Rules, World, left, lost, progress, steps

W = TypeVar("W", bound=Hashable)


@frozen
class Verdict:
    """`states`: how many worlds were seen. `way`: the steps to the first bad one, empty if there is none."""

    states: int
    way: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        found = f"{self.why} after {len(self.way)} steps" if self.way else "no loss"
        return f"{self.states:>7,} states  {found}"


def check(rules: Rules) -> Verdict:
    """Look at every world of one machine that can be reached under `rules`."""
    return explore(rules.first(), lambda world: steps(world, rules), lambda world: _bad(world, rules))


def check_leases(rules: leases.Rules) -> Verdict:
    """Look at every world of two machines that can be reached under `rules`."""
    return explore(rules.first(), lambda world: leases.steps(world, rules), lambda world: leases.bad(world, rules))


def explore(first: W, steps: Callable[[W], Iterable[tuple[str, W]]], bad: Callable[[W], str]) -> Verdict:
    """Look at every world that can be reached, the near ones first."""
    came_from: dict[W, tuple[W, str] | None] = {first: None}
    ring = [first]
    while ring:
        following = []
        for world in ring:
            if why := bad(world):
                return Verdict(len(came_from), _way(came_from, world), why)
            for name, after in steps(world):
                if after not in came_from:
                    came_from[after] = (world, name)
                    following.append(after)
        ring = following
    return Verdict(len(came_from))


def _bad(world: World, rules: Rules) -> str:
    if lost(world):
        return "a message is lost"
    if left(world) and not world.late and next(progress(world, rules), None) is None:
        return "a message is left"
    return ""


def _way(came_from: dict[W, tuple[W, str] | None], world: W) -> tuple[str, ...]:
    way: list[str] = []
    while (step := came_from[world]) is not None:
        world, name = step
        way.append(name)
    return tuple(reversed(way))

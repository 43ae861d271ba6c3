"""The protocol of many machines loses nothing in any order of events; which of its rules are needed for that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from cases import case
from inbox.model import leases
from inbox.model.search import Verdict, check_leases

Search = Callable[[str, leases.Rules], Verdict]


@case("Q3")
def test_no_order_of_events_loses_or_leaves_a_message(two_machines: Search) -> None:
    """A machine that dies or is stopped past its lease at any point, a lost answer, late requests: no loss."""
    found = two_machines("the protocol", leases.PROTOCOL)
    assert not found.way, found
    assert found.states > 50_000  # it did look


@case("Q3")
@pytest.mark.parametrize("name", leases.WEAKENED)
def test_without_one_of_its_rules_the_protocol_loses_a_message(name: str, two_machines: Search) -> None:
    """Each has a way to a message that is marked and never handed over."""
    found = two_machines(name, leases.WEAKENED[name])
    assert found.why == "a message is lost", found


@case("Q3")
@pytest.mark.parametrize("name", leases.SLOWER)
def test_the_second_look_alone_carries(name: str, two_machines: Search) -> None:
    """The wait and the late answers make it rare and quick; without one of them nothing is lost all the same."""
    found = two_machines(name, leases.SLOWER[name])
    assert not found.way, found


def test_a_stop_is_what_the_second_look_is_for() -> None:
    """Where no machine is ever stopped, the wait after a takeover is enough."""
    rules = evolve(leases.fewer(leases.WEAKENED["late answers, no second look"]), stops=0, crashes=2)
    assert not check_leases(rules).way


def test_the_shortest_way_can_be_walked_again() -> None:
    """A counterexample is a list of steps that lead from the first world to the loss."""
    rules = leases.fewer(leases.WEAKENED["late answers, no second look"])
    worlds = {rules.first()}
    for step in check_leases(rules).way:
        worlds = {after for world in worlds for name, after in leases.steps(world, rules) if name == step}
    assert any(leases.lost(world) for world in worlds)

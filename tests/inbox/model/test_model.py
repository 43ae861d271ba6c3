"""The protocol loses nothing in any order of events; each of its rules is needed for that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from inbox.model.protocol import PAGE, PROTOCOL, WEAKENED, Page, Rules, World, at_rest, lost, steps, walk
from inbox.model.search import Verdict, check

Search = Callable[[str, Rules], Verdict]


def test_no_order_of_events_loses_or_leaves_a_message(verdict: Search) -> None:
    """Four messages, two workers, two crashes, two lost answers, two late executions: no loss, and nothing is left."""
    found = verdict("the protocol", PROTOCOL)
    assert not found.way, found
    assert found.states > 10_000  # it did look


@pytest.mark.parametrize("name", WEAKENED)
def test_without_one_of_its_rules_the_protocol_loses_a_message(name: str, verdict: Search) -> None:
    """Each rule left out has a way to a message that is marked and never handed over."""
    found = verdict(name, WEAKENED[name])
    assert found.why == "a message is lost", found
    assert found.way


def test_a_dropped_marking_answer_loses_a_message_without_any_fault() -> None:
    """Peek then mark needs no crash to lose what arrived between the two."""
    rules = evolve(WEAKENED["peek then mark, answer dropped"], crashes=0, losses=0, delays=0, workers=1)
    assert check(rules).way


@pytest.mark.parametrize("name", ["immediate retry after a timeout", "a dead claim is free"])
def test_the_wait_is_needed_only_because_a_request_may_be_executed_late(name: str) -> None:
    """On a server that executes at once or never, a request of unknown outcome could be repeated at once."""
    assert not check(evolve(WEAKENED[name], delays=0)).way


def test_a_claim_is_needed_only_when_two_work() -> None:
    """One worker that waits after a crash needs no claim: the loss of that variant is the second worker's."""
    assert not check(evolve(WEAKENED["two workers without a claim"], workers=1)).way


def test_the_shortest_way_can_be_walked_again() -> None:
    """A counterexample is a list of steps that lead from the first world to the loss."""
    for rules in WEAKENED.values():
        worlds = {rules.first()}
        for step in check(rules).way:
            worlds = {after for world in worlds for name, after in steps(world, rules) if name == step}
        assert any(lost(world) for world in worlds)


def test_a_loss_is_what_is_marked_never_handed_over_and_owed_by_nobody() -> None:
    """A message that a claim still covers is not lost yet."""
    marked = World(sent=1, read=1, row="done")
    assert lost(marked) == 1
    assert not lost(marked._replace(handled=1))
    assert not lost(marked._replace(row="issued"))
    assert not lost(marked._replace(stored=1))  # it is stored, and will be delivered
    assert at_rest(marked)


def test_the_model_walks_as_the_library_does() -> None:
    """Three pages of two messages hold four, each page with one row of the page before."""
    pages: tuple[Page, ...] = ()
    while not walk(pages)[0]:
        offset = walk(pages)[1]
        pages = (*pages, Page(offset, tuple(range(3, -1, -1))[offset : offset + PAGE], 4, 0))
    assert [page.rows for page in pages[:3]] == [(3, 2), (2, 1), (1, 0)]

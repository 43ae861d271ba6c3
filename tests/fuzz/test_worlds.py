"""A few hundred hostile worlds in each run of the suite; ``python -m fuzz 10000`` lives through more."""

from __future__ import annotations

import pytest

from fuzz.kinds import KINDS, live

CHUNKS = {"walks": (2, 600), "reads": (4, 30), "drains": (6, 30), "inboxes": (4, 18)}
"""How many tests of how many worlds."""


@pytest.mark.parametrize(("kind", "chunk"), [(kind, n) for kind, (many, _) in CHUNKS.items() for n in range(many)])
def test_no_promise_is_broken_in(kind: str, chunk: int) -> None:
    """Nothing that we marked is lost, nothing is left that was said to be done, nothing comes twice."""
    size = CHUNKS[kind][1]
    for seed in range(chunk * size, (chunk + 1) * size):
        outcome = live(kind, seed)
        assert not outcome.bad, f"python -m fuzz 1 --kind {kind} --from {seed}: {outcome}"


def test_worlds_are_hostile_enough() -> None:
    """Every kind of fault, of ending and of habit comes up among them: a fuzzer that meets none proves nothing."""
    drains = [live("drains", seed) for seed in range(40)]
    assert {"its end", "break"} < {outcome.ended for outcome in drains}
    faults = {fault for outcome in drains for fault in outcome.faults}
    assert {"mark: late", "mark: executed, unreadable", "mark: executed, dropped", "read: 503", "refused"} <= faults
    kinds = " ".join(outcome.kind for outcome in drains)
    assert all(word in kinds for word in ("oldest", "newest", "marks=page", "total=None", "lag=2", "hides", "releases"))


def test_a_seed_is_one_world() -> None:
    """The same seed gives the same world, request by request, in every run."""
    for kind in KINDS:
        first, second = live(kind, 7), live(kind, 7)
        assert (first.kind, first.requests, first.faults) == (second.kind, second.requests, second.faults), kind

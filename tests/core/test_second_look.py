"""A pack whose mark was answered and that is read once more in any case: what the backlog does until then."""

from __future__ import annotations

import pytest

from cases import case
from mlmessages.conversations.backlog import Backlog, Pack, State
from mlmessages.models import UnreadListing, UnreadPack

DUE = 900.0


def listing(**counts: int) -> UnreadListing:
    """A listing of packs with their counts."""
    return UnreadListing("9", tuple(UnreadPack(pack, count, None) for pack, count in counts.items()), None)


@pytest.fixture
def backlog() -> Backlog:
    """One that has nothing to do."""
    return Backlog(120.0)


@pytest.fixture
def pack(backlog: Backlog) -> Pack:
    """Read once and marked, with a second look to come."""
    backlog.listed(listing(p=1), 0.0)
    pack = backlog.issue(0.0)
    assert pack is not None
    pack.second_look = DUE
    backlog.marked(pack)
    return pack


@case("Q67")
def test_it_is_owed_and_waits(backlog: Backlog, pack: Pack) -> None:
    """Nothing is issued before; then it is, once; when it is read without another look to come, it is done."""
    assert (pack.state, backlog.owed, backlog.waiting, backlog.waits_until) == (State.OPEN, 1, 1, DUE)
    backlog.listed(listing(), 1.0)
    assert backlog.step(1.0) == DUE
    assert backlog.issue(DUE - 1) is None
    assert backlog.issue(DUE) is pack
    pack.second_look = None
    backlog.marked(pack)
    assert (pack.state, backlog.owed, backlog.waiting) == (State.DONE, 0, 0)


@case("Q67")
def test_listed_before_it_is_read_at_once(backlog: Backlog, pack: Pack) -> None:
    """However often, and it still waits for its moment afterwards."""
    for now in (10.0, 20.0):
        backlog.listed(listing(p=1), now)
        assert backlog.issue(now) is pack
        assert backlog.issue(now) is None
        backlog.marked(pack)
        assert backlog.next_read(now) == DUE


@case("Q67")
def test_where_reads_show_nothing_it_is_read_again_when_its_count_changes(backlog: Backlog, pack: Pack) -> None:
    """Ten times at the most; having left the listing counts as a change; its second look comes all the same."""
    backlog.listed(listing(p=1), 10.0)
    assert backlog.issue(10.0) is pack
    backlog.wait_for_second_look(pack)
    backlog.listed(listing(p=1), 20.0)
    assert backlog.issue(20.0) is None
    backlog.listed(listing(), 30.0)
    backlog.listed(listing(p=1), 40.0)
    assert backlog.issue(40.0) is pack
    for count in range(2, 30):
        backlog.wait_for_second_look(pack)
        backlog.listed(listing(p=count), 50.0)
        if backlog.issue(50.0) is None:
            break
    assert count == 11
    assert backlog.issue(DUE) is pack
    assert pack.fruitless == 0


@case("Q67")
def test_one_that_is_read_again_only_if_listed_waits_for_its_second_look_if_not(backlog: Backlog, pack: Pack) -> None:
    """A listing that does not show it any more ends the first, and not the second."""
    backlog.listed(listing(p=1), 10.0)
    assert backlog.issue(10.0) is pack
    backlog.reopen_if_listed(pack, 10.0)
    assert (backlog.owed, backlog.next_read(10.0)) == (1, None)
    backlog.listed(listing(), 15.0)
    assert (pack.state, backlog.next_read(15.0)) == (State.OPEN, DUE)
    assert backlog.issue(DUE) is pack


@case("Q71")
def test_the_next_read_is_the_first_that_waits(backlog: Backlog) -> None:
    """Of those that can be issued then: not what is over, and not what is read only if it is listed."""
    assert backlog.next_read(0.0) is None
    for name, due in (("a", 30.0), ("b", 20.0), ("c", 5.0)):
        backlog.restore(Pack(name, 1, None), due=due)
    listed = Pack("d", 1, None)
    backlog.restore(listed)
    backlog.reopen_if_listed(listed, 4.0)
    assert [backlog.next_read(now) for now in (0.0, 5.0, 20.0, 30.0)] == [5.0, 20.0, 30.0, None]

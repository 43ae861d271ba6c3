"""What a store that several processes share keeps: fences, takeovers, late facts, rings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cases import case
from journal.stores import (
    DEAD,
    LEASE,
    ONE,
    SECOND_LOOK,
    SELLER,
    SETTLE,
    THREE,
    TWO,
    Clock,
    entry,
    taken,
    whole,
)
from mlmessages.journal.store import Held, Seat, Seller, SharedStore, Stored

Stores = Callable[[], SharedStore]


def test_a_seat_has_one_holder_until_its_lease_ends(shared: Stores, clock: Clock) -> None:
    """A second worker gets nothing, and is told who holds it; when the lease has ended, it takes over."""
    one, two = shared(), shared()
    first = taken(one, ONE).seat
    with whole(two):
        two.register(TWO, "host-two", LEASE)
        assert two.take(TWO, 5, settle_time=SETTLE, second_look=SECOND_LOOK) == []
        assert two.holder(SELLER) == "host-one"
    clock.now += LEASE - 1
    with whole(one):
        assert one.renew(ONE, LEASE)
    clock.now += LEASE - 1
    with whole(two):
        assert two.take(TWO, 5, settle_time=SETTLE, second_look=SECOND_LOOK) == []
    clock.now += 2
    with whole(two):
        [second] = two.take(TWO, 5, settle_time=SETTLE, second_look=SECOND_LOOK)
        assert two.renew(TWO, LEASE)
        assert two.holder(SELLER) == "host-two"
    assert (second.seat.no, second.seat.epoch) == (first.no, first.epoch + 1)
    assert one.seats(ONE) == []
    assert two.seats(TWO) == [Held(second.seat, 0)]


def test_a_worker_that_lost_its_seat_decides_nothing(shared: Stores, clock: Clock) -> None:
    """Its seat is not among those that a transaction holds; that of its successor is."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    clock.now += LEASE + 1
    new = taken(two, TWO).seat
    with whole(one, old, new) as held:
        assert held == {new}
    with whole(two, old) as held:
        assert held == frozenset()
    with whole(two) as held:
        assert held == frozenset()


def test_a_takeover_opens_what_was_claimed_and_waits_from_the_end_of_the_lease(shared: Stores, clock: Clock) -> None:
    """Of unknown outcome, `settle_time` after the old lease's end; after an outage of an hour nothing waits."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    with whole(one, old):
        one.listed(old, [(p, 1, None) for p in "123"], 1.0)
        one.claim(old, "1")
    clock.now += LEASE + 20
    new = taken(two, TWO)
    assert new.reopened == 1
    rows = {row.pack_id: row for row in two.rows(new.seat)}
    assert (rows["1"].state, rows["1"].outcome_unknown) == ("open", True)
    assert rows["1"].wait == pytest.approx(SETTLE - 20)
    assert [rows[p].outcome_unknown for p in "23"] == [False, False]
    with whole(two, new.seat):
        two.claim(new.seat, "2")
    clock.now += 3600
    third = taken(one, THREE)
    assert third.reopened == 1
    assert {row.pack_id: row.wait for row in one.rows(third.seat)} == {"1": 0, "2": 0, "3": 0}


def test_what_was_claimed_at_a_takeover_gets_a_second_look(shared: Stores, clock: Clock) -> None:
    """Read once, it stays owed until a quarter of an hour after the takeover; read twice, it is done."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    with whole(one, old):
        one.listed(old, [("1", 1, None)], 1.0)
        one.claim(old, "1")
    clock.now += LEASE + SETTLE
    new = taken(two, TWO).seat
    with whole(two, new):
        two.claim(new, "1")
        stored = two.read(new, "1", [entry("a")], None, held=True)
    assert (stored.fresh, stored.again) == (["a"], pytest.approx(SECOND_LOOK))
    [row] = two.rows(new)
    assert (row.state, row.outcome_unknown, row.wait) == ("open", True, pytest.approx(SECOND_LOOK))
    assert row.second_look
    clock.now += SECOND_LOOK
    with whole(two, new):
        two.claim(new, "1")
        stored = two.read(new, "1", [entry("a"), entry("ghost")], None, held=True)
    assert (stored.fresh, stored.again) == (["ghost"], None)
    assert two.rows(new) == []


@case("Q67")
def test_a_read_that_is_claimed_before_a_second_look_is_due_does_not_stand_for_it(shared: Stores, clock: Clock) -> None:
    """However often, however late its answer; also one that is to be repeated, and one whose holder gives the seat back."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    with whole(one, old):
        one.listed(old, [("1", 1, None)], 1.0)
        one.claim(old, "1")
    clock.now += LEASE + SETTLE
    new = taken(two, TWO).seat
    assert not two.rows(new)[0].second_look  # it waits for its first
    for passed, again in ((200, None), (200, 300.0), (300, None)):
        with whole(two, new):
            two.claim(new, "1")
        assert not two.rows(new)[0].second_look
        with whole(two, new):
            stored = two.read(new, "1", [entry("a")], None, held=True, again=again)
        [row] = two.rows(new)
        assert row.wait == pytest.approx(stored.again)
        assert (row.outcome_unknown, row.second_look) == (True, again is None)
        clock.now += passed
    assert stored.again == pytest.approx(SECOND_LOOK - 400)
    with whole(two, new):
        two.release(TWO, new)
    third = taken(one, THREE).seat
    assert one.rows(third) == [row := two.rows(third)[0]]
    assert (row.second_look, row.wait) == (True, pytest.approx(SECOND_LOOK - 700))
    with whole(one, third):
        one.claim(third, "1")
    clock.now += SECOND_LOOK
    with whole(one, third):
        assert one.read(third, "1", [entry("a")], None, held=True).again == 0.0
    with whole(one, third):
        one.claim(third, "1")
        assert one.read(third, "1", [entry("a"), entry("ghost")], None, held=True) == Stored(["ghost"])
    assert one.rows(third) == []


def test_a_late_answer_adds_and_decides_nothing(shared: Stores, clock: Clock) -> None:
    """What a worker without the seat has read is stored and rings; the claim of its successor stands."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    with whole(one, old):
        one.listed(old, [("1", 1, None)], 1.0)
        one.claim(old, "1")
    clock.now += LEASE + SETTLE
    new = taken(two, TWO).seat
    with whole(two, new):
        two.claim(new, "1")
    with whole(one, old) as held:
        assert one.read(old, "1", [entry("late")], b"late", held=old in held).fresh == ["late"]
    [row] = two.rows(new)
    assert (row.state, row.outcome_unknown) == ("issued", True)
    assert two.undelivered(new) == ["1"]
    assert [held.rings for held in two.seats(TWO)] == [1]
    with whole(two, new):
        assert two.read(new, "1", [entry("late"), entry("more")], None, held=True).fresh == ["more"]


def test_every_fact_of_another_rings(shared: Stores, clock: Clock) -> None:
    """A read, a found message, an acknowledgement, a notification: the holder hears of each, and of none of its own."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    clock.now += LEASE + 1
    new = taken(two, TWO).seat

    def rings() -> int:
        [seat] = two.seats(TWO)
        return seat.rings

    with whole(two, new):
        two.listed(new, [("1", 1, None)], 1.0)
        two.claim(new, "1")
        two.read(new, "1", [entry("own")], None, held=True)
        two.found(new, "1", entry("own2"), "own2", held=True)
        two.add_check(new, "named", 60.0, held=True)
        two.acknowledge(new, "1", ["own2"], held=True)
    assert rings() == 0
    with whole(one, old):
        one.found(old, "1", entry("b"), "b", held=False)
    assert rings() == 1
    with whole(one, old):
        one.acknowledge(old, "1", ["own"], held=False)
    assert rings() == 2
    with whole(one, old):
        assert one.add_check(old, "other", 60.0, held=False)
        assert not one.add_check(old, "other", 60.0, held=False)
    assert rings() == 3
    assert two.entries(new, "1")[0] == [entry("b")]


def test_a_seat_that_is_given_back_is_free_at_once(shared: Stores, clock: Clock) -> None:
    """Only in its own epoch and by its holder: a release that comes late frees nothing."""
    one, two = shared(), shared()
    old = taken(one, ONE).seat
    with whole(one):
        one.release(TWO, old)
        assert one.holder(SELLER) == "host-one"
        one.release(ONE, old)
        assert one.holder(SELLER) is None
    new = taken(two, TWO).seat
    assert new.epoch == old.epoch + 1
    with whole(one):
        one.release(ONE, old)
        one.release(ONE, new)
        assert one.holder(SELLER) == "host-two"


def test_a_worker_that_ends_frees_its_seats_and_one_that_is_unknown_is_told(shared: Stores) -> None:
    """`retire` ends the lease at this moment; `renew` of a worker without a row says so."""
    one, two = shared(), shared()
    taken(one, ONE)
    with whole(one):
        one.retire(ONE)
        assert not one.renew(DEAD, LEASE)
        assert one.holder(SELLER) is None
    assert taken(two, TWO).seat.epoch == 2


def test_free_seats_are_taken_those_first_that_were_not_listed_for_longest(shared: Stores, clock: Clock) -> None:
    """As many as asked for; sellers are counted, and live workers that share them."""
    one = shared()
    with whole(one):
        one.register(ONE, "host", LEASE)
        one.register(TWO, "host", LEASE)
        one.register(DEAD, "host", 0.0)
        for seller in ("1", "2", "3", "4"):
            one.add_seller(seller)
            one.add_seller(seller)  # once more is nothing
    with whole(one):
        assert one.count() == (4, 0)  # a program that is only there, such as a web replica, takes no share
        for worker in (ONE, TWO, DEAD):
            one.share(worker, shares=True)
        assert one.count() == (4, 2)
        one.share(TWO, shares=False)
        assert one.count() == (4, 1)
    with whole(one):
        seats = [held.seat for held in one.take(ONE, 9, settle_time=SETTLE, second_look=SECOND_LOOK)]
    assert [seat.seller_id for seat in seats] == ["1", "2", "3", "4"]
    for seat in (seats[0], seats[2]):
        clock.now += 1
        with whole(one, seat):
            one.listed(seat, [], None)
    with whole(one):
        for seat in seats:
            one.release(ONE, seat)
    with whole(one):
        some = one.take(TWO, 3, settle_time=SETTLE, second_look=SECOND_LOOK)
    assert [each.seat.seller_id for each in some] == ["2", "4", "1"]
    with whole(one):
        last = one.take(ONE, 3, settle_time=SETTLE, second_look=SECOND_LOOK)
    assert [each.seat.seller_id for each in last] == ["3"]


def test_a_stopped_seller_is_not_taken_until_its_time_is_over(shared: Stores, clock: Clock) -> None:
    """Nor counted: for an hour, then two, up to a day; resumed, it is taken at once, and the next stop is an hour."""
    one = shared()
    first = taken(one, ONE).seat
    with whole(one, first):
        assert one.stop_seller(first, "its tokens are refused") == pytest.approx(3600.0)
    with whole(one):
        assert one.count() == (0, 0)
        assert one.holder(SELLER) == "host-one"
        one.release(ONE, first)
    assert one.sellers() == [Seller(SELLER, None, "its tokens are refused")]
    with whole(one):
        assert one.take(ONE, 5, settle_time=SETTLE, second_look=SECOND_LOOK) == []
    clock.now += 3601
    assert one.sellers() == [Seller(SELLER, None, None)]
    second = taken(one, TWO).seat
    assert second.epoch == 2
    with whole(one, second):
        waits = [one.stop_seller(second, "again") for _ in range(6)]
    assert waits == [pytest.approx(3600.0 * hours) for hours in (2, 4, 8, 16, 24, 24)]
    with whole(one):
        one.retire(TWO)
        one.resume_seller(SELLER)
        one.resume_seller("unheard of")
        assert one.count()[0] == 1
    third = taken(one, THREE).seat
    with whole(one, third):
        assert one.stop_seller(third, "once more") == pytest.approx(3600.0)


def test_a_notification_reaches_the_holder_from_any_process(shared: Stores, clock: Clock) -> None:
    """Written down and rung once; unnamed news rings; a seller that is not there is told; known messages are silent."""
    one, two = shared(), shared()
    seat = taken(one, ONE).seat
    with whole(two):
        assert two.notice(SELLER, "named", 60.0)
        assert two.notice(SELLER, "named", 60.0)
        assert not two.notice("999", "named", 60.0)
    assert [check.message_id for check in one.pending_checks(seat)] == ["named"]
    assert [held.rings for held in one.seats(ONE)] == [1]
    with whole(two):
        assert two.ring(SELLER)
        assert not two.ring("999")
    assert [held.rings for held in one.seats(ONE)] == [2]


def test_a_duty_is_one_caller_s_at_a_time(shared: Stores, clock: Clock) -> None:
    """True once in the time that is asked for, in any process; duties are apart."""
    one, two = shared(), shared()
    with whole(one):
        assert one.claim_duty("missed", 3600.0)
    with whole(two):
        assert not two.claim_duty("missed", 3600.0)
        assert two.claim_duty("other", 3600.0)
    clock.now += 3601
    with whole(two):
        assert two.claim_duty("missed", 3600.0)


def test_a_seller_that_is_removed_is_forgotten(shared: Stores, clock: Clock) -> None:
    """With all that was kept; its holder holds nothing any more; added again, it begins anew."""
    one = shared()
    old = taken(one, ONE).seat
    with whole(one, old):
        one.listed(old, [("1", 1, None)], 1.0)
        one.claim(old, "1")
        one.read(old, "1", [entry("a")], None, held=True)
        one.once(old, ["a"], "greet")
    with whole(one):
        assert one.remove_seller(SELLER)
        assert not one.remove_seller(SELLER)
    assert one.seats(ONE) == []
    assert one.sellers() == []
    with whole(one, old) as held:
        assert held == frozenset()
    new = taken(one, TWO).seat
    assert new.no != old.no
    with whole(one, new):
        one.claim(new, "1")
        assert one.read(new, "1", [entry("a")], None, held=True).fresh == ["a"]
        assert one.once(new, ["a"], "greet")


def test_sellers_share_nothing(shared: Stores) -> None:
    """The same ids for two sellers: each has packs, bodies, checks and names of its own."""
    one = shared()
    with whole(one):
        one.register(ONE, "host", LEASE)
        for seller in ("1", "2"):
            one.add_seller(seller)
        first, second = [t.seat for t in one.take(ONE, 2, settle_time=SETTLE, second_look=SECOND_LOOK)]

    def fill(seat: Seat) -> None:
        one.listed(seat, [("7", 1, None)], 1.0)
        one.claim(seat, "7")
        assert one.read(seat, "7", [entry("a")], None, held=True).fresh == ["a"]
        assert one.add_check(seat, "named", 60.0, held=True)
        assert one.once(seat, ["a"], "greet")

    with whole(one, first, second):
        fill(first)
        fill(second)
        one.acknowledge(first, "7", ["a"], held=True)
        one.settle_checks(first, ["a", "named"])
    assert one.undelivered(first) == []
    assert one.undelivered(second) == ["7"]

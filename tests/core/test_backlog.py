"""What a drain still owes: the decision table line by line, and what listings do to it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmessages.conversations.backlog import LISTING_LAG, Backlog, Next, Pack, State, Step, listed_again
from mlmessages.errors import AnswerLost, Forbidden, NotFound, StillListed
from mlmessages.models import Message, UnreadListing, UnreadPack

SETTLE = 120.0
REFUSED = Forbidden(403)
STILL = StillListed("pack 1 is still listed")


def listing(*packs: str | tuple[str, int], total: int | None = None) -> UnreadListing:
    """A listing of packs, each a pack id or a pack id and its count."""
    rows = [(pack, 1) if isinstance(pack, str) else pack for pack in packs]
    return UnreadListing("9", tuple(UnreadPack(pack, count, f"/packs/{pack}") for pack, count in rows), total)


def taken(backlog: Backlog, now: float = 0.0) -> list[str]:
    """The ids of all packs that can be taken now."""
    return [pack.pack_id for pack in packs(backlog, now)]


def packs(backlog: Backlog, now: float = 0.0) -> list[Pack]:
    """All packs that can be taken now."""
    found = []
    while (pack := backlog.issue(now)) is not None:
        found.append(pack)
    return found


def only(backlog: Backlog, now: float = 0.0) -> Pack:
    """The one pack that can be taken now."""
    (pack,) = packs(backlog, now)
    return pack


# -- the decision table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"unknown_ids": True}, Next.DELIVER),
        ({"outcome_unknown": True}, Next.MARK),
        ({"unread_beyond": True}, Next.MARK_PAGES),
        ({}, Next.READ_AGAIN),
        ({"fruitless": 1}, Next.PARK),
        ({"fruitless": 7}, Next.PARK),
    ],
)
def test_each_line_of_the_decision_table(what: dict[str, Any], expected: Next) -> None:
    """A pack that is listed again after its mark: each line of the table in `mlmessages.inbox`, alone."""
    nothing: dict[str, Any] = {"unknown_ids": False, "outcome_unknown": False, "unread_beyond": False, "fruitless": 0}
    assert listed_again(**(nothing | what)) is expected


def test_the_first_line_that_fits_decides() -> None:
    """Where several lines fit, the first one decides: data before marks, marks before giving up."""
    for unknown, mark, beyond, fruitless in itertools.product([True, False], [True, False], [True, False], [0, 1, 5]):
        decided = listed_again(unknown_ids=unknown, outcome_unknown=mark, unread_beyond=beyond, fruitless=fruitless)
        if unknown:
            assert decided is Next.DELIVER
        elif mark:
            assert decided is Next.MARK
        elif beyond:
            assert decided is Next.MARK_PAGES
        else:
            assert decided is (Next.PARK if fruitless else Next.READ_AGAIN)


# -- the ordinary way --------------------------------------------------------------------------------------------------


def test_a_drain_begins_and_ends_with_a_listing() -> None:
    """Nothing is taken before a listing; the end is a listing that was sent after the last pack was looked at."""
    backlog = Backlog(SETTLE)
    assert (backlog.issue(0.0), backlog.step(0.0)) == (None, Step.LIST)
    backlog.listed(listing("1", "2"), 0.0)
    for pack in packs(backlog):
        assert pack.state is State.ISSUED
        backlog.marked(pack)
    assert backlog.step(0.0) is Step.LIST
    backlog.listed(listing(), 1.0)
    assert backlog.step(1.0) is Step.END


def test_packs_come_in_the_order_of_the_listing_each_once() -> None:
    """A pack that is listed twice, under either resource, is taken once; the first listing decides the order."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("3", "1", "3", "2", "1"), 0.0)
    assert taken(backlog) == ["3", "1", "2"]


def test_a_pack_remembers_its_row() -> None:
    """What is taken knows the count and the resource that the listing printed."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(("1", 7)), 0.0)
    pack = only(backlog)
    assert (pack.pack_id, pack.count, pack.resource, pack.seen) == ("1", 7, "/packs/1", False)


def test_a_drain_that_took_something_lists_again_even_if_it_failed() -> None:
    """A refused pack was looked at too: a later listing must confirm the end."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    backlog.park(only(backlog), REFUSED)
    assert backlog.step(0.0) is Step.LIST
    backlog.listed(listing("1"), 1.0)
    assert backlog.step(1.0) is Step.END
    assert [(failure.pack_id, failure.error) for failure in backlog.parked] == [("1", REFUSED)]


def test_a_marked_pack_that_is_listed_again_is_looked_at_again() -> None:
    """After its mark a pack may be listed for an arrival: it is taken again, and knows what was handed over."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    pack = only(backlog)
    pack.learn([Message("a")])
    backlog.marked(pack)
    backlog.listed(listing(("1", 2)), 1.0)
    again = only(backlog)
    assert again is pack
    assert (again.known, again.count) == (frozenset("a"), 2)


def test_learning_tells_each_message_once() -> None:
    """`learn` returns what is new, in order, each id once, and knows it from then on."""
    pack = Pack("1", 1, None)
    assert pack.known == frozenset()
    assert [row.id for row in pack.learn([Message("b"), Message("a"), Message("b")])] == ["b", "a"]
    assert [row.id for row in pack.learn([Message("a"), Message("c")])] == ["c"]
    assert pack.learn([Message("a"), Message("b"), Message("c")]) == ()
    assert pack.known == frozenset("abc")


# -- set aside, and stalled --------------------------------------------------------------------------------------------


def test_a_refused_pack_is_not_taken_again_whatever_the_listing_says() -> None:
    """A pack that failed stays set aside, also when its count changes."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(("1", 1)), 0.0)
    backlog.park(only(backlog), REFUSED)
    backlog.listed(listing(("1", 5)), 1.0)
    assert taken(backlog, 1.0) == []


@pytest.mark.parametrize("rows", [500, 1000])
def test_set_aside_packs_that_fill_a_capped_listing_stall_it(rows: int) -> None:
    """Where refused packs fill the listing to its cap, more may be hidden behind them: that is no end."""
    backlog = Backlog(SETTLE)
    full = listing(*map(str, range(rows)))
    backlog.listed(full, 0.0)
    for pack in packs(backlog):
        backlog.park(pack, REFUSED)
    backlog.listed(full, 1.0)
    assert backlog.step(1.0) is Step.STALLED
    assert len(backlog.parked) == rows


def test_a_total_above_the_rows_stalls_it_too() -> None:
    """A `total` above the rows says itself that there is more."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1", total=2), 0.0)
    backlog.park(only(backlog), REFUSED)
    backlog.listed(listing("1", total=2), 1.0)
    assert backlog.step(1.0) is Step.STALLED


def drained(unread: list[str], refused: set[str], cap: int) -> tuple[Step, int, int]:
    """Drain a server of `unread` packs that lists `cap` of them: how it ends, how many were set aside, and listings."""
    backlog, listings = Backlog(SETTLE), 0
    while True:
        for pack in packs(backlog):
            if pack.pack_id in refused:
                backlog.park(pack, REFUSED)
            else:
                backlog.marked(pack)
                unread.remove(pack.pack_id)
        step = backlog.step(0.0)
        if step is not Step.LIST:
            assert isinstance(step, Step)
            return step, len(backlog.parked), listings
        backlog.listed(listing(*unread[:cap]), 0.0)
        listings += 1


@pytest.mark.parametrize(("good", "bad"), [(10, 250), (150, 250), (190, 201), (1, 200)])
def test_an_unknown_cap_is_learnt_and_kept(good: int, bad: int) -> None:
    """A listing as long as the one before although packs were marked is capped, whatever its length, from then on."""
    refused = {f"9{i}" for i in range(bad)}
    step, aside, _ = drained([str(i) for i in range(10_000, 10_000 + good)] + sorted(refused), refused, 200)
    assert (step, aside) == (Step.STALLED, 200)


@pytest.mark.parametrize(("many", "listings"), [(0, 1), (1, 2), (199, 2), (200, 2), (201, 3), (1000, 6)])
def test_past_the_cap_in_the_fewest_listings(many: int, listings: int) -> None:
    """A server that lists 200 at a time is drained whole, with one closing listing."""
    assert drained([str(i) for i in range(many)], set(), 200) == (Step.END, 0, listings)


@pytest.mark.parametrize(("good", "bad"), [(5, 3), (300, 3), (300, 199)])
def test_a_few_refused_packs_are_no_stall(good: int, bad: int) -> None:
    """Refused packs that leave room in the listing do not stop the others, and the drain ends."""
    refused = {f"9{i}" for i in range(bad)}
    unread = sorted(refused) + [str(i) for i in range(10_000, 10_000 + good)]
    assert drained(unread, refused, 200)[:2] == (Step.END, bad)


def test_a_coincidence_is_not_a_cap() -> None:
    """Two listings of one length by coincidence: a longer one later shows that the length was no cap."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1", "2"), 0.0)
    one, two = packs(backlog)
    backlog.marked(one)
    backlog.park(two, REFUSED)
    backlog.listed(listing("2", "3"), 1.0)  # one was marked, and another came
    backlog.park(only(backlog, 1.0), REFUSED)
    backlog.listed(listing("2", "3", "4"), 2.0)
    backlog.park(only(backlog, 2.0), REFUSED)
    backlog.listed(listing("2", "3", "4"), 3.0)
    assert backlog.step(3.0) is Step.END


# -- a listing that lags, and a count that never falls -----------------------------------------------------------------


def test_a_listing_that_lags_costs_one_look_and_ends() -> None:
    """A pack that is still listed after its mark is looked at once; when the listing has caught up, that is the end."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    backlog.marked(only(backlog))
    backlog.listed(listing("1"), 1.0)
    backlog.reopen_if_listed(only(backlog, 1.0), 1.0)
    assert backlog.step(1.0) is Step.LIST
    backlog.listed(listing("1"), 1.0)
    assert taken(backlog, 1.0) == []
    assert backlog.step(1.0) == 1.0 + LISTING_LAG
    assert backlog.step(1.0 + LISTING_LAG) is Step.LIST
    backlog.listed(listing(), 1.0 + LISTING_LAG)
    assert taken(backlog, 6.0) == []
    assert backlog.step(6.0) is Step.END
    assert backlog.parked == ()


def test_a_count_that_never_falls_is_looked_at_twice_and_set_aside() -> None:
    """Hidden messages: two looks, 5 s apart, after the mark; then it is set aside and the drain ends."""
    backlog, now, looks = Backlog(SETTLE), 0.0, 0
    backlog.listed(listing("1"), now)
    backlog.marked(only(backlog))
    for _ in range(20):
        while (pack := backlog.issue(now)) is not None:
            looks += 1
            following = listed_again(
                unknown_ids=False, outcome_unknown=False, unread_beyond=False, fruitless=pack.fruitless
            )
            if following is Next.READ_AGAIN:
                backlog.reopen_if_listed(pack, now)
            else:
                assert following is Next.PARK
                backlog.park(pack, STILL)
        step = backlog.step(now)
        if step is Step.LIST:
            backlog.listed(listing("1"), now)
        elif isinstance(step, float):
            now = step
        else:
            break
    assert (step, looks, now) == (Step.END, 2, LISTING_LAG)
    assert [failure.error for failure in backlog.parked] == [STILL]


@pytest.mark.parametrize(("count", "opened"), [(3, False), (4, True), (2, True)])
def test_a_pack_that_is_still_listed_opens_again_when_its_count_changes(count: int, opened: bool) -> None:
    """`StillListed` is not for ever: another count is something new; the same count is not."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(("1", 3)), 0.0)
    backlog.park(only(backlog), STILL)
    backlog.listed(listing(("1", count)), 1.0)
    assert taken(backlog, 1.0) == (["1"] if opened else [])
    assert len(backlog.parked) == (0 if opened else 1)


def test_a_pack_that_left_the_listing_opens_again_when_it_comes_back() -> None:
    """A `StillListed` pack that was gone, and is listed with the old count, has something new."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    backlog.park(only(backlog), STILL)
    backlog.listed(listing(), 1.0)
    assert backlog.step(1.0) is Step.END
    backlog.listed(listing("1"), 2.0)
    assert taken(backlog, 2.0) == ["1"]


def test_a_pack_opened_again_has_both_its_looks_again() -> None:
    """What was fruitless before the count changed does not count against the pack."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    pack = only(backlog)
    backlog.marked(pack)
    backlog.listed(listing("1"), 0.0)
    backlog.reopen_if_listed(only(backlog), 0.0)
    backlog.listed(listing("1"), LISTING_LAG)
    backlog.park(only(backlog, LISTING_LAG), STILL)
    backlog.listed(listing(("1", 2)), 10.0)
    assert only(backlog, 10.0).fruitless == 0


def test_a_pack_whose_mark_showed_more_stays_taken() -> None:
    """What a mark showed and did not mark is still to be acknowledged: until then no listing opens the pack."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    pack = only(backlog)
    backlog.marked(pack, more=True)
    backlog.listed(listing("1"), 1.0)
    assert taken(backlog, 1.0) == []
    backlog.marked(pack)
    backlog.listed(listing("1"), 2.0)
    assert only(backlog, 2.0) is pack


# -- marks of unknown outcome ------------------------------------------------------------------------------------------


def test_a_mark_of_unknown_outcome_waits_its_settle_time() -> None:
    """A mark that may yet be executed: its pack alone waits, listed or not, and is then looked at again."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1", "2"), 0.0)
    one, two = packs(backlog)
    backlog.wait_for_outcome(one, AnswerLost("lost"), 10.0)
    backlog.marked(two)
    assert backlog.waiting == 1
    backlog.listed(listing("1"), 11.0)
    assert taken(backlog, 10.0 + SETTLE - 1e-6) == []
    assert backlog.step(11.0) == 10.0 + SETTLE
    assert only(backlog, 10.0 + SETTLE) is one
    assert one.outcome_unknown
    backlog.marked(one)
    assert (backlog.waiting, one.outcome_unknown) == (0, False)
    backlog.listed(listing(), 140.0)
    assert backlog.step(140.0) is Step.END


def test_a_drain_does_not_end_while_a_mark_may_still_be_executed() -> None:
    """An empty listing is no end while a pack waits: it is read again, listed or not."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    backlog.wait_for_outcome(only(backlog), AnswerLost("lost"), 0.0)
    backlog.listed(listing(), 1.0)
    assert backlog.step(1.0) == SETTLE
    assert taken(backlog, SETTLE) == ["1"]


def test_unknown_marks_are_bounded() -> None:
    """A pack whose marks never get an answer is set aside with the last error after six of them."""
    backlog, now = Backlog(SETTLE), 0.0
    backlog.listed(listing("1"), now)
    errors: list[AnswerLost] = []
    while (pack := backlog.issue(now)) is not None:
        errors.append(AnswerLost(f"lost {len(errors)}"))
        assert len(errors) <= 6
        backlog.wait_for_outcome(pack, errors[-1], now)
        now += SETTLE
    assert len(errors) == 6
    assert [failure.error for failure in backlog.parked] == errors[-1:]
    assert backlog.waiting == 0


def test_an_answered_mark_forgets_the_unknown_ones_before_it() -> None:
    """Four unknown marks, one answer, and again as many as are allowed: what was settled does not count."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing("1"), 0.0)
    now = 0.0
    for answered in (True, False):
        for _ in range(4 if answered else 5):
            backlog.wait_for_outcome(only(backlog, now), AnswerLost("lost"), now)
            now += SETTLE
        if answered:
            backlog.marked(only(backlog, now))
            backlog.listed(listing("1"), now)
    assert backlog.parked == ()
    assert only(backlog, now).pack_id == "1"


# -- listings that are not to be believed ------------------------------------------------------------------------------


def test_an_empty_listing_right_after_429s_is_asked_once_more() -> None:
    """A throttled server was seen to answer that there is nothing: one more listing confirms it, and only one."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(), 0.0, throttled=True)
    assert backlog.step(0.0) is Step.LIST
    backlog.listed(listing(), 1.0)
    assert backlog.step(1.0) is Step.END


def test_a_doubtful_listing_is_asked_once_and_not_for_ever() -> None:
    """Where the confirming listing came after 429s too, that is enough."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(), 0.0, throttled=True)
    assert backlog.step(0.0) is Step.LIST
    backlog.listed(listing(), 1.0, throttled=True)
    assert backlog.step(1.0) is Step.END


def test_doubt_is_confirmed_anew_after_every_look() -> None:
    """What was confirmed before more work was done confirms nothing after it."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(), 0.0, throttled=True)
    assert backlog.step(0.0) is Step.LIST
    backlog.listed(listing("1"), 1.0)
    backlog.marked(only(backlog, 1.0))
    backlog.listed(listing(), 2.0, throttled=True)
    assert backlog.step(2.0) is Step.LIST


def test_an_empty_listing_that_counts_more_is_no_end() -> None:
    """A listing without rows whose `total` is above 0 is asked once more, and does not end in silence."""
    backlog = Backlog(SETTLE)
    backlog.listed(listing(total=31), 0.0)
    assert backlog.step(0.0) is Step.LIST
    backlog.listed(listing(total=31), 1.0)
    assert backlog.step(1.0) is Step.STALLED


# -- all of it at once -------------------------------------------------------------------------------------------------


@given(st.data())
def test_every_drain_ends_with_every_pack_marked_or_reported(data: st.DataObject) -> None:
    """A server with a cap, lag, refused packs, hidden messages and lost answers: the drain ends, nothing is forgotten."""
    many, cap = data.draw(st.integers(0, 25)), data.draw(st.sampled_from([3, 7, 20, 500]))
    lag = data.draw(st.sampled_from([0.0, 2.0, 4.9]))
    kinds = st.sampled_from(["good", "good", "good", "refused", "hidden", "lost", "lost twice"])
    kind = {f"p{i}": data.draw(kinds) for i in range(many)}
    lost = {pack: {"lost": 1, "lost twice": 2}.get(what, 0) for pack, what in kind.items()}
    gone: dict[str, float] = {}  # when a pack leaves the listing
    backlog, now, step = Backlog(SETTLE), 0.0, None
    for _ in range(400):
        for pack in packs(backlog, now):
            if kind[pack.pack_id] == "refused":
                backlog.park(pack, NotFound(404))
                continue
            fresh = bool(pack.learn([Message(f"{pack.pack_id}-m")]))
            following = listed_again(
                unknown_ids=fresh, outcome_unknown=pack.outcome_unknown, unread_beyond=False, fruitless=pack.fruitless
            )
            if following in (Next.DELIVER, Next.MARK):
                if lost[pack.pack_id]:
                    lost[pack.pack_id] -= 1
                    backlog.wait_for_outcome(pack, AnswerLost("lost"), now)
                else:
                    gone[pack.pack_id] = now + lag
                    backlog.marked(pack)
            elif following is Next.READ_AGAIN:
                backlog.reopen_if_listed(pack, now)
            else:
                backlog.park(pack, STILL)
        step = backlog.step(now)
        if step is Step.LIST:
            rows = [
                pack for pack, what in kind.items() if what in ("refused", "hidden") or gone.get(pack, now + 1) > now
            ]
            backlog.listed(listing(*rows[:cap]), now)
        elif isinstance(step, float):
            now = step
        else:
            break
    assert isinstance(step, Step)
    assert now <= (2 * many + 1) * SETTLE + 100
    aside = {failure.pack_id for failure in backlog.parked}
    assert aside <= {pack for pack, what in kind.items() if what in ("refused", "hidden")}
    reported = set(gone) | aside
    if sum(what in ("refused", "hidden") for what in kind.values()) < cap:
        assert step is Step.END
        assert reported == set(kind)
    elif step is Step.END:  # a cap that was never seen to cut: only where nothing could be marked in between
        assert cap not in (500, 1000)

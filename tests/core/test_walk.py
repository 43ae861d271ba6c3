"""Walking a conversation that changes, over servers that misbehave: nothing missed, each message once, bounded calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from math import ceil
from typing import Any, Literal

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import case
from core.shapes import dump
from mlmessages.api.decoding import message_page
from mlmessages.api.paging import PageWalk, UpToKnown, ascending, newest_first
from mlmessages.errors import DecodeError
from mlmessages.models import MessagePage

HONEST = "honest"


@define
class Server:
    """A conversation, newest first, as a server pages it.

    `sizes`: the most rows of each page in turn (the last one from then on). `total`: what `paging.total` says, "page"
    for the rows of the page itself. `limit`: what `paging.limit` says: the size of the page, what was asked, or nothing.
    `after`: what happens after the n-th page.
    """

    ids: list[str]
    sizes: tuple[int, ...] = (1_000,)
    total: int | str | None = HONEST
    limit: str | None = "size"
    after: dict[int, Callable[[Server], None]] = field(factory=dict)
    paging: bool = True
    arrived: int = 0
    calls: int = 0

    def page(self, limit: int, offset: int) -> MessagePage:
        """Answer one request."""
        size = min(limit, self.sizes[min(self.calls, len(self.sizes) - 1)])
        rows = [{"id": id_} for id_ in self.ids[offset : offset + size]]
        total = {HONEST: len(self.ids), "page": len(rows)}.get(self.total, self.total)  # type: ignore[arg-type]
        told = {"size": size, "asked": limit, None: None}[self.limit]
        paging = {"limit": told, "offset": offset, "total": total} if self.paging else None
        self.calls += 1
        answer = message_page(dump({"messages": rows, "paging": paging}), "1")
        self.after.get(self.calls, lambda _: None)(self)
        return answer

    def arrive(self, many: int = 1) -> None:
        """New messages, at the top."""
        for _ in range(many):
            self.arrived += 1
            self.ids.insert(0, f"new{self.arrived}")

    def hide(self, *places: int) -> None:
        """Moderation hides the messages at `places`."""
        for place in sorted({place % len(self.ids) for place in places} if self.ids else (), reverse=True):
            del self.ids[place]


def old(many: int) -> list[str]:
    """The ids of a conversation of `many` messages, newest first."""
    return [f"m{i}" for i in range(many)]


def walked(server: Any, limit: int) -> list[str]:
    """Every id that a walk shows, in the order it shows them."""
    walk, shown = PageWalk(limit), []
    while not walk.done:
        assert walk.pages < 5_000, "it does not end"
        shown += [row.id for row in walk.take(server.page(limit, walk.offset))]
    return shown


def missed(server: Server, before: Iterable[str], shown: Iterable[str]) -> set[str]:
    """What was there from the beginning to the end, and was not shown."""
    return set(before) & set(server.ids) - set(shown)


# -- whatever happens between two pages --------------------------------------------------------------------------------

arrivals = st.integers(1, 6).map(lambda many: lambda server: server.arrive(many))
hidings = st.lists(st.integers(0, 60), min_size=1, max_size=4).map(lambda places: lambda server: server.hide(*places))


def bound(many: int, sizes: tuple[int, ...], limit: int, attempts: int) -> int:
    """How many calls a walk may make: a page advances by its rows but one, the anchor."""
    step = max(1, min(limit, *sizes) - 1)
    return attempts * (ceil(many / step) + 3)


@settings(max_examples=500)
@given(
    many=st.integers(0, 40),
    limit=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple),
    told=st.sampled_from(["size", "asked", None]),
    after=st.dictionaries(st.integers(1, 12), arrivals | hidings, max_size=3),
)
def test_nothing_is_missed_while_messages_arrive_and_are_hidden(
    many: int, limit: int, sizes: tuple[int, ...], told: str | None, after: dict[int, Any]
) -> None:
    """Three changes between any pages, pages of any length: whatever was there throughout is shown, each id once."""
    server = Server(old(many), sizes, limit=told, after=after)
    shown = walked(server, limit)
    assert missed(server, old(many), shown) == set()
    assert len(shown) == len(set(shown))
    assert server.calls <= bound(many + server.arrived, sizes, limit, 1 + 2 * len(after))


@settings(max_examples=300)
@given(
    many=st.integers(0, 40),
    limit=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple),
    after=st.dictionaries(st.integers(1, 30), arrivals | hidings, min_size=4, max_size=30),
)
def test_a_conversation_that_never_rests_is_shown_whole_or_refused(
    many: int, limit: int, sizes: tuple[int, ...], after: dict[int, Any]
) -> None:
    """However often it changes: all that was there throughout, or a `DecodeError`; never a part that looks whole."""
    server = Server(old(many), sizes, after=after)
    try:
        shown = walked(server, limit)
    except DecodeError:
        return
    assert missed(server, old(many), shown) == set()
    assert len(shown) == len(set(shown))


@settings(max_examples=300)
@given(
    many=st.integers(0, 40),
    limit=st.integers(1, 12),
    clamp=st.integers(1, 12),
    total=st.sampled_from([None, 0, 1, 7, 39, 10_000, -5]),
    paging=st.booleans(),
)
def test_a_total_that_lies_costs_no_message(many: int, limit: int, clamp: int, total: int | None, paging: bool) -> None:
    """A total that is null, too small or too large, or no paging at all, with full pages: everything, bounded calls."""
    server = Server(old(many), (clamp,), total=total, paging=paging)
    if not paging or total is None:
        server.limit = None
    if total is not None and not paging and clamp < limit:
        server.sizes = (limit,)
    shown = walked(server, limit)
    assert shown == old(many)
    assert server.calls <= bound(many, server.sizes, limit, 1)


@settings(max_examples=200)
@given(
    many=st.integers(0, 40),
    limit=st.integers(3, 12),
    total=st.sampled_from([None, 0, 5, 10_000]),
    after=st.dictionaries(st.integers(1, 12), st.just(lambda server: server.arrive()), max_size=12),
)
def test_arrivals_are_survived_without_a_total_that_can_be_trusted(
    many: int, limit: int, total: int | None, after: dict[int, Any]
) -> None:
    """Where the total tells nothing, one arrival between any two pages still costs no message."""
    server = Server(old(many), total=total, after=after)
    shown = walked(server, limit)
    assert missed(server, old(many), shown) == set()
    assert len(shown) == len(set(shown))


@given(
    many=st.integers(0, 30),
    limit=st.integers(1, 12),
    after=st.dictionaries(st.integers(1, 8), st.just(None), max_size=3),
)
def test_the_oldest_first_is_walked_as_well(many: int, limit: int, after: dict[int, None]) -> None:
    """A server that appends its arrivals at the end loses nothing either."""

    def append(server: Server) -> None:
        server.arrived += 1
        server.ids.append(f"new{server.arrived}")

    server = Server(old(many), after=dict.fromkeys(after, append))
    shown = walked(server, limit)
    assert missed(server, old(many), shown) == set()
    assert len(shown) == len(set(shown))


# -- failure-modes C1 to C8, one by one --------------------------------------------------------------------------------


@case("C1")
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("many", [1, 2, 5, 9])
def test_messages_arrive_between_pages(limit: int, many: int) -> None:
    """Arrivals push rows to the right: what is repeated is dropped, and the walk goes on where it was."""
    server = Server(old(20), after={1: lambda s: s.arrive(many), 2: lambda s: s.arrive(many)})
    assert walked(server, limit)[0] == "m0"
    server = Server(old(20), after={1: lambda s: s.arrive(many), 2: lambda s: s.arrive(many)})
    assert missed(server, old(20), walked(server, limit)) == set()


@case("C1")
@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_a_message_arrives_after_every_page(limit: int) -> None:
    """A buyer who writes as fast as we read does not end the walk early: there is no page without progress for long."""
    server = Server(old(12), after=dict.fromkeys(range(1, 20), lambda s: s.arrive(max(1, limit - 1))))
    assert missed(server, old(12), walked(server, limit)) == set()


@case("C1")
@settings(max_examples=300)
@given(
    many=st.integers(0, 40),
    limit=st.integers(2, 12),
    size=st.integers(2, 12),
    told=st.sampled_from(["size", "asked", None]),
    paging=st.booleans(),
    after=st.dictionaries(
        st.integers(1, 40), st.integers(1, 6).map(lambda many: lambda s: s.arrive(many)), max_size=30
    ),
)
def test_arrivals_end_no_walk_where_no_total_tells_of_them(
    many: int, limit: int, size: int, told: str | None, paging: bool, after: dict[int, Any]
) -> None:
    """Messages arrive between any pages, and `total` is absent: all is shown, or it is refused, never a part of it."""
    server = Server(old(many), (size,), None, told, after, paging)
    with suppress(DecodeError):
        assert missed(server, old(many), walked(server, limit)) == set()


@case("C1")
@pytest.mark.parametrize(
    ("limit", "arriving", "times", "total"),
    [
        *(
            (limit, arriving, times, total)
            for total in (HONEST, None)
            for limit, arriving, times in [(2, 1, 2), (2, 1, 20), (3, 1, 20), (10, 9, 2), (10, 3, 20)]
        ),
        (2, 1, 40, HONEST),
        (5, 4, 40, HONEST),
    ],
)
def test_a_conversation_that_grows_by_less_than_a_page_at_a_time_is_walked_to_its_end(
    limit: int, arriving: int, times: int, total: str | None
) -> None:
    """A page of known rows alone is no end, and no reason to give up."""
    after = {call: lambda server: server.arrive(arriving) for call in range(1, times + 1)}
    server = Server(old(30), total=total, after=after)
    assert missed(server, old(30), walked(server, limit)) == set()
    assert server.calls < 120


@case("C1")
def test_a_total_that_hidings_keep_from_growing_ends_no_walk() -> None:
    """One arrives and one far behind is hidden, twice, between pages of two rows: the rest is shown all the same."""

    def change(server: Server) -> None:
        server.arrive()
        server.hide(-1)

    server = Server(old(30), (2,), limit="asked", after={1: change, 2: change})
    assert missed(server, old(30), walked(server, 50)) == set()


@case("C1")
def test_short_pages_and_arrivals_do_not_end_the_walk_early() -> None:
    """A server that returns fewer rows than its `paging.limit` says, and two arrivals: the last message is shown."""
    server = Server(old(3), sizes=(2, 1), limit="asked", after={2: lambda s: s.arrive(2)})
    assert missed(server, old(3), walked(server, 4)) == set()


@case("C1")
def test_a_flood_is_an_error_and_not_a_part() -> None:
    """Where more arrives between two pages than a page holds, again and again: a `DecodeError`, in bounded calls."""
    server = Server(old(12), after=dict.fromkeys(range(1, 1000), lambda s: s.arrive(50)))
    with pytest.raises(DecodeError, match="cannot be walked"):
        walked(server, 5)
    assert server.calls < 40


@case("C2")
def test_what_shifts_is_shown_once_and_both_orders_work() -> None:
    """Rows that come twice are shown once; the order of the server does not matter to the walk."""
    server = Server(old(30), after={2: lambda s: s.arrive(3)})
    shown = walked(server, 10)
    assert sorted(shown) == sorted(old(30))
    backwards = Server(old(30)[::-1])
    assert walked(backwards, 10) == old(30)[::-1]


@case("C3")
@pytest.mark.parametrize("place", range(10))
@pytest.mark.parametrize("told", [HONEST, None, 10_000, 0])
def test_a_message_that_was_read_is_hidden(place: int, told: Any) -> None:
    """A hidden message shifts the rest to the left: the anchor is gone, and the walk starts over."""
    server = Server(old(25), total=told, after={1: lambda s: s.hide(place)})
    assert missed(server, old(25), walked(server, 10)) == set()


@case("C3")
def test_too_many_restarts_are_an_error() -> None:
    """A conversation that loses a message before every page is walked anew three times, and then refused."""
    server = Server(old(1000), after=dict.fromkeys(range(1, 1000), lambda s: s.hide(0)))
    with pytest.raises(DecodeError, match="it changed 4 times while it was read"):
        walked(server, 10)
    assert server.calls < 40  # where fewer are counted than before, a page is asked for four times


@case("C4")
@pytest.mark.parametrize("limit", [2, 5, 10])
def test_a_hidden_message_and_an_arrival_cancel_out_in_total(limit: int) -> None:
    """The total is the same before and after: rows moved all the same, and nothing is missed."""

    def both(server: Server) -> None:
        server.hide(0, 1)
        server.arrive()
        server.ids.append("late")  # the total again

    server = Server(old(25), after={1: both})
    assert missed(server, old(25), walked(server, limit)) == set()


@case("C5")
def test_a_late_message_behind_known_ones_is_found() -> None:
    """The walk goes to the end: a message that became visible further down is shown."""
    server = Server(old(30), after={1: lambda s: s.ids.insert(22, "revealed")})
    assert set(walked(server, 10)) == {*old(30), "revealed"}


@case("C6")
def test_a_new_walk_begins_at_the_beginning() -> None:
    """What an interrupted walk has seen is nothing to the next one: it shows everything."""
    server = Server(old(30))
    interrupted = PageWalk(10)
    interrupted.take(server.page(10, 0))
    again = PageWalk(10)
    assert (again.offset, again.pages, again.done) == (0, 0, False)
    assert walked(server, 10) == old(30)


@case("C7")
@pytest.mark.parametrize("clamp", [1, 2, 9, 10, 49])
@pytest.mark.parametrize("told", ["size", "asked", None])
def test_the_server_returns_shorter_pages_than_asked(clamp: int, told: str | None) -> None:
    """The next offset comes from the rows returned, never from the limit asked, whatever `paging.limit` claims."""
    server = Server(old(60), (clamp,), limit=told)
    assert walked(server, 50) == old(60)


@case("C7")
@pytest.mark.parametrize("sizes", [(10, 3, 10, 1, 10), (1, 10), (10, 1), (3, 1, 1, 7)])
def test_pages_of_changing_length(sizes: tuple[int, ...]) -> None:
    """Pages may be of any length in turn, also of one row, which has none to spare for an anchor."""
    assert walked(Server(old(60), sizes, limit="asked"), 50) == old(60)


class Odd:
    """A server that answers from a list of pages, whatever is asked, and then the last one for ever."""

    def __init__(self, *pages: list[str], total: int | None = 100) -> None:
        self.pages = pages
        self.total = total
        self.calls = 0

    def page(self, limit: int, offset: int) -> MessagePage:
        """The next page."""
        rows = self.pages[min(self.calls, len(self.pages) - 1)]
        self.calls += 1
        paging = {"limit": limit, "offset": offset, "total": self.total}
        return message_page(dump({"messages": [{"id": id_} for id_ in rows], "paging": paging}), "1")


@case("C8")
def test_an_empty_conversation_is_one_call() -> None:
    """A conversation without messages ends with its first page."""
    server = Server([])
    assert walked(server, 50) == []
    assert server.calls == 1


@case("C8")
@pytest.mark.parametrize("total", [None, 100])
def test_empty_pages_end_it(total: int | None) -> None:
    """A server that shows nothing although it counts a hundred is asked twice, and no more."""
    server = Odd([], total=total)
    assert walked(server, 50) == []
    assert server.calls == 2


@case("C8")
def test_an_empty_page_in_the_middle_ends_it_after_two() -> None:
    """Empty pages after good ones: what was shown stays, two of them end it."""
    server = Odd(["a", "b", "c"], [])
    assert walked(server, 3) == ["a", "b", "c"]
    assert server.calls == 3


@case("C8")
@pytest.mark.parametrize(("total", "calls"), [(None, 4), (3, 4), (100, 8)])
def test_a_repeated_page_ends_it(total: int | None, calls: int) -> None:
    """A server that ignores the offset shows each message once; twice from the top, or four times if it counts more."""
    server = Odd(["a", "b", "c"], total=total)
    assert walked(server, 3) == ["a", "b", "c"]
    assert server.calls == calls


@case("C8")
def test_a_page_longer_than_asked_is_used_whole() -> None:
    """More rows than asked for are all shown, and the next offset counts them."""
    walk = PageWalk(2)
    walk.take(Odd(["a", "b", "c", "d", "e"]).page(2, 0))
    assert (walk.offset, walk.done) == (4, False)


@case("C8")
def test_an_id_twice_in_a_page_is_shown_once() -> None:
    """Duplicates inside of a page count once; the first one is shown."""
    assert walked(Odd(["a", "b", "a"], total=3), 50) == ["a", "b"]


@case("C8")
def test_pages_that_have_nothing_in_common_are_an_error_in_bounded_calls() -> None:
    """A server that shows other messages at each request is walked anew three times, and then refused."""
    server = Odd(*([f"{n}a", f"{n}b"] for n in range(100)))
    with pytest.raises(DecodeError, match="cannot be walked"):
        walked(server, 2)
    assert server.calls <= 8


@case("C8")
@pytest.mark.parametrize("total", ["grows", None, 10])
def test_a_server_without_an_end_is_stopped(total: Any) -> None:
    """A server that invents messages for ever is stopped by a `DecodeError`, whatever its total says."""
    calls = 0

    def page(limit: int, offset: int) -> MessagePage:
        nonlocal calls
        calls += 1
        assert calls < 100, "it does not end"
        rows = [{"id": f"m{i}"} for i in range(offset, offset + 5_000)]
        told = offset + 10_000 if total == "grows" else total
        return message_page(dump({"messages": rows, "paging": {"total": told}}), "1")

    walk = PageWalk(5_000)
    with pytest.raises(DecodeError, match="more than 100000 messages"):
        while not walk.done:
            walk.take(page(5_000, walk.offset))
    assert calls < 25


@case("C8")
def test_a_total_that_grows_for_ever_over_the_same_rows_is_stopped() -> None:
    """A server that repeats one page and counts more each time is stopped too."""
    walk, calls = PageWalk(3), 0
    with suppress(DecodeError):
        while not walk.done:
            calls += 1
            walk.take(Odd(["a", "b", "c"], total=100 + calls).page(3, walk.offset))
    assert calls < 40


@case("K7")
@pytest.mark.parametrize("limit", [2, 50])
def test_no_walk_ends_while_its_own_total_says_more(limit: int) -> None:
    """Pages of two; two messages come and one behind is hidden, then one more comes: all that stays is shown."""

    def change(server: Server) -> None:
        server.arrive(2)
        server.hide(5)

    server = Server(old(6), (2,), after={2: change, 3: lambda s: s.arrive()})
    assert missed(server, old(6), walked(server, limit)) == set()


@case("K8")
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("many", [1, 2, 12, 30])
def test_a_total_that_is_that_of_the_page_is_not_believed(size: int, many: int) -> None:
    """Each page counts its own rows: the conversation is walked, and not "cannot be walked"."""
    server = Server(old(many), (size,), total="page")
    assert walked(server, 50) == old(many)


Counts = bool | Literal["of the page"]


@pytest.mark.parametrize("lie", [0, 5, 15])
def test_a_total_that_is_too_small_is_not_believed(lie: int) -> None:
    """Rows stand behind what it counts, and no page is as long as asked: that is no end."""
    assert walked(Server(old(30), (10,), total=lie, limit="asked"), 50) == old(30)


class Replica:
    """A conversation of which the first page shows the present, and the next ones the past, `behind` times."""

    def __init__(self, now: list[str], then: list[str], behind: int, *, counts: Counts = True) -> None:
        self.states = [now, *[then] * behind]
        self.now = now
        self.counts = counts
        self.calls = 0

    def page(self, limit: int, offset: int) -> MessagePage:
        """Answer one request."""
        ids = self.states[self.calls] if self.calls < len(self.states) else self.now
        self.calls += 1
        rows = [{"id": id_} for id_ in ids[offset : offset + limit]]
        total = len(rows) if self.counts == "of the page" else len(ids) if self.counts else None
        paging = {"limit": limit, "offset": offset, "total": total}
        return message_page(dump({"messages": rows, "paging": paging}), "1")


def marking_walk(server: Replica, limit: int, *, marked: bool = True) -> tuple[list[str], float]:
    """Every id that a marking walk shows, and how many seconds it let pass."""
    walk, shown, waited = PageWalk(limit, marked=marked), [], 0.0
    while not walk.done:
        waited += walk.wait
        shown += [row.id for row in walk.take(server.page(limit, walk.offset))]
    return shown, waited


OLDEST, BURST = "oldest first, one new", "newest first, a burst above a page"
SHORT = "newest first, a burst above a page, and less than a page before it"
STALE = {OLDEST: (old(12)[::-1], 1, -1), BURST: (old(12), 7, 0), SHORT: (old(1), 7, 0)}


# Where nothing is counted, nothing gives away that the last message of an oldest-first server is missing.
SHOWN: list[tuple[str, Counts]] = [(OLDEST, True)]
SHOWN += [(name, counts) for name in (BURST, SHORT) for counts in (True, False, "of the page")]


def present(name: str) -> tuple[list[str], list[str]]:
    """A conversation now, and as it was before its last messages."""
    then, new, at = STALE[name]
    arrived = [f"n{i}" for i in range(new)]
    return ([*then, *arrived] if at else [*arrived, *then]), then


@case("K6")
@pytest.mark.parametrize(("name", "counts"), SHOWN)
@pytest.mark.parametrize("behind", [1, 2, 3])
def test_a_page_of_the_past_is_asked_for_again(name: str, behind: int, counts: Counts) -> None:
    """After the marking answer a replica is behind for a while: all that was there is shown, some seconds later."""
    now, then = present(name)
    shown, waited = marking_walk(Replica(now, then, behind, counts=counts), 5)
    assert sorted(shown) == sorted(now)
    assert 2 <= waited <= (2, 6, 14)[behind - 1]  # not for pages that contradict nothing


@case("K6")
@pytest.mark.parametrize("behind", [1, 2, 3])
@pytest.mark.parametrize("marked", [True, False])
def test_every_page_can_be_of_the_past_for_a_while(marked: bool, behind: int) -> None:
    """Oldest first, each page but the first comes from a replica that is behind, so many times: all is shown."""
    now, then = present(OLDEST)
    server = Replica(now, then, 0)
    server.states = [now, *[*[then] * behind, now] * 8]
    assert sorted(marking_walk(server, 3, marked=marked)[0]) == sorted(now)


@case("K6")
def test_a_message_that_is_hidden_when_all_were_shown_costs_no_wait() -> None:
    """`total` is smaller than before, and as many were shown: nothing of that says that a replica is behind."""
    server = Replica(old(6), old(6)[1:], 1_000)
    assert marking_walk(server, 5, marked=False) == (old(6), 0)


@case("K6")
@pytest.mark.parametrize(("name", "counts"), SHOWN)
def test_a_walk_that_contradicts_its_marking_answer_to_the_end_fails(name: str, counts: Counts) -> None:
    """A replica that stays behind: no end that looks whole, but a `DecodeError`, after a few tries."""
    now, then = present(name)
    server = Replica(now, then, 1_000, counts=counts)
    with pytest.raises(DecodeError, match="cannot be walked"):
        marking_walk(server, 5)
    assert server.calls < 40


@case("K6")
@pytest.mark.parametrize("counts", [(True, False), (False, True), (False, False)], ids=str)
def test_marking_answers_and_pages_that_count_nothing_are_walked(counts: tuple[bool, bool]) -> None:
    """Where some of them have no `total`, what was shown is expected, and a conversation that stands still is walked."""
    ids, shown = old(12), []
    walk = PageWalk(5)
    for offset, counted in ((4, counts[0]), (8, counts[1])):
        page = Replica(ids, ids, 0, counts=counted).page(5, offset)
        walk.expect(page)
        shown += [row.id for row in page.messages]
    server = Replica(ids, ids, 0, counts=counts[1])
    while not walk.done:
        shown += [row.id for row in walk.take(server.page(5, walk.offset))]
    assert set(shown) == set(ids)  # the pages overlap


@case("K6")
def test_a_page_that_counts_nothing_contradicts_nothing() -> None:
    """A `total` on the first page and none on the next ones: walked on, and not asked for again."""
    ids, walk, shown = old(12), PageWalk(5), []
    while not walk.done:
        server = Replica(ids, ids, 0, counts=walk.pages == 0)
        shown += [row.id for row in walk.take(server.page(5, walk.offset))]
        assert walk.wait == 0
    assert shown == ids


@case("K6")
def test_each_of_several_marking_answers_is_expected_where_nothing_is_counted() -> None:
    """A replica that stays behind shows all of the second answer, and of the first what is not new: that is no end."""
    now, then = present(BURST)
    walk, server = PageWalk(5), Replica(now, then, 1_000, counts=False)
    for offset in (0, 7):
        walk.expect(Replica(now, now, 0, counts=False).page(5, offset))
    server.calls = 1
    with pytest.raises(DecodeError, match="cannot be walked"):
        while not walk.done:
            walk.take(server.page(5, walk.offset))


@case("K6")
def test_a_marking_answer_that_counts_nothing_expects_nothing() -> None:
    """All messages are hidden when a page is marked: the walk ends."""
    walk, server = PageWalk(5), Replica([], [], 0)
    walk.expect(server.page(5, 0))
    assert walk.take(server.page(5, 0)) == ()
    assert walk.done


@case("K6")
def test_what_the_marking_answers_of_single_pages_counted_is_expected_too() -> None:
    """Marked page by page, then walked: where a replica is behind in that walk, it is asked again, and else fails."""
    now, then = present(OLDEST)
    for behind, fails in [(2, False), (1_000, True)]:
        walk, server, shown = PageWalk(5), Replica(now, then, behind), []
        first = server.page(5, 0)
        walk.expect(first)
        shown += [row.id for row in first.messages]
        try:
            while not walk.done:
                shown += [row.id for row in walk.take(server.page(5, walk.offset))]
        except DecodeError:
            assert fails
        else:
            assert not fails
            assert sorted(shown) == sorted(now)
            assert server.calls == 7


def test_the_fewest_calls_for_a_quiet_conversation() -> None:
    """One page is one call; a long conversation costs one row more a page, and no page to find out that it is over."""
    for many, calls in [(0, 1), (1, 1), (49, 1), (50, 2), (51, 2), (99, 3), (120, 3)]:
        server = Server(old(many))
        assert walked(server, 50) == old(many)
        assert server.calls == calls


def test_an_anchor_that_is_gone_from_an_empty_page_starts_over() -> None:
    """Where there is no total, an empty page without the anchor means that rows moved: nothing is missed."""
    server = Server(old(6), total=None, after={1: lambda s: s.hide(0, 1)})
    assert missed(server, old(6), walked(server, 5)) == set()


def day(number: int) -> str:
    """A day of January."""
    return f"2024-01-{number:02}T00:00:00Z"


# -- how far a second reading goes -------------------------------------------------------------------------------------


def second_page(*ids: str, total: int | None, newest: bool = True) -> MessagePage:
    """A page whose messages have dates that fall, or rise."""
    days = range(len(ids), 0, -1) if newest else range(1, len(ids) + 1)
    rows = [{"id": id_, "message_date": {"created": day(n)}} for id_, n in zip(ids, days, strict=True)]
    return message_page(dump({"messages": rows, "paging": {"limit": len(rows), "offset": 0, "total": total}}), "1")


@case("K3")
@pytest.mark.parametrize(
    ("page", "counted", "enough"),
    [
        (second_page("b", "a", total=9), 9, True),
        (second_page("new", "b", "a", total=10), 9, True),
        (second_page("new", "b", "a", total=11), 9, False),
        (second_page("b", "a", total=10), 9, False),
        (second_page("b", "a", total=None), 9, False),
        (second_page("b", "a", total=9), None, False),
        (second_page("new", "newer", total=11), 9, False),
        (second_page("a", "b", total=9, newest=False), 9, False),
        (second_page("b", "a", total=8), 9, False),
        (second_page("a", total=9), 9, False),
    ],
    ids=[
        "nothing new",
        "all new shown",
        "more than shown",
        "released behind",
        "no total now",
        "no total then",
        "a burst",
    ]
    + ["oldest first", "some hidden", "one row shows no order"],
)
def test_a_second_reading_goes_on_until_nothing_new_can_stand_behind(
    page: MessagePage, counted: int | None, enough: bool
) -> None:
    """Up to a known message, where the newest come first; and on where `total` is none, or not what the new ones make of it."""
    assert UpToKnown({"a", "b"}, counted)(page) is enough


# -- the order ---------------------------------------------------------------------------------------------------------


def dated(*rows: tuple[str, dict[str, str]]) -> Any:
    """Messages with the given dates."""
    return message_page(dump({"messages": [{"id": id_, "message_date": dates} for id_, dates in rows]}), "1").messages


def test_newest_first_sorts_by_creation_else_reception_else_availability() -> None:
    """The newest comes first, by the first date that a message has."""
    rows = dated(
        ("a", {"received": day(2)}), ("b", {"created": day(3), "received": day(1)}), ("c", {"available": day(1)})
    )
    assert [row.id for row in newest_first(rows)] == ["b", "a", "c"]


def test_equal_dates_keep_the_order_of_the_server() -> None:
    """Between equal dates the server's order decides, turned round where it sends the oldest first."""
    descending = dated(("a", {"created": day(2)}), ("b", {"created": day(1)}), ("c", {"created": day(1)}))
    assert [row.id for row in newest_first(descending)] == ["a", "b", "c"]
    rising = dated(("c", {"created": day(1)}), ("b", {"created": day(1)}), ("a", {"created": day(2)}))
    assert [row.id for row in newest_first(rising)] == ["a", "b", "c"]


def test_a_message_without_a_date_stays_beside_its_neighbour() -> None:
    """A message without any date is kept, where it stood."""
    rows = dated(("a", {"created": day(3)}), ("b", {}), ("c", {"created": day(1)}))
    assert [row.id for row in newest_first(rows)] == ["a", "b", "c"]
    assert newest_first([]) == ()
    assert [row.id for row in newest_first(dated(("a", {}), ("b", {})))] == ["a", "b"]


def test_ascending_means_that_the_oldest_comes_first() -> None:
    """Only two different dates tell the order."""
    rising = dated(("a", {"created": day(1)}), ("b", {"created": day(2)}))
    assert ascending(rising)
    assert not ascending(rising[::-1])
    assert not ascending(rising[:1])
    assert not ascending([])
    assert not ascending(dated(("a", {}), ("b", {})))


@given(st.lists(st.none() | st.integers(1, 28), max_size=12))
def test_sorting_keeps_every_message(days: list[int | None]) -> None:
    """Whatever dates there are: nothing is lost, nothing comes twice, and dates never rise."""
    rows = dated(*((f"m{i}", {} if n is None else {"created": day(n)}) for i, n in enumerate(days)))
    ordered = newest_first(rows)
    assert sorted(row.id for row in ordered) == sorted(row.id for row in rows)
    dates = [row.created for row in ordered if row.created]
    assert dates == sorted(dates, reverse=True)

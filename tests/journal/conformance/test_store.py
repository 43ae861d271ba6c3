"""What every `Store` keeps, whatever the engine."""

from __future__ import annotations

import pytest

from cases import case
from journal.stores import Clock, entry, whole
from mlmessages.journal import store as stores
from mlmessages.journal.store import FailedDelivery, PendingCheck, Seat, Store, StoredMessage, TooManyChecks


def test_a_listing_owes_every_pack_once(store: Store, seat: Seat) -> None:
    """Listed again, a pack that is owed keeps when it was first listed; its count and resource are the new ones."""
    with whole(store, seat):
        store.listed(seat, [("1", 2, "/packs/1"), ("2", 0, None)], 10.0)
    with whole(store, seat):
        store.listed(seat, [("1", 5, "/packs/1/x")], 20.0)
    rows = {row.pack_id: row for row in store.rows(seat)}
    assert {k: (r.state, r.count, r.resource, r.listed_at) for k, r in rows.items()} == {
        "1": ("open", 5, "/packs/1/x", 10.0),
        "2": ("open", 0, None, 10.0),
    }
    assert all((r.wait, r.attempts, r.outcome_unknown, r.error) == (0, 0, False, None) for r in rows.values())


def test_read_stores_what_was_not_known_and_ends_the_debt(store: Store, seat: Seat) -> None:
    """The new ids alone come back, in order; the pack is owed no more, its messages are undelivered, its status kept."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.claim(seat, "1")
    with whole(store, seat):
        stored = store.read(seat, "1", [entry("a"), entry("b", unread=False)], b"status", held=True)
    assert (stored.fresh, stored.again) == (["a", "b"], None)
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.claim(seat, "1")
        assert store.read(seat, "1", [entry("b"), entry("c"), entry("a")], b"later", held=True).fresh == ["c"]
    assert store.rows(seat) == []
    assert store.undelivered(seat) == ["1"]
    assert store.entries(seat, "1") == ([entry("a"), entry("b", unread=False), entry("c")], b"later")
    assert store.entries(seat, "9") == ([], None)


def test_an_id_is_known_for_ever_and_in_every_pack(store: Store, seat: Seat) -> None:
    """Acknowledged, its body is gone; shown again, by another pack too, it is not new; 2,000 at once are no problem."""
    many = [entry(f"m{i}") for i in range(2000)]
    with whole(store, seat):
        store.listed(seat, [("1", 1, None), ("2", 1, None)], None)
        assert len(store.read(seat, "1", many, None, held=True).fresh) == 2000
    with whole(store, seat):
        store.acknowledge(seat, "1", [row.id for row in many], held=True)
        store.acknowledge(seat, "1", ["m0", "unheard of"], held=True)
    assert store.undelivered(seat) == []
    assert store.entries(seat, "1")[0] == []
    with whole(store, seat):
        assert store.read(seat, "2", [*many, entry("new")], None, held=True).fresh == ["new"]


def test_what_was_read_first_is_redelivered_first(store: Store, seat: Seat) -> None:
    """The order of reading, whatever the packs are called, and whatever was acknowledged in between."""
    for pack_id, id_ in [("9", "a"), ("1", "b"), ("5", "c"), ("1", "d")]:
        with whole(store, seat):
            store.listed(seat, [(pack_id, 1, None)], None)
            store.read(seat, pack_id, [entry(id_)], None, held=True)
    assert store.undelivered(seat) == ["9", "1", "5"]
    with whole(store, seat):
        store.acknowledge(seat, "1", ["b"], held=True)
    assert store.undelivered(seat) == ["9", "5", "1"]


def test_dead_claims_are_of_unknown_outcome(store: Store, seat: Seat, clock: Clock) -> None:
    """Claimed packs alone are owed again, after a wait; how many they were."""
    with whole(store, seat):
        store.listed(seat, [(p, 1, None) for p in "12345"], 1.0)
        for claimed in "234":
            store.claim(seat, claimed)
        store.read(seat, "4", [entry("x")], None, held=True)
        store.park(seat, "5", 99.0, count=1, attempts=1, error="why", outcome_unknown=False)
    with whole(store, seat):
        assert store.reopen_claims(seat, 50.0) == 2
    clock.now += 10
    rows = {r.pack_id: (r.state, r.outcome_unknown, pytest.approx(r.wait)) for r in store.rows(seat)}
    assert rows == {
        "1": ("open", False, 0),
        "2": ("open", True, 40.0),
        "3": ("open", True, 40.0),
        "5": ("parked", False, 89.0),
    }
    with whole(store, seat):
        assert store.reopen_claims(seat, 60.0) == 0


def test_doubt_ends_with_the_next_read(store: Store, seat: Seat, clock: Clock) -> None:
    """Reopened of unknown outcome, it stays so through claims and listings until it is read; then it is as new."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.reopen(seat, "1", 7.0, outcome_unknown=True)
    with whole(store, seat):
        store.claim(seat, "1")
        store.listed(seat, [("1", 2, None)], 2.0)
        store.reopen_claims(seat, 8.0)
    [row] = store.rows(seat)
    assert (row.state, row.outcome_unknown, row.listed_at, row.count) == ("open", True, 1.0, 2)
    assert row.wait == pytest.approx(8.0)
    with whole(store, seat):
        store.claim(seat, "1")
        store.read(seat, "1", [], None, held=True)
        store.listed(seat, [("1", 3, None)], 3.0)
    [row] = store.rows(seat)
    assert (row.outcome_unknown, row.wait, row.listed_at) == (False, 0, 3.0)


def test_a_wait_passes_and_is_never_negative(store: Store, seat: Seat, clock: Clock) -> None:
    """A wait is told as what is left of it by the engine's clock; no wait is none whatever that clock says."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None), ("2", 1, None)], 1.0)
        store.reopen(seat, "1", 30.0, outcome_unknown=False)
        store.reopen(seat, "2", 0.0, outcome_unknown=False)
        store.postpone(seat, FailedDelivery("1", 1, 20.0, "KeyError"))
    clock.now += 25
    assert {row.pack_id: pytest.approx(row.wait) for row in store.rows(seat)} == {"1": 5.0, "2": 0}
    assert [failed.wait for failed in store.failed_deliveries(seat)] == [0]
    clock.now -= 1000
    assert {row.pack_id: row.wait for row in store.rows(seat)}["2"] == 0


def test_a_parked_pack_stays_parked_and_keeps_the_count_it_was_parked_with(store: Store, seat: Seat) -> None:
    """A listing does not reopen it, nor hide that its count has changed; 0 says that it had left the listing."""
    with whole(store, seat):
        store.listed(seat, [("1", 2, None)], 1.0)
        store.park(seat, "1", 99.0, count=3, attempts=3, error="why", outcome_unknown=True)
    with whole(store, seat):
        store.listed(seat, [("1", 5, None)], 2.0)
    [row] = store.rows(seat)
    assert (row.state, row.count, row.attempts, row.error, row.outcome_unknown) == ("parked", 3, 3, "why", True)
    with whole(store, seat):
        store.listed(seat, [("1", 0, None)], 3.0)
    assert store.rows(seat)[0].count == 0
    with whole(store, seat):
        store.claim(seat, "1")
        store.read(seat, "1", [], None, held=True)
    assert store.rows(seat) == []


def test_a_transaction_happens_whole_or_not_at_all(store: Store, seat: Seat) -> None:
    """Rolled back in the middle: no pack, no id, no body, no acknowledgement, no check of it is there."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.claim(seat, "1")
        store.read(seat, "1", [entry("kept")], None, held=True)
    store.begin([seat])
    store.listed(seat, [("1", 9, None), ("2", 1, None)], 1.0)
    store.claim(seat, "2")
    store.read(seat, "2", [entry("gone")], b"gone", held=True)
    store.acknowledge(seat, "1", ["kept"], held=True)
    store.add_check(seat, "named", 60.0, held=True)
    store.postpone(seat, FailedDelivery("1", 1, 20.0, "KeyError"))
    store.rollback()
    store.rollback()  # once more is nothing
    assert store.rows(seat) == []
    assert store.undelivered(seat) == ["1"]
    assert (store.pending_checks(seat), store.failed_deliveries(seat)) == ([], [])
    with whole(store, seat):
        store.listed(seat, [("2", 1, None)], 1.0)
        store.claim(seat, "2")
        assert store.read(seat, "2", [entry("gone")], None, held=True).fresh == ["gone"]


def test_bytes_come_back_as_they_were(store: Store, seat: Seat) -> None:
    """Raw JSON is bytes: no encoding, no NUL, no size changes it."""
    raws = [b"\x00\xff", "\U0001f600".encode(), b"x" * 200_000, b"", b"{}"]
    with whole(store, seat):
        store.listed(seat, [("1", 2**62, "r" * 5000)], None)
        store.claim(seat, "1")
        store.read(seat, "1", [StoredMessage(f"i{i}", raw, True) for i, raw in enumerate(raws)], b"\x00", held=True)
    entries, status = store.entries(seat, "1")
    assert [e.raw for e in entries] == raws
    assert status == b"\x00"


def test_a_read_that_is_to_be_repeated_leaves_the_pack_owed(store: Store, seat: Seat) -> None:
    """Its ids and bodies are stored, and it waits, of unknown outcome; the next read ends it."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.claim(seat, "1")
        stored = store.read(seat, "1", [entry("a")], b"status", held=True, again=90.0)
    assert (stored.fresh, stored.again) == (["a"], pytest.approx(90.0))
    [row] = store.rows(seat)
    assert (row.state, row.outcome_unknown, row.wait) == ("open", True, pytest.approx(90.0))
    assert store.entries(seat, "1") == ([entry("a")], b"status")
    with whole(store, seat):
        store.claim(seat, "1")
        assert store.read(seat, "1", [entry("a")], b"status", held=True).again is None
    assert store.rows(seat) == []


def test_once_is_once_for_each_message_and_name(store: Store, seat: Seat) -> None:
    """The second time is none, also where one message of several had it; another name is another matter."""
    with whole(store, seat):
        assert store.once(seat, ["a", "b", "b"], "greet")
    with whole(store, seat):
        assert not store.once(seat, ["b", "c"], "greet")
        assert not store.once(seat, ["c"], "greet")
        assert store.once(seat, ["a"], "label")
        assert store.once(seat, ["d"], "greet")
    with whole(store, seat):
        store.undo_once(seat, ["a", "b", "never"], "greet")
    with whole(store, seat):
        assert store.once(seat, ["a", "b"], "greet")
        assert not store.once(seat, ["a"], "label")
        assert not store.once(seat, ["d"], "greet")


# -- what notifications named --------------------------------------------------------------------------------------------


def test_a_notified_message_is_written_down_once(store: Store, seat: Seat, clock: Clock) -> None:
    """Known as a message, or named before: nothing changes."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.claim(seat, "1")
        store.read(seat, "1", [entry("known")], None, held=True)
    with whole(store, seat):
        assert [store.add_check(seat, id_, 60.0, held=True) for id_ in ("known", "new", "new")] == [False, True, False]
    clock.now += 20
    [check] = store.pending_checks(seat)
    assert (check.message_id, check.tries, check.parked) == ("new", 0, False)
    assert check.wait == pytest.approx(40.0)


def test_checks_are_due_in_order_and_end_when_the_message_is_known(store: Store, seat: Seat) -> None:
    """Looked for later, parked, and struck off by what a read has shown."""
    with whole(store, seat):
        for id_ in ("a", "b", "c"):
            store.add_check(seat, id_, 60.0, held=True)
        store.update_check(seat, PendingCheck("a", 2, 240.0, parked=False))
        store.update_check(seat, PendingCheck("b", 5, 120.0, parked=True))
        store.update_check(seat, PendingCheck("unheard of", 5, 120.0, parked=True))
    said = [(check.message_id, check.tries, check.parked) for check in store.pending_checks(seat)]
    assert said == [("c", 0, False), ("b", 5, True), ("a", 2, False)]
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.claim(seat, "1")
        store.read(seat, "1", [entry("c")], None, held=True)
        assert store.settle_checks(seat, ["a", "c"]) == ["c"]
    assert [check.message_id for check in store.pending_checks(seat)] == ["b", "a"]


def test_a_message_that_was_found_is_stored_and_its_pack_as_it_was(store: Store, seat: Seat) -> None:
    """Read by its id: undelivered, known, its check gone, under the name of the notification too; twice is once."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None)], 1.0)
        store.add_check(seat, "named", 60.0, held=True)
        assert store.found(seat, "1", entry("a"), "named", held=True)
        assert not store.found(seat, "1", entry("a"), "named", held=True)
    assert [row.state for row in store.rows(seat)] == ["open"]
    assert store.entries(seat, "1")[0] == [entry("a")]
    assert store.pending_checks(seat) == []


def test_parked_checks_are_forgotten_in_the_end(store: Store, seat: Seat, clock: Clock) -> None:
    """Those alone that were parked long enough."""
    with whole(store, seat):
        for id_ in ("old", "young", "owed"):
            store.add_check(seat, id_, 60.0, held=True)
        store.update_check(seat, PendingCheck("old", 5, 10.0, parked=True))
        store.update_check(seat, PendingCheck("young", 5, 5000.0, parked=True))
    clock.now += 1011
    with whole(store, seat):
        store.forget_checks(seat, 1000.0)
    assert [check.message_id for check in store.pending_checks(seat)] == ["owed", "young"]


@case("K28")
def test_unknown_notified_messages_are_bounded(store: Store, seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound a new one is refused; what was looked for in vain gives way; what is known needs no room."""
    for module in ("journal.store", "journal.sqlite.store", "journal.memory", "postgres.store"):
        monkeypatch.setattr(f"mlmessages.{module}.MOST_CHECKS", 200)
    assert stores.MOST_CHECKS == 200
    with whole(store, seat):
        for n in range(200):
            assert store.add_check(seat, f"forged{n}", 60.0, held=True)
    with pytest.raises(TooManyChecks), whole(store, seat):
        store.add_check(seat, "one more", 60.0, held=True)
    with whole(store, seat):
        assert not store.add_check(seat, "forged7", 60.0, held=True)
        store.update_check(seat, PendingCheck("forged3", 5, 1.0, parked=True))
    with whole(store, seat):
        assert store.add_check(seat, "one more", 60.0, held=True)
    names = {check.message_id for check in store.pending_checks(seat)}
    assert len(names) == 200
    assert "forged3" not in names


# -- what a handler failed at --------------------------------------------------------------------------------------------


def test_failed_deliveries_are_kept_until_they_are_taken(store: Store, seat: Seat) -> None:
    """The last word about a pack counts."""
    with whole(store, seat):
        store.postpone(seat, FailedDelivery("1", 1, 5.0, "KeyError"))
        store.postpone(seat, FailedDelivery("1", 2, 10.0, "ValueError"))
        store.postpone(seat, FailedDelivery("2", 1, 0.0, "KeyError"))
    said = {failed.pack_id: (failed.tries, failed.error, failed.wait) for failed in store.failed_deliveries(seat)}
    assert said == {"1": (2, "ValueError", pytest.approx(10.0)), "2": (1, "KeyError", 0)}
    with whole(store, seat):
        store.delivered(seat, "1")
        store.delivered(seat, "9")
    assert [failed.pack_id for failed in store.failed_deliveries(seat)] == ["2"]


def test_dead_letters_are_kept_until_they_are_acknowledged_or_tried_again(store: Store, seat: Seat) -> None:
    """In the order in which they were read; tried again, their packs are due at once."""
    with whole(store, seat):
        store.listed(seat, [("1", 1, None), ("2", 1, None)], 1.0)
        for pack_id, id_ in [("2", "b"), ("1", "a"), ("2", "c")]:
            store.claim(seat, pack_id)
            store.read(seat, pack_id, [entry(id_)], None, held=True)
        store.postpone(seat, FailedDelivery("2", 11, 5.0, "KeyError"))
        store.dead_letter(seat, "2", ["b", "c"], "KeyError")
        store.dead_letter(seat, "1", ["a"], "OSError")
    assert store.failed_deliveries(seat) == []
    dead = store.dead_letters(seat)
    assert list(dead.items()) == [("b", ("2", "KeyError")), ("a", ("1", "OSError")), ("c", ("2", "KeyError"))]
    with whole(store, seat):
        store.acknowledge(seat, "1", ["a"], held=True)
    assert list(store.dead_letters(seat)) == ["b", "c"]
    with whole(store, seat):
        assert store.retry_dead_letters(seat) == 2
    assert store.dead_letters(seat) == {}
    assert [(failed.pack_id, failed.tries, failed.wait) for failed in store.failed_deliveries(seat)] == [("2", 0, 0)]

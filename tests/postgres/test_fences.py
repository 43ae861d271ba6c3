"""Threads that claim while others take over: no claim of an older epoch is ever left."""

from __future__ import annotations

import threading
import uuid

import psycopg

from cases import case
from journal.stores import SECOND_LOOK, SELLER, SETTLE, whole
from mlmessages.journal.store import Seat, SerializationFailure, Taken
from mlmessages.postgres import schema
from mlmessages.postgres.address import Address
from mlmessages.postgres.keys import Keys
from mlmessages.postgres.store import PostgresStore

WORKERS, TAKEOVERS = 4, 15


class Contender(threading.Thread):
    """A worker that takes the seat over again and again, and claims packs that are called by its epoch meanwhile."""

    def __init__(self, url: str, start: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.store = PostgresStore(Address(url), "mlmessages", Keys(None), "0.1")
        self.begin = start
        self.claims = self.refused = 0
        self.left: list[tuple[int, str]] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self.begin.wait(60)
            for _ in range(TAKEOVERS):
                self.reign()
        except Exception as error:
            self.failure = error
        finally:
            self.store.close()

    def reign(self) -> None:
        seat = self.take()
        self.left += [
            (seat.epoch, row.pack_id)
            for row in self.store.rows(seat)
            if row.state == "issued" and int(row.pack_id) < seat.epoch
        ]
        while True:
            with whole(self.store, seat) as held:
                if seat not in held:
                    self.refused += 1
                    return
                self.store.claim(seat, str(seat.epoch))
                self.store.reopen(seat, str(seat.epoch), 0.0, outcome_unknown=False)
                self.store.claim(seat, str(seat.epoch))
            self.claims += 1
            if self.claims % 10 == 0:
                return

    def take(self) -> Seat:
        """Its holder is taken for dead."""
        me = str(uuid.uuid4())
        with whole(self.store):
            self.store.register(me, "contender", 60.0)
        while True:
            try:
                with whole(self.store):
                    for holder in self.holders():
                        self.store.retire(holder)
                    taken = self.store.take(me, 1, settle_time=SETTLE, second_look=SECOND_LOOK, seller_id=SELLER)
            except Exception as error:
                if not isinstance(self.store.explain(error), SerializationFailure):  # the engine repeats it
                    raise
                continue
            if taken:
                return taken[0].seat

    def holders(self) -> list[str]:
        found = self.store.connection.fetch("SELECT worker FROM mlmessages.seller WHERE worker IS NOT NULL", {})
        return [str(worker) for (worker,) in found]


@case("Q3")
def test_no_claim_of_an_older_epoch_is_left_by_takeovers(database_url: str) -> None:
    """Four workers take one seat from each other 60 times, and claim in it meanwhile."""
    store = PostgresStore(Address(database_url), "mlmessages", Keys(None), "0.1")
    schema.migrate(store.connection, "mlmessages")
    with whole(store):
        store.add_seller(SELLER)
    start = threading.Barrier(WORKERS)
    contenders = [Contender(database_url, start) for _ in range(WORKERS)]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join(120)
    assert [contender.failure for contender in contenders] == [None] * WORKERS
    assert [contender.left for contender in contenders] == [[]] * WORKERS
    assert sum(contender.claims for contender in contenders) > TAKEOVERS
    [(no, epoch)] = store.connection.transaction([("SELECT no, epoch FROM mlmessages.seller", {})])[0]
    assert epoch == WORKERS * TAKEOVERS
    issued = [row.pack_id for row in store.rows(Seat(SELLER, no, epoch)) if row.state == "issued"]
    assert set(issued) <= {str(epoch)}
    store.close()


@case("Q66")
def test_a_seat_is_not_taken_from_a_worker_that_was_faster(database_url: str) -> None:
    """Two see the same dead holder; one takes the seat and commits before the other has its lock."""
    first, second = (PostgresStore(Address(database_url), "mlmessages", Keys(None), "0.1") for _ in range(2))
    schema.migrate(first.connection, "mlmessages")
    dead, fast, slow = (str(uuid.uuid4()) for _ in range(3))
    with whole(first):
        first.add_seller(SELLER)
        for worker in (dead, fast, slow):
            first.register(worker, "worker", 60.0)
        first.take(dead, 1, settle_time=SETTLE, second_look=SECOND_LOOK)
        first.retire(dead)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "CREATE OR REPLACE FUNCTION mlmessages.clock() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$BEGIN"
            " IF current_setting('test.slow', true) = 'on' THEN PERFORM pg_advisory_lock_shared(7); END IF;"
            " RETURN clock_timestamp(); END$$"
        )
        admin.execute("SELECT pg_advisory_lock(7)")
        taken: list[Taken] = []

        def take() -> None:
            with whole(second):
                second.connection.run("SELECT set_config('test.slow', 'on', true)", {})
                taken.extend(second.take(slow, 1, settle_time=SETTLE, second_look=SECOND_LOOK))

        thread = threading.Thread(target=take)
        thread.start()
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while admin.execute(waits).fetchall() != [(1,)]:
            assert thread.is_alive()
        with whole(first):
            [seat] = first.take(fast, 1, settle_time=SETTLE, second_look=SECOND_LOOK)
        admin.execute("SELECT pg_advisory_unlock(7)")
        thread.join(60)
        assert taken == []
        assert [held.seat for held in first.seats(fast)] == [seat.seat]
    first.close()
    second.close()

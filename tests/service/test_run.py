"""`Inbox.run`, `Inbox.notify` and `missed_notifications` against the sandbox, on a virtual clock. A18, B4, B10, D7, G."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cases import case
from mlmessages import Inbox, Limits, Notification, Retry
from mlmessages.conversations import backlog
from mlmessages.errors import Forbidden, JournalError, Unauthorized
from mlmessages.inbox.undelivered import NewMessages
from mlmessages.journal.sqlite import contents
from mlmessages.testing import DROP, EXECUTE, MARK_ALL, SNAPSHOT, Entry, Pack, Reply, Sandbox, Send, on
from worlds import client_of, on_virtual_clock

FIRST, SECOND, THIRD = (f"200000000000000{n}" for n in (1, 2, 3))


def times(sandbox: Sandbox, kind: str) -> list[float]:
    return [round(entry.at, 1) for entry in sandbox.log if entry.kind == kind]


def gets(sandbox: Sandbox) -> list[Entry]:
    return [entry for entry in sandbox.log if entry.kind == "message"]


async def later(seconds: float) -> None:
    await asyncio.sleep(seconds)


@on_virtual_clock
async def test_it_drains_first_and_then_delivers_what_comes(inbox_of: Any, handler: Any, running: Any) -> None:
    """All of 1,200 conversations, past the cap, then a message that comes later, found by the periodic listing; all acknowledged."""
    sandbox = Sandbox(packs=1200)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=60):
        await later(30)
        assert sandbox.unread == 0
        sent = sandbox.send(FIRST)
        await later(61)
        assert sorted(handler.taken) == sorted(sandbox.message_ids())
        assert handler.taken[-1] == sent
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        assert [delivery async for delivery in drain] == []


@on_virtual_clock
async def test_a_doorbell_rings_for_a_listing(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """A notified message is delivered at once, not at the next interval, and costs no GET by id."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=3600):
        await later(100)
        await inbox.notify(named(sandbox.send(FIRST)))
        await later(1)
        assert handler.at(FIRST)[1:] == [100.0]
        await later(300)
    assert gets(sandbox) == []


@case("G7")
@on_virtual_clock
async def test_a_flood_of_forged_notifications_is_bounded(
    inbox_of: Any, handler: Any, running: Any, named: Any
) -> None:
    """3,000 plausible ids in a minute: at most one listing in 5 s, at most 2 % of the budget for looking them up, the news goes on."""
    sandbox = Sandbox(packs=1)
    limits = Limits(reads=500, per_second=None)
    async with inbox_of(sandbox, client={"limits": limits}) as inbox, running(inbox, handler):
        for n in range(60):
            await asyncio.gather(*(inbox.notify(named(f"forged{n}x{i}")) for i in range(50)))
            await later(1)
        sent = sandbox.send(FIRST)
        await later(240)
        assert sent in handler.taken
    listings = times(sandbox, "listing")
    assert min(b - a for a, b in pairwise(listings)) >= 5.0
    looked_up = times(sandbox, "message")
    assert len(looked_up) >= 20
    assert all(sum(at <= other < at + 60 for other in looked_up) <= 10 for at in looked_up)


@case("G2")
@on_virtual_clock
async def test_eight_duplicates_at_once_are_one(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """Whatever their own ids: one row, one look-up at most, one delivery."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(10)
        sent = sandbox.send(FIRST)
        sandbox.read_elsewhere(FIRST)  # no listing will lead to it
        await asyncio.gather(*(inbox.notify(named(sent, id=str(n))) for n in range(8)))
        await later(200)
    assert len(gets(sandbox)) == 1
    assert handler.taken.count(sent) == 1


@case("G3", "G11")
@on_virtual_clock
async def test_a_message_that_is_known_causes_nothing(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """Its notification comes late, or is replayed a day later: no listing, no GET."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=86_400):
        await later(20)
        before = len(sandbox.log)
        for _ in range(5):
            await inbox.notify(named(handler.taken[0]))
            await later(3000)
    assert len(sandbox.log) == before


@case("G6")
@on_virtual_clock
async def test_our_own_marking_is_not_heard(inbox_of: Any, handler: Any, running: Any) -> None:
    """The sandbox posts a receipt of everything that we mark: there is no feedback loop."""
    sandbox = Sandbox(packs=5)

    async def post(body: bytes) -> int:
        await inbox.notify(Notification.parse(body))
        return 200

    async with inbox_of(sandbox) as inbox, sandbox.notify(post, topic="messages") as notifier:
        async with running(inbox, handler, interval=86_400):
            await later(1000)
    assert notifier.answers == [200] * 5
    assert times(sandbox, "listing") == [0.0, 5.0]
    assert gets(sandbox) == []


@case("A12")
@on_virtual_clock
async def test_a_message_that_a_server_marked_unseen_is_looked_up(inbox_of: Any, handler: Any, running: Any) -> None:
    """A server that does not mark atomically: what only its notification names is delivered 60 s later, by one GET."""
    sandbox = Sandbox([Pack()], rules=[on("mark", nth=1).do(SNAPSHOT, Send(), MARK_ALL)])

    async def post(body: bytes) -> int:
        await inbox.notify(Notification.parse(body))
        return 200

    async with inbox_of(sandbox) as inbox, sandbox.notify(post), running(inbox, handler):
        await later(59)
        assert len(handler.taken) == 1
        await later(2)
        assert sorted(handler.taken) == sorted(sandbox.message_ids())
        assert [message.id for message in handler.deliveries[1][1].unread] == handler.taken[1:]
    assert len(gets(sandbox)) == 1


@case("G8")
@on_virtual_clock
async def test_an_id_that_never_appears_is_parked(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """Five tries, later each time; then none, also when it is notified again and in the next process."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await inbox.notify(named("never"))
        await later(4000)
        assert times(sandbox, "message") == [60.0, 120.0, 240.0, 480.0, 960.0]
        await inbox.notify(named("never"))
        await later(4000)
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(4000)
    assert len(gets(sandbox)) == 5


@case("T1")
@pytest.mark.parametrize("answer", [Reply(503), Reply(200, b"<html>back soon</html>")], ids=["5xx", "html"])
@on_virtual_clock
async def test_an_outage_says_nothing_about_a_message(
    answer: Reply, inbox_of: Any, handler: Any, running: Any, named: Any
) -> None:
    """The server fails for an hour: that is none of the five tries, and the message is delivered afterwards.

    Meanwhile it is asked for less and less often.
    """
    sandbox = Sandbox(packs=1)
    outage = sandbox.add(on("message").do(answer))
    async with inbox_of(sandbox, client={"retry": Retry(attempts=1)}) as inbox, running(inbox, handler):
        await later(10)
        sent = sandbox.send(FIRST)
        sandbox.read_elsewhere(FIRST)
        await inbox.notify(named(sent))
        await later(3600)
        assert len(gets(sandbox)) == 6
        sandbox.remove(outage)
        await later(3600)
    assert handler.taken.count(sent) == 1


@on_virtual_clock
async def test_an_id_that_appears_late_is_delivered(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """The by-id GET may 404 for a while after the notification [documented]."""
    sandbox = Sandbox(packs=1, rules=[on("message", nth=range(1, 3)).do(Reply(404))])
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(10)
        sent = sandbox.send(FIRST)
        sandbox.read_elsewhere(FIRST)
        await inbox.notify(named(sent))
        await later(1000)
    assert handler.taken.count(sent) == 1
    assert len(gets(sandbox)) == 3


@on_virtual_clock
async def test_a_notification_survives_its_process(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """`notify` is durable on return, and needs no `run`: the next process looks its message up."""
    sandbox = Sandbox(packs=1, messages=1, unread=0)
    async with inbox_of(sandbox) as inbox:
        await inbox.notify(named(next(iter(sandbox.message_ids()))))
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(100)
    assert handler.taken == list(sandbox.message_ids())
    assert len(gets(sandbox)) == 1


@on_virtual_clock
async def test_notify_refuses_what_is_no_notification_and_a_closed_inbox(inbox_of: Any, named: Any) -> None:
    """A `ValueError`, and a `RuntimeError`."""
    async with inbox_of(Sandbox(packs=0)) as inbox:
        with pytest.raises(ValueError):
            await inbox.notify({"topic": "messages"})
    with pytest.raises(RuntimeError):
        await inbox.notify(named("a"))


# -- what was missed ---------------------------------------------------------------------------------------------------


@case("G9")
@on_virtual_clock
async def test_after_a_downtime_all_is_there(inbox_of: Any, handler: Any, running: Any) -> None:
    """The endpoint is down for three hours, and a human reads one message meanwhile: the listing has the one, the missed ones the other."""
    sandbox = Sandbox([Pack(messages=1, unread=0), Pack(messages=1, unread=0)])

    async def down(body: bytes) -> int:
        return 503

    async with inbox_of(sandbox), sandbox.notify(down, receipts=False) as notifier:
        unread, read = sandbox.send(FIRST), sandbox.send(SECOND)
        sandbox.read_elsewhere(SECOND)
        await later(3 * 3600)
        assert notifier.answers == [503] * 16
        assert notifier.under_way == 0
    async with inbox_of(sandbox) as inbox, running(inbox, handler, app_id=5503910054140000):
        await later(70)
    assert {unread, read} <= set(handler.taken)
    assert len(gets(sandbox)) == 1


@on_virtual_clock
async def test_missed_notifications_come_page_after_page() -> None:
    """Each once, past the ten of a page, of one topic or all, as many as the server still has; nothing else ends it."""
    sandbox = Sandbox(packs=0)
    for n in range(125):
        sandbox.missed(
            {"_id": f"n{n}", "topic": "messages" if n % 5 else "items", "resource": f"m{n}", "application_id": 5}
        )
    async with client_of(sandbox) as client:
        everything = [row.id async for row in client.missed_notifications(5)]
        messages = [row.message_id async for row in client.missed_notifications("5", topic="messages")]
        nothing = [row async for row in client.missed_notifications(6)]
    assert everything == [f"n{n}" for n in range(125)]
    assert messages == [f"m{n}" for n in range(125) if n % 5]
    assert nothing == []


@on_virtual_clock
async def test_missed_notifications_checks_its_arguments_at_the_call() -> None:
    """What would become part of a URL is refused before anything is sent."""
    sandbox = Sandbox(packs=0)
    async with client_of(sandbox) as client:
        for wrong in ("", "5&topic=x", -1, None, True):
            with pytest.raises(ValueError):
                client.missed_notifications(wrong)  # type: ignore[arg-type]
        for wrong in ("", "a&b", "A", "x" * 65, 5):
            with pytest.raises(ValueError):
                client.missed_notifications(5, topic=wrong)  # type: ignore[arg-type]
    assert sandbox.log == []


# -- a handler that fails ----------------------------------------------------------------------------------------------


@case("A18")
@on_virtual_clock
async def test_a_handler_that_raises_for_ever(
    inbox_of: Any, handler: Any, running: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others flow; it is handed over again, later each time, from the journal; then it is a dead letter. No GET more, no text in the log."""
    sandbox = Sandbox(packs=20)
    handler.failing = {SECOND}
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler, attempts=4, interval=86_400):
            await later(1)
            assert len(handler.taken) == 19
            await later(10_000)
            assert handler.at(SECOND) == [0.0, 5.0, 15.0, 35.0]
            assert [d.redelivered for _, d in handler.deliveries if d.pack_id == SECOND] == [False, True, True, True]
            [dead] = await inbox.dead_letters()
            assert (dead.pack_id, str(dead.error)) == (SECOND, "the handler raised ValueError")
    assert contents(tmp_path / "inbox.db").dead == {SECOND: 1}
    assert sandbox.count("mark") == 20
    assert "CANARY" not in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
    assert vars(caplog.records[-1])["ml_event"] == "park"


@on_virtual_clock
async def test_a_repetition_survives_its_process(inbox_of: Any, handler: Any, running: Any) -> None:
    """The count goes on where it was: a service that is restarted in a loop has dead letters too."""
    sandbox = Sandbox(packs=1)
    handler.failing = {FIRST}
    for n in range(1, 4):
        async with inbox_of(sandbox) as inbox:
            async with running(inbox, handler, attempts=3, interval=86_400):
                await later({1: 1, 2: 12, 3: 100}[n])
                assert len(await inbox.dead_letters()) == (n == 3)
    assert len(handler.deliveries) == 3


@on_virtual_clock
async def test_dead_letters_are_given_to_the_handler_again_on_demand(inbox_of: Any, handler: Any, running: Any) -> None:
    """They are kept over restarts; `retry_dead_letters` brings them back, as redelivered; then there are none."""
    sandbox = Sandbox(packs=2)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, attempts=1):
        await later(1)
    handler.failing = set()
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler):
            await later(100)
            assert len(handler.taken) == 1
            with pytest.raises(RuntimeError):
                await inbox.retry_dead_letters()
        assert await inbox.retry_dead_letters() == 1
        async with running(inbox, handler):
            await later(1)
        assert sorted(handler.taken) == sorted(sandbox.message_ids())
        assert handler.deliveries[-1][1].redelivered
        assert await inbox.dead_letters() == ()


@on_virtual_clock
async def test_new_messages_of_a_failing_pack_come_with_what_failed(inbox_of: Any, handler: Any, running: Any) -> None:
    """In order, in one delivery: what the buyer wrote later never overtakes."""
    sandbox = Sandbox(packs=1)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=6):
        await later(6)
        sandbox.send(FIRST)
        await later(7)
        handler.failing = set()
        await later(10)
    assert handler.taken == sorted(sandbox.message_ids())
    assert handler.at(FIRST) == [0.0, 5.0, 15.0]
    assert [len(delivery.messages) for _, delivery in handler.deliveries] == [1, 1, 2]


@on_virtual_clock
async def test_a_message_after_a_dead_letter_is_delivered_alone(inbox_of: Any, handler: Any, running: Any) -> None:
    """A poisoned message holds up nothing that comes after it."""
    sandbox = Sandbox(packs=1)
    handler.failing = {FIRST}
    async with inbox_of(sandbox) as inbox, running(inbox, handler, attempts=1, interval=10):
        await later(5)
        handler.failing = set()
        sent = sandbox.send(FIRST)
        await later(20)
    assert handler.taken == [sent]


@on_virtual_clock
async def test_one_delivery_of_a_pack_at_a_time_and_several_packs_at_once(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """Slow handlers: never two of one pack, though more of it has come, and up to `concurrency` of several."""
    sandbox = Sandbox(packs=2)
    handler.seconds = 100.0
    async with inbox_of(sandbox, concurrency=3) as inbox, running(inbox, handler, interval=10):
        await later(5)
        assert sorted(handler.busy) == sorted(sandbox.pack_ids())
        sandbox.send(FIRST)
        sandbox.send(SECOND)
        await later(80)
        assert len(handler.deliveries) == 2
        await later(200)
    assert sorted(handler.taken) == sorted(sandbox.message_ids())
    assert handler.at(FIRST) == [0.0, 100.0]


@case("D11")
@on_virtual_clock
async def test_slow_handlers_bound_what_is_read_ahead(inbox_of: Any, handler: Any, running: Any) -> None:
    """Ten seconds each: no more than `concurrency` in hand and as many read ahead; the rest stays unread on the server."""
    sandbox = Sandbox(packs=30)
    handler.seconds = 10.0
    async with inbox_of(sandbox, concurrency=3) as inbox, running(inbox, handler):
        await later(5)
        assert len(handler.busy) == 3
        assert sandbox.count("mark") <= 6
        await later(200)
    assert sorted(handler.taken) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_a_plain_function_is_a_handler_too(inbox_of: Any, running: Any) -> None:
    """Its return is the acknowledgement."""
    sandbox = Sandbox(packs=2)
    got: list[Any] = []
    async with inbox_of(sandbox) as inbox, running(inbox, got.append):
        await later(1)
    assert len(got) == 2
    async with inbox_of(sandbox) as inbox, running(inbox, got.append):
        await later(1)
    assert len(got) == 2


# -- what passes, and what does not ------------------------------------------------------------------------------------


@case("B4")
@on_virtual_clock
async def test_parked_packs_that_fill_the_listing_do_not_end_it(
    inbox_of: Any, handler: Any, running: Any, named: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, at most one listing a minute, and what is notified is still delivered."""
    sandbox = Sandbox(packs=1001)
    packs = sandbox.pack_ids()
    sandbox.refuse(packs)
    async with inbox_of(sandbox, concurrency=32) as inbox, running(inbox, handler, interval=10):
        await later(30)
        sent = sandbox.send(packs[0])
        await inbox.notify(named(sent))
        await later(600)
    assert sent in handler.taken
    listings = [at for at in times(sandbox, "listing") if at > 10]
    assert all(b - a >= 60 for a, b in pairwise(listings))
    assert len([record for record in caplog.records if "fill the unread listing" in record.message]) == 1


@case("B10")
@on_virtual_clock
async def test_it_says_that_it_cannot_keep_up(
    inbox_of: Any, handler: Any, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages come as fast as the budget allows to read: the oldest first, and a warning with the number owed."""
    sandbox = Sandbox(packs=300, messages=1, unread=0)
    packs = sandbox.pack_ids()
    async with (
        inbox_of(sandbox, client={"limits": Limits(reads=60, per_second=None)}) as inbox,
        running(inbox, handler),
    ):
        for n in range(600):
            sandbox.send(packs[n % 300])
            await later(0.7)
        behind = [record.getMessage() for record in caplog.records if "behind" in record.getMessage()]
        assert len(behind) == 1
        await later(900)
    assert set(sandbox.marked_ids()) <= set(handler.taken)
    assert len(handler.taken) == 900


@on_virtual_clock
async def test_a_waiting_pack_holds_up_no_doorbell(inbox_of: Any, handler: Any, running: Any, named: Any) -> None:
    """An answer was lost, and its pack waits two minutes: what is notified meanwhile is delivered at once."""
    sandbox = Sandbox(packs=2, rules=[on("mark", pack=FIRST, nth=1).do(EXECUTE, DROP)])
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=3600):
        await later(20)
        assert handler.at(FIRST) == []
        await inbox.notify(named(sandbox.send(SECOND)))
        await later(1)
        assert handler.at(SECOND) == [0.0, 20.0]
        await later(130)
        assert handler.at(FIRST) == [120.0]


@on_virtual_clock
async def test_an_outage_of_the_server_passes(inbox_of: Any, handler: Any, running: Any) -> None:
    """Ten minutes of 503 on everything: it goes on by itself afterwards, and has not hammered."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox, running(inbox, handler) as service:
        await later(20)
        rule = sandbox.add(on("any").do(Reply(503)))
        sandbox.send(FIRST)
        before = len(sandbox.log)
        await later(600)
        assert len(sandbox.log) - before < 200
        sandbox.remove(rule)
        await later(300)
        assert not service.task.done()
    assert sorted(handler.taken) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_the_refusal_of_a_listing_or_of_the_token_ends_it(inbox_of: Any, handler: Any) -> None:
    """What does not pass is an error: a service that hangs on quietly would lose the topic and the messages."""
    sandbox = Sandbox(packs=1, rules=[on("listing").do(Reply(403))])
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(Forbidden):
            await inbox.run(handler)
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox, client={"auth": "APP_USR-wrong"}) as inbox:
        with pytest.raises(Unauthorized):
            await inbox.run(handler)


@on_virtual_clock
async def test_a_broken_journal_ends_it(
    inbox_of: Any, handler: Any, monkeypatch: pytest.MonkeyPatch, running: Any
) -> None:
    """`JournalError`: nothing more is marked, whatever is unread stays unread."""
    from mlmessages import failpoints

    def full(name: str) -> None:
        if name == "before commit":
            raise OSError(28, "No space left on device")

    sandbox = Sandbox(packs=2)
    async with inbox_of(sandbox) as inbox:
        monkeypatch.setattr(failpoints, "hook", full)
        with pytest.raises(JournalError):
            await inbox.run(handler)
        monkeypatch.setattr(failpoints, "hook", None)
    assert sandbox.marked_ids() == set()


# -- the end -----------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_cancellation_lets_the_handler_finish(inbox_of: Any, handler: Any, running: Any) -> None:
    """Nothing is claimed after it; what is in the handler's hands is acknowledged; the rest is still unread."""
    sandbox = Sandbox(packs=10)
    handler.seconds = 5.0
    async with inbox_of(sandbox, concurrency=2) as inbox:
        async with running(inbox, handler):
            await later(1)
            marked = sandbox.count("mark")
        assert sandbox.count("mark") == marked
        assert len(handler.taken) == 2
    handler.seconds = 0.0
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(10)
    assert sorted(handler.taken) == sorted(sandbox.message_ids())


@on_virtual_clock
async def test_a_handler_that_does_not_finish_is_cancelled_after_the_grace(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """It is not acknowledged, and comes again, as redelivered: in the next process, or the next `run`."""
    sandbox = Sandbox(packs=1)
    handler.seconds = 1e6
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler, grace=3):
            await later(1)
            began = asyncio.get_running_loop().time()
        assert 3 <= asyncio.get_running_loop().time() - began <= 4
        handler.seconds = 0.0
        async with running(inbox, handler):
            await later(1)
    assert handler.taken == list(sandbox.message_ids())
    assert handler.deliveries[-1][1].redelivered
    assert sandbox.count("mark") == 1


@on_virtual_clock
async def test_leaving_the_inbox_ends_the_service(inbox_of: Any, handler: Any) -> None:
    """`run` returns, with what was in flight finished."""
    sandbox = Sandbox(packs=3)
    handler.seconds = 2.0
    async with inbox_of(sandbox) as inbox:
        task = asyncio.ensure_future(inbox.run(handler))
        await later(1)
    await task
    assert len(handler.taken) == 3


@on_virtual_clock
async def test_one_run_and_no_drain_beside_it(inbox_of: Any, handler: Any, running: Any) -> None:
    """An inbox has one consumer at a time; when the service is over there may be another."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        async with running(inbox, handler):
            await later(1)
            with pytest.raises(RuntimeError):
                inbox.drain()
            with pytest.raises(RuntimeError):
                await inbox.run(handler)
        async with inbox.drain() as drain:
            assert [delivery async for delivery in drain] == []


@pytest.mark.parametrize("wrong", [{"interval": 0}, {"attempts": 0}, {"grace": -1}, {"app_id": "x"}], ids=str)
@on_virtual_clock
async def test_wrong_arguments_are_refused(wrong: dict[str, Any], inbox_of: Any, handler: Any) -> None:
    """A `ValueError`, before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with inbox_of(sandbox) as inbox:
        with pytest.raises(ValueError):
            await inbox.run(handler, **wrong)
        with pytest.raises(ValueError):
            await inbox.run(None)
    assert sandbox.log == []


@on_virtual_clock
async def test_left_over_deliveries_come_first(inbox_of: Any, handler: Any, running: Any) -> None:
    """What a process before this one read and did not get acknowledged costs no GET."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        assert len([delivery async for delivery in drain]) == 3
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(1)
    assert sorted(handler.taken) == sorted(sandbox.message_ids())
    assert all(delivery.redelivered for _, delivery in handler.deliveries)
    assert sandbox.count("mark") == 3


@on_virtual_clock
async def test_a_hidden_pack_is_looked_at_again_when_a_notification_names_it(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """A conversation that was given up as still listed opens again."""
    sandbox = Sandbox([Pack()])
    hidden = next(iter(sandbox.message_ids()))
    sandbox.hide(hidden)
    async with inbox_of(sandbox) as inbox, running(inbox, handler, interval=86_400):
        await later(100)
        assert len(inbox.report.parked) == 1
        sandbox.reveal(hidden)
        await inbox.notify(Notification.parse(json.dumps({"topic": "messages", "resource": hidden})))
        await later(200)
        assert inbox.report.parked == ()
    assert handler.taken == [hidden]
    assert sandbox.unread == 0


@case("P3")
@on_virtual_clock
async def test_a_service_does_not_keep_the_conversations_that_are_done(
    inbox_of: Any, handler: Any, running: Any
) -> None:
    """It goes on for months: what was read, delivered and acknowledged is in the journal alone."""
    sandbox = Sandbox(packs=300)
    of_other_tests = kept(backlog.Pack, NewMessages)
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        await later(200)
        assert len(handler.taken) == 300
        handler.deliveries.clear()
        now = kept(backlog.Pack, NewMessages)
    assert [each for each in now if not any(each is other for other in of_other_tests)] == []


@case("T9")
@on_virtual_clock
async def test_news_without_a_pause_delay_no_parked_pack_and_fill_no_memory(
    tmp_path: Path, inbox_of: Any, handler: Any, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A conversation comes every four seconds, so that no listing is ever the last one of a drain.

    A parked pack is read again when its time has come all the same, what is done is forgotten, and there is no word of
    being behind: each of them is read within five seconds.
    """
    sandbox = Sandbox(packs=1)
    refusal = sandbox.refuse([FIRST])
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        assert [delivery async for delivery in drain] == []
    sandbox.remove(refusal)
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as journal, journal:
        journal.execute("UPDATE pack SET not_before = ?", [time.time() + 100])
    of_other_tests = kept(backlog.Pack)
    async with inbox_of(sandbox) as inbox, running(inbox, handler):
        for _ in range(100):
            sandbox.add_pack(Pack())
            await later(4)
            handler.deliveries = [each for each in handler.deliveries if each[1].pack_id == FIRST]
        [(at, _)] = handler.deliveries
        now = [each for each in kept(backlog.Pack) if not any(each is other for other in of_other_tests)]
    assert at == pytest.approx(100, abs=15)
    assert len(now) < 10
    assert "behind" not in caplog.text


def kept(*kinds: type) -> list[Any]:
    """The objects of these kinds that are alive."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


class _Cancelling:
    """A token source that is cancelled at its n-th token, as one is whose own tasks another program ends."""

    def __init__(self, token: str, n: int) -> None:
        self._token = token
        self._left = n

    async def token(self) -> str:
        self._left -= 1
        if not self._left:
            raise asyncio.CancelledError
        return self._token

    async def rejected(self, token: str) -> None:
        pass


@case("T2")
@pytest.mark.parametrize("n", range(1, 5))
@on_virtual_clock
async def test_a_cancellation_from_elsewhere_does_not_look_like_an_end(n: int, inbox_of: Any, handler: Any) -> None:
    """`run` does not return as if it had been stopped: it raises; nothing is lost, and the next run goes on."""
    sandbox = Sandbox(packs=3)
    async with inbox_of(sandbox, client={"auth": _Cancelling(sandbox.token, n)}) as inbox:
        with pytest.raises(asyncio.CancelledError):
            await inbox.run(handler)
    async with inbox_of(sandbox) as inbox, inbox.drain() as drain:
        async for delivery in drain:
            handler.taken += [message.id for message in delivery.messages]
            await delivery.ack()
    assert sorted(handler.taken) == sorted(sandbox.message_ids())


@case("T4")
def test_one_sigterm_stops_every_inbox_of_the_process(tmp_path: Path) -> None:
    """Two inboxes run in one event loop: both are stopped, and then SIGTERM means what it meant before."""

    async def serve(name: str, started: asyncio.Event) -> None:
        sandbox = Sandbox(packs=1)
        async with client_of(sandbox) as client, Inbox(client, tmp_path / name) as inbox:
            await inbox.run(lambda _: started.set())

    async def main() -> None:
        started = [asyncio.Event(), asyncio.Event()]
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(serve("first.db", started[0]))
            group.create_task(serve("second.db", started[1]))
            for each in started:
                await each.wait()
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # else the signal would end the tests
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    asyncio.run(main())

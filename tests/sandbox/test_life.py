"""Conversations that look like life: what a report of them needs to be worth looking at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cases import case
from mlmessages.testing import Message, Pack, Sandbox, lifelike
from mlmessages.testing.model.life import question

BEGINS = datetime(2026, 3, 2, 12, tzinfo=UTC)


def moments(packs):
    return [(m, BEGINS - timedelta(seconds=m.age or 0)) for pack in packs for m in written(pack)]


def written(pack: Pack) -> Sequence[Message]:
    assert not isinstance(pack.messages, int)
    return pack.messages


def test_every_conversation_is_unread_and_nothing_is_of_the_future(in_memory):
    packs = list(lifelike(500))
    sandbox = Sandbox(packs)
    assert sandbox.unread == 500
    assert all(0 < message.age < 60 * 86400 for message, _ in moments(packs))
    assert all([m.age for m in written(p)] == sorted((m.age or 0 for m in written(p)), reverse=True) for p in packs)

    async def scenario(ask):
        page = (await ask.peek(sandbox.pack_ids()[3], "&limit=50")).json
        stamps = [message["message_date"]["created"] for message in page["messages"]]
        assert stamps == sorted(stamps, reverse=True)
        assert stamps[0] < "2026-03-02T12:00:00Z"

    in_memory(sandbox, scenario)


@case("R44")
def test_they_are_spread_over_weeks_hours_sites_and_lengths():
    packs = list(lifelike(1000))
    days = Counter((BEGINS - at).days // 7 for _, at in moments(packs))
    assert len(days) >= 6
    hours = Counter((at.hour - 6) % 24 for message, at in moments(packs) if message.sender == "buyer")
    assert sum(hours[h] for h in range(10, 22)) > 2 * sum(hours[h] for h in (22, 23, *range(9)))
    assert {pack.site_id for pack in packs} == {"MLM", "MLB", "MLA", "MLC", "MCO"}
    assert set(Counter(len(written(pack)) for pack in packs)) == set(range(1, 10))
    assert 100 < sum(pack.status == "blocked" for pack in packs) < 300
    old = [pack for pack in packs if (written(pack)[-1].age or 0) > 30 * 86400]
    assert {pack.substatus for pack in old} == {"blocked_by_time"}
    answered = sum(written(pack)[-1].sender == "seller" for pack in packs)
    assert 50 < answered < 400


def test_brazilians_write_portuguese():
    portuguese = " ".join(m.text for p in lifelike(200) if p.site_id == "MLB" for m in written(p))
    spanish = " ".join(m.text for p in lifelike(200) if p.site_id == "MLM" for m in written(p))
    assert "Olá" in portuguese
    assert "Olá" not in spanish
    assert "¿" in spanish
    assert "¿" not in portuguese
    assert question(0) != question(1) != question(2)


def test_the_same_arguments_give_the_same_conversations_and_a_seed_gives_others():
    assert list(lifelike(20)) == list(lifelike(20))
    assert list(lifelike(20)) != list(lifelike(20, seed=1))
    assert {len(written(pack)) for pack in lifelike(20, messages=4)} == {4}


def test_a_sandbox_begins_on_the_date_that_it_is_given(in_memory):
    begins = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
    sandbox = Sandbox(lifelike(3, begins=begins), begins=begins)

    async def scenario(ask):
        answer = await ask.peek(sandbox.pack_ids()[0])
        assert answer.headers["Date"].startswith("Thu, 26 Nov 2026 12:00")
        assert sandbox.calendar == begins

    in_memory(sandbox, scenario)

"""A 2xx that cannot be read: a plain read is sent again within the policy, what changes something is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cases import case
from mlmessages import Retry, errors
from mlmessages.http.pipeline import RequestCount
from mlmessages.http.transport import MOST_BYTES
from mlmessages.testing import Garbage, Gzip, Reply, Sandbox, on, virtual_run
from policy.pipelines import MARK, READ, WRITE, Effect, call, refuse_html, session_of
from worlds import client_of, ids, lost

UNREADABLE = [Garbage(b"<html>maintenance</html>"), Garbage(b""), Reply(200, b'{"status": "ok"}')]


@case("K4")
@pytest.mark.parametrize("fault", UNREADABLE, ids=["HTML", "nothing", "no list"])
def test_reads_get_over_unreadable_answers(fault: Any) -> None:
    """Every sixth plain read and every second listing is no answer: all of a conversation, and the whole drain, arrive."""

    async def main() -> None:
        rules = [on("peek", every=6).do(fault), on("listing", every=2).do(fault)]
        sandbox = Sandbox(packs=20, messages=7, rules=rules)
        async with client_of(sandbox) as client:
            pack = sandbox.pack_ids()[0]
            for _ in range(6):
                assert len([message async for message in client.messages(pack, limit=3)]) == 7
            assert len((await client.unread()).packs) == 20
            assert len((await client.unread()).packs) == 20
            async with client.drain() as drain:
                found = [conversation async for conversation in drain]
        assert len(ids(found)) == 140
        assert lost(sandbox, found) == set()
        assert drain.report.set_aside == ()

    virtual_run(main())


@case("K4")
@pytest.mark.parametrize(("effect", "requests"), [(READ, 3), (MARK, 1), (WRITE, 1)])
def test_only_a_read_is_sent_again_for_its_answer(effect: Effect, requests: int) -> None:
    """An answer that stays unreadable is a `DecodeError` when the attempts are spent; one that marks or writes at once."""

    async def main() -> tuple[int, float]:
        sandbox = Sandbox(packs=1, rules=[on("any").do(Garbage(b"<html>"))])
        count = RequestCount()
        async with session_of(sandbox, retry=Retry(attempts=3, base=1.0)) as session:
            with pytest.raises(errors.DecodeError) as caught:
                await session.execute(call(effect, refuse_html), count)
        assert caught.value.__context__ is None
        assert count.in_doubt == (effect is not READ)  # executed, and what it showed is not known
        return len(sandbox.log), asyncio.get_running_loop().time()

    sent, seconds = virtual_run(main())
    assert sent == requests
    assert seconds >= (3.0 if effect is READ else 0.0)


@case("K4")
def test_nothing_is_held_while_an_answer_is_read() -> None:
    """The permit is back when the answer is read, and each of the attempts was paid for."""

    async def main() -> None:
        sandbox = Sandbox(packs=1, rules=[on("any", nth=1).do(Garbage(b""))])
        in_flight = []

        def read(body: bytes) -> bytes:
            in_flight.append(session.limits._reading.in_flight)
            return refuse_html(body)

        async with session_of(sandbox) as session:
            assert await session.execute(call(READ, read))
            assert session.limits.used == 2
        assert in_flight == [0, 0]

    virtual_run(main())


@case("K4")
def test_an_answer_beyond_the_cap_is_asked_for_once() -> None:
    """8 MB are not fetched six times: the answer will not be smaller."""

    async def main() -> int:
        sandbox = Sandbox(packs=1, rules=[on("any").do(Gzip(MOST_BYTES + 1))])
        async with session_of(sandbox) as session:
            with pytest.raises(errors.DecodeError, match="larger than 8 MB") as caught:
                await session.execute(call())
        assert caught.value.final
        return len(sandbox.log)

    assert virtual_run(main()) == 1

"""A message is sent at most once, and what became of it is found out: refusals, lost answers, looking again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mlmessages import Limits, MessagesClient, Retry
from mlmessages.errors import (
    AnswerLost,
    AuthError,
    DecodeError,
    MessagesError,
    NotSent,
    RateLimited,
    ServerError,
    Unauthorized,
)
from mlmessages.testing import (
    DROP,
    EXECUTE,
    HANG,
    RESET,
    Behaviour,
    Garbage,
    HideIt,
    Hold,
    Message,
    Pack,
    Redirect,
    Reply,
    RevealIt,
    Sandbox,
    Send,
    Truncate,
    on,
)
from mlmessages.testing.faults import Action
from worlds import PLENTY, client_of, on_virtual_clock
from writes.shapes import FIRST, executed, payload, posts

FAMILIES = pytest.mark.parametrize("api", ["marketplace", "domestic"])
LOST: dict[str, tuple[Action, ...]] = {
    "closed": (DROP,),
    "reset": (RESET,),
    "no answer": (HANG,),
    "500": (Reply(500),),
    "502": (Reply(502, "<html>Bad Gateway</html>"),),
    "503": (Reply(503, payload("error_500_attachment_error_null")),),
    "504": (Reply(504),),
}


def ours(sandbox: Sandbox, text: str = "Hi") -> int:
    """How many messages with this text the server has executed."""
    return sum(post.executed and post.body["text"] == text for post in posts(sandbox))  # type: ignore[index]


# -- what was not executed is sent again -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["error_429_minimal", "error_429_action_guide"])
@FAMILIES
@on_virtual_clock
async def test_a_429_is_waited_for(api: str, name: str) -> None:
    """It was not executed: the same body goes out again, and is executed once."""
    sandbox = Sandbox(1, rules=[on("send", times=3).do(Reply(429, payload(name), {"Retry-After": "7"}))])
    async with client_of(sandbox, api=api) as client:
        sent = await client.send(FIRST, "Hi")
    first, *_, last = posts(sandbox)
    assert len(posts(sandbox)) == 4
    assert executed(sandbox) == 1
    assert last.body == first.body
    assert last.at - first.at >= 21
    assert sent.id in sandbox.message_ids()
    assert sandbox.count("peek") == 1


@on_virtual_clock
async def test_a_429_for_too_long_is_raised() -> None:
    """A Retry-After beyond the deadline: `RateLimited` at once, and nothing was sent."""
    sandbox = Sandbox(1, rules=[on("send").do(Reply(429, b"", {"Retry-After": "3600"}))])
    async with client_of(sandbox) as client:
        with pytest.raises(RateLimited) as refused:
            await client.send(FIRST, "Hi")
    assert refused.value.retry_after == 3600
    assert len(posts(sandbox)) == 1


@on_virtual_clock
async def test_posts_pay_the_budget_of_writes() -> None:
    """Not that of the reads, which is documented apart: the fourth POST of a minute waits for the next."""
    sandbox = Sandbox(1)
    limits = Limits(reads=10**6, writes=3, per_second=None)
    async with client_of(sandbox, limits=limits) as client:
        for _ in range(4):
            await client.send(FIRST, "Hi")
    assert [round(post.at) for post in posts(sandbox)] == [0, 0, 0, 60]


class Vault:
    """A token source whose first token is refused at the first POST."""

    def __init__(self, sandbox: Sandbox, *, cures: bool) -> None:
        self.sandbox, self.cures = sandbox, cures

    async def token(self) -> str:
        return self.sandbox.token

    async def rejected(self, token: str) -> None:
        if self.cures:
            self.sandbox.rotate_token("APP_USR-new")


@pytest.mark.parametrize("cures", [True, False])
@FAMILIES
@on_virtual_clock
async def test_a_401_that_a_new_token_cures(api: str, cures: bool) -> None:
    """It was not executed: sent again with the new token; without one it is `Unauthorized` after one POST."""
    sandbox = Sandbox(1, rules=[on("send", nth=1).do(Reply(401, payload("error_401_invalid_token")))])
    async with client_of(sandbox, api=api, auth=Vault(sandbox, cures=cures)) as client:
        if cures:
            await client.send(FIRST, "Hi")
        else:
            with pytest.raises(Unauthorized):
                await client.send(FIRST, "Hi")
    assert (len(posts(sandbox)), executed(sandbox)) == ((2, 1) if cures else (1, 0))


@on_virtual_clock
async def test_a_token_source_that_fails_after_the_look() -> None:
    """The conversation was read, the token for the POST is not to be had: `AuthError`, nothing was sent."""

    class Failing:
        asked = 0

        async def token(self) -> str:
            self.asked += 1
            if self.asked > 1:
                raise AuthError("gone")
            return sandbox.token

        async def rejected(self, token: str) -> None:
            pass

    sandbox = Sandbox(1)
    async with client_of(sandbox, auth=Failing()) as client:
        with pytest.raises(AuthError):
            await client.send(FIRST, "Hi")
    assert posts(sandbox) == []


async def test_no_connection_is_tried_again_and_then_told(unused_port: int) -> None:
    """Nothing left this machine: `NotSent`, which is not "may or may not"."""
    async with MessagesClient(
        "token",
        seller_id=7,
        base_url=f"http://127.0.0.1:{unused_port}",
        retry=Retry(attempts=2, base=0.001),
        limits=Limits(**PLENTY),
    ) as client:
        with pytest.raises(NotSent):
            await client.send(FIRST, "Hi")


# -- what may have been executed is not -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", LOST.values(), ids=LOST)
@FAMILIES
@on_virtual_clock
async def test_a_message_whose_answer_was_lost_is_found(api: str, steps: tuple[Action, ...]) -> None:
    """It was executed: the conversation shows it, and it is returned as if it had been answered. One POST."""
    sandbox = Sandbox(1, rules=[on("send").do(EXECUTE, *steps)])
    async with client_of(sandbox, api=api) as client:
        sent = await client.send(FIRST, "Hi")
    assert [post.ids for post in posts(sandbox)] == [(sent.id,)]
    assert sent.text == "Hi"
    assert sandbox.count("mark") == 0
    assert sandbox.unread == 1


@pytest.mark.parametrize("steps", LOST.values(), ids=LOST)
@FAMILIES
@on_virtual_clock
async def test_a_message_that_is_not_found_may_or_may_not_have_been_sent(api: str, steps: tuple[Action, ...]) -> None:
    """It was not executed, which cannot be known: `AnswerLost` says so, says what to do, and nothing was repeated."""
    sandbox = Sandbox(1, rules=[on("send").do(*steps)])
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(AnswerLost, match="may or may not have been sent") as lost:
            await client.send(FIRST, "Hi")
    assert "Look at the conversation" in (lost.value.hint or "")
    assert len(posts(sandbox)) == 1
    assert executed(sandbox) == 0


@on_virtual_clock
async def test_a_5xx_is_named_in_the_error() -> None:
    """`AnswerLost` tells what the server answered: for its operator it matters whether it was a 503."""
    sandbox = Sandbox(1, rules=[on("send").do(Reply(503, {"message": "busy"}))])
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost, match="the server answered 503.*busy"):
            await client.send(FIRST, "Hi")


@pytest.mark.parametrize("tells", ["nothing", "minimal", "message"])
@FAMILIES
@on_virtual_clock
async def test_a_2xx_without_a_body_is_looked_up(api: str, tells: Any) -> None:
    """It was executed for sure: the message is found in the conversation where its answer does not name it."""
    sandbox = Sandbox(1, behaviour=Behaviour(tells=tells))
    async with client_of(sandbox, api=api) as client:
        sent = await client.send(FIRST, "Hi")
    assert [post.ids for post in posts(sandbox)] == [(sent.id,)]


@pytest.mark.parametrize(
    "ending",
    [Truncate(20), Garbage(), Reply(200, "[]"), Reply(201, {"status": "ok"}), Reply(200, "null"), Reply(204)],
    ids=repr,
)
@pytest.mark.parametrize("found", [True, False])
@on_virtual_clock
async def test_a_2xx_that_cannot_be_read_was_executed(ending: Action, found: bool) -> None:
    """It is looked for at once; if the conversation does not show it yet, the `DecodeError` says that it was sent."""
    rules = [on("send").do(EXECUTE, ending)]
    if not found:
        rules.append(on("peek", nth=range(2, 99)).do(Reply(200, {"messages": []})))
    sandbox = Sandbox(1, rules=rules)
    async with client_of(sandbox) as client:
        if found:
            assert (await client.send(FIRST, "Hi")).id in sandbox.message_ids()
        else:
            with pytest.raises(DecodeError, match="the message was sent"):
                await client.send(FIRST, "Hi")
    assert (len(posts(sandbox)), ours(sandbox)) == (1, 1)


@on_virtual_clock
async def test_a_redirect_is_a_refusal() -> None:
    """It is not followed, and the message not looked for."""
    sandbox = Sandbox(1, rules=[on("send").do(Redirect("https://elsewhere.invalid/"))])
    async with client_of(sandbox) as client:
        with pytest.raises(MessagesError, match="redirect"):
            await client.send(FIRST, "Hi")
    assert [entry.kind for entry in sandbox.log] == ["peek", "send"]


# -- which one is ours -------------------------------------------------------------------------------------------------

SAME = Message("Hi", sender="seller", read=True)
OTHERS: dict[str, tuple[list[Message], tuple[Action, ...]]] = {
    "the same text was there before": ([Message(), SAME], ()),
    "the buyer says the same": ([Message()], (Send(text="Hi"),)),
    "the seller says something else": ([Message()], (Send(text="Hi there", sender="seller"),)),
    "the same text in another pack": ([Message()], (Send(FIRST + 1, "Hi", "seller"),)),
    "many arrivals": ([Message()], tuple(Send(text="Hi") for _ in range(60))),
}


@pytest.mark.parametrize(("messages", "meanwhile"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("order", ["newest", "oldest"])
@on_virtual_clock
async def test_what_is_not_ours_is_not_taken_for_it(
    messages: list[Message], meanwhile: tuple[Action, ...], order: Any
) -> None:
    """Only a message of the seller's, that was not there before, with the same text."""
    sandbox = Sandbox(
        [Pack(messages=messages), Pack()],
        behaviour=Behaviour(order=order),
        rules=[on("send").do(*meanwhile, DROP)],
    )
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.send(FIRST, "Hi")


@pytest.mark.parametrize(("messages", "meanwhile"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("order", ["newest", "oldest"])
@on_virtual_clock
async def test_ours_is_found_among_them(messages: list[Message], meanwhile: tuple[Action, ...], order: Any) -> None:
    """The same worlds, and it was executed: that very message is returned."""
    sandbox = Sandbox(
        [Pack(messages=messages), Pack()],
        behaviour=Behaviour(order=order),
        rules=[on("send").do(EXECUTE, *meanwhile, DROP)],
    )
    async with client_of(sandbox) as client:
        sent = await client.send(FIRST, "Hi")
    assert [post.ids for post in posts(sandbox)] == [(sent.id,)]


@on_virtual_clock
async def test_an_old_message_that_becomes_visible_is_not_ours() -> None:
    """The page is full, one of its messages is hidden meanwhile, and an older "Hi" of the seller's moves up into it."""
    messages = [SAME, *(Message(f"{n}") for n in range(50))]
    sandbox = Sandbox([Pack(messages=messages)])
    newest = max(sandbox.message_ids())
    sandbox.add(on("send").do(HideIt(newest), DROP))
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.send(FIRST, "Hi")


@on_virtual_clock
async def test_an_older_message_that_is_let_through_is_not_ours() -> None:
    """A "Hi" of the seller's that moderation had hidden before appears at its old place."""
    sandbox = Sandbox([Pack(messages=[Message("Hi", sender="seller", hidden=True), Message()])])
    hidden = min(sandbox.message_ids())
    sandbox.add(on("send").do(RevealIt(hidden), DROP))
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.send(FIRST, "Hi")


@on_virtual_clock
async def test_a_message_with_files_is_known_by_them_too() -> None:
    """Two messages with the same words, one with a file: each lost answer finds its own."""
    sandbox = Sandbox(1)
    file = sandbox.add_file(b"x")
    async with client_of(sandbox) as client:
        sandbox.add(on("send").do(Send(text="Hi", sender="seller"), EXECUTE, DROP))
        sent = await client.send(FIRST, "Hi", attachments=[file])
    assert [attachment.filename for attachment in sent.attachments] == [file]


@pytest.mark.parametrize("text", ["Hi \n", " Hi\r\nyou", "\n\nHi"], ids=ascii)
@on_virtual_clock
async def test_a_server_that_trims_shows_the_same_text(text: str) -> None:
    """Blanks at the ends and the kind of line break do not count."""
    shown = text.replace("\r\n", "\n").strip()
    sandbox = Sandbox(1, rules=[on("send").do(Send(text=shown, sender="seller"), DROP)])
    async with client_of(sandbox) as client:
        assert (await client.send(FIRST, text)).text == shown


@on_virtual_clock
async def test_a_message_that_is_visible_late_is_found() -> None:
    """It is executed a second after its answer was given up: the second look, two seconds later, shows it."""
    sandbox = Sandbox(1, rules=[on("send").do(Hold("late"), EXECUTE)])
    async with client_of(sandbox, timeout=5.0) as client:
        sending = asyncio.ensure_future(client.send(FIRST, "Hi"))
        await asyncio.sleep(6)
        sandbox.release("late")
        sent = await sending
    assert [post.ids for post in posts(sandbox)] == [(sent.id,)]


@on_virtual_clock
async def test_where_the_conversation_could_not_be_read_before_nothing_is_adopted() -> None:
    """What was there before is not known, so what is new cannot be told: `AnswerLost`, though it shows a "Hi"."""
    rules = [on("peek", nth=1).do(Reply(404)), on("send").do(EXECUTE, DROP)]
    sandbox = Sandbox(1, rules=rules)
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.send(FIRST, "Hi", to=800300001)


@on_virtual_clock
async def test_a_look_that_fails_finds_nothing() -> None:
    """The network is gone for good: `AnswerLost` about the message, not an error about the look."""
    rules = [on("send").do(EXECUTE, DROP), on("peek", nth=range(2, 999)).do(DROP)]
    sandbox = Sandbox(1, rules=rules)
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost, match="may or may not have been sent"):
            await client.send(FIRST, "Hi")
    assert len(posts(sandbox)) == 1


@on_virtual_clock
async def test_two_equal_messages_at_once_do_not_adopt_each_other() -> None:
    """The first is executed, the second never; both answers are lost: one is found, the other is not."""
    sandbox = Sandbox(1, rules=[on("send", nth=1).do(EXECUTE, DROP), on("send", nth=2).do(DROP)])
    async with client_of(sandbox) as client:
        results = await asyncio.gather(*(client.send(FIRST, "Hi") for _ in range(2)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Message", "AnswerLost"]


@on_virtual_clock
async def test_an_adopted_message_that_was_rejected_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The warning comes in either case, and the log says that it was found."""
    sandbox = Sandbox(1, rules=[on("send").do(EXECUTE, DROP)])
    with caplog.at_level("INFO", "mlmessages"):
        async with client_of(sandbox) as client:
            sent = await client.send(FIRST, "bit.ly/x")
    assert sent.status == "moderated"
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


# -- cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", range(1, 25))
@on_virtual_clock
async def test_cancelling_anywhere_sends_at_most_once_and_leaves_the_client_usable(when: int) -> None:
    """Cancelled at its k-th step: no second POST, and the conversation is free for the next message."""
    sandbox = Sandbox(1, rules=[on("send", nth=1).do(EXECUTE, Reply(503))])
    async with client_of(sandbox) as client:
        task = asyncio.ensure_future(client.send(FIRST, "Hi"))
        for _ in range(when * 3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(posts(sandbox)) <= 1
        assert (await client.send(FIRST, "Again")).id in sandbox.message_ids()
    assert ours(sandbox, "Again") <= 1


@pytest.mark.parametrize("make", [lambda client: client.send(FIRST, "Hi")])
@on_virtual_clock
async def test_a_client_that_was_closed_sends_nothing(make: Callable[[MessagesClient], Any]) -> None:
    """A message that waits for its turn while the client is closed is a `RuntimeError`."""
    sandbox = Sandbox(1, rules=[on("send").do(HANG)])
    async with client_of(sandbox, retry=Retry(attempts=1), timeout=5) as client:
        first, second = asyncio.ensure_future(make(client)), asyncio.ensure_future(make(client))
        await asyncio.sleep(1)
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(results[1], RuntimeError)
    assert len(posts(sandbox)) == 1
    assert not isinstance(results[0], ServerError)

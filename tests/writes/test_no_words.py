"""What a user writes is in no error, traceback, log line or repr; nor is the token, on the new paths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edges.sockets import PACK, PAGE, Answer, Wire, answering, client_at, saying, server, within
from edges.test_canary import TOKEN, Heard, assert_clean, heard, outputs, raised  # noqa: F401 - a fixture
from mlmessages import Limits, MessagesClient, Retry
from mlmessages.errors import MessagesError
from mlmessages.testing import Pack, Reply, Sandbox, on
from worlds import client_of, on_virtual_clock

WORDS = "canary words of a seller"
QUOTE = json.dumps({"message": f"text '{WORDS}' is refused", "error": WORDS, "cause": [WORDS]}).encode()
READ = answering(PAGE)

Call = Callable[[MessagesClient], Awaitable[object]]
CALLS: dict[str, Call] = {
    "send": lambda client: client.send(PACK, WORDS, to=1),
    "send to whom": lambda client: client.send(PACK, WORDS),
    "too long": lambda client: client.send(PACK, WORDS * 100, to=1),
    "wrong characters": lambda client: client.send(PACK, WORDS + "…", to=1),
    "half a pair": lambda client: client.send(PACK, WORDS + "\ud800", to=1),
    "wrong pack": lambda client: client.send("x", WORDS, to=1),
    "start": lambda client: client.start_conversation(PACK, "OTHER", text=WORDS),
    "variables": lambda client: client.start_conversation(PACK, "A", template_id="T", variables={"a": WORDS}),
}
ANSWERS: dict[str, Answer] = {
    "400": answering(QUOTE, "400 Bad Request"),
    "400 in pieces": answering(json.dumps({"message": WORDS + "\n" + "x" * 400}).encode(), "400 Bad Request"),
    "401": answering(QUOTE, "401 Unauthorized"),
    "403 text": answering(WORDS.encode(), "403 Forbidden"),
    "403 token": answering(TOKEN.encode(), "403 Forbidden"),
    "409": answering(QUOTE, "409 Conflict"),
    "422": answering(QUOTE, "422 Unprocessable"),
    "429": answering(QUOTE, "429 Too Many"),
    "451": answering(QUOTE, "451 Gone"),
    "500": answering(QUOTE, "500 Oops"),
    "nothing": answering(b"", "201 Created"),
    "no json": answering(WORDS.encode(), "201 Created"),
    "no id": answering(json.dumps({"text": WORDS}).encode(), "201 Created"),
    "an id that is words": answering(json.dumps({"id": [WORDS]}).encode()),
    "rejected": answering(json.dumps({"id": "a", "status": "rejected", "text": WORDS}).encode()),
    "options of words": answering(json.dumps({"options": [WORDS]}).encode()),
    "dropped": saying(b""),
    "no http": saying(WORDS.encode() + b"\r\n\r\n"),
    "hangs": saying(b"", close=False),
}


# What was not sent no server can quote: these are tried without the answers that do.
SILENT: dict[str, Call] = {
    "start too long": lambda client: client.start_conversation(PACK, "OTHER", text=WORDS * 100),
    "upload": lambda client: client.upload(WORDS.encode(), filename="a.pdf", site_id="MLM"),
    "reasons": lambda client: client.contact_reasons(PACK),
}
QUOTING = {name for name in ANSWERS if name[:3].isdigit() and name != "403 token"}


def posted_to(answer: Answer) -> Answer:
    """Reading a pack works; everything else gets `answer`."""

    async def serve(wire: Wire, writer: asyncio.StreamWriter) -> None:
        head = wire.requests[-1]
        await (READ if head.startswith(b"GET") and b"/sellers/" in head else answer)(wire, writer)

    return serve


@pytest.mark.parametrize("called", [*CALLS, *SILENT])
@pytest.mark.parametrize("api", ["marketplace", "domestic"])
@within(20)
async def test_no_answer_makes_an_error_that_tells(called: str, api: Any, heard: Heard) -> None:  # noqa: F811
    """Whatever a server answers to whatever is written: no words and no token in error, traceback, pickle or log."""
    options = {"auth": TOKEN, "api": api, "timeout": 0.1, "limits": Limits(per_second=None)}
    retry = Retry(attempts=2, base=0.01, cap=0.02, deadline=1)
    call = {**CALLS, **SILENT}[called]
    for name in ANSWERS.keys() - (QUOTING if called in SILENT else set()):
        answer = posted_to(ANSWERS[name])
        async with server(answer) as wire, client_at(wire.base_url, retry=retry, **options) as client:
            error = await raised(call(client))
            assert error is None or isinstance(error, (MessagesError, ValueError)), name
            if error is not None:
                assert_clean(outputs(error))
    assert_clean(heard.lines)


@within(10)
async def test_no_cancellation_tells(heard: Heard) -> None:  # noqa: F811
    """A task is cancelled while its message is on the way: no frame shows the words, not even aiohttp's."""
    arrived = asyncio.Event()

    async def answer(_: Wire, __: asyncio.StreamWriter) -> None:
        arrived.set()

    async with server(posted_to(answer)) as wire, client_at(wire.base_url, auth=TOKEN, timeout=8) as client:
        task = asyncio.ensure_future(client.send(PACK, WORDS, to=1))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        ours = " in test_no_cancellation_tells"  # what this frame holds is its own affair
        assert_clean(line for line in outputs(cancelled.value) if not line.endswith(ours))
    assert_clean(heard.lines)


@pytest.mark.parametrize("api", ["marketplace", "domestic"])
@on_virtual_clock
async def test_what_the_server_quotes_is_left_out_and_the_rest_stays(api: str) -> None:
    """Status, class and hint of a refusal that quotes the message survive; one that does not is left alone."""
    body = {"message": f"too long: {WORDS}", "error": "bad_request", "status": 400}
    sandbox = Sandbox(1, rules=[on("send", nth=1).do(Reply(400, body, {"x-request-id": "r1"}))])
    async with client_of(sandbox, api=api) as client:
        error = await raised(client.send(sandbox.pack_ids()[0], WORDS))
        assert (type(error).__name__, error.status, error.request_id) == ("BadRequest", 400, "r1")  # type: ignore[union-attr]
        assert "Shorten" in error.hint  # type: ignore[union-attr]
        assert "quotes the message" in str(error)


ECHOES = {
    "its middle": "not allowed here: 'ry words of a s'",
    "its beginning": "refused: canary wo…",
    "with other blanks": "refused: canary&nbsp;words  OF  a Seller",
}


@pytest.mark.parametrize("echo", ECHOES)
@on_virtual_clock
async def test_a_part_of_the_message_is_left_out_too(echo: str) -> None:
    """A server that quotes some of it, cut off or changed, is not quoted."""
    sandbox = Sandbox(1, rules=[on("send", nth=1).do(Reply(400, {"message": ECHOES[echo], "error": "bad_request"}))])
    async with client_of(sandbox) as client:
        error = await raised(client.send(sandbox.pack_ids()[0], WORDS))
        assert error is not None
        assert str(error) == "400 what the server said quotes the message"


@on_virtual_clock
async def test_no_model_shows_what_was_written(heard: Heard) -> None:  # noqa: F811
    """The message that `send` returns names its id, not its words."""
    sandbox = Sandbox([Pack()])
    async with client_of(sandbox) as client:
        sent = await client.send(sandbox.pack_ids()[0], WORDS)
        assert sent.text == WORDS
        assert_clean([repr(sent), str(sent), repr(client)])
    assert_clean(heard.lines)

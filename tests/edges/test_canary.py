"""No secret in any error: a canary for the token and one for a buyer's words, on every error path, in every output."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.traceback import Traceback

from cases import case
from edges.sockets import PACK, Answer, Wire, answering, client_at, repeating, saying, server, within
from mlmessages import Limits, MessagesClient, Retry, StaticToken
from mlmessages.errors import Forbidden, MessagesError

TOKEN = "APP_USR-4934588586838432-112613-canary/7f3a9c+2b4d6e8f0a1b3c5d__L_M__-700100200"  # as long as real ones
WORDS = (
    "canary words of a buyer, who writes at length, because what is shown of a text is often its first 80 characters"
)
RUN = 16  # so many characters of either are too many
RUNS = frozenset(text[i : i + RUN] for text in (TOKEN, WORDS) for i in range(len(text) - RUN + 1))
TEXT_ROW = {"id": "m1", "text": WORDS, "subject": WORDS, "from": {"user_id": 7, "name": WORDS, "email": WORDS}}
PAGE = json.dumps({"messages": [TEXT_ROW]}).encode()
ECHO = json.dumps({"message": f"invalid token {TOKEN}", "error": TOKEN, "cause": [TOKEN]}).encode()
OK = b"HTTP/1.1 200 OK\r\n"

Call = Callable[[MessagesClient], Awaitable[object]]


def page(client: MessagesClient) -> Awaitable[object]:
    return client.page(PACK)


def marking_page(client: MessagesClient) -> Awaitable[object]:
    return client.page(PACK, mark_as_read=True)


async def drained(client: MessagesClient) -> object:
    async with client.drain() as drain:
        return [conversation async for conversation in drain]


CALLS: dict[str, Call] = {
    "page": page,
    "marking page": marking_page,
    "unread": lambda client: client.unread(),
    "count": lambda client: client.unread_count(PACK),
    "message": lambda client: client.message_by_id("m1"),
    "mark_read": lambda client: client.mark_read(PACK),
    "drain": drained,
}


def cut(body: bytes, less: int = 5) -> bytes:
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-less]


ANSWERS: dict[str, Answer] = {
    "400": answering(ECHO, "400 Bad Request"),
    "401": answering(ECHO, "401 Unauthorized", f"X-Request-Id: {TOKEN}", f"WWW-Authenticate: {TOKEN}"),
    "403": answering(TOKEN.encode(), "403 Forbidden", f"x-request-id: for {TOKEN}"),
    "404 html": answering(f"<p>{TOKEN}</p>".encode(), "404 Not Found"),
    "409 text": answering(json.dumps(f"no {TOKEN}").encode(), "409 Conflict"),
    "429": answering(ECHO, "429 Too Many", f"Retry-After: {TOKEN}"),
    "500": answering(ECHO, "500 Oops"),
    "a refusal with words": answering(PAGE, "502 Bad Gateway"),
    "a reason with the token": answering(b"", f"503 {TOKEN}"),
    "a redirect": answering(b"", "302 Found", f"Location: https://elsewhere.invalid/?t={TOKEN}"),
    "cut off": saying(cut(PAGE)),
    "a refusal cut off": saying(b"HTTP/1.1 400 No\r\nContent-Length: 999\r\n\r\n" + ECHO),
    "no json": answering(PAGE[:-3]),
    "json and more": answering(PAGE + b"x"),
    "no messages": answering(json.dumps({"data": [TEXT_ROW]}).encode()),
    "no id": answering(json.dumps({"messages": [{"text": WORDS}], "results": [{"resource": WORDS}]}).encode()),
    "an id that is words": answering(json.dumps({"messages": [{"id": [WORDS], "text": WORDS}]}).encode()),
    "messages that are words": answering(json.dumps({"messages": WORDS, "results": WORDS}).encode()),
    "a row that is words": answering(json.dumps({"messages": [WORDS], "results": [WORDS]}).encode()),
    "words alone": answering(json.dumps(WORDS).encode()),
    "deep": answering(b'{"messages": [{"id": "1", "text": "' + WORDS.encode() + b'", "x": ' + b"[" * 100_000),
    "too large": answering(PAGE + b" " * 9_000_000),
    "no http": saying(TOKEN.encode() + b" " + WORDS.encode() + b"\r\n\r\n"),
    "a bad header": saying(OK + TOKEN.encode() + b"\r\nContent-Length: 0\r\n\r\n"),
    "a bad status": saying(b"HTTP/1.1 " + TOKEN.encode() + b"\r\n\r\n"),
    "dropped": saying(b""),
    "hangs": saying(b"", close=False),
    "trickles": repeating(OK + b"Content-Length: 99999\r\n\r\n", WORDS.encode(), 0.01),
    "no gzip": saying(OK + b"Content-Encoding: gzip\r\nContent-Length: 23\r\n\r\n" + WORDS.encode()),
}


class Heard(logging.Handler):
    """Everything that any logger says, with its arguments and its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [self.format(record), repr(record.args), repr(record.__dict__)]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """All loggers at DEBUG, aiohttp's and asyncio's among them."""
    handler, root = Heard(), logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("mlmessages", "aiohttp", "aiohttp.client", "asyncio"))]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def is_a_test(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parent)


def shortened(error: BaseException) -> Iterator[str]:
    """The locals of the frames of `error` as reporters show them that shorten values, rich's among them."""
    report = Traceback.extract(type(error), error, error.__traceback__, show_locals=True)
    for stack in report.stacks:
        for frame in stack.frames:
            if not is_a_test(frame.filename):
                yield from (f"{name}={value} in {frame.name}" for name, value in (frame.locals or {}).items())
    for raw, _ in traceback.walk_tb(error.__traceback__):
        if not is_a_test(raw.f_code.co_filename):
            texts = [(name, value) for name, value in raw.f_locals.items() if isinstance(value, (str, bytes))]
            for name, value in texts:
                cut = [value[:60], value[-60:], list(value)[:20], f"{value:.60}" if isinstance(value, str) else value]
                yield f"{name}={cut!r} in {raw.f_code.co_name}"


def outputs(error: BaseException) -> Iterator[str]:
    """Every way in which `error` and what it holds may be shown; the frames of these tests are not ours to judge."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        waiting += [link.__cause__, link.__context__]  # also one that is suppressed: not every reporter minds
        yield from (str(link), repr(link), repr(link.args), repr(vars(link)), repr(getattr(link, "__notes__", "")))
        report = traceback.TracebackException.from_exception(link, capture_locals=True)
        for frame in report.stack:
            if not is_a_test(frame.filename):
                yield from (f"{name}={value} in {frame.name}" for name, value in (frame.locals or {}).items())
        yield from shortened(link)
        yield "".join(report.format_exception_only())
    if isinstance(error, MessagesError):
        yield pickle.dumps(error).decode("latin-1")
        again = pickle.loads(pickle.dumps(error))
        yield from (str(again), repr(again))
        assert type(again) is type(error)


def assert_clean(lines: Iterable[str]) -> None:
    for line in lines:
        found = next((run for run in ("canary", *RUNS) if run in line), None)
        assert found is None, line[max(0, line.index(found or "") - 200) :][:500]


async def raised(call: Awaitable[object]) -> BaseException | None:
    try:
        await call
    except Exception as error:
        return error
    return None


@asynccontextmanager
async def against(answer: Answer, **options: Any) -> AsyncIterator[MessagesClient]:
    options |= {"auth": TOKEN, "timeout": 0.1, "retry": Retry(attempts=2, base=0.01, cap=0.02, deadline=1)}
    async with server(answer) as wire, client_at(wire.base_url, **options) as client:
        yield client


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@within(10)
async def test_no_answer_makes_an_error_that_tells(answer: Answer, heard: Heard) -> None:
    """Whatever a server answers to whatever call: no token and no words in error, traceback, pickle or log."""
    async with against(answer, limits=Limits(per_second=None)) as client:
        for name, call in CALLS.items():
            error = await raised(call(client))
            assert error is None or isinstance(error, MessagesError), name
            if error is not None:
                assert_clean(outputs(error))
        drain = client.drain()
        await raised(anext(drain))
        assert_clean([repr(drain), repr(drain.report), repr(client), str(client)])
        await drain.aclose()
    assert_clean(heard.lines)


@within(10)
async def test_no_answer_of_the_first_table_is_wasted() -> None:
    """The table above means something: each answer is an error to at least one call."""
    for name, answer in ANSWERS.items():
        async with against(answer) as client:
            assert await raised(client.unread()) or await raised(client.page(PACK)), name


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://canary-free.invalid"])
@within(10)
async def test_no_failed_connection_tells(url: str, heard: Heard) -> None:
    """Refused, or no such host: neither has the token in it."""
    async with client_at(url, auth=TOKEN, timeout=0.5) as client:
        for call in (page, marking_page):
            error = await raised(call(client))
            assert isinstance(error, MessagesError)
            report = [line for line in outputs(error) if "canary-free" not in line]
            assert_clean(report)
    assert_clean([line for line in heard.lines if "canary-free" not in line])


@pytest.mark.parametrize(
    "echo", [f"x{TOKEN}y", f"_{TOKEN}-", TOKEN.replace("/", "\\/")], ids=["word", "joined", "escaped"]
)
@within(10)
async def test_a_long_token_is_left_out_wherever_it_stands(echo: str) -> None:
    """In the middle of a word, and with its slashes escaped, as some servers write JSON."""
    body = f'{{"message": "not this: {echo}", "error": "forbidden"}}'.encode()
    async with server(answering(body, "403 Forbidden")) as wire, client_at(wire.base_url, auth=TOKEN) as client:
        with pytest.raises(Forbidden) as refused:
            await client.page(PACK)
    assert "***" in (refused.value.message or "")
    assert_clean(outputs(refused.value))


@pytest.mark.parametrize("token", ["token", "t", "user", "order", "test-token", "secret"])
@within(10)
async def test_a_token_that_is_a_common_word_spoils_no_refusal(token: str) -> None:
    """A token such as tests have: code, message and hint of a refusal are those of any other token."""
    said = {"message": "User access token invalid for resource 2000", "error": "forbidden", "status": 403}
    async with server(answering(json.dumps(said).encode(), "403 Forbidden")) as wire:
        async with client_at(wire.base_url, auth=token) as client:
            with pytest.raises(Forbidden) as refused:
                await client.page(PACK)
    assert (refused.value.code, refused.value.message) == ("forbidden", said["message"])
    assert "not this seller's" in (refused.value.hint or "")


@case("K25")
@within(10)
async def test_a_token_in_another_spelling_is_in_no_refusal() -> None:
    """In capitals, cut, percent-encoded or split: what the server says of it is left, and nothing of it."""
    token = "APP_USR-1344270061100000-112613-9f8e7d6c5b4a39281706f5e4d3c2b1a0-700100200"
    escaped = "".join(f"%{ord(char):02x}" for char in token)
    for quoted in (token.upper(), token[9:30], escaped, " ".join(token), token.replace("-", "&#45;")):
        said = {"message": f"no access: {quoted}", "error": "forbidden"}
        async with server(answering(json.dumps(said).encode(), "403 Forbidden")) as wire:
            async with client_at(wire.base_url, auth=token) as client:
                with pytest.raises(Forbidden) as refused:
                    await client.page(PACK)
        assert refused.value.message == "no access: ***"


@pytest.mark.parametrize("token", ["tok-1", "test-token", "APP_USR-1", "canarycanary", TOKEN])
@within(10)
async def test_a_short_token_is_in_no_refusal_either(token: str) -> None:
    """Echoed as a word of its own, also a short one is left out."""
    said = {"message": f"invalid token {token}: 'Bearer {token}'", "error": "forbidden"}
    async with server(answering(json.dumps(said).encode(), "403 Forbidden")) as wire:
        async with client_at(wire.base_url, auth=token) as client:
            with pytest.raises(Forbidden) as refused:
                await client.page(PACK)
    assert refused.value.message == "invalid token ***: 'Bearer ***'"


@within(10)
async def test_no_cancellation_tells(heard: Heard) -> None:
    """A task is cancelled while it waits for an answer: every frame of it, aiohttp's too, is without the token."""
    arrived = asyncio.Event()

    async def answer(_: Wire, __: asyncio.StreamWriter) -> None:
        arrived.set()

    async with server(answer) as wire, client_at(wire.base_url, auth=TOKEN, timeout=8) as client:
        task = asyncio.ensure_future(client.page(PACK))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        assert_clean(outputs(cancelled.value))
    assert_clean(heard.lines)


@case("K24")
@pytest.mark.parametrize("length", ["Content-Length: 99999", "Transfer-Encoding: chunked"])
@within(10)
async def test_giving_up_in_the_middle_of_an_answer_tells_nothing(length: str) -> None:
    """Half a page has come when the caller gives up: no frame shows what a buyer wrote."""
    piece = PAGE if "Length" in length else f"{len(PAGE):x}\r\n".encode() + PAGE + b"\r\n"
    half = saying(OK + length.encode() + b"\r\n\r\n" + piece, close=False)
    async with server(half) as wire, client_at(wire.base_url, auth=TOKEN, timeout=8) as client:
        with pytest.raises(TimeoutError) as given_up:
            async with asyncio.timeout(0.2):
                await client.page(PACK)
        assert_clean(outputs(given_up.value))


@within(10)
async def test_no_misuse_tells(heard: Heard) -> None:
    """Wrong arguments, a wrong token and a closed client: their errors are as silent as the server's."""
    errors: list[BaseException | None] = []
    for make in (
        lambda: MessagesClient(f"{TOKEN}\n", seller_id=1),
        lambda: MessagesClient(TOKEN, seller_id="x"),
        lambda: MessagesClient(TOKEN, seller_id=1, base_url="http://evil.example"),
        lambda: MessagesClient(TOKEN, seller_id=1, timeout=0),
        lambda: StaticToken(f"{TOKEN} "),
    ):
        with pytest.raises(ValueError, match=".") as refused:
            make()
        errors.append(refused.value)
    client = client_at("http://127.0.0.1:9", auth=TOKEN)
    errors.append(await raised(client.page(PACK)))
    async with client:
        errors.append(await raised(client.message_by_id(f"{WORDS} {WORDS}")))
    errors.append(await raised(client.page(PACK)))
    for error in errors:
        assert error is not None
        assert_clean(line for line in outputs(error) if not line.startswith(("value=", "id_=", "message_id=", "text=")))
    assert_clean(heard.lines)


@within(10)
async def test_no_model_shows_what_buyers_wrote(heard: Heard) -> None:
    """A page, its messages, a conversation and a drain's report: their reprs name ids, not words."""
    async with server(answering(PAGE)) as wire, client_at(wire.base_url, auth=TOKEN) as client:
        found = await client.page(PACK)
        marked = await client.mark_read(PACK)
        assert found.messages[0].text == WORDS
        assert_clean([repr(found), repr(found.messages), repr(marked), str(marked), f"{found.messages[0]}"])
    assert_clean(heard.lines)


@within(10)
async def test_the_canary_sings() -> None:
    """The check finds a secret where there is one: in bare aiohttp's error, and in a log line."""
    async with server(saying(b"nonsense\r\n\r\n")) as wire, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await session.get(wire.base_url, headers={"Authorization": f"Bearer {TOKEN}"})
        with pytest.raises(AssertionError):
            assert_clean(outputs(refused.value))

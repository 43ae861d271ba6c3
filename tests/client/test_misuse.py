"""Wrong use and wrong arguments: a clear RuntimeError or ValueError, with nothing on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from mlmessages import Limits, MessagesClient, Retry, StaticToken
from mlmessages.testing import DROP, EXECUTE, Delay, Sandbox, VirtualClockLoop, on
from worlds import client_of, on_virtual_clock

FIRST = 2000000000000001
Use = Callable[[MessagesClient], Awaitable[object]]


async def consumed(generator: Any) -> list[Any]:
    return [item async for item in generator]


async def drained(client: MessagesClient) -> list[Any]:
    return [conversation async for conversation in client.drain()]


CALLS: dict[str, Use] = {
    "unread": lambda client: client.unread(),
    "unread_count": lambda client: client.unread_count(FIRST),
    "page": lambda client: client.page(FIRST),
    "pages": lambda client: consumed(client.pages(FIRST)),
    "messages": lambda client: consumed(client.messages(FIRST)),
    "mark_read": lambda client: client.mark_read(FIRST),
    "message_by_id": lambda client: client.message_by_id("1"),
    "drain": drained,
}


def client_on(session: Any, sandbox: Sandbox, **options: Any) -> MessagesClient:
    return MessagesClient(
        sandbox.token, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session, **options
    )


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@on_virtual_clock
async def test_a_client_is_used_between_entering_and_leaving(call: Use) -> None:
    """Before entering and after closing, every call is a RuntimeError that says which."""
    sandbox = Sandbox(packs=1)
    async with sandbox.session() as session:
        client = client_on(session, sandbox)
        with pytest.raises(RuntimeError, match="not entered"):
            await call(client)
        async with client:
            pass
        with pytest.raises(RuntimeError, match="closed"):
            await call(client)
    assert sandbox.log == []


@on_virtual_clock
async def test_generators_tell_at_the_call_not_at_the_first_step() -> None:
    """`pages`, `messages` and `drain` refuse before anybody iterates, for the time of use and for the arguments."""
    sandbox = Sandbox(packs=1)
    async with sandbox.session() as session:
        client = client_on(session, sandbox)
        for make in (client.drain, lambda: client.pages(FIRST), lambda: client.messages(FIRST)):
            with pytest.raises(RuntimeError):
                make()
    async with client_of(sandbox) as entered:
        with pytest.raises(ValueError, match="pack_id"):
            entered.pages("x")
        with pytest.raises(ValueError, match="limit"):
            entered.messages(FIRST, limit=0)
    assert sandbox.log == []


@on_virtual_clock
async def test_a_client_is_entered_once() -> None:
    """A second `async with`, inside the first or after it, is a RuntimeError; the first goes on."""
    sandbox = Sandbox(packs=1)
    async with sandbox.session() as session:
        client = client_on(session, sandbox)
        async with client:
            with pytest.raises(RuntimeError, match="once"):
                await client.__aenter__()
            assert len((await client.unread()).packs) == 1
        with pytest.raises(RuntimeError, match="once"):
            await client.__aenter__()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_client_belongs_to_the_loop_it_was_entered_in(call: Use) -> None:
    """Used from a second event loop: a RuntimeError, with nothing on the wire."""
    sandbox = Sandbox(packs=1)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as here, asyncio.Runner(loop_factory=VirtualClockLoop) as there:

        async def enter() -> MessagesClient:
            client = MessagesClient("APP_USR-1", seller_id=1, base_url=sandbox.base_url)
            return await client.__aenter__()

        async def use(client: MessagesClient) -> None:
            with pytest.raises(RuntimeError, match="loop"):
                await call(client)

        client = here.run(enter())
        there.run(use(client))
        here.run(client.__aexit__(None, None, None))
    assert sandbox.log == []


@on_virtual_clock
async def test_a_generator_that_outlives_its_client_stops_with_an_error() -> None:
    """The client is closed between two pages: the next step is a RuntimeError, not a request."""
    sandbox = Sandbox(packs=1, messages=30)
    async with sandbox.session() as session:
        async with client_on(session, sandbox) as client:
            pages = client.pages(FIRST, limit=10)
            await anext(pages)
        with pytest.raises(RuntimeError, match="closed"):
            await anext(pages)
    assert len(sandbox.log) == 1


@pytest.mark.parametrize("mark", [False, True])
@on_virtual_clock
async def test_nothing_is_sent_after_closing_even_by_calls_that_were_waiting(mark: bool) -> None:
    """A call that waits for the budget while the client closes sends nothing over the borrowed session."""
    sandbox = Sandbox(packs=1)
    limits = Limits(reads=1, period=60)
    async with sandbox.session() as session:
        async with client_on(session, sandbox, limits=limits) as client:
            await client.unread()
            waiting = asyncio.ensure_future(client.page(FIRST, mark_as_read=mark))
            await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="closed"):
            await waiting
    assert len(sandbox.log) == 1
    assert not sandbox.marked_ids()


@on_virtual_clock
async def test_no_retry_is_sent_after_closing() -> None:
    """A read that is to be repeated is not, once the client is closed."""
    sandbox = Sandbox(packs=1, rules=[on("peek").do(DROP)])
    async with sandbox.session() as session:
        async with client_on(session, sandbox) as client:
            retrying = asyncio.ensure_future(client.page(FIRST))
            await asyncio.sleep(0.1)
            assert len(sandbox.log) == 1
        with pytest.raises(RuntimeError, match="closed"):
            await retrying
    assert len(sandbox.log) == 1


@on_virtual_clock
async def test_a_borrowed_session_is_not_closed() -> None:
    """It is the caller's, also after an error; a second client may borrow it next."""
    sandbox = Sandbox(packs=1)
    async with sandbox.session() as session:
        for _ in range(2):
            with suppress(ZeroDivisionError):
                async with client_on(session, sandbox) as client:
                    await client.unread()
                    raise ZeroDivisionError
            assert not session.closed
    assert len(sandbox.log) == 2


@on_virtual_clock
async def test_leaving_closes_every_drain_also_where_one_of_them_raises() -> None:
    """A token source that fails in one drain's mark does not leave the other drains' tasks behind."""

    class Failing(StaticToken):
        broken = False

        async def token(self) -> str:
            if self.broken:
                raise OSError("the vault is closed")
            return await super().token()

    sandbox = Sandbox(packs=8, rules=[on("peek", nth=range(7, 99)).do(Delay(1000), EXECUTE)])
    source = Failing(sandbox.token)
    async with sandbox.session() as session:
        client = MessagesClient(source, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session)
        try:
            async with client:
                drains = [client.drain(concurrency=2) for _ in range(3)]
                for drain in drains:
                    await anext(drain)
                source.broken = True
                with pytest.raises(OSError, match="vault"):
                    await anext(drains[1])
        except OSError:
            pass  # it may say so once more on the way out
    await sandbox.aclose()
    await asyncio.sleep(2000)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- what --------------------------------------------------------------------------------------------------------------

WRONG_IDS: list[object] = [
    *("", "x", "1x", "-1", "1.0", " 1", "1 ", "1\n", "1\r\nHost: evil", "../../oauth/token", "1?x=", "1#"),
    *("1/sellers/2", "%31", "\uff11\uff12", "٣", "1" * 21, "0x1", "1e3", "1_0", "²"),
    *(None, True, False, 1.0, -1, 10**20, b"1", [1], {}),
]


@pytest.mark.parametrize("wrong", WRONG_IDS, ids=ascii)
@on_virtual_clock
async def test_ids_are_ascii_digits(wrong: Any) -> None:
    """Anything else as a pack or user id is a ValueError that names the argument, before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        for call in (
            client.page,
            client.unread_count,
            client.mark_read,
            lambda id_: consumed(client.pages(id_)),
            lambda id_: consumed(client.messages(id_)),
        ):
            with pytest.raises(ValueError, match="pack_id"):
                await call(wrong)
        if wrong is not None:
            with pytest.raises(ValueError, match="user_id"):
                await client.unread(user_id=wrong)
    with pytest.raises(ValueError, match="seller_id"):
        MessagesClient("APP_USR-1", seller_id=wrong)
    assert sandbox.log == []


@pytest.mark.parametrize(
    "wrong", ["", "a/b", "../x", "a b", "a\r\n", "a?b", "a#b", "é", "a%2fb", "x" * 129, None, True, 1.5]
)
@on_virtual_clock
async def test_message_ids_are_letters_digits_and_two_signs(wrong: Any) -> None:
    """Anything else is a ValueError before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="message_id"):
            await client.message_by_id(wrong)
    assert sandbox.log == []


WRONG_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *(("limit", {"limit": limit}) for limit in (0, -1, True, 1.0, "1", None)),
    *(("offset", {"offset": offset}) for offset in (-1, True, 0.0, "0", None)),
    *(("mark_as_read", {"mark_as_read": flag}) for flag in (0, 1, "false", "true", None)),
]


@pytest.mark.parametrize(("name", "options"), WRONG_OPTIONS, ids=str)
@on_virtual_clock
async def test_limits_offsets_and_flags_are_of_their_own_type(name: str, options: dict[str, Any]) -> None:
    """A `"false"` that would be true, a bool that would be a number: a ValueError that names the argument."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match=name):
            await client.page(FIRST, **options)
        if name != "offset":
            with pytest.raises(ValueError, match=name):
                client.pages(FIRST, **options)
            with pytest.raises(ValueError, match=name):
                client.messages(FIRST, **options)
    assert sandbox.log == []


@pytest.mark.parametrize("role", ["", "Seller", "admin", "seller&user_id=1", None, 1])
@on_virtual_clock
async def test_a_role_is_buyer_or_seller(role: Any) -> None:
    """Anything else is a ValueError before anything is sent."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError, match="role"):
            await client.unread(role)
    assert sandbox.log == []


@on_virtual_clock
async def test_there_is_no_upper_bound_on_limit() -> None:
    """It is not known: a large one is sent as it is."""
    sandbox = Sandbox(packs=1)
    async with client_of(sandbox) as client:
        await client.page(FIRST, limit=100_000)
    assert sandbox.log[0].query["limit"] == "100000"


@pytest.mark.parametrize(
    "options",
    [
        {"api": "global"},
        {"api": None},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": True},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "30"},
        {"limits": 500},
        {"limits": Limits},
        {"retry": 3},
        {"retry": Retry},
        {"session": "session"},
    ],
    ids=str,
)
def test_a_client_is_made_of_the_right_things(options: dict[str, Any]) -> None:
    """A wrong option is a ValueError that names it, before there is anything to close."""
    with pytest.raises(ValueError, match=next(iter(options))):
        MessagesClient("APP_USR-1", seller_id=1, **options)


GOOD_URLS = [
    "https://api.mercadolibre.com",
    "https://api.mercadolibre.com/",
    "https://proxy.example:8443/ml",
    "HTTPS://API.MERCADOLIBRE.COM",
    "https://10.0.0.7",
    "https://[2001:db8::1]:443",
    "http://127.0.0.1:8080",
    "http://127.8.9.10",
    "http://[::1]:8080",
    "http://localhost:8080",
]
BAD_URLS: list[Any] = [
    "http://api.mercadolibre.com",
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://0.0.0.0",
    "http://169.254.169.254",
    "http://2130706433",
    "https://user@api.mercadolibre.com",
    "https://user:password@api.mercadolibre.com",
    "https://api.mercadolibre.com@evil.example",
    "https://api.mercadolibre.com\\@evil.example",
    "https://api.mercadolibre.com?x=1",
    "https://api.mercadolibre.com#x",
    "https://api.mercadolibre.com/../x",
    "https://api.mercado\nlibre.com",
    "https://api.mercadolibre.com\r\nX: y",
    " https://api.mercadolibre.com",
    "https://",
    "https:///path",
    "https://api.mercadolibre.com:port",
    "https://api.mercadolibre.com:99999",
    "https://[::1",
    "https://ápi.example",
    "ftp://api.mercadolibre.com",
    "file:///etc/passwd",
    "unix:///run/x.sock",
    "api.mercadolibre.com",
    "//api.mercadolibre.com",
    "",
    None,
    1,
    b"https://api.mercadolibre.com",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_base_url_is_https_or_this_machine(url: str) -> None:
    """https to anywhere, plain http to loopback addresses alone."""
    MessagesClient("APP_USR-1", seller_id=1, base_url=url)


@pytest.mark.parametrize("url", BAD_URLS, ids=ascii)
def test_a_base_url_that_could_leak_the_token_is_refused(url: Any) -> None:
    """Anything else is a ValueError, which quotes no password."""
    with pytest.raises(ValueError, match="base_url") as refused:
        MessagesClient("APP_USR-1", seller_id=1, base_url=url)
    assert "password" not in str(refused.value)


def test_a_client_does_not_show_its_token() -> None:
    """Its repr names the seller, and nothing else."""
    assert repr(MessagesClient("APP_USR-1", seller_id=7)) == "MessagesClient(seller_id='7')"


def test_nothing_opens_before_entering() -> None:
    """A client that is never entered needs no event loop, and leaves nothing to close."""
    MessagesClient(StaticToken("APP_USR-1"), seller_id="7", limits=Limits(), retry=Retry())

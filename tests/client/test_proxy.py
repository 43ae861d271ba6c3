"""`MessagesClient(proxy=…)`: every request goes through it, and its password is shown nowhere."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cases import case
from edges.sockets import PACK, PAGE, Wire, server, within
from mlmessages import MessagesClient, Retry
from mlmessages.errors import NotSent


async def page(_: Wire, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
    )


async def refusal(_: Wire, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


def through(wire: Wire, base_url: str) -> MessagesClient:
    proxy = wire.base_url.replace("http://", "http://user:canary-password@")
    return MessagesClient("token", seller_id=1, base_url=base_url, proxy=proxy, retry=Retry(attempts=1))


@case("R5")
@within(10)
async def test_requests_go_through_the_proxy() -> None:
    """The proxy gets the whole URL, and its user and password; no other host is asked."""
    async with server(page) as wire:
        async with through(wire, "http://127.0.0.1:1") as client:
            assert [message.id async for message in client.messages(PACK)] == ["m1"]
    assert wire.requests[0].startswith(b"GET http://127.0.0.1:1/messages/packs/")
    assert b"Proxy-Authorization: Basic " in wire.requests[0]


@case("R5")
@within(10)
async def test_https_is_a_tunnel_that_does_not_show_the_token() -> None:
    """The proxy is asked to connect, and gets no header of ours; a refusal is `NotSent`, without the password."""
    async with server(refusal) as wire:
        async with through(wire, "https://127.0.0.1:1") as client:
            with pytest.raises(NotSent) as caught:
                await client.page(PACK)
    [head] = wire.requests
    assert head.startswith(b"CONNECT 127.0.0.1:1 ")
    assert b"Bearer" not in head
    assert "canary" not in repr(caught.value) + str(caught.value.hint)


@case("R5")
@pytest.mark.parametrize(
    "proxy", ["", "proxy:3128", "socks5://u:canary@proxy:1080", "http://", "http://u:canary@:3128", "http://pröxy", 5]
)
def test_what_is_no_proxy_is_refused(proxy: object) -> None:
    """A `ValueError` that quotes no password."""
    with pytest.raises(ValueError, match="proxy must be") as caught:
        MessagesClient("token", seller_id=1, proxy=proxy)  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)


@case("R5")
async def test_a_lent_session_has_a_proxy_of_its_own() -> None:
    """Both is misuse: it would not be clear which of them holds."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="session"):
            MessagesClient("token", seller_id=1, session=session, proxy="http://proxy:3128")

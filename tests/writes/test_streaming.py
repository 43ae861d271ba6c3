"""Files over real sockets: in pieces both ways, and what an impatient or hostile server does to them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edges.sockets import Wire, answering, client_at, saying, server, within
from mlmessages import MessagesClient
from mlmessages.errors import APIError, DecodeError, TransportError
from mlmessages.testing import Sandbox
from writes.shapes import FIRST

MB = 1024 * 1024
MOST = 25 * MB
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
FILE = "700100200_11111111-2222-3333-4444-555555555555.bin"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fail if more than `limit` bytes are allocated at any moment of the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


async def listening(serve: Serve) -> tuple[asyncio.Server, str]:
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    return listener, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


def client_of(base_url: str, timeout: float = 30.0) -> MessagesClient:
    return client_at(base_url, timeout=timeout)


@within(30)
async def test_25_mb_go_up_in_8_mb_of_memory(tmp_path: Path) -> None:
    """The largest file: it is read and sent in pieces, with its length, and never held."""
    path = tmp_path / "a.pdf"
    with path.open("wb") as file:
        file.truncate(MOST)
    head, size = b"", 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal head, size
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while size < length:
            size += len(await reader.read(MB // 4))
        writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 13\r\n\r\n{"id": "a.b"}')
        await writer.drain()
        writer.close()

    listener, base_url = await listening(serve)
    async with listener, client_of(base_url) as client:
        with memory_below(8 * MB):
            assert await client.upload(path, site_id="MLM") == "a.b"
    assert MOST < size < MOST + 1000
    assert b"transfer-encoding" not in head.lower()


@within(30)
async def test_25_mb_come_down_in_8_mb_of_memory(tmp_path: Path) -> None:
    """The same on the way back, byte for byte."""
    block = bytes(range(256)) * 256

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: {MOST}\r\n\r\n".encode())
        for _ in range(MOST // len(block)):
            writer.write(block)
            await writer.drain()
        writer.close()

    listener, base_url = await listening(serve)
    async with listener, client_of(base_url) as client:
        with memory_below(8 * MB):
            saved = await client.download(FILE, tmp_path / "a", site_id="MLM")
    assert saved.stat().st_size == MOST
    with saved.open("rb") as file:
        assert all(chunk == block for chunk in iter(lambda: file.read(len(block)), b""))


@within(10)
async def test_a_shorter_second_answer_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    """The first attempt stopped in the middle, after more bytes than the file has when it is asked for again."""

    async def answer(wire: Wire, writer: asyncio.StreamWriter) -> None:
        if len(wire.requests) == 1:
            writer.write(ENDLESS + b"Content-Length: 99999\r\n\r\n" + bytes(50_000))
        else:
            writer.write(ENDLESS + b"Content-Length: 5\r\n\r\nshort")
        await writer.drain()

    async with server(answer) as wire, client_of(wire.base_url, 0.3) as client:
        saved = await client.download(FILE, tmp_path / "a", site_id="MLM")
    assert saved.read_bytes() == b"short"


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(MB)) for _ in range(size // MB)), packer.flush()])


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(bomb(200 * MB)), bomb(200 * MB)),
        b"Content-Length: 99999999\r\n\r\n" + bytes(MOST + 1),
    ],
    ids=["gzip bomb", "more than 25 MB"],
)
@within(30)
async def test_a_file_beyond_the_limit_is_cut_short(body: bytes, tmp_path: Path) -> None:
    """Its decoded bytes are counted while they come: `DecodeError`, no file, no second request."""
    async with server(saying(ENDLESS + body, close=False)) as wire, client_of(wire.base_url) as client:
        with memory_below(64 * MB), pytest.raises(DecodeError, match="25 MB"):
            await client.download(FILE, tmp_path / "a", site_id="MLM")
    assert len(wire.requests) == 1
    assert list(tmp_path.iterdir()) == []


@within(10)
async def test_a_server_that_refuses_before_it_has_read_the_file(tmp_path: Path) -> None:
    """It answers at the head and closes: the refusal, or an unknown outcome, but no hang and no second POST."""
    path = tmp_path / "a.pdf"
    with path.open("wb") as file:
        file.truncate(MOST)
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 413 Too Large\r\nContent-Length: 19\r\n\r\n{"message": "large"}')
        await writer.drain()
        writer.close()

    listener, base_url = await listening(serve)
    async with listener, client_of(base_url, 5.0) as client:
        with pytest.raises((APIError, TransportError)):
            await client.upload(path, site_id="MLM")
    assert connections == 1


@within(10)
async def test_a_message_and_its_file_over_real_sockets(tmp_path: Path) -> None:
    """Upload, send, read, download: through the sandbox behind HTTP, byte for byte, both families."""
    content = bytes(range(256)) * 5000
    for api in ("marketplace", "domestic"):
        sandbox = Sandbox(1)
        async with (
            sandbox.serve() as served,
            MessagesClient(served.token, seller_id=served.seller_id, base_url=served.base_url, api=api) as client,  # type: ignore[arg-type]
        ):
            file = await client.upload(content, filename="a.pdf", site_id="MLM")
            sent = await client.send(FIRST, "Here it is", attachments=[file])
            shown = next(m for m in (await client.page(FIRST)).messages if m.id == sent.id)
            saved = await client.download(shown.attachments[0], tmp_path / api, site_id=shown.site_id)
        assert saved.read_bytes() == content


@within(10)
async def test_a_post_on_a_dropped_connection_is_sent_once() -> None:
    """The connection that the look used is gone when the POST comes: one POST on the wire, and an honest error."""
    page = answering(b'{"messages": [], "paging": null}')

    async def answer(wire: Wire, writer: asyncio.StreamWriter) -> None:
        if wire.requests[-1].startswith(b"POST"):
            writer.close()
        else:
            await page(wire, writer)

    async with server(answer) as wire, client_of(wire.base_url) as client:
        with pytest.raises(TransportError, match="may or may not have been sent"):
            await client.send(FIRST, "Hi")
    assert sum(head.startswith(b"POST") for head in wire.requests) == 1


ON_A_FULL_DISK = """
    import asyncio, signal, sys
    import resource
    from mlmessages import MessagesClient
    from mlmessages.testing import Sandbox

    async def main(directory):
        sandbox = Sandbox(1)
        file = sandbox.add_file(bytes(5_000_000))
        async with sandbox.session() as session, MessagesClient(
            sandbox.token, seller_id=sandbox.seller_id, base_url=sandbox.base_url, session=session
        ) as client:
            try:
                await client.download(file, directory + "/a", site_id="MLM")
            except OSError as error:
                print(error.errno, len(sandbox.log))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    asyncio.run(main(sys.argv[1]))
"""


def test_a_full_disk_is_its_own_error(tmp_path: Path) -> None:
    """The file may not grow beyond 1 MB: the `OSError` of the disk, after one request, and nothing is left there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(ON_A_FULL_DISK), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout.split()[1:], done.stderr) == (["1"], "")
    assert list(tmp_path.iterdir()) == []

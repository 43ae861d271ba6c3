"""A server that answers every request with one page from memory, at little CPU: it must not be what is measured.

python benchmarks/server.py SIZE        # prints its port; ends when its standard input does
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from page import page

HEAD = (
    "HTTP/1.1 200 OK\r\nDate: Fri, 13 Mar 2026 15:14:10 GMT\r\nContent-Type: application/json;charset=UTF-8\r\n"
    "Content-Length: {}\r\nConnection: keep-alive\r\nX-Request-Id: 00000000-0000-0000-0000-000000000001\r\n"
    "Cache-Control: private, max-age=0\r\nVary: Accept-Encoding\r\nStrict-Transport-Security: max-age=15724800\r\n\r\n"
)


class OnePage(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer * data.count(b"\r\n\r\n"))  # a GET has no body


async def serve(size: int) -> None:
    body = page(size)
    answer = HEAD.format(len(body)).encode() + body
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: OnePage(answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextlib.contextmanager
def running(size: int) -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

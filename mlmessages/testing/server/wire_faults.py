"""Send an answer whole, or break it in the way that the ending of a rule says."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import zlib
from collections.abc import Iterator

from aiohttp import web

from ..faults import (
    ContentType,
    Drop,
    Ending,
    EndlessHeaders,
    Garbage,
    Gzip,
    Hang,
    Redirect,
    Reply,
    Reset,
    Slice,
    Trickle,
    Truncate,
)
from ..model.answers import Answer
from .connection import Connection

_JSON = {"Content-Type": "application/json; charset=utf-8"}


def status_of(ending: Ending | None, answer: Answer | None) -> int | None:
    """Return the status that the client is going to see; None where it sees none."""
    match ending:
        case Drop() | Reset() | Hang():
            return None
        case Reply(status):
            return status
        case Redirect():
            return 302
        case Garbage() | Gzip() | EndlessHeaders():
            return 200
        case _:
            return None if answer is None else answer.status


async def end(ending: Ending | None, answer: Answer | None, request: web.BaseRequest) -> web.StreamResponse:
    """Answer a request as its ending says."""
    match ending:
        case Drop():
            return abandoned(request)
        case Reset():
            return _reset(request)
        case Hang():
            await _client_gone(request)
            return abandoned(request)
        case EndlessHeaders():
            return await _endless_headers(request)
        case Reply(status, _, headers):
            return _whole(Answer(status, ending.encoded(), {**_JSON, **headers}))
        case Garbage(body):
            return _whole(Answer(200, body))
        case Redirect(url):
            return _whole(Answer(302, b"", {"Location": url}))
        case Gzip(decoded_bytes):
            return await _gzip(request, decoded_bytes)
    assert answer is not None
    match ending:
        case None:
            return _whole(answer)
        case ContentType(value):
            return _whole(Answer(answer.status, answer.body, {**answer.headers, "Content-Type": value}))
        case Truncate(size):
            return await _truncated(request, answer, size)
        case Slice(size):
            return await _in_pieces(request, answer, size, pause=0.0)
        case Trickle(bytes_per_second):
            size = max(1, int(bytes_per_second // 10))  # ten pieces a second, and never less than a byte
            return await _in_pieces(request, answer, size, pause=size / bytes_per_second)


def abandoned(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection without another byte; aiohttp notices that the response cannot be sent."""
    request.protocol.force_close()
    return web.Response()


def _whole(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        connected = transport.get_extra_info("socket")
        if connected is not None:
            # closing with a linger time of zero sends a reset instead of an orderly end
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return abandoned(request)


async def _client_gone(request: web.BaseRequest) -> None:
    assert isinstance(request.protocol, Connection)
    await request.protocol.client_gone()


async def _endless_headers(request: web.BaseRequest) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        transport.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000):
            if transport.is_closing():
                break
            transport.write(b"X-Header-%d: %s\r\n" % (number, b"x" * 100))
            await asyncio.sleep(0)
    await _client_gone(request)
    return abandoned(request)


async def _begun(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    return response


async def _truncated(request: web.BaseRequest, answer: Answer, size: int) -> web.StreamResponse:
    response = await _begun(request, answer)
    await response.write(answer.body[:size])
    request.protocol.force_close()
    return response


async def _in_pieces(request: web.BaseRequest, answer: Answer, size: int, *, pause: float) -> web.StreamResponse:
    response = await _begun(request, answer)
    for start in range(0, len(answer.body), size):
        if start:  # none after the last piece: the client has its answer then, and may ask again
            await asyncio.sleep(pause)
        await response.write(answer.body[start : start + size])
    await response.write_eof()
    return response


async def _gzip(request: web.BaseRequest, decoded_bytes: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={**_JSON, "Content-Encoding": "gzip"})
    await response.prepare(request)
    for piece in _bomb(decoded_bytes):
        await response.write(piece)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


def _bomb(decoded_bytes: int) -> Iterator[bytes]:
    compressor = zlib.compressobj(level=9, wbits=31)
    head, tail = b'{"messages":[],"filler":"', b'"}'
    yield compressor.compress(head)
    block = b" " * 65536
    left = max(0, decoded_bytes - len(head) - len(tail))
    while left > 0:
        piece = compressor.compress(block[:left])
        left -= len(block)
        if piece:
            yield piece
    yield compressor.compress(tail) + compressor.flush()

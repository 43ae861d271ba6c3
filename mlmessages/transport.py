"""Sending one request over HTTP, exactly once, and saying what is known if no answer came.

The one place that knows aiohttp's client.
"""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from .auth import Secret
from .errors import AnswerLost, NotSent, TransportError
from .wire import Fault, Request, Response

MOST_BYTES: Final = 8 * 1024 * 1024  # of an answer as decoded: a small gzip can be a large one


class _Dropped(Exception):
    """The connection broke after the request had begun to leave."""


async def _only_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A middleware: aiohttp silently repeats a GET when a reused connection drops (measured: one call, two executions).

    A marking GET must not be executed twice; an exception that aiohttp does not know is not repeated.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise  # nothing was sent, and aiohttp does not repeat these
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass
    raise _Dropped


class Transport:
    """A session with one base URL: opened by `open`, or borrowed and then never closed."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession | None, timeout: float) -> None:
        self._scheme, self._authority, self._prefix = urlsplit(base_url)[:3]
        self._session = session
        self._borrowed = session is not None
        self._timeout = timeout
        self._usual = _client_timeout(timeout)

    async def open(self) -> None:
        """Make the session, unless one was lent."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No limit here: the budget bounds what is in flight, and the timeout must not run while waiting for a
                # connection.
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                timeout=self._usual,
            )

    async def close(self) -> None:
        """Close the session, unless it was lent."""
        if self._session is not None and not self._borrowed:
            await self._session.close()

    async def send(self, request: Request, token: Secret, time_left: float) -> Response:
        """The answer, whatever its status. Raises `NotSent` or `AnswerLost`.

        `time_left`: the attempt is cut short after so many seconds if that is less than the timeout.
        """
        assert self._session is not None
        timeout = self._usual if time_left >= self._timeout else _client_timeout(max(time_left, 0.001))
        path, _, query = request.target.partition("?")
        # From its parts: nearly every URL is a new one, and to split it again is the dearer half of making it.
        url = URL.build(
            scheme=self._scheme,
            authority=self._authority,
            path=self._prefix + path,
            query_string=query,
            encoded=True,
        )
        try:
            answer = await self._session.request(
                request.method,
                url,
                headers={"Authorization": Secret("Bearer " + token), "Accept": "application/json"},
                allow_redirects=False,
                raise_for_status=False,
                timeout=timeout,
                middlewares=(_only_once,),
            )
        except (aiohttp.ClientError, _Dropped, OSError, UnicodeError) as error:  # TimeoutError is an OSError
            failure = _failure(error, timeout.total)
        else:
            return await self._response(answer, token)
        # Raised here, where the exception of aiohttp, which carries the request's headers, is nobody's context.
        raise failure

    async def _response(self, answer: aiohttp.ClientResponse, token: Secret) -> Response:
        fault = None
        body = b""
        try:
            body = await _read(answer)
        except ValueError:
            fault = Fault.TOO_LARGE
        except (aiohttp.ClientError, OSError) as error:
            fault = Fault.LATE if isinstance(error, TimeoutError) else Fault.CUT_OFF
        finally:
            answer.close() if fault else answer.release()
        if 200 <= answer.status < 300:
            return Response(answer.status, body, answer.headers, fault)
        # Whatever a refusal says, in its headers too, goes into an error message: it must not echo the token.
        headers = {name.lower(): value.replace(token, "***") for name, value in answer.headers.items()}
        return Response(answer.status, body.replace(token.encode(), b"***"), headers, fault, time.time())


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The decoded body; `ValueError` where it is larger than `MOST_BYTES`."""
    length = answer.content_length
    if length is not None and length <= MOST_BYTES and "Content-Encoding" not in answer.headers:
        return await answer.read()
    chunks, size = [], 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            raise ValueError("too large")
    return b"".join(chunks)


def _client_timeout(total: float) -> aiohttp.ClientTimeout:
    # Connecting has to give up first: then it is known that nothing was sent.
    connect = total * 0.9
    return aiohttp.ClientTimeout(total=total, connect=connect, sock_connect=connect, ceil_threshold=float("inf"))


# What aiohttp raises before the first byte of a request leaves.
_BEFORE_SENDING: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ServerFingerprintMismatch,
    UnicodeError,  # a host name that the resolver cannot encode
)


def _failure(error: Exception, timeout: float | None) -> TransportError:
    """`error` in our own words; aiohttp's may quote headers or bytes of the answer."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return NotSent(
            f"no connection to {error.host}: {type(error.os_error).__name__}: {error.os_error.strerror or 'failed'}"
        )
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return NotSent("no connection in time")
    if isinstance(error, _BEFORE_SENDING):
        return NotSent(f"no connection: {type(error).__name__}")
    if isinstance(error, TimeoutError):
        return AnswerLost(f"no answer within {timeout:g} s")
    if isinstance(error, aiohttp.ClientResponseError):
        return AnswerLost("the answer is not HTTP")
    return AnswerLost("the connection was closed before the answer")

"""One request over HTTP, sent exactly once, and what is known of it if no answer came.

The one place that knows aiohttp's client.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from ..api.calls import MOST_FILE_BYTES, Body, Fault, Request, Response, Sink
from ..auth.history import TokenHistory
from ..auth.source import Secret
from ..errors import AnswerLost, NotSent, TransportError

MOST_BYTES: Final = 8 * 1024 * 1024  # of an answer as decoded: a small gzip can be a large one
_CHUNK: Final = 128 * 1024


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


_MIDDLEWARES: Final = (_only_once,)


def open_session(proxy: Secret | None = None) -> aiohttp.ClientSession:
    """Return a session as clients use it, for one of them or for many; its owner closes it."""
    return aiohttp.ClientSession(
        # No limit here: the budget bounds what is in flight, and the timeout must not run while waiting for a
        # connection.
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": _user_agent()},
        trust_env=False,
        proxy=None if proxy is None else str(proxy),
    )


class Transport:
    """A session with one base URL: opened by `open`, or borrowed and then never closed."""

    def __init__(
        self, base_url: str, session: aiohttp.ClientSession | None, timeout: float, proxy: Secret | None = None
    ) -> None:
        self._base_url = base_url
        self._scheme, self._authority, self._prefix = urlsplit(base_url)[:3]
        self._session = session
        self._borrowed = session is not None
        self._proxy = proxy  # it may hold a password
        self._timeout = timeout
        self._usual = _client_timeout(timeout)
        self.record: Final = TokenHistory()

    async def open(self) -> None:
        """Make the session, unless one is borrowed."""
        if self._session is None:
            self._session = open_session(self._proxy)

    async def close(self) -> None:
        """Close the session, unless it is borrowed."""
        if self._session is not None and not self._borrowed:
            await self._session.close()

    async def send(self, request: Request, token: Secret, time_left: float) -> Response:
        """Return the answer, whatever its status. Raises `NotSent` or `AnswerLost`.

        `time_left`: the attempt is cut short after so many seconds if that is less than the timeout.
        """
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
        doubted = self.record.doubted(token)
        response = await self._exchange(
            request.method,
            url,
            headers=_headers(request, token),
            payload=_payload(request.body),
            timeout=timeout,
            secrets=(token,),
            sink=request.sink,
        )
        now = asyncio.get_running_loop().time() if doubted else 0.0
        self.record.answered(token, response.status, doubted=doubted, now=now)
        return response

    async def post_form(self, path: str, form: Mapping[str, str], base_url: str | None = None) -> Response:
        """Return the answer to a form, whatever its status; `check` masks each `Secret` of `form` in a refusal.

        It needs no access token. `base_url`: instead of the usual one. Raises `NotSent` or `AnswerLost`.
        """
        if self._session is None or self._session.closed:
            raise NotSent("the client is closed")
        url = URL((self._base_url if base_url is None else base_url) + path, encoded=True)
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        payload = aiohttp.BytesPayload(urlencode(form).encode("ascii"))  # whose repr is silent
        secrets = tuple(value for value in form.values() if isinstance(value, Secret))
        return await self._exchange("POST", url, headers=headers, payload=payload, timeout=self._usual, secrets=secrets)

    async def _exchange(
        self,
        method: str,
        url: URL,
        *,
        headers: dict[str, str],
        payload: aiohttp.Payload | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
        secrets: tuple[Secret, ...],
        sink: Sink | None = None,
    ) -> Response:
        assert self._session is not None
        try:
            try:
                answer = await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=payload,
                    allow_redirects=False,
                    raise_for_status=False,
                    timeout=timeout,
                    middlewares=_MIDDLEWARES,
                )
            except (aiohttp.ClientError, _Dropped, OSError, UnicodeError) as error:  # TimeoutError is an OSError
                failure = _failure(error, timeout.total)
                if isinstance(failure, NotSent) and not self._borrowed and self._proxy is None:
                    failure.hint = _with_proxy_hint(failure.hint, url)
            else:
                return await self._response(answer, secrets, sink)
        except asyncio.CancelledError as error:
            # The frames of aiohttp hold the pieces of the answer that have come, and with them what buyers wrote.
            raise error.with_traceback(None) from None
        # Raised here, so that its context is not the exception of aiohttp, which carries the request's headers.
        raise failure

    async def _response(
        self, answer: aiohttp.ClientResponse, secrets: tuple[Secret, ...], sink: Sink | None
    ) -> Response:
        fault = None
        body = b""
        try:
            if sink is not None and 200 <= answer.status < 300 and not answer.content_type.endswith("json"):
                fault = await _pour(answer, sink)
            else:  # errors come as JSON, also where a file was asked for
                body, fault = await _read(answer)
        finally:
            answer.close() if fault else answer.release()
        if 200 <= answer.status < 300:
            return Response(answer.status, body, answer.headers, fault)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, body, headers, fault, time.time(), secrets)


def _headers(request: Request, token: Secret) -> dict[str, str]:
    headers = {
        "Authorization": Secret("Bearer " + token),
        "Accept": "application/json" if request.sink is None else "*/*",
    }
    if request.body is not None:
        headers["Content-Type"] = request.body.content_type
        if not isinstance(request.body.data, bytes):
            headers["Content-Length"] = str(request.body.data.size)  # without it aiohttp would send it in chunks
    return headers


def _payload(body: Body | None) -> aiohttp.Payload | None:
    """Wrap the body in what has a silent repr: aiohttp's frames hold it, and a traceback may show them."""
    if body is None:
        return None
    if isinstance(body.data, bytes):
        return aiohttp.BytesPayload(body.data)
    return aiohttp.AsyncIterablePayload(body.data.chunks())


async def _pour(answer: aiohttp.ClientResponse, sink: Sink) -> Fault | None:
    """Give the body to `sink` piece by piece. Raises what the sink raises."""
    await sink.begin()
    size = 0
    while True:
        try:
            chunk = await answer.content.read(_CHUNK)
        except (aiohttp.ClientError, OSError) as error:
            return _broken(error)
        if not chunk:
            return None
        size += len(chunk)
        if size > MOST_FILE_BYTES:
            return Fault.TOO_LARGE_FILE
        await sink.write(chunk)


def _broken(error: Exception) -> Fault:
    return Fault.LATE if isinstance(error, TimeoutError) else Fault.CUT_OFF


async def _read(answer: aiohttp.ClientResponse) -> tuple[bytes, Fault | None]:
    """Return the decoded body, or why there is none; no more than `MOST_BYTES` are held."""
    try:
        length = answer.content_length
        if length is not None and length <= MOST_BYTES and "Content-Encoding" not in answer.headers:
            return await answer.read(), None
        chunks, size = [], 0
        async for chunk in answer.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                return b"", Fault.TOO_LARGE
        return b"".join(chunks), None
    except (aiohttp.ClientError, OSError) as error:
        return b"", _broken(error)


def _client_timeout(total: float) -> aiohttp.ClientTimeout:
    # Connecting has to give up first: then it is known that nothing was sent.
    connect = total * 0.9
    return aiohttp.ClientTimeout(total=total, connect=connect, sock_connect=connect, ceil_threshold=float("inf"))


@functools.cache
def _user_agent() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 -- 30 ms that importing does not cost

    try:
        return f"mlmessages/{version('mlmessages')}"
    except PackageNotFoundError:  # a copy that was not installed
        return "mlmessages"


# What aiohttp raises before the first byte of a request leaves.
_BEFORE_SENDING: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ServerFingerprintMismatch,
    UnicodeError,  # a host name that the resolver cannot encode
)

_WRONG_CLOCK: Final = "Is this machine's clock right? Else the certificate has to be renewed where the server is run."
_WRONG_HOST: Final = (
    "Is the base URL right? A proxy or the sign-in page of a network may also have answered in the server's place."
)
_NO_AUTHORITY: Final = (
    "If every https address fails from here, this Python may lack certificates: on macOS run `Install"
    " Certificates.command` of python.org's build, in a container install `ca-certificates`. Else a proxy that inspects"
    " TLS may be in between: pass a `session` whose connector trusts its certificate authority."
)
_CERTIFICATES: Final = {  # by OpenSSL's X509_V_ERR_ numbers
    9: ("is not valid yet", _WRONG_CLOCK),
    10: ("has expired", _WRONG_CLOCK),
    18: ("is self-signed", _NO_AUTHORITY),
    19: ("is signed by an authority that this machine does not know", _NO_AUTHORITY),
    20: ("is signed by an authority that this machine does not know", _NO_AUTHORITY),
    21: ("is signed by an authority that this machine does not know", _NO_AUTHORITY),
    62: ("is for another host", _WRONG_HOST),
    64: ("is for another host", _WRONG_HOST),
}


def _failure(error: Exception, timeout: float | None) -> TransportError:
    """Return `error` in words of our own; those of aiohttp may quote headers or bytes of the answer."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unreached(error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return NotSent("no connection in time")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error.status)
    if isinstance(error, _BEFORE_SENDING):
        return NotSent(f"no connection: {type(error).__name__}")
    if isinstance(error, TimeoutError):
        return AnswerLost(f"no answer within {timeout:g} s")
    if isinstance(error, aiohttp.ClientResponseError):
        return AnswerLost("the answer is not HTTP")
    return AnswerLost("the connection was closed before the answer")


def _unreached(error: aiohttp.ClientConnectorError) -> NotSent:
    """Return why there is no connection; what does not pass by itself is `final`."""
    cause: Exception = error.os_error
    final = False
    if isinstance(cause, ssl.SSLCertVerificationError):
        wrong, hint = _CERTIFICATES.get(
            cause.verify_code, (f"cannot be verified ({cause.verify_message})", _NO_AUTHORITY)
        )
        why, final = f"its certificate {wrong}", True
    elif isinstance(cause, ssl.SSLError):
        why, final = f"no TLS connection ({cause.reason or 'failed'})", True
        hint = "Is the base URL right, and does a server that speaks TLS listen on this port?"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        why = f"the proxy: {_why_unreached(error.os_error)}"
        hint = "Is the proxy's URL right, and does it run?"
    else:
        why = _why_unreached(error.os_error)
        hint = "Is the base URL right, and is there a network?"
    unreached = NotSent(f"no connection to {error.host}:{error.port}: {why}")
    unreached.hint = hint
    unreached.final = final
    return unreached


def _refused_by_proxy(status: int) -> NotSent:
    refused = NotSent(f"no connection: the proxy answered {status}")
    refused.final = 400 <= status < 500
    if status == 407:
        refused.hint = "The proxy wants a user name and a password: http://user:password@host:port."
    elif refused.final:
        refused.hint = "The proxy may not let connections to this host pass: ask those who run it."
    return refused


def _why_unreached(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    return f"{type(error).__name__}: {error.strerror or 'failed'}"


def _with_proxy_hint(hint: str | None, url: URL) -> str | None:
    """Add to `hint` that a proxy, which only the environment names, was not used. Its URL may hold a password."""
    named = getproxies_environment()
    name = next((name for name in (url.scheme, "all") if name in named), None)
    if name is None or proxy_bypass(url.host or ""):
        return hint
    ignored = (
        f"{name.upper()}_PROXY is set, and is not used: if a proxy is needed, pass it as `proxy`, on the command line"
        " as `--proxy`."
    )
    return f"{hint} {ignored}" if hint else ignored

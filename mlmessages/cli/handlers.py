"""Where `serve` hands its deliveries over: to a command, as its standard input, or to a URL, as a POST."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from . import command_line, json_lines
from .settings import SECRETS
from .terminal import note

if TYPE_CHECKING:
    from ..inbox.drain import Delivery

Handler: TypeAlias = Callable[["Delivery"], Awaitable[None]]
HandlerContext: TypeAlias = AbstractAsyncContextManager[Handler]

_NEW_GROUP: Final = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows


class NotTaken(Exception):
    """The command, or the server behind the URL, did not acknowledge a delivery: it comes again."""


def print_traceback(error: BaseException, delivery: Delivery) -> None:
    """Print where handing over failed, without the error's text and without locals: both may quote a buyer."""
    if isinstance(error, NotTaken):
        return
    note(f"Pack {delivery.pack_id}: {type(error).__name__}, raised at")
    for frame in traceback.format_tb(error.__traceback__):
        for line in frame.splitlines():
            note(line)


def to_command(command: str, timeout: float, passed_on: Collection[str] = ()) -> Callable[[], HandlerContext]:
    """Return what makes a handler that runs `command` for each delivery.

    The child inherits none of our secrets, but those that `passed_on` names. It has a process group of its own, so that
    a typed Ctrl-C does not reach it; after `timeout` seconds the whole group is killed.
    """
    arguments = command_line.parsed(command)
    hidden = set(SECRETS) - set(passed_on)

    @asynccontextmanager
    async def handler() -> AsyncIterator[Handler]:
        async def hand_over(delivery: Delivery) -> None:
            environment = {name: value for name, value in os.environ.items() if name not in hidden}
            await _run(arguments, json_lines.line(json_lines.delivery(delivery)), timeout, environment)

        yield hand_over

    return handler


async def _run(arguments: list[str], line: bytes, seconds: float, environment: dict[str, str]) -> None:
    """Run the command with `line` as its input; `NotTaken` unless its exit code is 0."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            creationflags=_NEW_GROUP,
        )
    except OSError as error:
        raise NotTaken(error.strerror) from None
    try:
        async with asyncio.timeout(seconds):
            await process.communicate(line)
    except TimeoutError:
        raise NotTaken("it took too long") from None
    finally:
        if process.returncode is None:
            await _kill_group(process)
    if process.returncode:
        raise NotTaken(f"exit code {process.returncode}")


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a process that still runs, and what it has started: that would go on beside the next try."""
    if sys.platform == "win32":
        with suppress(OSError):
            killer = await asyncio.create_subprocess_exec(
                "taskkill", "/T", "/F", "/PID", str(process.pid), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            await killer.wait()
        with suppress(ProcessLookupError):
            process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def to_url(url: str, timeout: float, *, plain_http: bool = False) -> Callable[[], HandlerContext]:
    """Return what makes a handler that posts each delivery to `url`; a 2xx is the acknowledgement.

    `plain_http`: http is taken for any host, not for this machine alone.
    """
    from ..api.arguments import check_base_url

    checked = url.partition("?")[0]
    if plain_http and checked.lower().startswith("http://"):
        checked = "https" + checked[4:]
    try:
        check_base_url(checked)
    except ValueError as error:
        raise click.UsageError(f"--forward: {str(error).replace('base_url', 'the URL')}") from None

    @asynccontextmanager
    async def handler() -> AsyncIterator[Handler]:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(
            timeout=limit, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session:

            async def hand_over(delivery: Delivery) -> None:
                body = json_lines.line(json_lines.delivery(delivery))
                headers = {"Content-Type": "application/json"}
                try:
                    async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                        status = answer.status
                except (aiohttp.ClientError, OSError) as error:
                    raise NotTaken(type(error).__name__) from None
                if not 200 <= status < 300:
                    raise NotTaken(f"status {status}")

            yield hand_over

    return handler

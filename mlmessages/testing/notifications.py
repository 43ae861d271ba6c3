"""The notifications of a sandbox: posted to an address, again where that fails, and kept as missed in the end."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import aiohttp
import attrs

if TYPE_CHECKING:
    from .sandbox import Sandbox

Action = Literal["created", "read"]
Target: TypeAlias = str | Callable[[bytes], Awaitable[int]]
"""Where to post: a URL, or a coroutine function that takes the body and returns the status of its answer."""

ANSWER_WITHIN: Final = 0.5  # seconds [documented]
# Eight attempts within an hour, at growing intervals [documented: "eight", "exponential", "one hour"].
INTERVALS: Final = (10.0, 30.0, 60.0, 180.0, 420.0, 900.0, 1800.0)
_KEPT: Final = 2 * 24 * 3600.0  # seconds that a missed one is listed


@attrs.define
class MissedFeeds:
    """What nobody took, newest last, until it expires; asking for it takes nothing away."""

    entries: list[tuple[float, dict[str, object]]] = attrs.field(factory=list)

    def add(self, now: float, entry: dict[str, object]) -> None:
        """One more was given up."""
        self.entries.append((now, entry))

    def page(self, now: float, app_id: str, topic: str | None, offset: int, limit: int) -> bytes:
        """The answer: there is no `paging`, and the key is ``messages`` for every topic."""
        rows = [
            entry
            for at, entry in self.entries
            if now - at < _KEPT and str(entry["application_id"]) == app_id and topic in (None, entry["topic"])
        ]
        return json.dumps({"messages": rows[offset : offset + limit]}).encode()


@attrs.define
class Notifier:
    """Tells `target` of what happens in a sandbox while its context lasts.

    `posts`: how many were sent, `answers`: their statuses (None: no answer in time).
    """

    target: Target
    topic: str = "marketplace_messages"
    application_id: int = 5503910054140000
    copies: int = 1
    receipts: bool = True
    intervals: tuple[float, ...] = INTERVALS
    answers: list[int | None] = attrs.field(factory=list)
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set)

    @property
    def posts(self) -> int:
        """How many have been answered, or given up."""
        return len(self.answers)

    @property
    def under_way(self) -> int:
        """How many notifications are still to be taken, or to be given up."""
        return len(self._tasks)


@asynccontextmanager
async def notifying(sandbox: Sandbox, notifier: Notifier) -> AsyncIterator[Notifier]:
    """Post while the context lasts; what is under way at its end is given up."""
    loop = asyncio.get_running_loop()
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    def happened(action: Action, message_id: str) -> None:  # from any thread
        loop.call_soon_threadsafe(begin, action, message_id)

    def begin(action: Action, message_id: str) -> None:
        if action == "read" and not notifier.receipts:
            return
        for _ in range(notifier.copies):
            task = loop.create_task(_deliver(sandbox, notifier, session, action, message_id))
            notifier._tasks.add(task)  # noqa: SLF001 - its own module
            task.add_done_callback(notifier._tasks.discard)  # noqa: SLF001

    sandbox.listen(happened)
    try:
        yield notifier
    finally:
        sandbox.unlisten(happened)
        tasks = list(notifier._tasks)  # noqa: SLF001
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close()


async def _deliver(
    sandbox: Sandbox, notifier: Notifier, session: aiohttp.ClientSession, action: Action, message_id: str
) -> None:
    entry = _entry(notifier, sandbox.seller_id, action, message_id, sandbox.calendar)
    for attempt, wait in enumerate((*notifier.intervals, None), 1):
        entry["attempts"] = attempt
        status = await _post(notifier.target, session, json.dumps(entry).encode())
        notifier.answers.append(status)
        if status == 200:
            return
        if wait is not None:
            await asyncio.sleep(wait)
    response = {"req_time": 500, "http_code": status or 0, "body": "", "headers": {}}
    request = {"url": "https://example.com/cb", "headers": {}, "data": json.dumps(entry)}
    sandbox.missed({**entry, "request": request, "response": response})


async def _post(target: Target, session: aiohttp.ClientSession, body: bytes) -> int | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            if not isinstance(target, str):
                return await target(body)
            headers = {"Content-Type": "application/json"}
            async with session.post(target, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None


def _entry(notifier: Notifier, seller_id: str, action: Action, message_id: str, now: float) -> dict[str, object]:
    """A post as each family prints it."""
    sent = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    common: dict[str, object] = {"application_id": notifier.application_id, "attempts": 1}
    if notifier.topic == "messages":
        entry = {"id": str(uuid.uuid4()), "resource": message_id, "user_id": int(seller_id), "actions": [action]}
    else:
        entry = {"_id": uuid.uuid4().hex[:24], "resource": f"/marketplace/messages/{message_id}", "user_id": seller_id}
        if action == "read":  # whether they exist there is unknown; if so, nothing but this can tell them apart
            entry["actions"] = [action]
    return {**entry, "topic": notifier.topic, **common, "sent": sent, "received": sent}

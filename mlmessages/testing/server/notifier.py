"""Notifications: posted to an address, again where that fails, and kept as missed in the end."""

from __future__ import annotations

import asyncio
import json
import string
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, TypeAlias

import aiohttp
import attrs

from ..engine import Engine, Happened
from ..model.conversations import Action

Target: TypeAlias = str | Callable[[bytes], Awaitable[int]]
"""Where to post: a URL, or a coroutine function that takes the body and returns the status of its answer."""

ANSWER_WITHIN: Final = 0.5  # seconds [documented: notifications]
# Eight attempts within an hour, at growing intervals [documented: notifications].
INTERVALS: Final = (10.0, 30.0, 60.0, 180.0, 420.0, 900.0, 1800.0)


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
    resource: str | None = attrs.field(default=None)
    actions: Mapping[Action, object] = attrs.field(factory=dict)
    answers: list[int | None] = attrs.field(factory=list)
    tasks: set[asyncio.Task[None]] = attrs.field(factory=set, repr=False)

    @resource.validator
    def _check(self, attribute: object, resource: str | None) -> None:
        places = {name for _, name, _, _ in string.Formatter().parse(resource or "") if name is not None}
        if not places <= {"message", "pack", "seller"}:
            raise ValueError(f"the places of a resource are {{message}}, {{pack}} and {{seller}} (got {resource!r})")

    @property
    def posts(self) -> int:
        """How many have been answered, or given up."""
        return len(self.answers)

    @property
    def under_way(self) -> int:
        """How many notifications are still to be taken, or to be given up."""
        return len(self.tasks)


@asynccontextmanager
async def notifying(engine: Engine, notifier: Notifier) -> AsyncIterator[Notifier]:
    """Post while the context lasts; what is under way at its end is given up."""
    loop = asyncio.get_running_loop()
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    def happened(what: Happened) -> None:  # from any thread
        loop.call_soon_threadsafe(begin, what)

    def begin(what: Happened) -> None:
        if what.action == "read" and not notifier.receipts:
            return
        for _ in range(notifier.copies):
            task = loop.create_task(_deliver(engine, notifier, session, what))
            notifier.tasks.add(task)
            task.add_done_callback(notifier.tasks.discard)

    engine.listen(happened)
    try:
        yield notifier
    finally:
        engine.unlisten(happened)
        tasks = list(notifier.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close()


async def _deliver(engine: Engine, notifier: Notifier, session: aiohttp.ClientSession, what: Happened) -> None:
    entry = _entry(notifier, what, engine.calendar.today)
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
    engine.miss({**entry, "request": request, "response": response})


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


def _entry(notifier: Notifier, what: Happened, today: float) -> dict[str, object]:
    """Return a notification as each family prints it."""
    sent = datetime.fromtimestamp(today, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry: dict[str, object]
    if notifier.topic == "messages":
        entry = {
            "id": str(uuid.uuid4()),
            "resource": what.message_id,
            "user_id": int(what.seller_id),
            "actions": [what.action],
        }
    else:
        entry = {
            "_id": uuid.uuid4().hex[:24],
            "resource": f"/marketplace/messages/{what.message_id}",
            "user_id": what.seller_id,
        }
        if what.action == "read":  # unknown whether they exist there; if so, only this can tell them apart
            entry["actions"] = [what.action]
    if notifier.resource is not None:
        entry["resource"] = notifier.resource.format(message=what.message_id, pack=what.pack_id, seller=what.seller_id)
    if what.action in notifier.actions:
        entry.pop("actions", None)
        if notifier.actions[what.action] is not None:
            entry["actions"] = notifier.actions[what.action]
    common = {"topic": notifier.topic, "application_id": notifier.application_id, "attempts": 1}
    return {**entry, **common, "sent": sent, "received": sent}

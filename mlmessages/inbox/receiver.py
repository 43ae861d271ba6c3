"""What a posted notification is worth, whatever framework took the post: `Receiver`.

Posts are not signed [documented: notifications], so the path is the secret, and nothing that a post says is believed:
it is written down, and what it names is asked for with the seller's own token. Sender addresses are not looked at: the
published list changes, and every sender can write headers such as X-Forwarded-For.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import AsyncIterable, Mapping
from typing import Final, Protocol, runtime_checkable

from attrs import define

from ..api.arguments import check_id, check_seconds
from ..api.notifications import TOPICS, Notification
from ..auth.source import conceal
from ..errors import DecodeError, JournalError
from ..escaping import one_line
from .inbox import Inbox

_log: Final = logging.getLogger("mlmessages")
MOST_BYTES: Final = 16 * 1024  # of a post; a notification has some 300
_SECRET: Final = re.compile(r"[0-9A-Za-z._~-]{16,200}", re.ASCII)
_PREFIX: Final = re.compile(r"(?:/[0-9A-Za-z._~-]+)*", re.ASCII)
_WARN_EVERY: Final = 300.0  # seconds between two warnings of the same kind
_HEALTH_EVERY: Final = 1.0  # seconds for which an answer of the health path holds: strangers may ask


@runtime_checkable
class Destination(Protocol):
    """Where the notifications of several sellers are written down, such as a `Database`."""

    async def notify(self, notification: Notification) -> bool:
        """Write it down, durable on return; return False if its user is no seller here. Raises `JournalError`."""

    async def check(self) -> None:
        """Raise `JournalError` if nothing can be written down."""


class _Inboxes:
    """The inboxes of this process, by the user id that a notification names."""

    def __init__(self, inboxes: Mapping[str, Inbox]) -> None:
        self._inboxes = {check_id("user id", user): each for user, each in inboxes.items()}

    async def notify(self, notification: Notification) -> bool:
        inbox = self._inboxes.get(notification.user_id or "")
        if inbox is None:
            return False
        await inbox.notify(notification)
        return True

    async def check(self) -> None:
        for inbox in self._inboxes.values():
            await inbox.dead_letters()


Target = Inbox | Mapping[str, Inbox] | Destination


def _destination(target: Target) -> Destination:
    if isinstance(target, Inbox):
        return _Inboxes({target.seller_id: target})
    if isinstance(target, Mapping):
        if all(isinstance(each, Inbox) for each in target.values()):
            return _Inboxes(target)
    elif isinstance(target, Destination):
        return target
    raise ValueError("inbox must be an Inbox, a mapping from user ids to them, or a Database")


@define
class Counts:
    """What became of the posts behind the right path.

    `taken`: answered 200, and on the disk. `ignored`: answered 200, for another topic or another seller of the
    application. `refused`: too large, unreadable, or of another application. `failed`: answered 503, for Mercado Libre
    to send again, because the journal did not take it in time.
    """

    taken: int = 0
    ignored: int = 0
    refused: int = 0
    failed: int = 0


class Receiver:
    """Answers posts with a status: one durable insert, then 200. Raises `ValueError` for wrong arguments.

    - `target`: the inbox that notifications go to; or several by the user id that they name; or a `Database`.
    - `secret`: at least 16 characters that may stand in a path, such as `secrets.token_urlsafe` makes.
    - `application_id`: posts that name another one are refused.
    - `prefix`: the path in front of the secret.
    - `answer_within`: seconds; Mercado Libre gives an answer 500 ms, and switches the topic off for those that are
      late [documented: notifications].

    Whatever is refused or left out is told in a warning, one of a kind in five minutes.
    """

    def __init__(
        self,
        target: Target,
        *,
        secret: str,
        application_id: int | str,
        prefix: str = "/notifications",
        answer_within: float = 0.4,
    ) -> None:
        secret = conceal(secret)  # first: no traceback shows it
        if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
            raise ValueError("secret must be 16 to 200 ASCII letters, digits and . _ ~ -")
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ValueError("prefix must be empty or a path such as '/notifications'")
        self._destination = _destination(target)
        self._expected = (
            f"the seller here is {target.seller_id}"
            if isinstance(target, Inbox)
            else "no seller of this service is that"
        )
        self._secret = secret.encode()
        self._application_id = check_id("application_id", application_id)
        self._answer_within = check_seconds("answer_within", answer_within)
        self._warnings = _Warnings()
        self._looking = asyncio.Lock()
        self._healthy = False
        self._health_is_good_until = float("-inf")
        self.prefix: Final = prefix
        self.counts: Final = Counts()

    async def answer(self, secret: str, size: int | None, chunks: AsyncIterable[bytes]) -> int:
        """Return the status for a post: 200 if it is on the disk or not for this service, 503 if it is to come again.

        `secret`: what stood in the path; another one is a 404. `size`: the length that the post gives itself. `chunks`:
        its body, of which no more is read than a notification can have.
        """
        if not hmac.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret):
            self._warnings.warn(
                "path",
                "a post to another path than the secret one was refused: if notifications do not arrive, compare the"
                " address in the application's settings",
            )
            return 404
        try:
            async with asyncio.timeout(self._answer_within):
                return await self._answer(size, chunks)
        except (JournalError, TimeoutError) as error:
            # It may be on the disk after all; it is sent again then, and written down once.
            self.counts.failed += 1
            _log.warning("a notification was not taken, and will be sent again: %s", type(error).__name__)
            return 503

    async def _answer(self, size: int | None, chunks: AsyncIterable[bytes]) -> int:
        body = None if (size or 0) > MOST_BYTES else await _read(chunks)
        if body is None:
            return self._refuse(413, "size", f"a notification of more than {MOST_BYTES:,} bytes was refused")
        try:
            notification = Notification.parse(body)
        except DecodeError:
            return self._refuse(400, "unreadable", "a post that is no notification was refused")
        named = notification.application_id
        if named != self._application_id:
            return self._refuse(
                403,
                "application",
                f"notifications are refused: they are of application {named or 'without an id'}, and this address is"
                f" that of {self._application_id}: check --app-id (application_id)",
            )
        # 200 also for what is not for this service: one address gets every topic and every seller of an application,
        # and one that refuses is switched off [documented: notifications].
        if notification.topic not in TOPICS:
            return self._ignore(
                "topic",
                f"notifications of the topic {one_line(notification.topic)[:60]} are answered and left out: only"
                f" {' and '.join(TOPICS)} are for this service",
            )
        if not await self._destination.notify(notification):
            return self._ignore(
                "user",
                f"notifications are answered and left out: they are of user {notification.user_id or 'without an id'},"
                f" and {self._expected}",
            )
        self.counts.taken += 1
        return 200

    def _refuse(self, status: int, kind: str, warning: str) -> int:
        self.counts.refused += 1
        self._warnings.warn(kind, warning)
        return status

    def _ignore(self, kind: str, warning: str) -> int:
        self.counts.ignored += 1
        self._warnings.warn(kind, warning)
        return 200

    async def is_healthy(self) -> bool:
        """Return True if notifications can be written down; asked at most once a second."""
        async with self._looking:  # those who ask meanwhile get the same answer
            if time.monotonic() >= self._health_is_good_until:
                try:
                    async with asyncio.timeout(self._answer_within):
                        await self._destination.check()
                    self._healthy = True
                except (JournalError, RuntimeError, TimeoutError):
                    self._healthy = False
                self._health_is_good_until = time.monotonic() + _HEALTH_EVERY
        return self._healthy


class _Warnings:
    """Warnings of which one of a kind is written in some minutes: strangers can cause them."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now < self._due.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._due[kind] = now + _WARN_EVERY
        more = self._left_out.pop(kind, 0)
        _log.warning("%s%s", text, f" ({more:,} more like it before)" if more else "")


async def _read(chunks: AsyncIterable[bytes]) -> bytes | None:
    """The body; None where it is too large: no more of it is read."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)

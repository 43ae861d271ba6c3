"""The documented API over a world: from what was asked to the answer, with its side effect. No I/O."""

from __future__ import annotations

import re
from email.utils import formatdate

from . import rates
from .answers import JSON, Answer, Refused
from .asked import ParsedRequest
from .behaviour import Behaviour
from .notifications import MissedFeeds
from .oauth import TokenEndpoint
from .shapes import SHAPES, Shape
from .world import StoredMessage, Thread, World
from .writing import Writing


class Api:
    """Answers requests of one seller's application."""

    def __init__(self, world: World, behaviour: Behaviour, *, seller_id: str, token: str) -> None:
        self.oauth = TokenEndpoint(seller_id, token, lambda: world.now)
        self.throttled = 0
        self.missed = MissedFeeds()
        self._world = world
        self._behaviour = behaviour
        self._seller_id = seller_id
        self.writing = Writing(world, behaviour, seller_id)
        self._window = window = behaviour.rate
        self._reads = rates.counter(window, window.reads) if window else None
        self._writes = rates.counter(window, window.writes) if window else None

    def execute(self, asked: ParsedRequest) -> Answer:
        """Count the request, do what it asks, answer."""
        return self._answer(asked, marking=True)

    def snapshot(self, asked: ParsedRequest) -> Answer:
        """Count the request and answer, and leave the marking to `mark_all`."""
        return self._answer(asked, marking=False)

    def mark_all(self, asked: ParsedRequest) -> None:
        """Mark whatever the conversation holds now."""
        thread = self._world.find_thread(asked.pack_id or "")
        if thread is not None:
            self._world.mark_by_reading(thread.messages)

    def _answer(self, asked: ParsedRequest, *, marking: bool) -> Answer:
        if asked.kind == "token":  # outside of the messages' budget
            return Answer(*self.oauth.answer(asked.method, asked.body))
        throttled = self._throttled(asked)
        if throttled is not None:
            return throttled
        try:
            if asked.kind == "other":
                raise Refused(404, "Resource not found.", "not_found")
            if asked.token is None:
                raise Refused(400, "Access token is required", "bad_request")
            if not self.oauth.takes(asked.token):
                raise Refused(401, "invalid access token", "not_found")
            if asked.kind == "missed":
                return self._missed(asked)
            shape = SHAPES[self._behaviour.shape or asked.family]
            if asked.kind == "listing":
                return self._listing(asked, shape)
            if asked.kind == "message":
                return self._message(asked, shape)
            if asked.kind in ("upload", "download"):
                return self.writing.file(asked)
            thread = self._thread(asked)
            if asked.kind in ("send", "reasons", "caps", "option"):
                return self.writing.answer(asked, thread)
            if asked.kind == "probe":
                rows = [(thread, thread.unread)] if thread.unread else []
                return Answer(200, shape.listing(self._seller_id, rows, None))
            return self._page(asked, thread, shape, marking=marking)
        except Refused as refused:
            return refused.answer

    def _throttled(self, asked: ParsedRequest) -> Answer | None:
        counter = self._reads if asked.method == "GET" else self._writes
        if counter is None or self._window is None:
            return None
        wait = counter.admit(self._world.now)
        if not wait:
            return None
        self.throttled += 1
        headers = {"Content-Type": JSON}
        match self._window.retry_after:
            case None:
                pass
            case "seconds":
                headers["Retry-After"] = str(int(-(-wait // 1)))
            case "date":
                headers["Retry-After"] = formatdate(self._world.calendar + wait + 1.0, usegmt=True)
            case told:
                headers["Retry-After"] = str(told)
        return Answer(429, b'{"message":"local_rate_limited"}', headers)

    def _listing(self, asked: ParsedRequest, shape: Shape) -> Answer:
        role = asked.query.get("role")
        if asked.family == "domestic" and role not in ("buyer", "seller"):
            raise Refused(400, "The role param is required", "bad_request")
        if asked.query.get("user_id", self._seller_id) != self._seller_id:
            raise Refused(403, "Can not identify the user.", "forbidden")
        behaviour = self._behaviour
        rows, total = self._world.listing(cap=behaviour.cap, order=behaviour.listing_order)
        if role == "buyer":  # this account has bought nothing
            rows, total = [], 0
        return Answer(200, shape.listing(self._seller_id, rows, total if behaviour.total else None))

    def _missed(self, asked: ParsedRequest) -> Answer:
        app_id = asked.query.get("app_id")
        if not app_id:
            raise Refused(400, "The app_id param is required", "bad_request")
        offset, limit = _number(asked, "offset", 0), min(_number(asked, "limit", 10), 50)
        return Answer(200, self.missed.page(self._world.now, app_id, asked.query.get("topic"), offset, limit))

    def _message(self, asked: ParsedRequest, shape: Shape) -> Answer:
        message = self._world.find_message(asked.message_id or "")
        if message is None:
            text = f"The message with id: {asked.message_id} could not be retrieved from storage"
            raise Refused(404, text, "not_found")
        return Answer(200, shape.envelope(self._seller_id, message), ids=(message.id,))

    def _thread(self, asked: ParsedRequest) -> Thread:
        if asked.seller_id is not None and asked.seller_id != self._seller_id:
            raise Refused(403, f"User access token invalid for resource {asked.pack_id}", "forbidden")
        thread = self._world.find_thread(asked.pack_id or "")
        if thread is None:
            raise Refused(404, "Order do not exists", "not_found")
        return thread

    def _page(self, asked: ParsedRequest, thread: Thread, shape: Shape, *, marking: bool) -> Answer:
        behaviour = self._behaviour
        limit = _number(asked, "limit", behaviour.default_limit)
        if limit <= 0:
            raise Refused(400, "The limit param must be greater than 0", "bad_request")
        offset = _number(asked, "offset", 0)
        if offset < 0:
            raise Refused(400, "Invalid offset param", "bad_request")
        given = limit if behaviour.max_limit is None else min(limit, behaviour.max_limit)
        visible = thread.visible
        page = _slice(visible, offset, given, newest_first=behaviour.order == "newest")
        told_limit = given if behaviour.echo_limit == "given" else limit
        paging = (told_limit, offset, behaviour.told_total(len(visible))) if behaviour.paging else None

        marks: list[StoredMessage] = []
        if marking and thread.unread and (asked.kind == "mark" or not behaviour.honours_peek):
            marks = page if behaviour.marks == "page" else visible
        if behaviour.shows_read:
            self._world.mark_by_reading(marks)
        body = shape.page(self._seller_id, thread, page, paging, behaviour.longest_reply)
        self._world.mark_by_reading(marks)
        return Answer(200, body, ids=tuple(message.id for message in page))


def _number(asked: ParsedRequest, name: str, default: int) -> int:
    text = asked.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise Refused(400, f"Invalid {name} param", "bad_request")
    return int(text)


def _slice(oldest_first: list[StoredMessage], offset: int, limit: int, *, newest_first: bool) -> list[StoredMessage]:
    if not newest_first:
        return oldest_first[offset : offset + limit]
    end = max(0, len(oldest_first) - offset)
    return oldest_first[max(0, end - limit) : end][::-1]

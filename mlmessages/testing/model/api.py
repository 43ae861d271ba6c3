"""The documented API of one application: from a request to its answer, with its side effect. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate

from . import action_guide, attachments, consent, rates, sending
from .account import Account
from .answers import JSON, Answer, Refused
from .behaviour import Behaviour
from .calendar import Calendar
from .conversations import StoredMessage, Thread
from .missed_feeds import MissedFeeds
from .oauth import Application
from .paging import number, page_of
from .requests import ParsedRequest
from .shapes import SHAPES, Shape, envelope, flat


class Api:
    """Answers the requests of one application; an access token says for which of its sellers."""

    def __init__(
        self, accounts: Mapping[str, Account], application: Application, behaviour: Behaviour, calendar: Calendar
    ) -> None:
        self.throttled = 0
        self.missed = MissedFeeds()
        self._accounts = accounts
        self._application = application
        self._behaviour = behaviour
        self._calendar = calendar
        self._listings = 0
        self._budget = rates.Budget(behaviour.rate)

    def execute(self, request: ParsedRequest, *, lag: float | None = None) -> Answer:
        """Count the request, do what it asks, and answer.

        `lag`: answer as it was so many seconds ago; None: by the behaviour.
        """
        return self._answer(request, marking=True, lag=lag)

    def snapshot(self, request: ParsedRequest) -> Answer:
        """Count the request and answer, and leave the marking to `mark_all`."""
        return self._answer(request, marking=False, lag=None)

    def mark_all(self, request: ParsedRequest) -> None:
        """Mark everything that the conversation of the request holds now."""
        for account in self._accounts.values():
            thread = account.conversations.find_thread(request.pack_id or "")
            if thread is not None:
                account.conversations.mark_by_reading(thread.messages)

    def _answer(self, request: ParsedRequest, *, marking: bool, lag: float | None) -> Answer:
        if request.kind == "token":  # it does not count for the messages' budget
            return Answer(*self._application.answer(request.method, request.body))
        if request.kind in ("consent", "callback"):
            return consent.answer(self._application, request)
        throttled = self._throttled(request)
        if throttled is not None:
            return throttled
        try:
            if request.kind == "other":
                raise Refused(404, "Resource not found.", "not_found")
            account = self._account(request)
            if request.kind == "missed":
                return self._missed(account, request)
            shape = SHAPES[self._behaviour.shape or request.family]
            if request.kind == "listing":
                return self._listing(account, request, shape, lag)
            if request.kind == "message":
                return self._message(account, request, shape, self._behaviour.page_lag if lag is None else lag)
            if request.kind in ("upload", "download"):
                return attachments.answer(account.attachments, request)
            thread = self._thread(account, request)
            if request.kind == "send":
                return sending.answer(account, self._behaviour, request, thread)
            if request.kind in ("reasons", "caps", "option"):
                return action_guide.answer(account, self._behaviour, request, thread)
            if request.kind == "probe":
                return self._probe(account, thread, shape)
            if lag is None:
                lag = self._behaviour.page_lag if request.kind == "peek" else 0.0
            return self._page(account, request, thread, shape, marking=marking, lag=lag)
        except Refused as refused:
            return refused.answer

    def _throttled(self, request: ParsedRequest) -> Answer | None:
        seller_id = self._application.seller_of(request.token) if request.token else None
        wait = self._budget.admit(request.method == "GET", seller_id, self._calendar.now)
        if not wait or self._budget.window is None:
            return None
        self.throttled += 1
        headers = {"Content-Type": JSON}
        match self._budget.window.retry_after:
            case None:
                pass
            case "seconds":
                headers["Retry-After"] = str(int(-(-wait // 1)))
            case "date":
                headers["Retry-After"] = formatdate(self._calendar.today + wait + 1.0, usegmt=True)
            case text:
                headers["Retry-After"] = str(text)
        return Answer(429, b'{"message":"local_rate_limited"}', headers)

    def _account(self, request: ParsedRequest) -> Account:
        if request.token is None:
            raise Refused(400, "Access token is required", "bad_request")
        seller_id = self._application.seller_of(request.token)
        if seller_id is None:
            raise Refused(401, "invalid access token", "not_found")
        if self._application.blocked:
            raise Refused(401, "unauthorized_scopes", "unauthorized_scopes")
        return self._accounts[seller_id]

    def _belongs_to(self, account: Account, seller_id: str) -> bool:
        return seller_id in (account.seller_id, *map(str, self._behaviour.other_seller_ids))

    def _listing(self, account: Account, request: ParsedRequest, shape: Shape, lag: float | None) -> Answer:
        role = request.query.get("role")
        if request.family == "domestic" and role not in ("buyer", "seller"):
            raise Refused(400, "The role param is required", "bad_request")
        if not self._belongs_to(account, request.query.get("user_id", account.seller_id)):
            raise Refused(403, "Can not identify the user.", "forbidden")
        behaviour = self._behaviour
        found, total = account.conversations.listing(cap=behaviour.cap, order=behaviour.listing_order, lag=lag)
        if role == "buyer":  # this account has bought nothing
            found, total = [], 0
        rows = [json.dumps(row) for row in behaviour.odd_rows]
        rows += [shape.row(account.seller_id, thread.pack_id, count) for thread, count in found]
        if behaviour.spellings == "both":
            other = SHAPES["marketplace" if shape.names_the_seller else "domestic"]
            again = [other.row(account.seller_id, thread.pack_id, count + 1) for thread, count in found]
            self._listings += 1
            rows = rows + again if self._listings % 2 else again + rows
        user_id = account.seller_id if behaviour.listing_user_id is None else str(behaviour.listing_user_id)
        return Answer(200, shape.listing(user_id, rows, total if behaviour.total else None))

    def _probe(self, account: Account, thread: Thread, shape: Shape) -> Answer:
        rows = [shape.row(account.seller_id, thread.pack_id, thread.unread)] if thread.unread else []
        return Answer(200, shape.listing(account.seller_id, rows, None))

    def _missed(self, account: Account, request: ParsedRequest) -> Answer:
        app_id = request.query.get("app_id")
        if not app_id:
            raise Refused(400, "The app_id param is required", "bad_request")
        offset, limit = number(request, "offset", 0), min(number(request, "limit", 10), 50)
        seller_id = account.seller_id if self._behaviour.missed_feeds_of == "seller" else None
        topic = request.query.get("topic")
        page = self.missed.page(
            self._calendar.now, app_id, topic=topic, seller_id=seller_id, offset=offset, limit=limit
        )
        return Answer(200, page)

    def _message(self, account: Account, request: ParsedRequest, shape: Shape, lag: float) -> Answer:
        message = account.conversations.find_message(request.message_id or "", lag=lag)
        if message is None:
            text = f"The message with id: {request.message_id} could not be retrieved from storage"
            raise Refused(404, text, "not_found")
        row = shape.message_row(account.seller_id, message, reads_until=self._reads_until(lag))
        kind, pack_id = self._behaviour.by_id_resources, message.thread.pack_id
        if self._behaviour.by_id == "flat":
            return Answer(200, flat(row, kind, pack_id), ids=(message.id,))
        if kind == "orders":
            row["message_resources"] = [{"id": pack_id, "name": "orders"}]
        return Answer(200, envelope(row), ids=(message.id,))

    def _reads_until(self, lag: float) -> float:
        return self._calendar.today - max(lag, self._behaviour.read_lag)

    def _thread(self, account: Account, request: ParsedRequest) -> Thread:
        if request.seller_id is not None and not self._belongs_to(account, request.seller_id):
            raise Refused(403, f"User access token invalid for resource {request.pack_id}", "forbidden")
        thread = account.conversations.find_thread(request.pack_id or "")
        if thread is None:
            raise Refused(404, "Order do not exists", "not_found")
        return thread

    def _page(
        self,
        account: Account,
        request: ParsedRequest,
        thread: Thread,
        shape: Shape,
        *,
        marking: bool,
        lag: float,
    ) -> Answer:
        behaviour, conversations = self._behaviour, account.conversations
        visible = conversations.visible(thread, lag)
        total_lag = max(lag, behaviour.total_lag)
        counted = len(visible if total_lag == lag else conversations.visible(thread, total_lag))
        page = page_of(visible, counted, request, behaviour)
        marks: list[StoredMessage] = []
        if marking and thread.unread and (request.kind == "mark" or not behaviour.honours_peek):
            marks = page.rows if behaviour.marks == "page" else thread.visible
        if behaviour.shows_read:
            conversations.mark_by_reading(marks)
        body = shape.page(
            account.seller_id,
            thread,
            page.rows,
            page.paging,
            longest_reply=behaviour.longest_reply,
            reads_until=self._reads_until(lag),
        )
        conversations.mark_by_reading(marks)
        return Answer(200, body, ids=tuple(message.id for message in page.rows))

"""A refusal of the server to an error with its code, its words and a hint: `check`.

The status decides the class of the error. The body only explains it, in any of eight shapes, and never quotes a secret
in the error: see `masking`.
"""

from __future__ import annotations

import re
from typing import Final

from .. import errors
from .calls import Response
from .json import parse_json
from .masking import mask
from .scalars import http_date

_CLASSES: Final[dict[int, type[errors.APIError]]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.RateLimited,
}

_PERMISSION = (
    "The application lacks the permission for pre and post-sale communication: switch it on (read and write) in the"
    " application's settings, then let the seller authorise it again."
)

_MODEL_6 = (
    "Global Selling sellers of Model 6 are refused on every message endpoint. Any other seller: check that the token is"
    " the seller's and has the permission for pre and post-sale communication."
)

_ACCESS_DENIED = (
    "The server does not say why, and several causes are documented. The token may be another user's; the application"
    " may lack the permission for pre and post-sale communication (switch it on, then let the seller authorise it"
    " again); this machine's IP address may not be among those that the application allows; the application may be"
    " blocked; the seller's account may be suspended."
)

_APPLICATION_BLOCKED = (
    "Mercado Libre has blocked the application, or its permissions: neither a new token nor the seller can mend that."
    " The owner of the application sees why in its settings."
)

_NOT_THE_API = (
    "This page may come from the network in front of Mercado Libre's API, or from a proxy on the way: the address of"
    " this machine may be blocked there. Try again later, or from another network."
)

_CHARSET = (
    "Domestic sites take ISO-8859-1 and some emoji: replace typographic quotes, long dashes, the ellipsis and the euro"
    " sign."
)

_HTML: Final = "an HTML page instead of an answer"

# Status, pattern of "code message", what to do: the first that fits. Above each group stands its source, see `api`.
_HINTS: Final = tuple(
    (status, re.compile(pattern, re.IGNORECASE), hint)
    for status, pattern, hint in (
        # [documented: pending messages], all six of its error table
        (400, "messages id empty or invalid", "Pass a message's id as a notification or a page names it."),
        (400, "specified message id.* does not exist", "No message has this id: is it a message's, not a pack's?"),
        (400, "messages from multiple orders", "The ids belong to several orders: ask for one order's at a time."),
        (403, "can not identify the user", "`user_id` must be the user that the token belongs to."),
        (404, "could not be retrieved from storage", "A message can be late: ask again in a few seconds."),
        (404, "order do not exists", "No sale has this id: is it a pack's (or, where an order has none, the order's)?"),
        # [documented: messages]: no token is a 400, not a 401
        (400, "access token is required", "No token reached the server: did a proxy remove the Authorization header?"),
        (400, "character.*not supported", _CHARSET),
        # [documented: blocked applications]
        (401, "unauthorized_scopes", _APPLICATION_BLOCKED),
        (401, "", "The token is expired, revoked or of another application: get a new one."),
        # [observed: answers]: the policy agent's, to an application without the permission
        (403, "policyagent|policy_agent|from_policies|invalid scopes", _PERMISSION),
        (403, "access_denied", _ACCESS_DENIED),  # [documented: error 403]
        (403, f"^ {_HTML}$", _NOT_THE_API),
        (
            403,
            "token invalid for resource",
            "The pack is not this seller's: check `seller_id`, and whose the token is.",
        ),
        # [documented: messages] of Global Selling, April 2026: nothing in the body tells this from another "Forbidden"
        (403, "^forbidden forbidden$", _MODEL_6),
        (
            404,
            "resource not found",
            "No such path: are the base URL and `api` right? The paths can be changed with `Routes`.",
        ),
        # [documented: messages, reasons, attachments]
        (400, "does not belong to pack", "The recipient is not of this conversation: leave `to` out."),
        (400, "blocked_by_excepted_case", "The pack is an exception to the action guide: use `send`."),
        (400, "too long|limit_exceeded", "Shorten the text: `page(...).seller_max_message_length` is the limit."),
        (400, "site_id", "`site_id` is the site of the sale, such as MLM or MLB: a message's `site_id` names it."),
        (403, "use_message_api|open conversation", "The buyer has answered: use `send`, not `start_conversation`."),
        (
            403,
            "blocked_by_conversation_(started|initiated)",
            "The seller may only start this conversation through the action guide: see `contact_reasons`.",
        ),
        (403, "blocked_conversation|conversation blocked", "`page(...).conversation.blocked_reason` says why."),
        (403, "execute the option", "The seller has used this option up: see `contact_reasons`."),
        (422, "attachment", "An upload that is not sent within 48 hours is deleted: upload the file again."),
        (451, "", "The buyer has closed the account: nothing can be sent."),
        (500, "file can not be accessed", "Try again later; a file that is gone for good is answered like this too."),
        (500, "delivery date is before", "The promised delivery is in the past: nothing was sent."),
        (429, "", "The application's budget is used up: lower `Limits`, or share one `Limits` among its clients."),
    )
)

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)+|[a-z]+|[A-Z]+", re.ASCII)
_LONGEST_CODE: Final = 100
_LONGEST_MESSAGE: Final = 300


def check(response: Response) -> None:
    """Raise the `APIError` that a `response` is which is no 2xx."""
    if response.ok:
        return
    status = response.status
    code, message = (_masked(said, response) for said in _explanation(response.body))
    if 300 <= status < 400:
        code, message = None, "a redirect, which is never followed"
    cls = _CLASSES.get(status) or (errors.ServerError if status >= 500 else errors.APIError)
    said = f"{code or ''} {message or ''}"
    raise cls(
        status,
        code,
        message,
        request_id=_masked(_printable(response.headers.get("x-request-id")), response),
        hint=next((hint for s, pattern, hint in _HINTS if s == status and pattern.search(said)), None),
        retry_after=_retry_after(response),
    )


def _masked(said: str | None, response: Response) -> str | None:
    return mask(said, response.secrets)[:_LONGEST_MESSAGE] if said is not None else None


def _explanation(body: bytes) -> tuple[str | None, str | None]:
    """The machine-readable code and the words of an error body.

    It comes in eight shapes [documented: messages, reasons, authorisation; observed: answers].
    """
    try:
        value = parse_json(body) if body else None
    except ValueError:
        value = body[: _LONGEST_MESSAGE * 4].decode("utf-8", "replace")
        if "<" in value:
            return None, _HTML
    if isinstance(value, str):
        value = {"message": value}
    if not isinstance(value, dict):
        return None, None
    causes = value.get("cause")
    if not isinstance(causes, list):
        causes = [causes]
    causes = [cause.get("code") if isinstance(cause, dict) else cause for cause in causes]
    words = [value.get("message"), value.get("error_description"), value.get("error"), *causes]
    # The discriminating word may stand in any of these; a block is the most telling of all.
    candidates = [value.get("error"), value.get("code"), *causes, value.get("message")]
    candidates = [c for c in candidates if isinstance(c, str) and len(c) <= _LONGEST_CODE]
    codes = [c.lower() for c in candidates if _CODE.fullmatch(c)]
    codes += [c.lower() for c in candidates if c.istitle() and c.isalpha()]
    code = next((c for c in codes if c.startswith(("blocked_by_", "block_by_"))), codes[0] if codes else None)
    blocked_by = value.get("blocked_by")  # the policy agent's name for itself
    message = next((word for word in words if isinstance(word, str) and word), None)
    if isinstance(blocked_by, str):
        message = f"{message or ''} (blocked by {blocked_by})".strip()
    return code, _printable(message)


def _printable(text: str | None) -> str | None:
    """`text` on one line, without what moves a terminal's cursor, and not much longer than what is shown."""
    if not text:
        return None
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_MESSAGE])
    return " ".join(shown.split()) or None


def _retry_after(response: Response) -> float | None:
    """Seconds to wait (RFC 9110, 10.2.3: seconds or a date), or None where the header is absent or makes no sense."""
    value = response.headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = http_date(value)
        if until is None:
            return None
        sent = http_date(response.headers.get("date"))  # by the server's own clock, where it tells it
        seconds = until.timestamp() - (response.received if sent is None else sent.timestamp())
    return seconds if 0 <= seconds < float("inf") else None

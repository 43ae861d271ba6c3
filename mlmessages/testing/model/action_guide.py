"""The action guide: for which reasons a seller may begin a conversation, and how often."""

from __future__ import annotations

import json
from typing import Any

from .account import Account
from .answers import JSON, Answer, Refused
from .behaviour import Behaviour
from .conversations import Thread
from .requests import ParsedRequest
from .sending import guide_body, posted, receipt, write

_LONGEST_TEXT = 350


def _template(name: str, *variables: str) -> dict[str, Any]:
    template = f"TEMPLATE___{name}___1"
    ids = [{"id": f"{template}___VAR___{variable}", "type": "NUMBER"} for variable in variables]
    return {"id": template, "vars": ids or None}


# As the documentation prints them: even the case of `type` varies within one answer.
_OPTIONS: list[dict[str, Any]] = [
    {"id": "REQUEST_VARIANTS", "type": "template", "templates": [_template("REQUEST_VARIANTS")]},
    {"id": "REQUEST_BILLING_INFO", "type": "template", "templates": [_template("REQUEST_BILLING_INFO")]},
    {"id": "SEND_INVOICE_LINK", "type": "free_text", "templates": None, "char_limit": _LONGEST_TEXT},
    {
        "id": "DELIVERY_PROMISE",
        "type": "TEMPLATE",
        "templates": [_template("DELIVERY_PROMISE", "INIT", "LIMIT")],
        "char_limit": None,
    },
    {"id": "OTHER", "type": "free_text", "templates": None, "char_limit": _LONGEST_TEXT},
]


def answer(account: Account, behaviour: Behaviour, request: ParsedRequest, thread: Thread) -> Answer:
    """Answer a question about the guide of a conversation, or the use of one of its options."""
    _check_guided(thread)

    def left(option_id: str) -> int:
        return max(behaviour.option_cap - account.used_options[thread.pack_id, option_id], 0)

    if request.kind == "caps":
        return _json([{"option_id": o["id"], "cap_available": left(o["id"])} for o in _OPTIONS])
    if request.kind == "reasons":
        common = {"internal_description": "x", "enabled": True, "actionable": True, "child_options": None}
        return _json({"options": [{**common, "cap_available": left(o["id"]), **o} for o in _OPTIONS]})
    body = posted(request)
    if not isinstance(body, dict):
        raise _refusal(400, "bad_request", "A JSON body is required")
    option, text = _chosen(body)
    if not left(option["id"]):
        raise _refusal(403, "bad_request", f"You are not allowed to execute the option {option['id']} again")
    account.used_options[thread.pack_id, option["id"]] += 1
    message = write(account, behaviour, thread, text, {"data": {"option_id": option["id"]}}, received=True)
    return receipt(account, behaviour, message, 200)


def _check_guided(thread: Thread) -> None:
    if thread.guide == "excepted":
        message = "This pack belongs to an excepted case, it is requested to use the messaging resource."
        raise _refusal(400, "bad_request", message, "blocked_by_excepted_case")
    if thread.guide is None:
        message = "The conversation is open, use /messages"
        raise _refusal(403, "forbidden", message, "blocked_by_conversation_use_message_api")


def _chosen(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the option that a body names, and the text that it makes."""
    option = next((option for option in _OPTIONS if option["id"] == body.get("option_id")), None)
    if option is None:
        raise _refusal(404, "not_found", "The option is not valid")
    if option["templates"] is not None:
        return option, _filled(option["templates"], body)
    text = body.get("text")
    if not isinstance(text, str) or not text:
        raise _refusal(400, "bad_request", "Text is required")
    if len(text) > _LONGEST_TEXT:
        raise _refusal(400, "limit_exceeded", f"The text has more than {_LONGEST_TEXT} characters")
    return option, text


def _filled(templates: list[dict[str, Any]], body: dict[str, Any]) -> str:
    template = next((template for template in templates if template["id"] == body.get("template_id")), None)
    if template is None:
        raise _refusal(400, "bad_request", "The template is not valid")
    given = {v.get("id"): v.get("value") for v in body.get("vars") or [] if isinstance(v, dict)}
    if given.keys() != {variable["id"] for variable in template["vars"] or []}:
        raise _refusal(400, "bad_request", "The variables are not valid")
    return " ".join([template["id"], *map(str, given.values())])


def _refusal(status: int, error: str, message: str, cause: str | None = None) -> Refused:
    return Refused(status, message, error, guide_body(status, error, message, cause))


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": JSON})

"""The sandbox's writing half: the documented answers and refusals, asked for without the client."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from mlmessages.testing import Behaviour, Message, Pack, Sandbox, virtual_run
from writes.shapes import BUYER, FIRST, SELLER, payload

SEND = f"/messages/packs/{FIRST}/sellers/{SELLER}?tag=post_sale"
GUIDE = f"/messages/action_guide/packs/{FIRST}"
BODY = {"from": {"user_id": SELLER}, "to": {"user_id": BUYER}, "text": "Hola"}
Ask = Callable[..., Awaitable[tuple[int, Any]]]


def asked(sandbox: Sandbox, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
    """The status and the JSON of one answer."""
    found: list[tuple[int, Any]] = []

    async def scenario() -> None:
        async with (
            sandbox.session() as session,
            session.request(
                method,
                sandbox.base_url + path,
                json=body,
                headers={"Authorization": f"Bearer {sandbox.token}"},
                **options,
            ) as answer,
        ):
            content = await answer.read()
            found.append((answer.status, json.loads(content) if content else None))

    virtual_run(scenario())
    return found[0]


def fits(mine: Any, documented: Any) -> bool:
    """The same keys everywhere, the same types where neither is null."""
    if mine is None or documented is None:
        return True
    if isinstance(mine, dict) and isinstance(documented, dict):
        return mine.keys() <= documented.keys() and all(fits(mine[key], documented[key]) for key in mine)
    if isinstance(mine, list) and isinstance(documented, list):
        return all(any(fits(item, other) for other in documented) for item in mine)
    return type(mine) is type(documented)


@pytest.mark.parametrize(
    ("behaviour", "name"),
    [
        (Behaviour(), "send_response_available"),
        (Behaviour(moderate=lambda text: "out_of_place_language"), "send_response_moderated"),
        (Behaviour(tells="minimal"), "send_response_minimal"),
    ],
)
def test_a_message_is_answered_as_documented(behaviour: Behaviour, name: str) -> None:
    """The keys and types of the samples."""
    status, answer = asked(Sandbox(1, behaviour=behaviour), "POST", SEND, BODY)
    assert status == 201
    assert answer.keys() == payload(name).keys()
    assert fits(answer, payload(name))


def test_the_action_guide_is_answered_as_documented() -> None:
    """The options, the bare array of caps, and what a used option leaves."""
    sandbox = Sandbox([Pack(messages=[], guide="limited")])
    status, options = asked(sandbox, "GET", GUIDE)
    documented = payload("action_guide_options")["options"]
    assert status == 200
    assert [option["id"] for option in options["options"]] == [option["id"] for option in documented]
    assert all(fits({k: v for k, v in mine.items()}, theirs) for mine, theirs in zip(options["options"], documented))
    assert asked(sandbox, "POST", f"{GUIDE}/option", payload("action_guide_request_delivery_promise"))[0] == 200
    status, caps = asked(sandbox, "GET", f"{GUIDE}/caps_available")
    assert status == 200
    assert {row["option_id"]: row["cap_available"] for row in caps} == {
        option["id"]: int(option["id"] != "DELIVERY_PROMISE") for option in documented
    }


@pytest.mark.parametrize(
    ("pack", "body", "name"),
    [
        (Pack(status="blocked", substatus="blocked_by_buyer"), BODY, "error_403_send_blocked_docs"),
        (Pack(), {**BODY, "text": "x" * 351}, "error_400_too_long"),
        (Pack(), {**BODY, "text": "…"}, "error_400_charset"),
        (Pack(), {**BODY, "attachments": ["gone"]}, "error_422_attachment_key"),
    ],
)
def test_a_refusal_is_the_documented_one(pack: Pack, body: object, name: str) -> None:
    """Status and body; nothing was written."""
    sandbox = Sandbox([pack])
    before = sandbox.message_ids()
    assert asked(sandbox, "POST", SEND, body) == (int(name.split("_")[1]), payload(name))
    assert sandbox.message_ids() == before


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (None, 400, "A JSON body is required"),
        ({**BODY, "from": None}, 400, "'from' required"),
        ({**BODY, "to": {}}, 400, "'to.user_id' required"),
        ({**BODY, "to": {"user_id": SELLER}}, 400, "must not be equals"),
        ({**BODY, "from": {"user_id": 5}}, 403, "Access denied for user 5"),
        ({**BODY, "to": {"user_id": 5}}, 400, "to_user_id 5 does not belong to pack"),
    ],
)
def test_who_writes_to_whom_is_checked(body: object, status: int, words: str) -> None:
    """As the documentation and integrators say."""
    found, answer = asked(Sandbox(1), "POST", SEND, body)
    assert found == status
    assert words in answer["message"]


def test_the_buyer_of_an_agents_conversation_receives_nothing() -> None:
    """Observed: a 2xx, and it is not delivered; to the agent it is delivered."""
    sandbox = Sandbox([Pack(agent_id=3037204279)])
    assert asked(sandbox, "POST", SEND, BODY)[0] == 201
    assert len(sandbox.undelivered()) == 1
    assert asked(sandbox, "POST", SEND, {**BODY, "to": {"user_id": 3037204279}})[0] == 201
    assert len(sandbox.undelivered()) == 1
    _, page = asked(sandbox, "GET", SEND + "&mark_as_read=false")
    assert "/conversations/" in page["conversation_status"]["path"]
    assert {m["from"]["user_id"] for m in page["messages"]} == {3037204279, int(SELLER)}


def test_global_selling_needs_a_text_and_nobody_to_send_it_to() -> None:
    """`Text is required`, as its page prints; from and to are not looked at."""
    path = f"/marketplace/messages/packs/{FIRST}"
    assert asked(Sandbox(1), "POST", path, {"text": "…"})[0] == 201
    assert asked(Sandbox(1), "POST", path, {"text": ""})[1]["message"] == "Text is required"


def test_a_conversation_that_the_seller_may_not_begin() -> None:
    """Blocked until the buyer writes; then the guide points to plain messages."""
    sandbox = Sandbox([Pack(messages=[], guide="limited")])
    status, answer = asked(sandbox, "POST", SEND, BODY)
    assert (status, answer["cause"]) == (403, "blocked_by_conversation_initiated_by_seller_limited")
    sandbox.send(FIRST, "Hola")
    assert asked(sandbox, "POST", SEND, BODY)[0] == 201
    status, answer = asked(sandbox, "GET", GUIDE)
    assert (status, answer["cause"]) == (403, "blocked_by_conversation_use_message_api")


def test_the_guides_refusals() -> None:
    """The excepted case and the used cap are the documented bodies; wrong options, texts and templates are refused."""
    excepted = Sandbox([Pack(guide="excepted")])
    assert asked(excepted, "POST", f"{GUIDE}/option", {}) == (400, payload("error_400_action_guide_excepted"))
    sandbox = Sandbox([Pack(messages=[], guide="limited")])
    option = f"{GUIDE}/option"
    assert asked(sandbox, "POST", option, {"option_id": "NONE"})[0] == 404
    assert asked(sandbox, "POST", option, {"option_id": "OTHER"})[0] == 400
    assert asked(sandbox, "POST", option, {"option_id": "OTHER", "text": "x" * 351})[1]["error"] == "limit_exceeded"
    assert asked(sandbox, "POST", option, {"option_id": "DELIVERY_PROMISE", "template_id": "X"})[0] == 400
    promise = {**payload("action_guide_request_delivery_promise"), "vars": []}
    assert asked(sandbox, "POST", option, promise)[0] == 400
    assert asked(sandbox, "POST", option, payload("action_guide_request_other"))[0] == 200
    assert asked(sandbox, "POST", option, payload("action_guide_request_other")) == (
        403,
        payload("error_403_action_guide_cap"),
    )


def form(name: str = "a.pdf", content: bytes = b"x", content_type: str = "application/pdf") -> aiohttp.FormData:
    """A form as aiohttp makes it, which the sandbox must read too."""
    made = aiohttp.FormData()
    made.add_field("file", io.BytesIO(content), filename=name, content_type=content_type)
    return made


def test_files_are_checked_as_documented() -> None:
    """The site, the form, the type and the size; a missing file is a 500."""
    sandbox = Sandbox(1)
    path = "/messages/attachments?tag=post_sale"
    status, answer = asked(sandbox, "POST", path + "&site_id=MLM", data=form(content=b"\r\n--x\r\n"))
    assert status == 201
    assert answer.keys() == payload("attachment_upload_response").keys()
    assert sandbox.content_of(answer["id"]) == b"\r\n--x\r\n"
    assert asked(sandbox, "POST", path, data=form())[1]["message"] == "The queryparam 'site_id' is required"
    assert "not a recognized site" in asked(sandbox, "POST", path + "&site_id=CBT", data=form())[1]["message"]
    assert asked(sandbox, "POST", path + "&site_id=MLM", {"file": "x"})[0] == 400
    assert asked(sandbox, "POST", path + "&site_id=MLM", data=form(content_type="text/html"))[0] == 400
    large = form(content=bytes(25 * 1024 * 1024 + 1))
    assert asked(sandbox, "POST", path + "&site_id=MLM", data=large)[0] == 400
    assert asked(sandbox, "GET", "/messages/attachments/none?tag=post_sale&site_id=MLM") == (
        500,
        payload("error_500_attachment_error_null"),
    )
    assert asked(sandbox, "GET", "/marketplace/messages/attachments/none?tag=post_sale")[0] == 400


def test_what_was_sent_is_read() -> None:
    """A message of the seller's is in the conversation, is not unread, and was logged with its body."""
    sandbox = Sandbox([Pack(messages=[Message(read=True)])])
    asked(sandbox, "POST", SEND, BODY)
    _, page = asked(sandbox, "GET", SEND + "&mark_as_read=false")
    assert [message["text"] for message in page["messages"]] == ["Hola", "Test message"]
    assert page["messages"][0]["from"]["user_id"] == int(SELLER)
    assert sandbox.unread == 0
    assert sandbox.log[0].body == BODY
    assert (sandbox.log[0].kind, sandbox.log[0].executed, sandbox.count("send")) == ("send", True, 1)

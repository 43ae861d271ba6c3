"""`client.contact_reasons` and `start_conversation`: the action guide."""

from __future__ import annotations

from typing import Any

import pytest

from mlmessages.errors import AnswerLost, APIError, BadRequest, Conflict, DecodeError, Forbidden
from mlmessages.models import Reasons
from mlmessages.testing import DROP, EXECUTE, Behaviour, Message, Pack, Reply, Sandbox, Send, on
from worlds import client_of, on_virtual_clock
from writes.shapes import BUYER, FIRST, executed, payload, posts

FAMILIES = pytest.mark.parametrize("api", ["marketplace", "domestic"])
PREFIX = {"marketplace": "/marketplace", "domestic": ""}
LOCK = {"cause": None, "error": "conflict", "message": "conflict lock", "status_code": 409}


def limited(**options: Any) -> Sandbox:
    """A sale on which the seller may write through the action guide alone."""
    return Sandbox([Pack(messages=[], guide="limited")], **options)


# -- the reasons -------------------------------------------------------------------------------------------------------


@FAMILIES
@on_virtual_clock
async def test_every_field_of_the_documented_options(api: str) -> None:
    """Types in one case, absent and null limits, templates with variables and wordings; one request."""
    sandbox = limited(rules=[on("reasons").do(Reply(200, payload("action_guide_options")))])
    async with client_of(sandbox, api=api) as client:
        reasons = await client.contact_reasons(FIRST)
    [entry] = sandbox.log
    assert (entry.path, dict(entry.query)) == (
        f"{PREFIX[api]}/messages/action_guide/packs/{FIRST}",
        {"tag": "post_sale"},
    )
    assert reasons.pack_id == str(FIRST)
    assert [(o.id, o.type, o.char_limit, o.cap_available, o.free_text) for o in reasons.options] == [
        ("REQUEST_VARIANTS", "template", None, 1, False),
        ("REQUEST_BILLING_INFO", "template", None, 1, False),
        ("SEND_INVOICE_LINK", "free_text", 350, 1, True),
        ("DELIVERY_PROMISE", "template", None, 1, False),
        ("OTHER", "free_text", 350, 1, True),
    ]
    assert all(o.enabled and o.actionable and o.usable and o.children == () for o in reasons.options)
    [template] = reasons.options[3].templates
    assert template.id == "TEMPLATE___DELIVERY_PROMISE___1"
    assert [(v.id[-4:], v.type) for v in template.variables] == [("INIT", "number"), ("IMIT", "number")]
    assert dict(template.texts) == {"MLA": "Entregaremos %s entre %d y %d", "MLB": "Entregaremos %s entre %d e %d"}
    assert reasons.option("OTHER") is reasons.options[4]
    assert reasons.option("other") is None
    assert not reasons.plain_send


@FAMILIES
@on_virtual_clock
async def test_caps_are_asked_for_where_the_options_do_not_tell(api: str) -> None:
    """A second request, a bare array; what it does not name stays unknown."""
    options = payload("action_guide_options")
    for option in options["options"]:
        del option["cap_available"]
    rules = [
        on("reasons").do(Reply(200, options)),
        on("caps").do(Reply(200, payload("action_guide_caps_available"))),
    ]
    sandbox = limited(rules=rules)
    async with client_of(sandbox, api=api) as client:
        reasons = await client.contact_reasons(FIRST)
    assert sandbox.log[1].path == f"{PREFIX[api]}/messages/action_guide/packs/{FIRST}/caps_available"
    assert [o.cap_available for o in reasons.options] == [20, 20, None, None, 1]


@pytest.mark.parametrize("answer", [Reply(404), Reply(403), Reply(200, {"caps": 1}), Reply(200, "nonsense")], ids=repr)
@on_virtual_clock
async def test_without_caps_the_options_are_still_there(answer: Reply) -> None:
    """Where a family does not have that path (it is documented for one alone), the options come without caps."""
    options = {"options": [{"id": "OTHER", "type": "FREE_TEXT"}]}
    sandbox = limited(rules=[on("reasons").do(Reply(200, options)), on("caps").do(answer)])
    async with client_of(sandbox) as client:
        [option] = (await client.contact_reasons(FIRST)).options
    assert (option.id, option.free_text, option.cap_available, option.usable) == ("OTHER", True, None, True)


@on_virtual_clock
async def test_a_used_up_option_is_not_usable() -> None:
    """Its cap is 0 after it was used as often as it may be."""
    sandbox = limited()
    async with client_of(sandbox) as client:
        await client.start_conversation(FIRST, "OTHER", text="Hola")
        reasons = await client.contact_reasons(FIRST)
    other = reasons.option("OTHER")
    assert other is not None
    assert (other.cap_available, other.usable) == (0, False)
    assert "OTHER" not in [option.id for option in reasons.usable]
    assert len(reasons.usable) == 4


@pytest.mark.parametrize("pack", [Pack(guide="excepted"), Pack()], ids=["an exception", "the buyer has written"])
@FAMILIES
@on_virtual_clock
async def test_where_the_guide_is_not_for_a_pack_plain_messages_are(api: str, pack: Pack) -> None:
    """Not a failure: no options, and `plain_send`."""
    async with client_of(Sandbox([pack]), api=api) as client:
        assert await client.contact_reasons(FIRST) == Reasons(str(FIRST), (), plain_send=True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"options": None},
        {"options": [{"type": "free_text"}]},
        {"options": ["OTHER"]},
        {"options": [{"id": "A", "templates": [{}]}]},
        {"options": [{"id": "A", "templates": [{"id": "T", "vars": [7]}]}]},
        [],
        "nonsense",
    ],
    ids=repr,
)
@on_virtual_clock
async def test_options_that_cannot_be_read(body: object) -> None:
    """Without its options or an option's id an answer is a `DecodeError`, never an empty guide."""
    async with client_of(limited(rules=[on("reasons").do(Reply(200, body))])) as client:
        with pytest.raises(DecodeError):
            await client.contact_reasons(FIRST)


@on_virtual_clock
async def test_fields_of_other_types_are_unknown() -> None:
    """A number as a text is read; what is no number, flag or text is None; options within options are kept."""
    odd = {"id": 7, "type": 5, "enabled": "yes", "char_limit": "350", "cap_available": [], "templates": {}}
    inner = {"id": "CHILD", "child_options": [{"id": "GRANDCHILD"}]}
    options = {"options": [{**odd, "child_options": [inner]}]}
    async with client_of(limited(rules=[on("reasons").do(Reply(200, options))])) as client:
        [option] = (await client.contact_reasons(FIRST)).options
    assert (option.id, option.type, option.enabled, option.char_limit, option.cap_available) == (
        *("7", None, None, 350),
        None,
    )
    assert [child.id for child in option.children] == ["CHILD"]
    assert [child.id for child in option.children[0].children] == ["GRANDCHILD"]


@on_virtual_clock
async def test_options_nested_without_end_are_cut() -> None:
    """A hundred levels are no crash."""
    option: dict[str, Any] = {"id": "X"}
    for _ in range(100):
        option = {"id": "X", "child_options": [option]}
    async with client_of(limited(rules=[on("reasons").do(Reply(200, {"options": [option]}))])) as client:
        assert (await client.contact_reasons(FIRST)).options[0].id == "X"


# -- starting ----------------------------------------------------------------------------------------------------------

PROMISE = "TEMPLATE___DELIVERY_PROMISE___1"
STARTS: dict[str, tuple[dict[str, Any], str]] = {
    "a text": ({"option_id": "OTHER", "text": "Hola"}, "action_guide_request_other"),
    "a template": (
        {"option_id": "REQUEST_BILLING_INFO", "template_id": "TEMPLATE___REQUEST_BILLING_INFO___1"},
        "action_guide_request_template",
    ),
    "a template with variables": (
        {
            "option_id": "DELIVERY_PROMISE",
            "template_id": PROMISE,
            "variables": {f"{PROMISE}___VAR___INIT": 12, f"{PROMISE}___VAR___LIMIT": 23},
        },
        "action_guide_request_delivery_promise",
    ),
}


@pytest.mark.parametrize(("arguments", "body"), STARTS.values(), ids=STARTS)
@FAMILIES
@on_virtual_clock
async def test_the_bodies_are_the_documented_ones(api: str, arguments: dict[str, Any], body: str) -> None:
    """One POST to the guide's `option`, and the message that it made."""
    sandbox = limited()
    async with client_of(sandbox, api=api) as client:
        sent = await client.start_conversation(FIRST, **arguments)
    [post] = posts(sandbox)
    assert (post.path, dict(post.query)) == (
        f"{PREFIX[api]}/messages/action_guide/packs/{FIRST}/option",
        {"tag": "post_sale"},
    )
    assert post.body == payload(body)
    assert sandbox.message_ids() == {sent.id}
    assert (sent.pack_id, sent.status) == (str(FIRST), "available")


WRONG: dict[str, dict[str, Any]] = {
    "neither text nor template": {},
    "text and template": {"text": "Hola", "template_id": "T"},
    "variables without a template": {"text": "Hola", "variables": {"a": 1}},
    "a list of variables": {"template_id": "T", "variables": ["a"]},
    "no words": {"text": " "},
    "no text": {"text": 5},
    "no option": {"option_id": "", "text": "Hola"},
    "an option that is none": {"option_id": 7, "text": "Hola"},
    "an option with a line break": {"option_id": "A\n", "text": "Hola"},
    "an empty template": {"template_id": ""},
    "a true variable": {"template_id": "T", "variables": {"a": True}},
    "an endless variable": {"template_id": "T", "variables": {"a": float("inf")}},
    "no variable": {"template_id": "T", "variables": {"a": None}},
    "an unnamed variable": {"template_id": "T", "variables": {"": 1}},
    "a wrong pack": {"pack_id": "x", "text": "Hola"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@on_virtual_clock
async def test_wrong_arguments_are_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    """A `ValueError`, and nothing on the wire."""
    sandbox = limited()
    async with client_of(sandbox) as client:
        with pytest.raises(ValueError):
            await client.start_conversation(**{"pack_id": FIRST, "option_id": "OTHER", **wrong})
    assert sandbox.log == []


@pytest.mark.parametrize("told", [350, None, 500])
@on_virtual_clock
async def test_a_text_is_as_long_as_the_option_allows(told: int | None) -> None:
    """350 where the guide does not say; a longer text is compared with the guide, and refused before it is sent."""
    options = {"options": [{"id": "OTHER", "char_limit": told, "cap_available": 1}]}
    rules = [on("reasons").do(Reply(200, options)), on("option").do(Reply(200, {"id": "a"}))]
    sandbox = limited(rules=rules)
    async with client_of(sandbox) as client:
        await client.start_conversation(FIRST, "OTHER", text="x" * (told or 350))
        with pytest.raises(ValueError, match=f"at most {told or 350}"):
            await client.start_conversation(FIRST, "OTHER", text="x" * ((told or 350) + 1))
    assert len(posts(sandbox)) == 1


@on_virtual_clock
async def test_a_short_text_needs_no_guide() -> None:
    """One look at the conversation, one POST."""
    sandbox = limited()
    async with client_of(sandbox) as client:
        await client.start_conversation(FIRST, "OTHER", text="x" * 350)
    assert [entry.kind for entry in sandbox.log] == ["peek", "option"]


@on_virtual_clock
async def test_characters_that_domestic_sites_refuse_are_named_here_too() -> None:
    """As for `send`."""
    async with client_of(limited(), api="domestic") as client:
        with pytest.raises(ValueError, match="U\\+2026 HORIZONTAL ELLIPSIS"):
            await client.start_conversation(FIRST, "OTHER", text="Hola…")


@pytest.mark.parametrize("status", [403, 404])
@on_virtual_clock
async def test_a_conversation_that_cannot_be_read_yet_can_be_started(status: int) -> None:
    """Some servers refuse to show a conversation without messages."""
    sandbox = limited(rules=[on("peek").do(Reply(status))])
    async with client_of(sandbox) as client:
        sent = await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert sandbox.message_ids() == {sent.id}


# -- what the server says ----------------------------------------------------------------------------------------------


@FAMILIES
@on_virtual_clock
async def test_a_lock_is_waited_for(api: str) -> None:
    """409: another option on the same sale; it was not executed, and is sent again, with growing pauses."""
    sandbox = limited(rules=[on("option", times=3).do(Reply(409, LOCK))])
    async with client_of(sandbox, api=api) as client:
        await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert (len(posts(sandbox)), executed(sandbox)) == (4, 1)
    at = [post.at for post in posts(sandbox)]
    assert all(later - earlier >= 0.5 * 2**n for n, (earlier, later) in enumerate(zip(at, at[1:], strict=False)))


@on_virtual_clock
async def test_a_lock_that_stays_is_told() -> None:
    """Six attempts, then `Conflict`."""
    sandbox = limited(rules=[on("option").do(Reply(409, LOCK))])
    async with client_of(sandbox) as client:
        with pytest.raises(Conflict):
            await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert (len(posts(sandbox)), executed(sandbox)) == (6, 0)


@on_virtual_clock
async def test_a_conflict_of_a_plain_message_is_final() -> None:
    """No lock is documented for it: one POST."""
    sandbox = Sandbox(1, rules=[on("send").do(Reply(409, LOCK))])
    async with client_of(sandbox) as client:
        with pytest.raises(Conflict):
            await client.send(FIRST, "Hola")
    assert len(posts(sandbox)) == 1


@pytest.mark.parametrize(
    "pack",
    [Pack(guide="excepted"), Pack(messages=1)],
    ids=["an exception", "the buyer has written"],
)
@FAMILIES
@on_virtual_clock
async def test_an_excepted_pack_gets_a_plain_message(api: str, pack: Pack) -> None:
    """The refusal proves that nothing was sent and asks for a plain message: the text goes out as one, once."""
    sandbox = Sandbox([pack])
    async with client_of(sandbox, api=api) as client:
        sent = await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert [(entry.kind, entry.executed) for entry in posts(sandbox)] == [("option", False), ("send", True)]
    assert sent.text == "Hola"
    if api == "domestic":
        assert posts(sandbox)[1].body["to"] == {"user_id": BUYER}  # type: ignore[index]


@on_virtual_clock
async def test_the_recipient_of_an_excepted_pack_is_found_further_back() -> None:
    """The buyer's message is on the second page: it is read before the plain message goes out."""
    ours = [Message("Hello", sender="seller", read=True) for _ in range(60)]
    sandbox = Sandbox([Pack(messages=[Message(), *ours], guide="excepted")])
    async with client_of(sandbox, api="domestic") as client:
        await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert posts(sandbox)[1].body["to"] == {"user_id": BUYER}  # type: ignore[index]


@on_virtual_clock
async def test_a_template_cannot_be_a_plain_message() -> None:
    """The documented 400 is raised, with what to do."""
    sandbox = Sandbox([Pack(guide="excepted")])
    async with client_of(sandbox) as client:
        with pytest.raises(BadRequest) as refused:
            await client.start_conversation(
                FIRST, "REQUEST_BILLING_INFO", template_id="TEMPLATE___REQUEST_BILLING_INFO___1"
            )
    assert refused.value.code == "blocked_by_excepted_case"
    assert "`send`" in (refused.value.hint or "")


REFUSALS: dict[str, tuple[int, object, str]] = {
    "used up": (403, payload("error_403_action_guide_cap"), "used this option up"),
    "no such option": (404, {"error": "not_found", "message": "The option is not valid", "status_code": 404}, ""),
    "too long": (400, {"error": "limit_exceeded", "message": "limit", "status_code": 400}, "Shorten"),
    "another's": (403, payload("error_403_pack_not_yours"), "not this seller's"),
    "blocked": (403, {"error": "forbidden", "message": "conversation blocked", "status_code": 403}, "blocked_reason"),
    "wrong template": (400, {"error": "bad_request", "message": "template invalid", "status_code": 400}, ""),
    "closed account": (451, {"message": "user deactivated", "status_code": 451}, "closed the account"),
    "a date in the past": (500, payload("error_500_delivery_promise"), "in the past"),
    "a date in the past, as a 400": (400, payload("error_500_delivery_promise"), ""),
}


@pytest.mark.parametrize(("status", "body", "hint"), REFUSALS.values(), ids=REFUSALS)
@FAMILIES
@on_virtual_clock
async def test_every_documented_refusal(api: str, status: int, body: object, hint: str) -> None:
    """It is raised with its status and what to do; one POST, and nothing is looked for."""
    sandbox = limited(rules=[on("option").do(Reply(status, body))])
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(APIError) as refused:
            await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert refused.value.status == status
    assert hint in (refused.value.hint or "")
    assert [entry.kind for entry in sandbox.log] == ["peek", "option"]


@on_virtual_clock
async def test_the_cap_is_the_servers() -> None:
    """A second OTHER on the same sale is refused by the sandbox as documented."""
    sandbox = limited(behaviour=Behaviour(option_cap=1))
    async with client_of(sandbox) as client:
        await client.start_conversation(FIRST, "OTHER", text="Hola")
        with pytest.raises(Forbidden, match="execute the option OTHER again"):
            await client.start_conversation(FIRST, "OTHER", text="Hola")


@pytest.mark.parametrize("ending", [DROP, Reply(500), Reply(503)], ids=repr)
@pytest.mark.parametrize(("arguments", "body"), STARTS.values(), ids=STARTS)
@on_virtual_clock
async def test_a_lost_answer_is_looked_for(ending: Any, arguments: dict[str, Any], body: str) -> None:
    """Executed: found by its text or its option. Not executed: `AnswerLost`. One POST in either case."""
    sandbox = limited(rules=[on("option").do(EXECUTE, ending)])
    async with client_of(sandbox) as client:
        sent = await client.start_conversation(FIRST, **arguments)
    assert [post.ids for post in posts(sandbox)] == [(sent.id,)]
    sandbox = limited(rules=[on("option").do(ending)])
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost, match="may or may not have been sent"):
            await client.start_conversation(FIRST, **arguments)
    assert len(posts(sandbox)) == 1


@on_virtual_clock
async def test_a_template_is_not_found_by_somebody_elses_words() -> None:
    """What a template says is not known here: a colleague's message of the same moment is not taken for it."""
    sandbox = limited(rules=[on("option").do(Send(text="Hola", sender="seller"), DROP)])
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.start_conversation(FIRST, **STARTS["a template"][0])


@on_virtual_clock
async def test_another_options_message_is_not_ours() -> None:
    """The same text by another option, which a colleague used: not adopted."""
    theirs = {"id": "x", "from": {"user_id": 700100200}, "text": "Hola", "data": {"option_id": "SEND_INVOICE_LINK"}}
    shown = Reply(200, {"messages": [theirs]})
    sandbox = limited(rules=[on("option").do(DROP), on("peek", nth=range(2, 99)).do(shown)])
    async with client_of(sandbox) as client:
        with pytest.raises(AnswerLost):
            await client.start_conversation(FIRST, "OTHER", text="Hola")


@on_virtual_clock
async def test_a_rejection_by_moderation_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The documented answer of a message that moderation rejected: returned, and a warning."""
    sandbox = limited(rules=[on("option").do(Reply(200, payload("send_response_moderated")))])
    async with client_of(sandbox) as client:
        sent = await client.start_conversation(FIRST, "OTHER", text="Hola")
    assert sent.status == "moderated"
    assert [record.levelname for record in caplog.records] == ["WARNING"]

"""`client.send`: a reply, to the right one, within the limits that the server has."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from attrs import evolve

from cases import case
from mlmessages import Routes
from mlmessages.errors import APIError, BadRequest, Forbidden, NotFound
from mlmessages.models import Attachment
from mlmessages.testing import EXECUTE, Behaviour, Delay, Message, Pack, Reply, Sandbox, on
from worlds import client_of, on_virtual_clock
from writes.shapes import BUYER, FIRST, PAYLOADS, SELLER, executed, payload, posts

FAMILIES = pytest.mark.parametrize("api", ["marketplace", "domestic"])
AGENT = 3037204279  # of MLM
LATIN = "¡Hola! Ça va? äöüß ñ\n\tÿ"


def seller_says(text: str = "Hello") -> Message:
    return Message(text, sender="seller", read=True)


# -- on the wire -------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_the_body_of_a_domestic_site() -> None:
    """From and to, as the documentation prints them; `attachments` is left out when there are none."""
    file = payload("send_request_local")["attachments"][0]
    sandbox = Sandbox([Pack(buyer_id=800300400)], rules=[on("send").do(Reply(201, payload("send_response_available")))])
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hola! Tu paquete fue despachado.", attachments=[file])
        await client.send(str(FIRST), "Hola! Tu paquete fue despachado.")
    first, second = posts(sandbox)
    assert (first.path, dict(first.query)) == (f"/messages/packs/{FIRST}/sellers/{SELLER}", {"tag": "post_sale"})
    assert first.body == payload("send_request_local")
    assert second.body == {key: first.body[key] for key in ("from", "to", "text")}  # type: ignore[index]


@on_virtual_clock
async def test_the_body_of_global_selling() -> None:
    """No from, no to, no seller in the path."""
    sample = payload("send_request_marketplace")
    sandbox = Sandbox(1, rules=[on("send").do(Reply(201, payload("send_response_available")))])
    async with client_of(sandbox) as client:
        await client.send(FIRST, sample["text"], attachments=sample["attachments"])
    [post] = posts(sandbox)
    assert (post.path, dict(post.query)) == (f"/marketplace/messages/packs/{FIRST}", {})
    assert post.body == {"text": sample["text"], "attachments": sample["attachments"]}


@pytest.mark.parametrize(
    ("routes", "path", "keys"),
    [
        (evolve(Routes.DOMESTIC, unread=Routes.MARKETPLACE.unread), f"/messages/packs/{FIRST}/sellers/{SELLER}", 3),
        (
            evolve(Routes.MARKETPLACE, pack="/marketplace/messages/packs/{pack}/sellers/{seller}"),
            f"/marketplace/messages/packs/{FIRST}/sellers/{SELLER}",
            1,
        ),
        (
            evolve(Routes.MARKETPLACE, action_guide=Routes.DOMESTIC.action_guide),
            f"/messages/packs/{FIRST}/sellers/{SELLER}",
            3,
        ),
    ],
    ids=["domestic, other listing", "marketplace, other pack", "marketplace, domestic guide"],
)
@on_virtual_clock
async def test_the_paths_of_ones_own_decide(routes: Routes, path: str, keys: int) -> None:
    """A message is posted to the pack's path of the family that the action guide's path names, with its body."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api=routes) as client:
        await client.send(FIRST, "Hi")
    assert posts(sandbox)[0].path == path
    assert len(posts(sandbox)[0].body) == keys  # type: ignore[arg-type]


@FAMILIES
@on_virtual_clock
async def test_sending_marks_nothing(api: str) -> None:
    """The conversation is read before, as unread as it was; one GET and one POST in all."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api=api) as client:
        sent = await client.send(FIRST, "Hi")
    assert [entry.kind for entry in sandbox.log] == ["peek", "send"]
    assert sandbox.unread == 1
    assert sent.id in sandbox.message_ids()
    assert sent.is_from(SELLER)
    assert (sent.text, sent.pack_id, sent.status) == ("Hi", str(FIRST), "available")


@pytest.mark.parametrize("name", sorted(path.stem for path in PAYLOADS.glob("send_response_*.json")))
@pytest.mark.parametrize("status", [200, 201])
@on_virtual_clock
async def test_every_answer_that_was_seen(name: str, status: int) -> None:
    """Each becomes a message with its id, status and date, from the seller, in this pack; `raw` is as it came."""
    body = payload(name)
    sandbox = Sandbox(1, rules=[on("send").do(Reply(status, body))])
    async with client_of(sandbox) as client:
        sent = await client.send(FIRST, "Hi")
    assert (sent.id, sent.status) == (body.get("id") or body["message_id"], body["status"])
    assert sent.created is not None
    assert (sent.is_from(SELLER), sent.pack_id, sent.raw, sent.problems) == (True, str(FIRST), body, ())
    assert len(sandbox.log) == 2


# -- to whom -----------------------------------------------------------------------------------------------------------


@on_virtual_clock
async def test_the_newest_counterparty_message_names_the_recipient() -> None:
    """The user who wrote last on the other side gets the reply: the agent, once it has taken over."""
    old = Message("buyer", overrides={"from": {"user_id": int(BUYER)}})
    sandbox = Sandbox([Pack(messages=[old, Message("agent"), seller_says()], agent_id=AGENT)])
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hi")
    assert posts(sandbox)[0].body["to"] == {"user_id": str(AGENT)}  # type: ignore[index]
    assert sandbox.undelivered() == set()


@pytest.mark.parametrize("order", ["newest", "oldest"])
@on_virtual_clock
async def test_the_recipient_is_found_beyond_the_first_page(order: str) -> None:
    """Sixty messages of the seller's on top: the pages below are read, whatever the server's order."""
    messages = [Message("Is it red?"), *(seller_says() for _ in range(60))]
    sandbox = Sandbox([Pack(messages=messages)], behaviour=Behaviour(order=order))  # type: ignore[arg-type]
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hi")
    assert posts(sandbox)[0].body["to"] == {"user_id": BUYER}  # type: ignore[index]
    assert sandbox.count("mark") == 0


@on_virtual_clock
async def test_on_an_oldest_first_server_the_newest_writer_is_on_the_last_page() -> None:
    """The first page shows the buyer, the last one the agent: the agent gets the reply."""
    old = Message("buyer", overrides={"from": {"user_id": int(BUYER)}})
    messages = [old, *(seller_says() for _ in range(80)), Message("agent")]
    sandbox = Sandbox([Pack(messages=messages, agent_id=AGENT)], behaviour=Behaviour(order="oldest"))
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hi")
    assert posts(sandbox)[0].body["to"] == {"user_id": str(AGENT)}  # type: ignore[index]


@pytest.mark.parametrize(
    ("site", "agent"),
    [
        ("MLC", 3020819166),
        ("MCO", 3037204123),
        ("MLM", 3037204279),
        ("MLA", 3037674934),
        ("MLB", 3037675074),
        ("MLU", 3037204685),
        ("MPE", 3037204685),
    ],
)
@on_virtual_clock
async def test_an_agent_who_has_not_written_is_the_sites(site: str, agent: int) -> None:
    """In an agent's conversation with nothing but our own messages, the reply goes to the site's documented agent."""
    sandbox = Sandbox([Pack(messages=[seller_says()], agent_id=agent, site_id=site)])
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hi")
    assert posts(sandbox)[0].body["to"] == {"user_id": str(agent)}  # type: ignore[index]
    assert sandbox.undelivered() == set()


@on_virtual_clock
async def test_a_truncated_page_of_an_agents_conversation_is_enough() -> None:
    """The first page shows the seller alone, and the path an agent: no further page is read."""
    sandbox = Sandbox([Pack(messages=[Message(), *(seller_says() for _ in range(70))], agent_id=AGENT)])
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hi")
    assert sandbox.count("peek") == 1
    assert posts(sandbox)[0].body["to"] == {"user_id": str(AGENT)}  # type: ignore[index]


@pytest.mark.parametrize(
    "pack",
    [Pack(messages=[seller_says()]), Pack(messages=[]), Pack(messages=[], agent_id=AGENT)],
    ids=["our own", "empty", "an agent's of an unknown site"],
)
@on_virtual_clock
async def test_without_a_counterparty_it_is_refused(pack: Pack) -> None:
    """There is no recipient: a clear error that says what to do, and no POST."""
    sandbox = Sandbox([pack])
    async with client_of(sandbox, api="domestic") as client:
        with pytest.raises(BadRequest, match="a reply has no recipient") as refused:
            await client.send(FIRST, "Hi")
    assert "`to`" in (refused.value.hint or "")
    assert posts(sandbox) == []


@on_virtual_clock
async def test_a_named_recipient_is_taken() -> None:
    """`to` as an int or a string; no page beyond the first is read for it."""
    sandbox = Sandbox([Pack(messages=[seller_says() for _ in range(60)])])
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, "Hi", to=int(BUYER))
        await client.send(FIRST, "Hi", to=BUYER)
    assert [post.body["to"] for post in posts(sandbox)] == [{"user_id": BUYER}] * 2  # type: ignore[index]
    assert [entry.kind for entry in sandbox.log] == ["peek", "send"] * 2


@on_virtual_clock
async def test_where_the_server_addresses_a_wrong_recipient_is_noticed() -> None:
    """Global Selling's requests name no recipient: `to` is compared with who is in the conversation, and not sent."""
    sandbox = Sandbox(1)
    async with client_of(sandbox) as client:
        await client.send(FIRST, "Hi", to=BUYER)
        with pytest.raises(ValueError, match="not of this conversation"):
            await client.send(FIRST, "Hi", to=5)
    assert [post.body for post in posts(sandbox)] == [{"text": "Hi"}]


@on_virtual_clock
async def test_a_conversation_that_cannot_be_read_can_be_written_in_if_it_is_known_to_whom() -> None:
    """Some servers answer 404 to a conversation without messages: with `to` the message goes out, else the 404 is
    raised.
    """
    refusal = on("peek").do(Reply(404, payload("error_404_order")))
    sandbox = Sandbox(1, rules=[refusal])
    async with client_of(sandbox, api="domestic") as client:
        with pytest.raises(NotFound):
            await client.send(FIRST, "Hi")
        assert posts(sandbox) == []
        assert (await client.send(FIRST, "Hi", to=BUYER)).text == "Hi"


# -- what a text may be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [350, 3500])
@FAMILIES
@on_virtual_clock
async def test_the_longest_text_is_what_the_conversation_says(api: str, longest: int) -> None:
    """One more character is refused before it is sent, and the error says how they are counted."""
    sandbox = Sandbox(1, behaviour=Behaviour(longest_reply=longest))
    async with client_of(sandbox, api=api) as client:
        await client.send(FIRST, "é" * longest)
        with pytest.raises(ValueError, match=f"{longest + 1} characters .Unicode code points.*at most {longest}"):
            await client.send(FIRST, "é" * (longest + 1))
    assert executed(sandbox) == 1
    assert len(posts(sandbox)) == 1


@pytest.mark.parametrize(("api", "sent"), [("domestic", False), ("marketplace", True)])
@on_virtual_clock
async def test_where_no_limit_is_told(api: str, sent: bool) -> None:
    """A domestic site has 350, as documented; Global Selling documents none."""
    sandbox = Sandbox(
        1, behaviour=Behaviour(shape="pending", longest_reply=10_000), rules=[on("send").do(Reply(201, {"id": "a"}))]
    )
    async with client_of(sandbox, api=api) as client:
        await client.send(FIRST, "x" * 350)
        if sent:
            await client.send(FIRST, "x" * 351)
        else:
            with pytest.raises(ValueError, match="at most 350"):
                await client.send(FIRST, "x" * 351)
    assert len(posts(sandbox)) == 1 + sent


@pytest.mark.parametrize("text", [LATIN, "ok 👍🏽", "❤️ 😀", "1️⃣"], ids=ascii)
@on_virtual_clock
async def test_latin_and_what_may_be_an_emoji_goes_out(text: str) -> None:
    """ISO-8859-1 as it stands; an emoji is for the server to judge."""
    sandbox = Sandbox(1, rules=[on("send").do(Reply(201, {"id": "a"}))])
    async with client_of(sandbox, api="domestic") as client:
        await client.send(FIRST, text)
    assert posts(sandbox)[0].body["text"] == text  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("secret — words", ["U+2014 EM DASH"]),
        ("secret “a”…", ["U+201C LEFT DOUBLE QUOTATION MARK", "U+201D", "U+2026 HORIZONTAL ELLIPSIS"]),
        ("secret 5 €", ["U+20AC EURO SIGN"]),
        ("secret 中", ["U+4E2D"]),
        ("secret \ue000", ["U+E000 without a name"]),
    ],
    ids=ascii,
)
@on_virtual_clock
async def test_characters_that_domestic_sites_refuse_are_named(text: str, named: list[str]) -> None:
    """By code point and name, before anything is sent, and without the text around them; Global Selling takes them."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api="domestic") as client:
        with pytest.raises(ValueError, match="ISO-8859-1") as refused:
            await client.send(FIRST, text)
    assert sandbox.log == []
    assert all(name in str(refused.value) for name in named)
    assert "secret" not in str(refused.value)
    async with client_of(sandbox) as client:
        assert (await client.send(FIRST, text)).text == text


@on_virtual_clock
async def test_only_the_first_of_many_wrong_characters_are_named() -> None:
    """Ten, each once, and how many more there are."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api="domestic") as client:
        with pytest.raises(ValueError, match="and 15 more") as refused:
            await client.send(FIRST, "".join(map(chr, range(0x4E00, 0x4E19))) * 2)
    assert str(refused.value).count("U+") == 10


WRONG: dict[str, dict[str, Any]] = {
    "no text": {"text": ""},
    "blanks": {"text": " \n"},
    "not a text": {"text": b"Hi"},
    "none": {"text": None},
    "half a surrogate pair": {"text": "\ud83d"},
    "a wrong pack": {"pack_id": "1/2"},
    "a wrong recipient": {"to": "8x"},
    "a true recipient": {"to": True},
    "one attachment alone": {"attachments": "a.pdf"},
    "no list of attachments": {"attachments": None},
    "a number of attachments": {"attachments": 5},
    "one model alone": {"attachments": Attachment("a.pdf")},
    "an attachment with a path": {"attachments": ["../a.pdf"]},
    "an attachment without a name": {"attachments": [Attachment(None)]},
    "a hidden attachment": {"attachments": [".a"]},
    "an attachment with dots": {"attachments": ["a..b"]},
    "an empty attachment": {"attachments": [""]},
    "26 attachments": {"attachments": ["a.pdf"] * 26},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@FAMILIES
@on_virtual_clock
async def test_wrong_arguments_are_refused_before_anything_is_sent(api: str, wrong: dict[str, Any]) -> None:
    """A `ValueError`, and not even the conversation is read."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(ValueError):
            await client.send(**{"pack_id": FIRST, "text": "Hi", **wrong})
    assert sandbox.log == []


@FAMILIES
@on_virtual_clock
async def test_attachments_by_id_and_by_model(api: str) -> None:
    """What `upload` returned, or an attachment of a message; 25 of them; the read message shows them."""
    sandbox = Sandbox(1)
    files = [sandbox.add_file(b"x", f"{n}.pdf") for n in range(25)]
    async with client_of(sandbox, api=api) as client:
        await client.send(FIRST, "Hi", attachments=[files[0], *(Attachment(file) for file in files[1:])])
        newest = (await client.page(FIRST)).messages[0]
    assert [file.filename for file in newest.attachments] == files


@pytest.mark.parametrize(("api", "goes"), [("domestic", True), ("marketplace", False)])
@on_virtual_clock
async def test_a_file_without_words(api: str, goes: bool) -> None:
    """A domestic site takes it; Global Selling documents that a text is required."""
    sandbox = Sandbox(1)
    file = sandbox.add_file(b"x")
    async with client_of(sandbox, api=api) as client:
        if goes:
            await client.send(FIRST, "", attachments=[file])
        else:
            with pytest.raises(ValueError, match="no text"):
                await client.send(FIRST, "", attachments=[file])
    assert executed(sandbox) == goes


# -- what the server says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("substatus", "words"),
    [
        ("blocked_by_buyer", "the buyer blocked it"),
        ("blocked_by_conversation_initiated_by_seller_limited", "action guide"),
        ("block_by_ai_assistant_initiated_by_seller_expired", "the time for answering Mercado Libre's assistant"),
        ("blocked_by_something_new", "blocked_by_something_new"),
        ("x\n" + "y" * 200, "a text of 202 characters"),
        (None, "the server gives no reason"),
    ],
)
@FAMILIES
@on_virtual_clock
async def test_a_blocked_conversation_is_told_before_anything_is_sent(api: str, substatus: str, words: str) -> None:
    """`Forbidden` with the reason in words, and no POST; where the action guide helps, the hint names it."""
    sandbox = Sandbox([Pack(status="blocked", substatus=substatus)])
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(Forbidden) as refused:
            await client.send(FIRST, "Hi")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ("start_conversation" in (refused.value.hint or "")) is ("limited" in (substatus or ""))
    assert posts(sandbox) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("error_400_charset", None),
        ("error_400_too_long", "Shorten"),
        ("error_400_agent_not_in_pack", "leave `to` out"),
        ("error_403_send_blocked_docs", "blocked_reason"),
        ("error_403_pack_not_yours", "not this seller's"),
        ("error_403_model6_marketplace", "Model 6"),
        ("error_404_order", "No sale has this id"),
        ("error_422_attachment_key", "48 hours"),
    ],
)
@FAMILIES
@on_virtual_clock
async def test_a_refusal_is_final(api: str, name: str, hint: str | None) -> None:
    """It is raised as it came, with what to do; the message went out once, and is not looked for."""
    status = int(name.split("_")[1])
    sandbox = Sandbox(1, rules=[on("send").do(Reply(status, payload(name)))])
    async with client_of(sandbox, api=api) as client:
        with pytest.raises(APIError) as refused:
            await client.send(FIRST, "Hi")
    assert (refused.value.status, refused.value.message) == (status, payload(name)["message"])
    assert (hint or "") in (refused.value.hint or "")
    assert [entry.kind for entry in sandbox.log] == ["peek", "send"]


@FAMILIES
@on_virtual_clock
async def test_a_rejection_by_moderation_is_told(api: str, caplog: pytest.LogCaptureFixture) -> None:
    """The 2xx is returned with its status and reason, and a warning names the message, not its text."""
    sandbox = Sandbox(1)
    async with client_of(sandbox, api=api) as client:
        with caplog.at_level("INFO", "mlmessages"):
            fine = await client.send(FIRST, "Hi")
            assert caplog.records == []
            sent = await client.send(FIRST, "see https://bit.ly/canary")
    assert sandbox.undelivered() == {sent.id} != {fine.id}
    assert sent.status == "moderated"
    assert sent.moderation is not None
    assert (sent.moderation.status, sent.moderation.reason) == ("rejected", "link_short_url")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert all(word in record.getMessage() for word in (sent.id, str(FIRST), "moderated", "link_short_url"))
    assert "canary" not in record.getMessage()


@case("K32")
@FAMILIES
@on_virtual_clock
async def test_a_file_that_was_not_taken_is_told(api: str, caplog: pytest.LogCaptureFixture) -> None:
    """A 2xx whose answer lists a refused file: the message has it in `refused_files`, and a warning names file and
    reason.
    """
    answer = payload("send_response_attachment_refused")
    sandbox = Sandbox(1, rules=[on("send").do(Reply(201, answer))])
    async with client_of(sandbox, api=api) as client:
        sent = await client.send(FIRST, "Hi")
    assert sent.refused_files == (("700100200_b7c1.pdf", "invalid_extension"),)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert all(word in record.getMessage() for word in (sent.id, "700100200_b7c1.pdf", "invalid_extension"))


@pytest.mark.parametrize(
    ("body", "warned"),
    [
        ({"id": "a", "status": "REJECTED"}, True),
        ({"id": "a", "status": "available", "message_moderation": {"status": "REJECTED"}}, True),
        ({"id": "a", "status": "blocked"}, True),
        ({"id": "a", "status": "pending_translation", "message_moderation": {"status": "pending"}}, False),
        ({"id": "a", "status": "AVAILABLE", "message_moderation": {"status": "NON_MODERATED"}}, False),
    ],
)
@on_virtual_clock
async def test_what_counts_as_a_rejection(body: object, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Either of the two statuses, in any case; what is still being looked at is none."""
    sandbox = Sandbox(1, rules=[on("send").do(Reply(201, body))])
    async with client_of(sandbox) as client:
        with caplog.at_level("WARNING", "mlmessages"):
            await client.send(FIRST, "Hi")
    assert bool(caplog.records) is warned


@on_virtual_clock
async def test_what_a_server_says_cannot_write_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An id with a line break and a reason that moves the cursor are told by their length."""
    moderation = {"status": "rejected", "reason": "x\x1b[2J" + "y" * 50}
    sandbox = Sandbox(1, rules=[on("send").do(Reply(201, {"id": "a\nb", "message_moderation": moderation}))])
    async with client_of(sandbox) as client:
        await client.send(FIRST, "Hi")
    [record] = caplog.records
    assert record.getMessage().isprintable()
    assert "a text of 55 characters" in record.getMessage()


@on_virtual_clock
async def test_messages_of_one_conversation_go_out_one_after_the_other() -> None:
    """Five at once: each is read for and posted before the next one begins; other conversations do not wait."""
    sandbox = Sandbox(2, rules=[on("send", pack=FIRST).do(Delay(10), EXECUTE)])
    async with client_of(sandbox) as client:
        several = [client.send(FIRST, f"Hi {n}") for n in range(5)]
        await asyncio.gather(*several, client.send(FIRST + 1, "Hi"))
    kinds = [entry.kind for entry in sandbox.log if entry.pack_id == str(FIRST)]
    assert kinds == ["peek", "send"] * 5
    other = next(entry for entry in posts(sandbox) if entry.pack_id == str(FIRST + 1))
    assert other.at < 10

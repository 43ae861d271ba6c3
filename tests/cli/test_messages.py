"""`mlmessages messages PACK`."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from cli.conftest import Serve, piped, run
from mlmessages.testing import Behaviour, Message, Pack, Server

TALK = [
    Message("Is it red?", overrides={"from": {"user_id": 800300001, "name": "Test Buyer 1"}}),
    Message("It is.", sender="seller", read=True),
    Message("Thank you.\nBye", read=True),
]


def shown(server: Server, *args: str) -> str:
    result = run("messages", "7", *args, server=server)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_the_newest_message_is_the_last(serve: Serve, order: Literal["newest", "oldest"]):
    """A conversation reads from top to bottom, whatever the server's order."""
    text = shown(serve([Pack(pack_id=7, messages=TALK)], behaviour=Behaviour(order=order)))
    places = [text.index(words) for words in ("Pack 7", "Is it red?", "It is.", "Thank you.")]
    assert places == sorted(places)


def test_messages_of_the_same_moment_keep_their_order(serve: Serve):
    """Where dates do not decide, the server's order does: it sends the newest first."""
    dates = {"message_date": {"created": "2026-03-02T11:00:00Z"}}
    messages = [Message(words, overrides=dates) for words in ("first", "second", "third")]
    text = shown(serve([Pack(pack_id=7, messages=messages)]))
    assert text.index("first") < text.index("second") < text.index("third")


def test_it_says_who_and_when_and_what_is_unread(serve: Serve):
    """Each message has its writer and its time in UTC; the counterparty's unread ones are marked as such."""
    lines = shown(serve([Pack(pack_id=7, messages=TALK)])).splitlines()
    assert lines[2] == "Test Buyer 1 · 2026-03-02 11:57 UTC · unread"
    assert lines[3] == "  Is it red?"
    assert lines[5] == "You · 2026-03-02 11:58 UTC"
    assert lines[8] == "User 800300001 · 2026-03-02 11:59 UTC"
    assert lines[9:] == ["  Thank you.", "  Bye"]


def test_a_conversation_of_many_pages_is_whole(serve: Serve):
    """Every message is shown, also beyond the first page."""
    text = shown(serve([Pack(pack_id=7, messages=123)], behaviour=Behaviour(max_limit=20)))
    assert text.count("Test message") == 123


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_reading_marks_nothing(serve: Serve, args: list[str]):
    """The conversation is as unread as before."""
    server = serve([Pack(pack_id=7, messages=60)])
    before = server.sandbox.unread_ids()
    shown(server, *args)
    assert server.sandbox.unread_ids() == before
    assert server.sandbox.count("mark") == 0


def test_a_block_is_told_in_words(serve: Serve):
    """The first line says that one cannot write, and why."""
    server = serve([Pack(pack_id=7, status="blocked", substatus="blocked_by_buyer")])
    assert shown(server).splitlines()[0] == "Pack 7 · blocked: the buyer blocked it"
    assert "blocked: the buyer blocked it" in run("messages", "7", "--json", server=server).stderr


def test_an_open_conversation_says_how_long_a_reply_may_be(serve: Serve):
    """The first line gives the length that the server allows."""
    assert "active, replies of up to 350 characters" in shown(serve([Pack(pack_id=7)])).splitlines()[0]


def test_a_conversation_without_messages_is_no_error(serve: Serve):
    """A sale without messages says so."""
    server = serve([Pack(pack_id=7, messages=[])])
    assert shown(server).splitlines()[1:] == ["No messages."]
    assert shown(server, "--json") == ""


def test_attachments_moderation_and_translation_are_shown(serve: Serve):
    """What a message has beside its text: files with size and warning, what moderation said, the translation."""
    file = {"filename": "1.pdf", "original_filename": "a\u202efdp.exe", "size": 1234567, "type": "application/pdf"}
    messages = [
        Message("", overrides={"message_attachments": [{**file, "potential_security_threat": True}]}),
        Message("", overrides={"message_attachments": None}),
        Message(
            "Hola",
            overrides={
                "status": "moderated",
                "text_translated": "Hello\x1b[2J",
                "message_moderation": {"status": "rejected", "reason": "OUT_OF_PLACE_LANGUAGE"},
            },
        ),
    ]
    text = shown(serve([Pack(pack_id=7, messages=messages)]))
    described = (
        r"[attachment] a\u202efdp.exe (application/pdf, 1,234,567 bytes, the server warns that it may be dangerous)"
    )
    assert described in text
    assert "(no text)" in text
    assert " · moderated · out of place language" in text
    assert r"  translated: Hello\x1b[2J" in text


HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\u202ee\u200bf\x00g\x7fh\u2028i[bold]j[/bold]k:smile:l[/]"


def test_a_buyers_text_does_nothing_to_the_terminal(serve: Serve):
    """Escape sequences, control characters, bidi overrides and markup are shown, not obeyed: in text and in names."""
    packs = [
        Pack(pack_id=7, messages=[Message(HOSTILE, overrides={"from": {"user_id": 8, "name": HOSTILE + "\nYou"}})])
    ]
    text = shown(serve(packs))
    seen = r"a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\u202ee\u200bf\x00g\x7fh\u2028i[bold]j[/bold]k:smile:l[/]"
    assert f"\n{seen} You · " in text  # the name cannot begin a line of its own
    assert f"\n  {seen}\n" in text
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\x00", "\x7f", "\u2028"} & set(text)


def test_a_long_text_is_whole_in_a_pipe(serve: Serve):
    """In a pipe no line is wrapped."""
    words = "word " * 400 + "end"
    result = piped("messages", "7", server=serve([Pack(pack_id=7, messages=[Message(words)])]))
    assert words.encode() in result.stdout


def test_json_lines_are_what_the_server_sent(serve: Serve):
    """`--json`: a line for each message, oldest first, every field as it came; it is ASCII and acts on nothing."""
    messages = [Message(HOSTILE), Message("second é", overrides={"a_new_field": {"x": [1, None]}})]
    text = shown(serve([Pack(pack_id=7, messages=messages)]), "--json")
    first, second = [json.loads(line) for line in text.splitlines()]
    assert first["text"] == HOSTILE
    assert (second["text"], second["a_new_field"]) == ("second é", {"x": [1, None]})
    assert text.isascii()
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_an_output_without_unicode_crashes_nothing(serve: Serve, encoding: str):
    """Characters that stdout cannot encode are replaced, visibly."""
    server = serve([Pack(pack_id=7, messages=[Message("né \U0001f600 \u4e2d")])])
    result = piped("messages", "7", server=server, PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stderr) == (0, b"")
    written = result.stdout.decode(encoding)
    assert {"ascii": r"n\xe9 \U0001f600 \u4e2d", "cp1252": r"né \U0001f600 \u4e2d", "utf-16": "né \U0001f600 \u4e2d"}[
        encoding
    ] in written
    assert f"Pack 7 {'-' if encoding == 'ascii' else '·'} active" in written

"""Lines of files: which are ours, and what they say."""

from __future__ import annotations

import json

import pytest

from mlmessages.report.lines import NotOurs, may_be_torn, read
from report.written import by_message, drained, fetched, message


@pytest.mark.parametrize("written", [fetched, drained])
def test_a_line_of_a_conversation_holds_its_messages_and_its_status(written):
    """Lines of `fetch` and of `drain` say the pack, the messages in their order, and whether one can write."""
    line = read(written("11", message("a"), message("b"), blocked="blocked_by_claim"))
    assert (line.pack_id, [m.id for m in line.messages]) == ("11", ["a", "b"])
    assert line.status is not None
    assert line.status.blocked_reason == "a claim is open"


def test_a_line_of_a_message_holds_that_one():
    """A line of `fetch --messages` says the pack and one message, and no status; that of an empty pack, no message."""
    [first, _] = by_message("11", message("a"), message("b"))
    assert (read(first).pack_id, [m.id for m in read(first).messages], read(first).status) == ("11", ["a"], None)
    [empty] = by_message("12")
    assert (read(empty).pack_id, read(empty).messages) == ("12", ())


def test_the_odd_spellings_of_the_wire_are_read():
    """An upper-case status, an id that is text, a legacy flat message: read as everywhere in the library."""
    flat = {"message_id": "f", "date_created": "2026-03-02T12:00:00Z", "text": {"plain": "Test"}}
    odd = {**message("a", status="AVAILABLE"), "from": {"user_id": "800300400"}}
    found = read(fetched("11", flat, odd)).messages
    assert [(m.id, m.text, m.status, m.sender_id) for m in found] == [
        ("f", "Test", None, None),
        ("a", "Test", "available", "800300400"),
    ]


def test_a_conversation_without_a_status_is_one():
    """Where the server did not say whether one can write, the line has null, and so has what is read."""
    assert read(fetched("11", status=False)).status is None


OURS = json.loads(fetched("11", message("a")))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"a diary of secrets",
        b"[]",
        b"17",
        b'"secrets"',
        b"\xff\xfe",
        b"[" * 3000,
        b'{"id": "secrets"}',
        b'{"pack_id": 11, "status": null, "messages": []}',
        b'{"pack_id": "secrets", "status": null, "messages": []}',
        b'{"pack_id": "11", "error": "Forbidden", "status": 403, "reason": "secrets"}',
        b'{"pack_id": "11", "status": null, "messages": {}}',
        b'{"pack_id": "11", "status": "secrets", "messages": []}',
        b'{"pack_id": "11", "status": null, "messages": ["secrets"]}',
        b'{"pack_id": "11", "status": null, "messages": [null]}',
        b'{"pack_id": "11", "status": null, "messages": [{"unread": true}]}',
        b'{"pack_id": "11", "status": null, "messages": [{"raw": {"text": "secrets"}}]}',
        b'{"pack_id": "11", "last": true, "raw": "secrets"}',
        b'{"pack_id": "11", "raw": {"id": "a"}}',
    ],
)
def test_another_programs_line_is_refused_without_quoting_it(line: bytes):
    """What no command of ours wrote is `NotOurs`; the reason holds nothing of the line."""
    with pytest.raises(NotOurs) as refused:
        read(line)
    assert str(refused.value)
    assert "secrets" not in str(refused.value)


def test_every_beginning_of_a_line_may_be_torn():
    """Wherever a line of ours breaks off, or where a power failure left NUL bytes, it may be a torn one."""
    line = fetched("11", message("a"))
    assert all(may_be_torn(line[:n]) for n in range(len(line)))
    assert may_be_torn(line.replace(b": ", b":")[:40])
    assert may_be_torn(b"\0" * 9)
    assert not may_be_torn(b"a diary")
    assert not may_be_torn(b'{"pack": "11"')

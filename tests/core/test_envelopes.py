"""Listings and envelopes: what can be read, and `DecodeError`, never an empty page, for what cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from cases import case
from core.shapes import MARK, anything, body, dump, listing_of
from mlmessages.api.decoding import message, message_page, single_message
from mlmessages.errors import DecodeError
from mlmessages.models import UnreadListing, UnreadPack


def page(text: bytes) -> Any:
    """Read a page."""
    return message_page(text, "1")


READERS: dict[str, Callable[[bytes], Any]] = {"page": page, "listing": listing_of, "message": single_message}
KEY = {"page": "messages", "listing": "results", "message": "messages"}


# -- what cannot be read -----------------------------------------------------------------------------------------------

NO_ANSWERS = {
    "nothing": b"",
    "null": b"null",
    "a text": b'"zqx"',
    "a number": b"7",
    "an array": b"[]",
    "an array of messages": b'[{"id": "zqx"}]',
    "an empty object": b"{}",
    "another object": b'{"zqx": 1, "total": 0}',
    "HTML": b"<html>zqx</html>",
    "cut off": b'{"messages": [{"id": "zqx"',
    "invalid UTF-8": b'{"messages": [], "results": [], "zqx": "\xff"}',
    "NaN": b'{"messages": [], "results": [], "zqx": NaN}',
    "depth 100,000": b'{"messages": [], "results": [], "zqx": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5,000 digits": b'{"messages": [], "results": [], "zqx": ' + b"7" * 5_000 + b"}",
    "the list is null": b'{"messages": null, "results": null}',
    "the list is an object": b'{"messages": {"zqx": 1}, "results": {"zqx": 1}}',
    "the list is a text": b'{"messages": "zqx", "results": "zqx"}',
    "a gateway's refusal": b'{"message": "local_rate_limited"}',
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_a_decode_error(name: str, parser: str) -> None:
    """An answer without its list, or no JSON at all, is a `DecodeError` that says why and quotes nothing of it."""
    for read in READERS.values():
        with pytest.raises(DecodeError) as caught:
            read(NO_ANSWERS[name])
        error = caught.value
        assert len(error.problems) == 1
        assert MARK not in str(error) + repr(error) + "".join(error.problems)
        assert str(error).startswith("an answer cannot be read; ")
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__


def test_a_decode_error_says_what_is_wrong() -> None:
    """The reasons name the place and the kind of what stood there."""

    def reasons(reader: str, text: bytes) -> str:
        with pytest.raises(DecodeError) as caught:
            READERS[reader](text)
        return caught.value.problems[0]

    assert reasons("page", b"{}") == "messages: expected an array, found nothing"
    assert reasons("page", b'{"messages": null}') == "messages: expected an array, found null"
    assert reasons("listing", b'{"results": {}}') == "results: expected an array, found an object"
    assert reasons("listing", b"[]") == "expected an object, found an array"
    assert reasons("page", b"<html>") == "6 bytes: it is not JSON"
    assert reasons("page", b"[" * 100_000) == "100000 bytes: nested too deeply"
    assert reasons("page", b'{"messages": [{"id": "a"}, 5]}') == "messages[1]: expected an object, found a number"
    assert reasons("message", b'{"messages": []}') == "messages: expected one message, found none"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({}, "messages[1].id: expected an id, found null"),
        ({"id": None}, "messages[1].id: expected an id, found null"),
        ({"id": ""}, "messages[1].id: expected an id, found a text"),
        ({"id": "a\0b"}, "messages[1].id: expected an id, found a text"),
        ({"id": True}, "messages[1].id: expected an id, found true or false"),
        ({"id": 1.5}, "messages[1].id: expected an id, found a number"),
        ({"id": {"zqx": 1}}, "messages[1].id: expected an id, found an object"),
        ({"id": ["zqx"]}, "messages[1].id: expected an id, found an array"),
        (None, "messages[1]: expected an object, found null"),
        ("zqx", "messages[1]: expected an object, found a text"),
        ([], "messages[1]: expected an object, found an array"),
    ],
)
def test_a_message_without_a_readable_id_fails_its_page(row: Any, why: str) -> None:
    """A row without a readable id is a `DecodeError` that names it, so that no message disappears in silence."""
    with pytest.raises(DecodeError) as caught:
        page(dump({"messages": [{"id": "a"}, row]}))
    assert caught.value.problems == (why,)


def test_a_single_message_without_an_id_is_a_decode_error() -> None:
    """One message without an id, flat or in an envelope, is a `DecodeError`."""
    for raw in ({"text": "zqx"}, {"message_id": None, "text": "zqx"}, {"messages": [{"text": "zqx"}]}):
        with pytest.raises(DecodeError) as caught:
            single_message(dump(raw))
        assert MARK not in str(caught.value)
    with pytest.raises(DecodeError, match="message: expected an object, found a text"):
        message("zqx")


@given(anything)
def test_an_answer_of_any_shape_is_read_or_a_decode_error(value: Any) -> None:
    """Whatever JSON comes instead of an answer, alone, as the list or as a row of it: read, or a `DecodeError`."""
    for name, reader in READERS.items():
        for shape in (value, {KEY[name]: value}, {KEY[name]: [value]}, {KEY[name]: [{"id": value, "resource": value}]}):
            try:
                reader(dump(shape))
            except DecodeError as error:
                assert MARK not in str(error)


# -- the listing -------------------------------------------------------------------------------------------------------


def listing(rows: list[Any], **more: Any) -> UnreadListing:
    """Read a listing of `rows`."""
    return listing_of(dump({"results": rows, **more}))


@pytest.mark.parametrize(
    "resource",
    [
        "/packs/1",
        "/packs/1/",
        "packs/1",
        "/packs/1/sellers/2",
        "/packs/1/seller/2",
        "packs/1/sellers/2",
        "/packs/1/sellers/2/conversations/agent",
        "/packs/1?tag=post_sale",
        "/packs/1#2",
        "/pack/1/sellers/2",
        "/messages/packs/1/sellers/2",
        "/marketplace/messages/packs/1",
        "https://api.mercadolibre.com/messages/packs/1/sellers/2?tag=post_sale",
        "/packs/1/packs/2",
    ],
)
def test_the_pack_is_the_segment_after_packs(resource: str, parser: str) -> None:
    """The pack id is what follows `packs`, whatever stands before or after it; `resource` is as the server printed it."""
    assert listing([{"resource": resource, "count": 3}]).packs == (UnreadPack("1", 3, resource),)


NO_PACKS: list[tuple[Any, str]] = [
    (None, ": expected an object, found null"),
    ("/packs/1", ": expected an object, found a text"),
    ([], ": expected an object, found an array"),
    ({}, ".resource: expected the path of a pack, found null"),
    ({"pack_id": 1}, ".resource: expected the path of a pack, found null"),
    ({"resource": None}, ".resource: expected the path of a pack, found null"),
    ({"resource": 1}, ".resource: expected the path of a pack, found a number"),
    *(
        ({"resource": resource}, ".resource: expected the path of a pack, found a text")
        for resource in [
            "",
            "/packs/",
            "/packs//1",
            "/packs/zqx",
            "/packs/1zqx",
            "/packs/1-zqx",
            "/packs/1_2",
            "/packs/1%2f2",
            "/packs/1\n",
            "/packs/-1",
            "/packs/１２",
            "/packs/123456789012345678901",
            "/orders/1",
            "/unpacks/1",
        ]
    ),
]


@case("K19")
@pytest.mark.parametrize(("row", "why"), NO_PACKS)
def test_a_row_that_names_no_pack_is_told_of_and_the_others_are_there(row: Any, why: str, parser: str) -> None:
    """Such a row is left out and named in `problems`, by its place and never by its value; the packs around it stay."""
    read = listing([{"resource": "/packs/1", "count": 1}, row, {"resource": "/packs/2", "count": 3}])
    assert read.packs == (UnreadPack("1", 1, "/packs/1"), UnreadPack("2", 3, "/packs/2"))
    assert read.problems == (f"results[1]{why}",)


@case("K19")
def test_the_odd_row_of_an_order_costs_no_conversation() -> None:
    """The sample with a row of an order among packs: two packs, one problem."""
    read = listing_of(body("unread_local_with_odd_row"))
    assert [pack.pack_id for pack in read.packs] == ["2000099900011122", "2000099900011124"]
    assert read.problems == ("results[1].resource: expected the path of a pack, found a text",)


@case("K19")
def test_a_row_that_names_no_pack_counts_for_the_cap() -> None:
    """499 packs and one such row are the 500 rows at which a listing may be cut off; `total` is compared with rows."""
    rows = [{"resource": f"/packs/{i}", "count": 1} for i in range(499)] + [None]
    assert listing(rows).capped
    assert not listing(rows[:499]).capped
    assert not listing([None, {"resource": "/packs/1"}], total=2).capped
    assert listing([None, {"resource": "/packs/1"}], total=3).capped


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, 2),
        ("2", 2),
        (0, 0),
        (None, 0),
        ("", 0),
        ("two", 0),
        (2.5, 0),
        (True, 0),
        ([], 0),
        (10**18, 10**18),
        ("9" * 400, 0),
    ],
)
def test_a_count_that_cannot_be_read_is_0_and_costs_no_pack(count: Any, expected: int) -> None:
    """The count may be a text, absent, huge or nonsense: the pack is listed all the same."""
    assert listing([{"resource": "/packs/1", "count": count}]).packs[0].count == expected
    assert listing([{"resource": "/packs/1"}]).packs[0].count == 0


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ({"user_id": 5}, "5"),
        ({"user_id": "5"}, "5"),
        ({"userId": 5}, "5"),
        ({"userId": "5"}, "5"),
        ({"user_id": None, "userId": 5}, "5"),
        ({"user_id": {}, "userId": "5"}, "5"),
        ({}, None),
        ({"user_id": None}, None),
        ({"user_id": 5.5}, None),
    ],
)
def test_user_id_and_userid_are_one_field(who: dict[str, Any], expected: str | None) -> None:
    """Whose listing it is comes out as text from either spelling, or None; it is never an error."""
    assert listing([], **who).user_id == expected


@pytest.mark.parametrize(
    ("rows", "total", "capped"),
    [
        (0, None, False),
        (1, None, False),
        (499, None, False),
        (500, None, True),
        (501, None, False),
        (999, None, False),
        (1000, None, True),
        (1001, None, False),
        (0, 0, False),
        (0, 1, True),
        (2, 2, False),
        (2, "2", False),
        (2, 3, True),
        (2, "3", True),
        (2, 1, False),
        (2, None, False),
        (2, "many", False),
        (2, 2.5, False),
        (500, 500, True),
    ],
)
def test_a_listing_is_capped_at_exactly_500_and_1000_rows_or_by_its_total(rows: int, total: Any, capped: bool) -> None:
    """`capped` is true at exactly 500 or 1,000 rows and where `total` is above the rows, and nowhere else."""
    read = listing([{"resource": f"/packs/{i}", "count": 1} for i in range(rows)], total=total)
    assert (read.capped, len(read.packs)) == (capped, rows)


def test_a_listing_keeps_the_order_and_the_duplicates_of_the_server() -> None:
    """Rows come out as they were sent: the cap is counted in rows."""
    rows = [{"resource": f"/packs/{pack}", "count": 1} for pack in (3, 1, "3/sellers/9", 2)]
    assert [row.pack_id for row in listing(rows).packs] == ["3", "1", "3", "2"]

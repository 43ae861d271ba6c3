"""From arguments to requests: the exact targets of both families, and of `Routes` of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.shapes import dump
from mlmessages.api.calls import Call, Effect, Request, Response
from mlmessages.api.endpoints import Endpoints, Routes, routes
from mlmessages.models import Message, MessagePage, UnreadListing

BOTH = {"marketplace": Endpoints(Routes.MARKETPLACE, "9"), "domestic": Endpoints(Routes.DOMESTIC, "9")}
Ask = Callable[[Endpoints], Call[Any]]

# name: the call, its target in the marketplace family and in the domestic one, what it does on the server
CALLS: dict[str, tuple[Ask, str, str, Effect]] = {
    "unread": (
        lambda e: e.unread(),
        "/marketplace/messages/unread?role=seller&tag=post_sale",
        "/messages/unread?role=seller&tag=post_sale",
        Effect.READ,
    ),
    "unread of a buyer": (
        lambda e: e.unread("buyer"),
        "/marketplace/messages/unread?role=buyer&tag=post_sale",
        "/messages/unread?role=buyer&tag=post_sale",
        Effect.READ,
    ),
    "unread of a user": (
        lambda e: e.unread("seller", 77),
        "/marketplace/messages/unread?role=seller&tag=post_sale&user_id=77",
        "/messages/unread?role=seller&tag=post_sale&user_id=77",
        Effect.READ,
    ),
    "unread of a pack": (
        lambda e: e.unread_of(5),
        "/marketplace/messages/unread/packs/5/sellers/9?tag=post_sale",
        "/messages/unread/packs/5/sellers/9?tag=post_sale",
        Effect.READ,
    ),
    "a page": (
        lambda e: e.page("5", 50, 0, mark=False),
        "/messages/packs/5/sellers/9?tag=post_sale&limit=50&offset=0&mark_as_read=false",
        "/messages/packs/5/sellers/9?tag=post_sale&limit=50&offset=0&mark_as_read=false",
        Effect.READ,
    ),
    "a marking page": (
        lambda e: e.page(5, 1, 120, mark=True),
        "/messages/packs/5/sellers/9?tag=post_sale&limit=1&offset=120",
        "/messages/packs/5/sellers/9?tag=post_sale&limit=1&offset=120",
        Effect.MARK,
    ),
    "a message": (
        lambda e: e.message("Ab-_9"),
        "/marketplace/messages/Ab-_9",
        "/messages/Ab-_9?tag=post_sale",
        Effect.READ,
    ),
}


def answer(value: Any) -> Response:
    """The answer with this JSON."""
    return Response(200, dump(value))


@pytest.mark.parametrize("name", CALLS)
def test_the_exact_requests_of_both_families(name: str) -> None:
    """Each call sends exactly the documented path and query, `role` and tag included, booleans in lower case."""
    ask, marketplace, domestic, effect = CALLS[name]
    assert ask(BOTH["marketplace"]).request == Request(marketplace, effect, "GET")
    assert ask(BOTH["domestic"]).request == Request(domestic, effect, "GET")


def test_each_call_reads_its_own_kind_of_answer() -> None:
    """A call knows how to read its answer; a page belongs to the pack that was asked for."""
    domestic = BOTH["domestic"]
    listing = domestic.unread().read(answer({"results": [{"resource": "/packs/5", "count": 2}]}))
    assert isinstance(listing, UnreadListing)
    assert domestic.unread_of(5).read(answer({"results": []})).packs == ()
    page = domestic.page(5, 50, 0, mark=True).read(answer({"messages": [{"id": "a"}]}))
    assert isinstance(page, MessagePage)
    assert (page.pack_id, page.messages[0].pack_id) == ("5", "5")
    assert domestic.message("a").read(answer({"messages": [{"id": "a"}]})) == Message("a")


def test_routes_of_ones_own() -> None:
    """A path that was changed with `attrs.evolve` is what is sent; all the others stay."""
    own = attrs.evolve(
        Routes.MARKETPLACE,
        pack="/marketplace/messages/packs/{pack}",
        unread="/v2/unread/{seller}?tag=other",
        message="/messages/{message}/of/{seller}",
    )
    endpoints = Endpoints(own, "9")
    assert endpoints.page(5, 50, 0, mark=False).request.target == (
        "/marketplace/messages/packs/5?limit=50&offset=0&mark_as_read=false"
    )
    assert endpoints.unread().request.target == "/v2/unread/9?tag=other&role=seller"
    assert endpoints.message("a").request.target == "/messages/a/of/9"
    assert endpoints.unread_of(5).request == BOTH["marketplace"].unread_of(5).request
    assert routes(own) is own


def test_the_two_families_by_name() -> None:
    """`api` is a name or `Routes`; the domestic pack path is the one that "Pending messages" prints, in both."""
    assert routes("marketplace") is Routes.MARKETPLACE
    assert routes("domestic") is Routes.DOMESTIC
    assert Routes.MARKETPLACE.pack == Routes.DOMESTIC.pack == "/messages/packs/{pack}/sellers/{seller}?tag=post_sale"
    assert {field.name for field in attrs.fields(Routes)} == {
        "unread",
        "unread_of",
        "pack",
        "message",
        "attachments",
        "action_guide",
    }


@pytest.mark.parametrize(
    "api", ["", "Marketplace", "local", "MARKETPLACE", None, 1, b"domestic", ["domestic"], Routes, "x" * 1000]
)
def test_an_unknown_api_is_refused(api: Any) -> None:
    """Anything else is a `ValueError` that names the choices."""
    with pytest.raises(ValueError, match="^api must be 'marketplace', 'domestic' or a Routes, not ") as caught:
        routes(api)
    assert len(str(caught.value)) < 120


NO_TEMPLATES: list[Any] = [
    "",
    "/",
    "messages/{pack}",
    "//evil.example/{pack}",
    "https://evil.example/{pack}",
    "/messages/{pack}/",
    "/messages//{pack}",
    "/../{pack}",
    "/messages/../{pack}",
    "/messages/{pack}#x",
    "/messages/{pack}?a=b?c=d",
    "/messages/{pack}?to={seller}",
    "/messages/{pack} x",
    "/messages/{pack}\n",
    "/messages/{pack}\r\nx: y",
    "/messages/pa{pack}",
    "/messages/{}/{pack}",
    "/messages/{pack!r}",
    "/messages/{pack.x}",
    "/messages/{PACK}",
    "/messages/%7Bpack%7D",
    "/mensajes/{pack}/é",
    "/messages\\{pack}",
    b"/messages/{pack}",
    None,
    5,
]


@pytest.mark.parametrize("template", NO_TEMPLATES, ids=repr)
def test_what_is_no_path_is_refused(template: Any) -> None:
    """Only an absolute path of plain segments, with a fixed query perhaps, is a route: it cannot leave the host."""
    with pytest.raises(ValueError, match=r"^Routes\.pack must be an absolute path"):
        attrs.evolve(Routes.DOMESTIC, pack=template)


@pytest.mark.parametrize(
    ("field", "template", "why"),
    [
        ("pack", "/messages/packs", "must have {pack} in it"),
        ("pack", "/messages/sellers/{seller}", "must have {pack} in it"),
        ("unread_of", "/messages/unread", "must have {pack} in it"),
        ("action_guide", "/messages/action_guide", "must have {pack} in it"),
        ("message", "/messages", "must have {message} in it"),
        ("message", "/messages/{pack}/{message}", "cannot fill in {pack}"),
        ("pack", "/messages/{pack}/{message}", "cannot fill in {message}"),
        ("pack", "/messages/{pack}/{buyer}", "cannot fill in {buyer}"),
        ("unread", "/messages/unread/{pack}", "cannot fill in {pack}"),
        ("attachments", "/messages/attachments/{message}", "cannot fill in {message}"),
    ],
)
def test_a_route_names_what_its_call_can_fill_in(field: str, template: str, why: str) -> None:
    """A placeholder that would be sent as it stands, and a pack route without the pack, are refused when they are made."""
    with pytest.raises(ValueError, match=f"^Routes\\.{field} ") as caught:
        attrs.evolve(Routes.DOMESTIC, **{field: template})
    assert why in str(caught.value)


def test_routes_are_values() -> None:
    """Routes compare by their paths and cannot be changed in place."""
    assert attrs.evolve(Routes.DOMESTIC) == Routes.DOMESTIC != Routes.MARKETPLACE
    with pytest.raises(AttributeError):
        Routes.DOMESTIC.pack = "/x/{pack}"  # type: ignore[misc]


BAD: list[tuple[str, Ask]] = [
    ("role", lambda e: e.unread("Seller")),
    ("role", lambda e: e.unread("")),
    ("role", lambda e: e.unread(None)),  # type: ignore[arg-type]
    ("role", lambda e: e.unread("seller&tag=x")),
    ("user_id", lambda e: e.unread("seller", "1&x=2")),
    ("user_id", lambda e: e.unread("seller", "")),
    ("pack_id", lambda e: e.unread_of("../1")),
    ("pack_id", lambda e: e.page("1?x=", 50, 0, mark=False)),
    ("pack_id", lambda e: e.page(True, 50, 0, mark=False)),
    ("pack_id", lambda e: e.page("{seller}", 50, 0, mark=False)),
    ("limit", lambda e: e.page(1, 0, 0, mark=False)),
    ("limit", lambda e: e.page(1, True, 0, mark=False)),
    ("limit", lambda e: e.page(1, 1.5, 0, mark=False)),  # type: ignore[arg-type]
    ("limit", lambda e: e.page(1, "50", 0, mark=False)),  # type: ignore[arg-type]
    ("offset", lambda e: e.page(1, 50, -1, mark=False)),
    ("offset", lambda e: e.page(1, 50, None, mark=False)),  # type: ignore[arg-type]
    ("message_id", lambda e: e.message("a/b")),
    ("message_id", lambda e: e.message("{seller}")),
    ("message_id", lambda e: e.message("")),
]


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize(("name", "ask"), BAD)
def test_a_wrong_argument_makes_no_request(name: str, ask: Ask, api: str) -> None:
    """A wrong argument is a `ValueError` that names it, before there is a request."""
    with pytest.raises(ValueError, match=f"^{name} must "):
        ask(BOTH[api])


@given(st.text(max_size=30) | st.integers(), st.text(max_size=30) | st.integers())
def test_whatever_is_passed_stays_in_its_place(pack: Any, message: Any) -> None:
    """No argument ever changes the shape of the target."""
    for endpoints in BOTH.values():
        try:
            target = endpoints.page(pack, 50, 0, mark=True).request.target
            assert target == f"/messages/packs/{pack}/sellers/9?tag=post_sale&limit=50&offset=0"
            assert str(pack).isdecimal()
        except ValueError:
            pass
        try:
            target = endpoints.message(message).request.target
            assert target.isascii()
            assert target.count("/") == endpoints.message("a").request.target.count("/")
            assert not set(target) & set("%# \\\r\n{}")
        except ValueError:
            pass

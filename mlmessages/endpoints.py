"""From arguments to calls: the paths of both URL families, what may stand in them, and who reads the answer."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar, Final

from attrs import Attribute, field, fields, frozen

from . import convert
from .arguments import digits, message_id, show, whole
from .models import Message, MessagePage, UnreadListing
from .wire import Call, Effect, Request

_TEMPLATE: Final = re.compile(r"(?:/(?:[A-Za-z0-9_-]+|\{[a-z]+\}))+(?:\?[A-Za-z0-9_=&-]+)?", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")


def _template(needed: str | None = None) -> Any:
    """A field for a path that must name `needed`, and may name the seller: any other placeholder would be sent as it
    stands, and without `needed` every pack would be the same one.
    """

    def check(_: Any, attribute: Attribute[str], value: object) -> None:
        if not isinstance(value, str) or not _TEMPLATE.fullmatch(value):
            raise ValueError(
                f"Routes.{attribute.name} must be an absolute path, or one with a query, not {show(value)}"
            )
        named = set(_PLACEHOLDER.findall(value))
        if unknown := named - {needed, "seller"}:
            raise ValueError(f"Routes.{attribute.name} cannot fill in {{{min(unknown)}}}")
        if needed is not None and needed not in named:
            raise ValueError(f"Routes.{attribute.name} must have {{{needed}}} in it")

    return field(validator=check)


@frozen
class Routes:
    """The paths, as data: the documentation prints several for some of them, and nobody knows which ones work for whom.

    Templates with ``{pack}``, ``{seller}`` and ``{message}``; a fixed query may follow. Change one with `attrs.evolve`,
    for instance ``evolve(Routes.MARKETPLACE, pack="/marketplace/messages/packs/{pack}")``. Raises `ValueError` for
    anything but such a path.
    """

    MARKETPLACE: ClassVar[Routes]
    DOMESTIC: ClassVar[Routes]

    unread: str = _template()
    unread_of: str = _template("pack")
    pack: str = _template("pack")
    message: str = _template("message")
    attachments: str = _template()
    action_guide: str = _template("pack")


Routes.MARKETPLACE = Routes(
    unread="/marketplace/messages/unread",
    unread_of="/marketplace/messages/unread/packs/{pack}/sellers/{seller}?tag=post_sale",
    # The page "Pending messages" of Global Selling prints the domestic path to read and mark a pack.
    pack="/messages/packs/{pack}/sellers/{seller}?tag=post_sale",
    message="/marketplace/messages/{message}",
    attachments="/marketplace/messages/attachments",
    action_guide="/marketplace/messages/action_guide/packs/{pack}?tag=post_sale",
)
Routes.DOMESTIC = Routes(
    unread="/messages/unread",
    unread_of="/messages/unread/packs/{pack}/sellers/{seller}?tag=post_sale",
    pack="/messages/packs/{pack}/sellers/{seller}?tag=post_sale",
    message="/messages/{message}?tag=post_sale",
    attachments="/messages/attachments?tag=post_sale",
    action_guide="/messages/action_guide/packs/{pack}?tag=post_sale",
)


def routes(api: object) -> Routes:
    """The routes that `api` names, or `api` itself where it is a `Routes`; else `ValueError`."""
    if isinstance(api, Routes):
        return api
    if api == "marketplace":
        return Routes.MARKETPLACE
    if api == "domestic":
        return Routes.DOMESTIC
    raise ValueError(f"api must be 'marketplace', 'domestic' or a Routes, not {show(api)}")


class Endpoints:
    """The calls of one seller. Every argument is checked here, before anything is sent."""

    def __init__(self, paths: Routes, seller_id: str) -> None:
        self._paths = {a.name: getattr(paths, a.name).replace("{seller}", seller_id) for a in fields(Routes)}
        # Split once: nearly every request is one of these.
        self._before_pack, _, self._after_pack = self._paths["pack"].partition("{pack}")
        self._after_pack += "&" if "?" in self._after_pack else "?"

    def _target(self, route: str, *query: str, **ids: str) -> str:
        path: str = self._paths[route]
        for name, value in ids.items():
            path = path.replace(f"{{{name}}}", value)
        return path + ("&" if "?" in path else "?") + "&".join(query) if query else path

    def unread(self, role: str = "seller", user_id: int | str | None = None) -> Call[UnreadListing]:
        """The unread listing.

        `role` and ``tag=post_sale`` are always sent: what a server does without them is contradictory.
        """
        if role not in ("buyer", "seller"):
            raise ValueError(f"role must be 'buyer' or 'seller', not {show(role)}")
        query = [f"role={role}"]
        if "tag=" not in self._paths["unread"]:
            query.append("tag=post_sale")
        if user_id is not None:
            query.append(f"user_id={digits('user_id', user_id)}")
        return Call(Request(self._target("unread", *query)), convert.unread_listing)

    def unread_of(self, pack_id: int | str) -> Call[UnreadListing]:
        """The unread listing of one conversation; it marks nothing."""
        target = self._target("unread_of", pack=digits("pack_id", pack_id))
        return Call(Request(target), convert.unread_listing)

    def page(self, pack_id: int | str, limit: int, offset: int, *, mark: bool) -> Call[MessagePage]:
        """One page of a conversation.

        A plain GET marks it as read ("Pending messages"): only ``mark_as_read=false`` does not.
        """
        pack = digits("pack_id", pack_id)
        target = (
            f"{self._before_pack}{pack}{self._after_pack}"
            f"limit={whole('limit', limit, 1)}&offset={whole('offset', offset, 0)}"
        )
        request = Request(target, Effect.MARK) if mark else Request(target + "&mark_as_read=false")
        return Call(request, partial(convert.message_page, pack_id=pack))

    def message(self, id_: int | str) -> Call[Message]:
        """One message by its id; it marks nothing [documented: no other messages resource does]."""
        return Call(Request(self._target("message", message=message_id(id_))), convert.single_message)

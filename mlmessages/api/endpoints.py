"""From arguments to calls: the paths of both URL families, what may stand in them, and who reads the answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from attrs import Attribute, field, fields, frozen

from ..models import Message, MessagePage, Reasons, UnreadListing
from . import action_guide, decoding
from .arguments import check_id, check_int, check_message_id, describe
from .calls import Body, Call, Effect, Request, Response, Sink
from .json import dump_json
from .notifications import TOPICS, Notification, missed
from .redacted import RedactedText

T = TypeVar("T")
_TEMPLATE: Final = re.compile(r"(?:/(?:[A-Za-z0-9_-]+|\{[a-z]+\}))+(?:\?[A-Za-z0-9_=&-]+)?", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")


def _template(needed: str | None = None) -> Any:
    """Return a field for a path that has ``{needed}`` in it, and ``{seller}`` perhaps.

    Any other placeholder would be sent as it stands; without ``{needed}`` every pack would have the same path.
    """

    def check(_: Any, attribute: Attribute[str], value: object) -> None:
        if not isinstance(value, str) or not _TEMPLATE.fullmatch(value):
            raise ValueError(
                f"Routes.{attribute.name} must be an absolute path, or one with a query, not {describe(value)}"
            )
        named = set(_PLACEHOLDER.findall(value))
        if unknown := named - {needed, "seller"}:
            raise ValueError(f"Routes.{attribute.name} cannot fill in {{{min(unknown)}}}")
        if needed is not None and needed not in named:
            raise ValueError(f"Routes.{attribute.name} must have {{{needed}}} in it")

    return field(validator=check)


@frozen
class Routes:
    """The paths, as data: the documentation prints several for some of them, and which one works for whom is unknown.

    Templates with ``{pack}``, ``{seller}`` and ``{message}``; a fixed query may follow. Change one with `attrs.evolve`,
    for instance ``evolve(Routes.MARKETPLACE, pack="/marketplace/messages/packs/{pack}")``. Raises `ValueError` for
    anything but such a path.

    Where and how to write follows from them. A message is posted to the `pack` path, but where `action_guide` is of the
    marketplace family and `pack` is not, to ``/marketplace/messages/packs/{pack}``; below ``/marketplace/`` the body
    names no sender and no recipient.
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
    # The page of Global Selling prints the domestic path to read and mark a pack [documented: pending messages].
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
    """Return the routes that `api` names, or `api` itself where it is a `Routes`. Raises `ValueError` for others."""
    if isinstance(api, Routes):
        return api
    if api == "marketplace":
        return Routes.MARKETPLACE
    if api == "domestic":
        return Routes.DOMESTIC
    raise ValueError(f"api must be 'marketplace', 'domestic' or a Routes, not {describe(api)}")


_MARKETPLACE: Final = "/marketplace/"


class Endpoints:
    """The calls of one seller. Every argument is checked here, before anything is sent."""

    def __init__(self, paths: Routes, seller_id: str) -> None:
        self._paths = {a.name: getattr(paths, a.name).replace("{seller}", seller_id) for a in fields(Routes)}
        # Split once: nearly every request is one of these.
        self._before_pack, _, self._after_pack = self._paths["pack"].partition("{pack}")
        self._after_pack += "&" if "?" in self._after_pack else "?"
        self._seller_id = seller_id
        self._paths["send"] = self._paths["pack"]
        if self._paths["action_guide"].startswith(_MARKETPLACE) and not self._paths["pack"].startswith(_MARKETPLACE):
            self._paths["send"] = f"{_MARKETPLACE}messages/packs/{{pack}}"

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
            raise ValueError(f"role must be 'buyer' or 'seller', not {describe(role)}")
        query = [f"role={role}"]
        if "tag=" not in self._paths["unread"]:
            query.append("tag=post_sale")
        if user_id is not None:
            query.append(f"user_id={check_id('user_id', user_id)}")
        return Call(Request(self._target("unread", *query)), decoding.unread_listing)

    def unread_of(self, pack_id: int | str) -> Call[UnreadListing]:
        """The unread listing of one conversation; it marks nothing."""
        target = self._target("unread_of", pack=check_id("pack_id", pack_id))
        return Call(Request(target), decoding.unread_listing)

    def page(self, pack_id: int | str, limit: int, offset: int, *, mark: bool) -> Call[MessagePage]:
        """One page of a conversation.

        A plain GET marks it as read; one with ``mark_as_read=false`` does not [documented: pending messages].
        """
        pack = check_id("pack_id", pack_id)
        target = (
            f"{self._before_pack}{pack}{self._after_pack}"
            f"limit={check_int('limit', limit, 1)}&offset={check_int('offset', offset, 0)}"
        )
        request = Request(target, Effect.MARK) if mark else Request(target + "&mark_as_read=false")
        return Call(request, lambda answer: decoding.message_page(answer.body, pack))

    @property
    def topic(self) -> str:
        """The topic of the notifications of this family of paths."""
        return TOPICS[self._paths["unread"].startswith("/marketplace/")]

    def missed(self, app_id: str, topic: str | None, limit: int, offset: int) -> Call[tuple[Notification, ...]]:
        """One page of the notifications of an application that were not taken; the answer has no total."""
        of_topic = f"&topic={topic}" if topic is not None else ""
        target = f"/missed_feeds?app_id={app_id}{of_topic}&limit={limit}&offset={offset}"
        return Call(Request(target), _body(missed))

    def message(self, id_: int | str) -> Call[Message]:
        """One message by its id; it marks nothing: only reading a conversation does [documented: messages]."""
        return Call(Request(self._target("message", message=check_message_id(id_))), _body(decoding.single_message))

    # -- writing --

    @property
    def domestic(self) -> bool:
        """True if messages are posted as on domestic sites: the body names who writes to whom."""
        return not self._paths["send"].startswith(_MARKETPLACE)

    def send(self, pack: str, text: RedactedText, to: str | None, attachments: list[str]) -> Call[Message]:
        """A message in a conversation; `to` is needed on domestic sites, and not sent on others."""
        body: dict[str, object] = {}
        if self.domestic:
            body = {"from": {"user_id": self._seller_id}, "to": {"user_id": to}}
        body["text"] = text
        if attachments:  # left out where there are none [documented: messages]
            body["attachments"] = attachments
        return self._post(self._target("send", pack=pack), pack, body)

    def option(self, pack: str, body: dict[str, object]) -> Call[Message]:
        """A message by an option of the action guide, one at a time on a sale."""
        return self._post(_below(self._target("action_guide", pack=pack), "option"), pack, body, locks=True)

    def _post(self, target: str, pack: str, body: dict[str, object], *, locks: bool = False) -> Call[Message]:
        return Call(
            Request(target, Effect.WRITE, "POST", Body("application/json", dump_json(body)), locks=locks),
            _body(partial(decoding.sent_message, pack_id=pack, seller_id=self._seller_id)),
        )

    def reasons(self, pack: str) -> Call[Reasons]:
        """The options of the action guide."""
        return Call(
            Request(self._target("action_guide", pack=pack)), _body(partial(action_guide.reasons, pack_id=pack))
        )

    def caps(self, pack: str) -> Call[dict[str, int]]:
        """How often each option of the action guide may still be used."""
        return Call(
            Request(_below(self._target("action_guide", pack=pack), "caps_available")), _body(action_guide.caps)
        )

    def upload(self, site_id: str, body: Body) -> Call[str]:
        """A file, for a message that is sent within 48 hours."""
        target = self._target("attachments", f"site_id={site_id}")
        return Call(Request(target, Effect.WRITE, "POST", body), _body(decoding.uploaded))

    def download(self, attachment: str, site_id: str | None, sink: Sink) -> Call[None]:
        """The content of an attachment, into `sink`."""
        target = _below(self._paths["attachments"], attachment)
        query = [] if "tag=" in target else ["tag=post_sale"]
        if site_id is not None:
            query.append(f"site_id={site_id}")
        if query:
            target += ("&" if "?" in target else "?") + "&".join(query)
        return Call(Request(target, sink=sink), _body(decoding.nothing))


def _body(read: Callable[[bytes], T]) -> Callable[[Response], T]:
    """Return `read` for an answer of which only the body counts."""
    return lambda response: read(response.body)


def _below(target: str, name: str) -> str:
    """Return the path `name` below the path of `target`, with the same query."""
    path, mark, query = target.partition("?")
    return f"{path}/{name}{mark}{query}"

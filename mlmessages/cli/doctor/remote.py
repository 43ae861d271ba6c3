"""What the API answers to requests that mark nothing: seven at most."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final

from ...api.endpoints import Endpoints, routes
from ...auth.source import Secret
from ...errors import AuthError, Forbidden, NotSent, RateLimited, Unauthorized
from ..settings import SELLER_ID, Settings
from ..terminal import counted
from .asker import Asker, Reply
from .check import Check, Verdict, bad, good, look, unknown, without_hint

if TYPE_CHECKING:
    from ...models import UnreadListing

_MOST_IDS: Final = 3  # seller ids that are tried on a conversation
_CLOCKS_AGREE: Final = 5.0  # seconds
_OTHER: Final = {"marketplace": "domestic", "domestic": "marketplace"}
_OWNER_IN_TOKEN: Final = re.compile(r"APP_USR-.*-([0-9]{5,20})", re.ASCII)  # seen, not documented
_RATE: Final = re.compile(r"(?i)(?:x-)?rate-?limit|retry-after|quota")
_HARMLESS: Final = re.compile(r"[0-9A-Za-z .,;:=/-]{1,60}", re.ASCII)


async def checks(settings: Settings, asker: Asker, owner: str | None) -> AsyncIterator[Check]:
    """Yield what the API shows. `owner`: the seller whom the token file names."""
    seller, family = settings.seller_id, settings.api
    endpoints = Endpoints(routes(family), seller)
    first = await asker.ask(endpoints.unread())
    if (failed := _no_use_to_go_on(first)) is not None:
        yield failed
        return
    yield good("connection", f"answered in {first.seconds:.2f} s")
    yield _clock(first)
    yield _rate(first.headers)
    other = await asker.ask(Endpoints(routes(_OTHER[family]), seller).unread())
    listing = first.value if first.value is not None else other.value
    yield _token(first, other)
    yield _family(family, first, other)
    if listing is None:
        yield unknown("unread", "no listing could be read")
        return
    yield _listing(listing)
    ids = _candidates(seller, listing.user_id, owner, _owner_in(await asker.token()))
    if first.value is not None and ids != [seller]:
        yield await _user_id(asker, endpoints, seller)
    async for found in _which_id(asker, family if first.value is not None else _OTHER[family], ids, listing):
        yield found


def _no_use_to_go_on(reply: Reply[UnreadListing]) -> Check | None:
    error = reply.error
    if isinstance(error, NotSent):
        return bad("connection", without_hint(error), error.hint or "is the base URL right, and is there a network?")
    if isinstance(error, (AuthError, Unauthorized)):
        return bad("token", without_hint(error), error.hint or "mlmessages auth url")
    if isinstance(error, RateLimited):
        return look("connection", "429: the budget of this minute is spent", "try again in a minute")
    if reply.status is None or reply.status >= 500:
        return bad("connection", str(error), "try again later; if it stays so, the base URL may be another server's")
    return None


def _clock(reply: Reply[UnreadListing]) -> Check:
    if reply.clock is None:
        return unknown("clock", "the server does not tell its time")
    if abs(reply.clock) <= _CLOCKS_AGREE:
        return good("clock", f"within {_CLOCKS_AGREE:g} s of the server's")
    side = "behind" if reply.clock > 0 else "ahead of"
    return look("clock", f"{abs(reply.clock):.0f} s {side} the server's", "let the system set its clock (NTP)")


def _rate(headers: Mapping[str, str]) -> Check:
    named = {name: text for name, text in headers.items() if _RATE.match(name)}
    shown = [f"{name}: {text if _HARMLESS.fullmatch(text) else '(not shown)'}" for name, text in named.items()]
    if not shown:
        return good("rate", "the server says nothing of it; 500 requests a minute are documented")
    return look("rate", "; ".join(sorted(shown)[:5]), "put it into an issue: no such header is known yet")


def _token(first: Reply[UnreadListing], other: Reply[UnreadListing]) -> Check:
    if first.value is not None or other.value is not None:
        return good("token", "accepted")
    if isinstance(first.error, Forbidden):
        return bad(
            "token", without_hint(first.error), first.error.hint or "has the application the permission for messages?"
        )
    return unknown("token", f"neither listing says: {first.brief()} and {other.brief()}")


def _family(family: str, first: Reply[UnreadListing], other: Reply[UnreadListing]) -> Check:
    said = f"{family}: {first.brief()}; {_OTHER[family]}: {other.brief()}"
    if first.value is not None:
        return good("paths", said)
    if other.value is not None:
        return bad("paths", said, f"--api {_OTHER[family]}")
    if isinstance(first.error, Forbidden):  # the check of the token says what to do
        return bad("paths", said, "see the next step of the token")
    return bad("paths", said, (first.error and first.error.hint) or "which paths the account may use is not known")


def _listing(listing: UnreadListing) -> Check:
    messages = sum(row.count for row in listing.packs)
    said = f"{counted(len(listing.packs), 'conversation')}, {counted(messages, 'message')}"
    if listing.problems:
        rows = counted(len(listing.problems), "row")
        return look("unread", f"{said}; {rows} without a pack", "put it into an issue: such rows are left out")
    if listing.capped:
        return look("unread", f"{said}; there may be more behind the cap", "mlmessages drain reads past it")
    return good("unread", said)


def _owner_in(token: Secret) -> str | None:
    """Return the user whom the token's own text seems to name."""
    found = _OWNER_IN_TOKEN.fullmatch(token)
    return str(found[1]) if found else None


def _candidates(seller: str, *others: str | None) -> list[str]:
    """Return the ids that may be the seller's, the configured one first."""
    return list(dict.fromkeys([seller, *(each for each in others if each is not None)]))[:_MOST_IDS]


async def _user_id(asker: Asker, endpoints: Endpoints, seller: str) -> Check:
    """Ask for the listing of the configured seller by name: the token may be of another user."""
    name = "whose listing"
    reply = await asker.ask(endpoints.unread(user_id=seller))
    if reply.value is not None:
        return good(name, f"that of seller {seller} is answered")
    if isinstance(reply.error, Forbidden):
        return look(name, f"the server does not take {seller} for a user of this token", f"see below for {SELLER_ID}")
    return unknown(name, f"asked for that of {seller}: {reply.brief()}")


async def _which_id(asker: Asker, family: str, ids: list[str], listing: UnreadListing) -> AsyncIterator[Check]:
    """Say which of the ids reads the conversations that are listed."""
    name, seller = "seller id", ids[0]
    if not listing.packs:
        if listing.user_id in (None, seller):
            yield good(name, f"the listing is that of seller {seller}" if listing.user_id else "the listing names none")
        else:
            says = f"the listing is of user {listing.user_id}, not of {seller}; nothing is unread to try the ids on"
            yield look(name, says, f"is {SELLER_ID} right? A Global Selling seller has several ids")
        return
    pack = listing.packs[0].pack_id
    answers = {each: await asker.ask(Endpoints(routes(family), each).unread_of(pack)) for each in ids}
    fit = [each for each, reply in answers.items() if reply.value is not None]
    said = "; ".join(f"{each}: {reply.brief()}" for each, reply in answers.items())
    if seller in fit:
        yield Check(name, Verdict.GOOD, f"conversations are answered for {said}")
    elif fit:
        yield bad(name, f"conversations are answered for {said}", f"{SELLER_ID}={fit[0]}")
    elif all(isinstance(reply.error, Forbidden) for reply in answers.values()):
        yield bad(name, f"conversations are refused for {said}", f"set {SELLER_ID} to the seller whose token this is")
    else:
        yield unknown(
            name, f"the path of one conversation's unread messages answers {said}", "--probe PACK tries the others"
        )

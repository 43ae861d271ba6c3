"""A sandbox of many sellers under one application: one rate window, consent, tokens and notifications for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from .application import ServedApplication
from .engine import Engine
from .faults import Rule
from .model.behaviour import Behaviour
from .model.conversations import FIRST_PACK
from .model.oauth import Application
from .model.packs import Pack
from .seller import Seller
from .server.listener import listening

_FIRST_SELLER = 700100200
_PACKS_APART = 1_000_000  # between the first conversations of two sellers: a pack's id tells whose it is


class Marketplace(ServedApplication):
    """The API for many sellers of one application, in process (`session`) or behind real HTTP (`serve`).

    Each of the `sellers` has `packs` conversations: a number, of `messages` messages each, of which the newest `unread`
    of the buyer's are unread (None: all of them); or a function from the seller's place, from 0, to their `Pack`s.
    Every seller has given their consent; an access token says whose request it is. The methods may be called from any
    thread.

    `clock` and `begins` are those of `Sandbox`; the rate window of `behaviour` is for the application unless it says
    `per="seller"`.
    """

    def __init__(
        self,
        sellers: int = 60,
        packs: int | Callable[[int], Iterable[Pack]] = 20,
        *,
        messages: int = 1,
        unread: int | None = None,
        behaviour: Behaviour | None = None,
        rules: Iterable[Rule] = (),
        clock: Callable[[], float] | None = None,
        begins: float | None = None,
    ) -> None:
        super().__init__(Engine(Behaviour() if behaviour is None else behaviour, rules, clock, begins))
        self._sellers: dict[str, Seller] = {}
        for number in range(sellers):
            if callable(packs):
                self.add_seller(packs(number))
            else:
                self.add_seller(Pack(messages=messages, unread=unread) for _ in range(packs))

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[ServedMarketplace]:
        """Serve the sandbox behind a real socket for as long as the context lasts; port 0 is a free one."""
        return self._serve(host, port)

    @asynccontextmanager
    async def _serve(self, host: str, port: int) -> AsyncIterator[ServedMarketplace]:
        async with listening(self._engine, host, port) as base_url:
            yield ServedMarketplace(base_url, self)

    # -- the sellers

    def add_seller(
        self, packs: Iterable[Pack] = (), *, seller_id: int | str | None = None, consented: bool = True
    ) -> Seller:
        """Add a seller with these conversations; return them.

        Without `consented` no token is good until the seller agrees (`seller.oauth.consent`, or the consent page).
        ValueError: there is a seller of this id, or a pack of one of theirs is there twice.
        """
        number = len(self._sellers)
        name = str(_FIRST_SELLER + number if seller_id is None else seller_id)
        first_pack = FIRST_PACK + number * _PACKS_APART
        account = self._engine.add_seller(name, f"APP_USR-sandbox-{name}", packs, first_pack=first_pack)
        seller = self._sellers[name] = Seller(self._engine, account)
        if not consented:
            seller.oauth.revoke()
        return seller

    def seller(self, seller_id: int | str) -> Seller:
        """Return a seller; LookupError where there is none of this id."""
        try:
            return self._sellers[str(seller_id)]
        except KeyError:
            raise LookupError(f"no seller {seller_id} in this sandbox") from None

    @property
    def sellers(self) -> list[Seller]:
        """Every seller, in the order of their coming."""
        return list(self._sellers.values())

    @property
    def application(self) -> Application:
        """The application: its id and secret, and whether it is blocked."""
        return self._engine.application

    # -- what happened, over all sellers

    @property
    def unread(self) -> int:
        """How many conversations hold something unread, visible or hidden."""
        return sum(seller.unread for seller in self.sellers)

    def unread_ids(self) -> set[str]:
        """Return the buyers' messages that are unread, visible or hidden."""
        return set().union(*(seller.unread_ids() for seller in self.sellers))

    def marked_ids(self) -> set[str]:
        """Return the buyers' messages that are read because of a marking GET; those never delivered are lost."""
        return set().union(*(seller.marked_ids() for seller in self.sellers))

    def message_ids(self) -> set[str]:
        """Return the ids of every message."""
        return set().union(*(seller.message_ids() for seller in self.sellers))

    def pack_ids(self) -> list[str]:
        """Return the ids of every conversation, seller after seller."""
        return [pack_id for seller in self.sellers for pack_id in seller.pack_ids()]


@attrs.frozen
class ServedMarketplace:
    """A marketplace that is being served."""

    base_url: str
    marketplace: Marketplace

    @property
    def sellers(self) -> list[Seller]:
        """Every seller, in the order of their coming."""
        return self.marketplace.sellers

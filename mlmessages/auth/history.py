"""What the server made of the last access tokens."""

from __future__ import annotations

from typing import Final

from attrs import define


class TokenHistory:
    """What the server made of the last few access tokens: whether a 401 can be the fault of one."""

    _MOST: Final = 8
    _RECENT: Final = 600.0

    def __init__(self) -> None:
        self._known: dict[str, _Standing] = {}

    def doubted(self, token: str) -> bool:
        """Return True if it was answered 401 before."""
        standing = self._known.get(token)
        return standing is not None and standing.refused

    def worked(self, token: str) -> bool:
        """Return True if it was answered 2xx before."""
        standing = self._known.get(token)
        return standing is not None and standing.worked

    def is_fine(self, token: str, now: float) -> bool:
        """Return True if it was lately taken in a request that left after a 401: that 401 had another reason."""
        standing = self._known.get(token)
        return standing is not None and now - standing.taken_again < self._RECENT

    def answered(self, token: str, status: int, *, doubted: bool, now: float) -> None:
        """Note that a request was answered at `now`, in seconds; `doubted`: what `doubted` said when it left."""
        standing = self._known.get(token)
        if standing is None:
            if len(self._known) == self._MOST:
                del self._known[next(iter(self._known))]
            standing = self._known[token] = _Standing()
        if status == 401:
            standing.refused = True
        elif 200 <= status < 300:
            standing.worked = True
            if doubted:
                standing.taken_again = now


@define
class _Standing:
    """What became of the requests with one token. `taken_again`: when one that left after a 401 was answered 2xx."""

    worked: bool = False
    refused: bool = False
    taken_again: float = float("-inf")

"""An async iterator that one task at a time takes from, and that any task may close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

T = TypeVar("T")


class SingleConsumer(ABC, Generic[T]):
    """What `Drain`, `Fetch` and the drain of an `Inbox` have in common.

    A subclass gives the next item (`_next`), and knows how to close itself (`aclose`, also more than once at a time).
    `_NAME` and `_OWNER` are for the errors: "a drain has one consumer at a time", "the client is closed".
    """

    _NAME: ClassVar[str] = "an iterator"
    _OWNER: ClassVar[str] = "the client"

    def __init__(self) -> None:
        self._busy = False
        self._left = False

    @abstractmethod
    def _is_closed(self) -> bool:
        """Return True if it is over, or was closed."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it: nothing more is sent, and what has left is waited for."""

    @abstractmethod
    async def _next(self) -> T | None:
        """Return the next item; None: there is none, or it was closed meanwhile."""

    @abstractmethod
    def _check(self) -> None:
        """Raise `RuntimeError` if it cannot be used now."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._busy:
            raise RuntimeError(f"{self._NAME} has one consumer at a time")
        if self._is_closed():
            raise self._end()
        self._check()
        self._busy = True
        try:
            item = await self._next()
        except Exception:  # whatever it is, also of a user's token source: it never goes on as if nothing were
            if self._is_closed():  # by another task: what that cut off is no error of its own
                raise self._end() from None
            await self.aclose()
            raise
        finally:
            self._busy = False
        if item is None:
            await self.aclose()
            raise self._end()
        return item

    def _end(self) -> Exception:
        return RuntimeError(f"{self._OWNER} is closed") if self._left else StopAsyncIteration()

    async def _leave(self) -> None:
        """Close it because its owner is closed: the consumer gets a `RuntimeError`, so that it looks like no end."""
        self._left = self._left or not self._is_closed()
        await self.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

"""Encryption of what is secret in the database: refresh tokens, and what buyers write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ..auth.source import Secret, conceal
from ..errors import JournalError
from ..files import PrivateBytes
from .extra import missing

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_PLAIN: Final = b"\x00"
_SEALED: Final = b"\x01"


def conceal_keys(keys: Any) -> Any:
    """Return the keys of `Keys` as a tuple of `Secret`s; what cannot be keys stays as it is."""
    if isinstance(keys, (str, bytes)):
        text = conceal(keys if isinstance(keys, str) else keys.decode("ascii", "replace"))
        return tuple(map(Secret, text.split(",")))
    if isinstance(keys, Sequence):
        return tuple(
            part for each in keys for part in (conceal_keys(each) if isinstance(each, (str, bytes)) else [each])
        )
    return keys


class Keys:
    """Fernet keys: the first one encrypts, all of them decrypt; a text may hold several, parted by commas.

    None: nothing is encrypted.

    The seller's id is inside of what is encrypted, so that a row cannot be put in the place of another seller's. Raises
    `ValueError` for what is no key.
    """

    def __init__(self, keys: str | bytes | Sequence[str | bytes] | None) -> None:
        self._fernet: MultiFernet | None = None
        keys = conceal_keys(keys)
        if keys is None:
            return
        try:
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 -- of the extra
        except ImportError:
            raise missing() from None
        try:
            self._fernet = MultiFernet([Fernet(str(key)) for key in keys])
        except (TypeError, ValueError):
            raise ValueError("key must be a Fernet key (`Fernet.generate_key()`), or several of them") from None

    def __repr__(self) -> str:
        return "Keys(None)" if self._fernet is None else "Keys(***)"

    def seal(self, seller_id: str, data: bytes) -> bytes:
        """Return what is stored of `data`, which is a seller's."""
        if self._fernet is None:
            return _PLAIN + data
        return _SEALED + self._fernet.encrypt(seller_id.encode() + b"\n" + data)

    def unseal(self, seller_id: str, stored: bytes) -> bytes:
        """Return what `seal` was given. Raises `JournalError`."""
        stored = PrivateBytes(stored)  # without a key it is a secret by itself
        kind, rest = bytes(stored[:1]), stored[1:]
        if self._fernet is None:
            if kind != _PLAIN:
                raise JournalError("the database is encrypted: give its key to Database(key=…)")
            return rest
        if kind != _SEALED:
            raise JournalError("a row of the database is not encrypted: run `mlmessages database rekey`")
        return self._opened(self._fernet, seller_id, rest)

    def reseal(self, seller_id: str, stored: bytes) -> bytes:
        """Return `stored` encrypted by the first key, whichever encrypted it, or none. Raises `JournalError`."""
        if self._fernet is None or stored[:1] == _PLAIN:
            return self.seal(seller_id, stored[1:] if self._fernet is not None else self.unseal(seller_id, stored))
        return self.seal(seller_id, self._opened(self._fernet, seller_id, stored[1:]))

    @staticmethod
    def _opened(fernet: MultiFernet, seller_id: str, sealed: bytes) -> bytes:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 -- of the extra

        try:
            opened = PrivateBytes(fernet.decrypt(bytes(sealed)))
        except InvalidToken:
            raise JournalError(
                "a row of the database cannot be decrypted by any of the keys of Database(key=…)"
            ) from None
        owner = seller_id.encode() + b"\n"
        if not opened.startswith(owner):
            raise JournalError(f"a row of seller {seller_id} was encrypted for another seller")
        return opened[len(owner) :]

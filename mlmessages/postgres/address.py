"""Where the database is: a URL that holds a password, and whether the way there is private."""

from __future__ import annotations

import ipaddress
from typing import Final

from ..auth.source import Secret, conceal
from .extra import missing

_PRIVATE_MODES: Final = ("require", "verify-ca", "verify-full")
_DEFAULTS: Final[dict[str, str | int]] = {
    "application_name": "mlmessages",
    "connect_timeout": 3,  # seconds, for each address
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",  # of several hosts, the primary
}


class Address:
    """How to connect. Its repr shows no password.

    Plain text is allowed to this machine alone: sockets and loopback addresses. Raises `ValueError` for a URL that
    cannot be read, or that leads elsewhere without TLS.
    """

    def __init__(self, url: str) -> None:
        url = conceal(url)  # first: no traceback shows it
        try:
            from psycopg import conninfo  # noqa: PLC0415 -- of the extra
        except ImportError:
            raise missing() from None
        parts = _parts(url)
        hosts = parts.get("host", "").split(",")
        self.name: Final = (
            f"{parts.get('dbname') or parts.get('user') or 'a database'} on {', '.join(hosts) or 'a socket'}"
        )
        addresses = parts.get("hostaddr", "").split(",")  # libpq goes there, whatever `host` says
        remote = [host for host in (*hosts, *addresses) if not is_this_machine(host)]
        if remote and parts.get("sslmode") not in _PRIVATE_MODES:
            raise ValueError(
                f"the connection to {remote[0]} must be encrypted: add sslmode=verify-full to the URL"
                " (or require, which does not check whom it talks to)"
            )
        # What the URL says itself goes first.
        added = {name: value for name, value in _DEFAULTS.items() if name not in parts}
        self._conninfo = Secret(conninfo.make_conninfo(str(url), **added))

    def __repr__(self) -> str:
        return f"Address({getattr(self, 'name', 'unreadable')})"

    def reveal(self) -> str:
        """Return the connection string, with its password."""
        return str(self._conninfo)


def is_this_machine(host: str) -> bool:
    """True for a socket's folder and a loopback address."""
    if host in ("", "localhost") or host[:1] in ("/", "@"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(url: str) -> dict[str, str]:
    """What the URL says, without its password."""
    from psycopg import Error, conninfo  # noqa: PLC0415 -- of the extra

    try:
        if not isinstance(url, str) or not url:
            raise ValueError
        parts = conninfo.conninfo_to_dict(str(url))
        parts.pop("password", None)  # first: no traceback shows it
        [int(port) for port in str(parts.get("port", "")).split(",") if port]
    except (Error, ValueError):  # its text may quote the password
        raise ValueError(
            "url must be a PostgreSQL URL such as postgresql://user:password@host:5432/database?sslmode=verify-full"
        ) from None
    return {name: str(value) for name, value in parts.items() if value is not None}

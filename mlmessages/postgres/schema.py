"""The schema: ``migrations/*.sql``, each applied once, under a lock, in one transaction."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from ..errors import JournalError

if TYPE_CHECKING:
    from .connection import Connection

VERSION: Final = 1  # the last migration that this program knows
# Not to_regclass: its answers come from a cache that an advisory lock does not refresh.
_META: Final = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %(name)s AND tablename = 'meta'"
_SCHEMA: Final = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %(name)s"
_LOCK: Final = 0x6D6C6D73  # "mlms": the key of the advisory lock, which ends with the transaction


def script(schema: str) -> str:
    """Return the SQL that makes the schema, for those who may not create one through a `Database`."""
    begun = f"CREATE SCHEMA IF NOT EXISTS {schema};\n"
    return (
        "BEGIN;\n"
        + begun
        + "\n".join(migration(n) for n in range(1, VERSION + 1)).replace("mlmessages.", f"{schema}.")
        + "COMMIT;\n"
    )


def migration(number: int) -> str:
    """Return the SQL that leads from the version before `number` to it."""
    return resources.files(__package__).joinpath("migrations", f"{number:04}.sql").read_text("utf-8")


def migrate(connection: Connection, schema: str) -> None:
    """Bring the schema up to `VERSION`, creating it if need be.

    Raises `JournalError` if it may not be created, or if it is of a newer version that this program may not use.
    """
    version, oldest = _versions(connection, schema)
    if oldest > VERSION:
        raise JournalError(f"the schema {schema} needs a newer mlmessages (version {oldest} of the schema): update")
    if version >= VERSION:
        return
    try:
        connection.begin()
        connection.fetch("SELECT pg_advisory_xact_lock(%(key)s::bigint)", {"key": _LOCK})
        version = _version(connection, schema)  # another process may have been faster
        if version == 0 and not connection.fetch(_SCHEMA, {"name": schema}):
            connection.run(f'CREATE SCHEMA "{schema}"', {})
        for number in range(version + 1, VERSION + 1):
            for statement in _statements(migration(number)):
                connection.run(statement, {})
            connection.run("UPDATE mlmessages.meta SET version = greatest(version, %(n)s)", {"n": number})
        connection.commit()
    except Exception as error:
        if getattr(error, "sqlstate", None) == "42501":  # insufficient_privilege
            raise JournalError(
                f"the schema {schema} cannot be created by this user: ask who may, with"
                " `mlmessages database schema | psql …`"
            ) from None
        raise


def _versions(connection: Connection, schema: str) -> tuple[int, int]:
    [found] = connection.transaction([(_META, {"name": schema})])
    if not found:
        return 0, 0
    [[(version, oldest)]] = connection.transaction([("SELECT version, oldest FROM mlmessages.meta", {})])
    return version, oldest


def _version(connection: Connection, schema: str) -> int:
    if not connection.fetch(_META, {"name": schema}):
        return 0
    [(version,)] = connection.fetch("SELECT version FROM mlmessages.meta", {})
    return int(version)


def _statements(script_: str) -> list[str]:
    """Split a script of ours: each statement ends its line with a semicolon, comments may follow."""
    found, lines = [], list[str]()
    for line in script_.splitlines():
        code = line.split("--")[0].rstrip()
        lines.append(code)
        if code.endswith(";"):
            found.append("\n".join(lines))
            lines = []
    return found

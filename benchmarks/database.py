"""A PostgreSQL for the benchmarks: the server of the tests, in a temporary folder, gone at the end."""

from __future__ import annotations

import sys
from pathlib import Path


def empty_database(name: str = "mlmessages_benchmark") -> str:
    """Return the URL of a new database on a server that ends with this program."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import psycopg

    from postgres.server import running

    server = running()
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return server.url(name)


def server_version(url: str) -> str:
    """Return the version of a server, such as ``PostgreSQL 15.18``."""
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute("SHOW server_version").fetchone()
    assert found is not None
    return f"PostgreSQL {str(found[0]).split()[0]}"

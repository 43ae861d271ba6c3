"""A real server, and for each test a database in which nothing is left of the one before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import psycopg
import pytest

from postgres.server import GivenServer, Server, running

# A program of its own, which Debian and others package.
_paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
collect_ignore = [] if shutil.which("pgbouncer", path=_paths) else ["test_pgbouncer.py"]

_EMPTY = """
SELECT coalesce(string_agg(format('DROP SCHEMA %I CASCADE', nspname), ';'), '') FROM pg_namespace
 WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')"""
_OTHERS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture(scope="session")
def server() -> Server | GivenServer:
    """A PostgreSQL for all tests of the session."""
    return running()


@pytest.fixture
def database_url(server: Server | GivenServer) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"mlmessages_test_{os.getpid()}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            admin.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    url = server.url(name)
    _empty(url)
    yield url
    _empty(url)


def _empty(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(_OTHERS)
        [(drop,)] = admin.execute(_EMPTY).fetchall()
        if drop:
            admin.execute(drop)

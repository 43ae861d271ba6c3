"""A real server, and a database of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import psycopg
import pytest

from postgres.server import GivenServer, Server, running

_names = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Server | GivenServer:
    """A PostgreSQL for all tests of the session."""
    return running()


@pytest.fixture
def database_url(server: Server | GivenServer) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"mlmessages_test_{os.getpid()}_{next(_names)}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    yield server.url(name)
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[arg-type]

"""The PostgreSQL of the tests, and programs on it."""

from __future__ import annotations

from postgres.conftest import database_url, server

__all__ = ["database_url", "server"]

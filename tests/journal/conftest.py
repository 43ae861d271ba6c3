"""A journal's path, and inboxes on it: the fixtures of `tests/inbox`."""

from __future__ import annotations

from inbox.conftest import consumer, copy_files, disk, inbox_of, journal, life_of

__all__ = ["consumer", "copy_files", "disk", "inbox_of", "journal", "life_of"]

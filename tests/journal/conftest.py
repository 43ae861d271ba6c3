"""A journal's path, and inboxes on it: the fixtures of `tests/inbox`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from inbox.conftest import consumer, copy_files, disk, inbox_of, journal, life_of

__all__ = ["consumer", "copy_files", "disk", "inbox_of", "journal", "life_of"]

settings.register_profile(  # of test_machines.py
    "machines-thorough",
    max_examples=2000,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

"""The core, module by module, and the few test files that each mutant of it meets."""

from __future__ import annotations

TARGETS: dict[str, list[str]] = {
    "api/paging.py": ["tests/core/test_walk.py", "tests/client/test_pages.py"],
    "api/outcomes.py": ["tests/policy/test_retry.py", "tests/core/test_errors.py", "tests/drain"],
    "api/convert.py": ["tests/core"],
    "conversations/backlog.py": ["tests/core/test_backlog.py", "tests/drain"],
    "conversations/drain_loop.py": ["tests/drain"],
    "conversations/drain.py": ["tests/drain"],
    "http/retry.py": ["tests/policy"],
    "http/limits.py": ["tests/policy"],
    "http/pipeline.py": ["tests/policy"],
    "auth/oauth.py": ["tests/tokens/test_refresh.py", "tests/tokens/test_grants.py"],
    "auth/refresh.py": ["tests/tokens/test_refresh.py", "tests/tokens/test_grants.py"],
    "auth/store.py": ["tests/tokens/test_file.py", "tests/tokens/test_refresh.py"],
    "inbox/ingest.py": ["tests/inbox"],
    "inbox/drain.py": ["tests/inbox"],
    "inbox/dispatcher.py": ["tests/inbox", "tests/service/test_run.py"],
    "inbox/notified.py": ["tests/service/test_run.py", "tests/service/test_notifications.py"],
    "journal/store.py": ["tests/journal", "tests/inbox"],
    "journal/sqlite.py": ["tests/journal", "tests/inbox"],
    "journal/engine.py": ["tests/journal", "tests/inbox"],
}

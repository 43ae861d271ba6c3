"""The core, module by module, and the few test files that each mutant of it meets: those that notice most come first.

A name may have a star.
"""

from __future__ import annotations

_DRAIN = ["tests/drain"]
# without the state machine and the kill sweep, which take minutes
_INBOX = ["tests/inbox/test_[a-l]*.py", "tests/inbox/test_[n-z]*.py"]
_POLICY = ["tests/policy"]
_TOKENS = ["tests/tokens/test_grants.py", "tests/tokens/test_refresh_*.py", "tests/tokens/test_oauth_token.py"]
_JOURNAL = ["tests/journal"]
_SERVICE = ["tests/service/test_notifications.py", "tests/service/test_run.py"]

TARGETS: dict[str, list[str]] = {
    "api/paging.py": ["tests/core/test_walk.py", "tests/client/test_pages.py", "tests/drain/test_[ad]*.py"],
    "api/outcomes.py": ["tests/core/test_errors.py", *_POLICY, *_DRAIN],
    "api/decoding.py": ["tests/core"],
    "api/notifications.py": _SERVICE,
    "conversations/backlog.py": ["tests/core/test_backlog.py", "tests/core/test_second_look.py", *_DRAIN],
    "conversations/drain_loop.py": [*_DRAIN, "tests/service/test_waiting_packs.py"],
    "conversations/drain.py": _DRAIN,
    "http/retry.py": _POLICY,
    "http/limits.py": _POLICY,
    "http/pipeline.py": [*_POLICY, "tests/service/test_events.py", *_TOKENS],
    "auth/oauth.py": _TOKENS,
    "auth/refresh.py": _TOKENS,
    "auth/token_endpoint.py": _TOKENS,
    "auth/store.py": ["tests/tokens/test_file*.py"],
    "auth/grants.py": _TOKENS,
    "files.py": ["tests/tokens/test_private_files.py", "tests/tokens/test_file*.py"],
    "inbox/ingest.py": _INBOX,
    "inbox/drain.py": _INBOX,
    "inbox/dispatcher.py": [*_SERVICE, *_INBOX],
    "inbox/notified.py": _SERVICE,
    "journal/sqlite/store.py": [*_JOURNAL, *_INBOX],
    "journal/sqlite/file.py": [*_JOURNAL, *_INBOX],
    "journal/engine.py": [*_JOURNAL, *_INBOX],
    "journal/journal.py": [*_JOURNAL, *_INBOX],
}

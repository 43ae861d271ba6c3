"""The journal in one SQLite file: the one folder that knows sqlite3.

`store` is the `Store`; `file` opens, checks and makes the file; `contents` says what a journal holds, from outside.
"""

from .contents import Contents, contents, retry_parked, seller_of
from .store import SqliteStore

__all__ = ["Contents", "SqliteStore", "contents", "retry_parked", "seller_of"]

"""Keep a seller's tokens in a database of your own: `python tokens_in_a_database.py`.

Settings: MLMESSAGES_CLIENT_ID, MLMESSAGES_CLIENT_SECRET, MLMESSAGES_SELLER_ID and, for the sandbox,
MLMESSAGES_BASE_URL; MLMESSAGES_TOKEN_FILE is read once, to begin with. Refresh tokens are for one use, so the lock must
hold for all processes that share the table, and `save` must be durable when it returns. Encrypt the two tokens in a
real one. For PostgreSQL the library has this ready: `Database(url, key=...).tokens(seller_id)`.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from mlmessages import FileTokenStore, MessagesClient, OAuthToken
from mlmessages.models import Token


class SqliteTokens:
    """A `TokenStore` in a table with one row a seller."""

    def __init__(self, path: str, seller_id: str) -> None:
        self._seller_id = seller_id
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        self._db.execute("PRAGMA synchronous = EXTRA")
        self._db.execute("CREATE TABLE IF NOT EXISTS token (seller TEXT PRIMARY KEY, access, refresh, expires, issued)")

    async def load(self) -> Token | None:
        row = self._db.execute("SELECT * FROM token WHERE seller = ?", [self._seller_id]).fetchone()
        if row is None:
            return None
        _, access, refresh, expires, issued = row
        return Token(
            access, refresh, datetime.fromisoformat(expires), issued and datetime.fromisoformat(issued), self._seller_id
        )

    async def save(self, token: Token) -> None:
        issued = token.issued_at and token.issued_at.isoformat()
        row = [self._seller_id, token.access_token, token.refresh_token, token.expires_at.isoformat(), issued]
        self._db.execute("INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?, ?)", row)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        # A lock of its own, which the system frees when the process dies: saving must not wait for it.
        with sqlite3.connect(f"token-{self._seller_id}.lock", isolation_level=None, timeout=0) as lock:
            while True:
                try:
                    lock.execute("BEGIN EXCLUSIVE")
                    break
                except sqlite3.OperationalError:  # another process refreshes at this moment
                    await asyncio.sleep(0.05)
            try:
                yield
            finally:
                lock.rollback()


async def main() -> None:
    env = os.environ
    store = SqliteTokens("tokens.db", env["MLMESSAGES_SELLER_ID"])
    if await store.load() is None and (first := await FileTokenStore(env["MLMESSAGES_TOKEN_FILE"]).load()):
        await store.save(first)
    auth = OAuthToken(env["MLMESSAGES_CLIENT_ID"], env["MLMESSAGES_CLIENT_SECRET"], store)
    base_url = env.get("MLMESSAGES_BASE_URL", "https://api.mercadolibre.com")
    async with MessagesClient(auth, seller_id=env["MLMESSAGES_SELLER_ID"], base_url=base_url) as client:
        await auth.refresh()
        print(len((await client.unread()).packs), "unread conversations")


if __name__ == "__main__":
    asyncio.run(main())

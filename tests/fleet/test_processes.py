"""Real programs on a real PostgreSQL, killed and stopped; the sandbox behind real HTTP with one rate window."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.fernet import Fernet

from cases import case
from mlmessages import Database
from mlmessages.models import Token
from mlmessages.testing import Behaviour, Marketplace, RateWindow
from needs import needs

PROGRAM = Path(__file__).with_name("program.py")


class Machines:
    """The programs, what they delivered, and the database that they share."""

    def __init__(self, marketplace: Marketplace, database: Database, environment: dict[str, str]) -> None:
        self.marketplace, self.database, self.environment = marketplace, database, environment
        self.programs: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> None:
        self.programs[name] = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROGRAM), name],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def delivered(self) -> list[list[str]]:
        """Program, seller and message of each that a handler was given."""
        path = Path(self.environment["DELIVERED"])
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    async def held(self) -> dict[str, int]:
        """How many sellers each live program holds."""
        counts: dict[str, int] = {}
        for row in await self.database.overview():
            if row.alive and row.holder is not None:
                counts[row.holder] = counts.get(row.holder, 0) + 1
        return counts

    async def until(self, there: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not there():
                await asyncio.sleep(0.02)

    async def until_held(self, expected: dict[str, int]) -> None:
        async with asyncio.timeout(60):
            while await self.held() != expected:
                await asyncio.sleep(0.02)

    def all_delivered(self) -> bool:
        return {message for _, _, message in self.delivered} == self.marketplace.message_ids()


@asynccontextmanager
async def machines(tmp_path: Path, database_url: str, sellers: int, packs: int) -> AsyncIterator[Machines]:
    behaviour = Behaviour(rate=RateWindow(reads=100, period=2.0))
    marketplace = Marketplace(sellers=sellers, packs=packs, behaviour=behaviour)
    key, now = Fernet.generate_key().decode(), datetime.now(UTC)
    async with marketplace.serve() as served, Database(database_url, key=key, name="test") as database:
        for seller in marketplace.sellers:
            oauth = seller.oauth
            await database.add(
                Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller.seller_id)
            )
        environment = {
            **os.environ,
            "MLMESSAGES_DATABASE": database_url,
            "MLMESSAGES_KEY": key,
            "MLMESSAGES_CLIENT_ID": marketplace.application.client_id,
            "MLMESSAGES_CLIENT_SECRET": marketplace.application.client_secret,
            "MLMESSAGES_BASE_URL": served.base_url,
            "DELIVERED": str(tmp_path / "delivered"),
        }
        running = Machines(marketplace, database, environment)
        try:
            yield running
        finally:
            for program in running.programs.values():
                program.kill()
                program.communicate()


@case("S20")
@needs("signals")
async def test_killed_and_started_again_nothing_is_lost_and_the_budget_holds(tmp_path: Path, database_url: str) -> None:
    """Two programs; one is killed with SIGKILL in the middle, and another comes: all is delivered, and no 429."""
    async with machines(tmp_path, database_url, sellers=6, packs=25) as running:
        running.start("a")
        running.start("b")
        await running.until(lambda: len(running.delivered) >= 40)
        running.programs["a"].kill()
        await running.until_held({"b": 6})
        running.start("c")
        await running.until_held({"b": 3, "c": 3})
        await running.until(running.all_delivered)
        assert running.marketplace.unread == 0
        assert not [entry for entry in running.marketplace.log if entry.status == 429]


@case("S21")
@needs("signals")
async def test_a_program_that_is_stopped_hands_its_sellers_over(tmp_path: Path, database_url: str) -> None:
    """SIGTERM: it ends well, nothing is in doubt, and the other has all sellers without waiting for a lease."""
    async with machines(tmp_path, database_url, sellers=4, packs=15) as running:
        running.start("a")
        running.start("b")
        await running.until_held({"a": 2, "b": 2})
        running.programs["a"].send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.programs["a"].wait, 30) == 0
        await running.until_held({"b": 4})
        await running.until(running.all_delivered)
        messages = [message for _, _, message in running.delivered]
        assert len(messages) == len(set(messages))  # in order, so that nothing comes twice
        marks = [entry.pack_id for entry in running.marketplace.log if entry.kind == "mark"]
        assert len(marks) == len(set(marks))


@case("S22")
@needs("signals")
async def test_a_program_that_sleeps_past_its_lease_sends_nothing_more(tmp_path: Path, database_url: str) -> None:
    """SIGSTOP until another has its sellers, then SIGCONT: it decides nothing, takes its share again, and nothing is lost."""
    async with machines(tmp_path, database_url, sellers=4, packs=25) as running:
        running.start("a")
        running.start("b")
        await running.until(lambda: len(running.delivered) >= 10)
        running.programs["a"].send_signal(signal.SIGSTOP)
        await running.until_held({"b": 4})
        for seller in running.marketplace.sellers:
            seller.send(seller.pack_ids()[0], "¿Y bien?")
        running.programs["a"].send_signal(signal.SIGCONT)
        await running.until_held({"a": 2, "b": 2})
        await running.until(running.all_delivered)
        assert running.marketplace.marked_ids() <= {message for _, _, message in running.delivered}
        assert not [entry for entry in running.marketplace.log if entry.status == 429]

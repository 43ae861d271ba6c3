"""`mlmessages serve --database`: all sellers, on several processes, with the webhook in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet

from cases import case
from mlmessages import Database
from mlmessages.cli.app import cli
from mlmessages.models import Token
from mlmessages.testing import Marketplace
from needs import needs

SECRET = "a-secret-of-24-characters"
TAKE = "import os, sys; os.write(os.open(os.environ['OUT'], os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.stdin.buffer.read())"


def line_with(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if found := re.search(pattern, line):
            return found
    raise AssertionError(seen)


@case("S44")
@needs("signals")
async def test_a_worker_delivers_what_a_web_replica_was_told(database_url: str, tmp_path: Path) -> None:
    """All sellers are drained; the post to a process without seats leads to a delivery; SIGTERM ends both well."""
    marketplace, key, now = Marketplace(sellers=3, packs=2), Fernet.generate_key().decode(), datetime.now(UTC)
    async with marketplace.serve() as served:
        async with Database(database_url, key=key, name="test") as database:
            for seller in marketplace.sellers:
                oauth = seller.oauth
                await database.add(
                    Token(oauth.access_token, oauth.refresh_token, now + timedelta(hours=6), now, seller.seller_id)
                )
        out = tmp_path / "out.jsonl"
        environment = {
            **os.environ,
            "MLMESSAGES_DATABASE": database_url,
            "MLMESSAGES_KEY": key,
            "MLMESSAGES_CLIENT_ID": marketplace.application.client_id,
            "MLMESSAGES_CLIENT_SECRET": marketplace.application.client_secret,
            "MLMESSAGES_BASE_URL": served.base_url,
            "MLMESSAGES_NOTIFICATION_SECRET": SECRET,
            "MLMESSAGES_APP_ID": marketplace.application.client_id,
            "OUT": str(out),
        }
        command = [sys.executable, "-m", "mlmessages", "serve"]
        handing_over = ["--exec", f'{sys.executable} -c "{TAKE}"', "--no-web"]
        worker = subprocess.Popen([*command, *handing_over], env=environment, stderr=subprocess.PIPE, text=True)
        replica = subprocess.Popen(
            [*command, "--only-web", "--port", "0"], env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            root = (await asyncio.to_thread(line_with, replica, r"at (http://127\.0\.0\.1:\d+)/"))[1]

            async def until(lines: int) -> list[dict[str, object]]:
                async with asyncio.timeout(60):
                    while not out.exists() or len(out.read_text().splitlines()) < lines:
                        await asyncio.sleep(0.02)
                return [json.loads(line) for line in out.read_text().splitlines()]

            first = await until(6)
            assert {line["seller_id"] for line in first} == {seller.seller_id for seller in marketplace.sellers}
            seller = marketplace.sellers[1]
            message = seller.send(seller.pack_ids()[0], "¿Y bien?")
            body = {
                "topic": "marketplace_messages",
                "resource": f"/marketplace/messages/{message}",
                "user_id": int(seller.seller_id),
                "application_id": int(marketplace.application.client_id),
            }
            post = urllib.request.Request(f"{root}/notifications/{SECRET}", json.dumps(body).encode(), method="POST")
            assert await asyncio.to_thread(lambda: urllib.request.urlopen(post, timeout=10).status) == 200
            assert message in json.dumps((await until(7))[-1])
            for process in (worker, replica):
                process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, 30) == 0
            assert await asyncio.to_thread(replica.wait, 30) == 0
        finally:
            for process in (worker, replica):
                process.kill()
                process.communicate()


@case("T8")
async def test_all_sellers_are_served_through_the_proxy(database_url: str) -> None:
    """`--proxy` is for them too: one that is not there is told, and nothing is sent around it."""
    marketplace, key, now = Marketplace(sellers=1, packs=2), Fernet.generate_key().decode(), datetime.now(UTC)
    async with marketplace.serve() as served:
        async with Database(database_url, key=key, name="test") as database:
            [seller] = marketplace.sellers
            await database.add(
                Token(
                    seller.oauth.access_token,
                    seller.oauth.refresh_token,
                    now + timedelta(hours=6),
                    now,
                    seller.seller_id,
                )
            )
        environment = {
            **os.environ,
            "MLMESSAGES_DATABASE": database_url,
            "MLMESSAGES_KEY": key,
            "MLMESSAGES_CLIENT_ID": marketplace.application.client_id,
            "MLMESSAGES_CLIENT_SECRET": marketplace.application.client_secret,
            "MLMESSAGES_BASE_URL": served.base_url,
            "MLMESSAGES_PROXY": "http://user:canary-password@127.0.0.1:1",
        }
        command = [sys.executable, "-m", "mlmessages", "serve", "--exec", f'{sys.executable} -c "{TAKE}"', "--no-web"]
        worker = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            said = await asyncio.to_thread(line_with, worker, r".*(the proxy: refused|was not taken).*")
        finally:
            worker.kill()
            worker.communicate()
    assert said[1] == "the proxy: refused", said[0]
    assert "canary" not in said[0]
    assert marketplace.log == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--journal", "j.db", "--database", "postgresql://localhost/x", "--exec", "true"], "one of --journal and --database"),
        (["--exec", "true"], "one of --journal and --database"),
        (["--journal", "j.db", "--exec", "true", "--no-web"], "--seller-id"),
        (["--journal", "j.db", "--only-web"], "--only-web goes with --database"),
        (["--database", "postgresql://localhost/x", "--only-web", "--no-web"], "--only-web goes with --database"),
        (["--database", "postgresql://localhost/x", "--exec", "true", "--no-web", "--retry-dead"], "--retry-dead goes with"),
        (["--database", "postgresql://localhost/x", "--no-web"], "one of --exec and --forward"),
    ],
)  # fmt: skip
def test_misuse_is_told_before_anything_is_opened(arguments: list[str], said: str, tmp_path: Path) -> None:
    """Exit code 2, and which options do not go together."""
    env = {"MLMESSAGES_KEY": "none", "MLMESSAGES_TOKEN": "APP_USR-x", "MLMESSAGES_CLIENT_ID": "1", "MLMESSAGES_CLIENT_SECRET": "s"}  # fmt: skip
    result = CliRunner().invoke(cli, ["serve", *arguments], env=env)
    assert result.exit_code == 2, result.output
    assert said in result.output

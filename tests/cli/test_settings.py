"""Which seller, which server, whose token."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases import case
from cli.conftest import TOKEN, Serve, piped, run
from mlmessages.testing import Server
from needs import needs


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(1)


def asked(server: Server) -> str:
    """The path and query of the only request."""
    (entry,) = server.sandbox.log
    return entry.path


def unread_with(server: Server, *args: str, token: str | None, **env: str) -> tuple[int, str]:
    seller = {"MLMESSAGES_SELLER_ID": server.seller_id, "MLMESSAGES_BASE_URL": server.base_url}
    result = run("unread", *args, **{**seller, **({"MLMESSAGES_TOKEN": token} if token is not None else {}), **env})
    return result.exit_code, result.stderr


def test_settings_come_from_the_environment(server: Server):
    """Seller, server and API family are read from the environment."""
    assert unread_with(server, token=TOKEN, MLMESSAGES_API="domestic")[0] == 0
    assert asked(server) == "/messages/unread"


def test_marketplace_is_the_default(server: Server):
    """Without a setting it is the Global Selling API."""
    assert unread_with(server, token=TOKEN)[0] == 0
    assert asked(server) == "/marketplace/messages/unread"


def test_options_win_over_the_environment(server: Server):
    """An option is stronger than its variable."""
    wrong = {"MLMESSAGES_SELLER_ID": "1", "MLMESSAGES_BASE_URL": "http://127.0.0.1:1", "MLMESSAGES_API": "domestic"}
    options = ["--seller-id", server.seller_id, "--base-url", server.base_url, "--api", "marketplace"]
    assert unread_with(server, *options, token=TOKEN, **wrong)[0] == 0
    assert asked(server) == "/marketplace/messages/unread"


@pytest.mark.parametrize("written", [TOKEN, f"{TOKEN}\n", f"\ufeff{TOKEN}\r\n"])
def test_the_token_may_stand_in_a_file(server: Server, tmp_path: Path, written: str):
    """A text file may hold the token, with a line break and a byte order mark around it."""
    file = tmp_path / "token"
    file.write_bytes(written.encode())
    assert unread_with(server, token=None, MLMESSAGES_TOKEN_FILE=str(file))[0] == 0
    assert unread_with(server, "--token-file", str(file), token="")[0] == 0


def test_the_token_itself_wins_over_the_file(server: Server, tmp_path: Path):
    """MLMESSAGES_TOKEN is taken where both are set; but a file that was typed is the one that is meant."""
    assert unread_with(server, token=TOKEN, MLMESSAGES_TOKEN_FILE=str(tmp_path / "missing"))[0] == 0
    assert unread_with(server, "--token-file", str(tmp_path / "missing"), token=TOKEN)[0] == 2


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe\x00\x01"])
def test_an_unusable_token_file_is_misuse(server: Server, tmp_path: Path, content: bytes | None):
    """A file that is missing, empty or no text ends with exit code 2 and its name, before anything is sent."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    code, said = unread_with(server, token=None, MLMESSAGES_TOKEN_FILE=str(file))
    assert code == 2
    assert said.startswith("Error: The token file")
    assert "token" in said.rsplit(":", 1)[0]
    assert server.sandbox.log == []


def test_a_token_with_blanks_is_misuse_and_stays_secret(server: Server):
    """What cannot be a token is refused before anything is sent, and not shown."""
    code, said = unread_with(server, token="two words-0002")
    assert code == 2
    assert "words-0002" not in said
    assert server.sandbox.log == []


def test_without_a_token_and_without_a_terminal_it_says_what_to_set(server: Server):
    """In a pipe there is no question: exit code 2, and the names of both variables."""
    seller = {"MLMESSAGES_SELLER_ID": server.seller_id, "MLMESSAGES_BASE_URL": server.base_url}
    result = piped("unread", **seller)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"MLMESSAGES_TOKEN," in result.stderr
    assert b"MLMESSAGES_TOKEN_FILE" in result.stderr


@case("K36")
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_token_that_powershell_wrote_is_read(server: Server, tmp_path: Path, encoding: str):
    """PowerShell's `>` writes UTF-16 with its mark."""
    file = tmp_path / "token"
    file.write_bytes(f"\ufeff{TOKEN}\r\n".encode(encoding))
    assert unread_with(server, token=None, MLMESSAGES_TOKEN_FILE=str(file))[0] == 0


@case("K36")
def test_a_token_file_that_is_no_text_is_refused_with_the_reason(server: Server, tmp_path: Path):
    """Misuse, and not a byte of it is shown."""
    file = tmp_path / "token"
    file.write_bytes(TOKEN.encode() + b"\xe9")
    code, said = unread_with(server, token=None, MLMESSAGES_TOKEN_FILE=str(file))
    assert code == 2
    assert "it is neither UTF-8 nor, with its byte order mark, UTF-16" in said
    assert not server.sandbox.log


@case("L8")
@needs("modes")
@pytest.mark.parametrize(("mode", "told"), [(0o666, True), (0o644, True), (0o600, False), (0o400, False)])
def test_a_plain_token_file_that_others_may_read_is_told(server: Server, tmp_path: Path, mode: int, told: bool):
    """It is used all the same: the secrets of containers are such files."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    code, said = unread_with(server, token=None, MLMESSAGES_TOKEN_FILE=str(file))
    assert code == 0
    assert ("chmod 600" in said) is told


@case("L8")
@needs("symlinks")
def test_a_plain_token_file_that_is_a_link_is_told(server: Server, tmp_path: Path):
    """It is used all the same: container secrets are such files."""
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "link").symlink_to(tmp_path / "token")
    code, said = unread_with(server, token=None, MLMESSAGES_TOKEN_FILE=str(tmp_path / "link"))
    assert (code, "symbolic link" in said) == (0, True)
